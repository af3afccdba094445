"""`otel-sessions unpin`: a session goes when the retention says so."""

from __future__ import annotations

import argparse

from otel_sessions.cli._folder import add_data, data_folder

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = "Keep a session no longer than the retention says; also while a backend runs."
    parser.add_argument("session", metavar="SESSION", help="its id on the page, or its session.id")
    add_data(parser)


def run(args: argparse.Namespace) -> int:
    """Unpin the session."""
    from otel_sessions.backend.store.copies import pin

    print(f"{pin(data_folder(args), args.session, pinned=False)} is kept as long as the retention says")
    return 0
