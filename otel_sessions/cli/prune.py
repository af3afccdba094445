"""`otel-sessions prune`: what is beyond a retention is removed once, without a backend."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from otel_sessions.cli._folder import add_data, data_folder, progress_bar

if TYPE_CHECKING:
    from otel_sessions.backend.settings import Settings
    from otel_sessions.backend.store.base import Prunable
    from otel_sessions.backend.store.sqlite import SqliteStore

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Remove sessions unseen for an age, and the longest unseen beyond a size; never one that runs, "
        "waits, is stale or pinned. The folder must not be in use: a backend prunes by itself, with "
        "serve --retention."
    )
    parser.add_argument(
        "--retention", metavar="BOUNDS", help="30d, 10GB or 30d,10GB [OTEL_SESSIONS_RETENTION]"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would go; also while a backend runs"
    )
    add_data(parser)


def run(args: argparse.Namespace) -> int:
    """Remove what is due, or say what would be."""
    from otel_sessions.backend.retention import KEEP_ALL
    from otel_sessions.backend.settings import read_settings
    from otel_sessions.backend.store.copies import look_for_prunable
    from otel_sessions.errors import ConfigurationError

    folder = data_folder(args)
    named = ("OTEL_SESSIONS_RETENTION", "OTEL_SESSIONS_IDLE_AFTER")
    environ = {name: os.environ.get(name, "") for name in named}
    settings = read_settings({"retention": args.retention, "data": str(folder)}, environ)
    if settings.retention == KEEP_ALL:
        raise ConfigurationError("Nothing says what is to go; write --retention 30d, 10GB or 30d,10GB.")
    now = time.time_ns()
    found = look_for_prunable(folder, settings.retention, now, now - settings.idle_after)
    if args.dry_run:
        about = "" if found.exact else "about "
        print(f"{about}{found.sessions:,} sessions with {found.spans:,} spans would be removed")
        return 0
    return _prune(folder, settings, now, found)


def _prune(folder: Path, settings: Settings, now: int, found: Prunable) -> int:
    from otel_sessions.backend.store.sqlite import SqliteStore

    store = SqliteStore(folder)
    try:
        sessions, spans = _remove(store, settings, now, found)
        totals = store.totals()
    finally:
        store.close()
    print(
        f"{sessions:,} sessions with {spans:,} spans removed; {totals.sessions:,} sessions are left, "
        f"{totals.bytes_free:,} bytes are free in the file for what comes"
    )
    return 0


def _remove(store: SqliteStore, settings: Settings, now: int, found: Prunable) -> tuple[int, int]:
    """Remove in small steps, until there is no more; Ctrl-C stops between two."""
    sessions = spans = 0
    more = True
    with progress_bar("removing") as move:
        while more:
            step = store.prune(settings.retention, now, now - settings.idle_after)
            more = step.more
            sessions += len(step.keys)
            spans += step.spans
            move(sessions, max(found.sessions, sessions))
    return sessions, spans
