"""`otel-sessions pin`: a session that no retention removes."""

from __future__ import annotations

import argparse

from otel_sessions.cli._folder import add_data, data_folder

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Keep a session whatever the retention is; also while a backend runs."
    parser.add_argument("session", metavar="SESSION", help="its id on the page, or its session.id")
    add_data(parser)


def run(args: argparse.Namespace) -> int:
    """Pin the session."""
    from otel_sessions.backend.store.copies import pin

    print(f"{pin(data_folder(args), args.session, pinned=True)} is kept")
    return 0
