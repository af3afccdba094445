"""`otel-sessions backup`: all sessions in one file, as they are at one moment."""

from __future__ import annotations

import argparse
from pathlib import Path

from otel_sessions.cli._folder import add_data, data_folder, progress_bar

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Copy the database of a data folder into a new file, while a backend runs on it or not, and check "
        "the copy. To restore, put the file into an empty folder as sessions.db, and serve that."
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the copy; must not exist")
    add_data(parser)


def run(args: argparse.Namespace) -> int:
    """Copy, check, and say what the copy holds."""
    from otel_sessions.backend.store.copies import back_up

    with progress_bar("copying") as move:
        sessions, spans, logs, _ = back_up(data_folder(args), args.file, move)
    size = args.file.stat().st_size
    print(f"{args.file}: {sessions:,} sessions, {spans:,} spans, {logs:,} logs; {size:,} bytes, checked")
    return 0
