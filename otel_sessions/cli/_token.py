"""The token that a command shows a backend: as it is, or in a file, so that no list of processes has it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

__all__ = ["add_token", "token"]


def add_token(parser: argparse.ArgumentParser) -> None:
    """Add `--token`, with its variable as the default; both may be `@FILE`."""
    parser.add_argument(
        "--token",
        metavar="TOKEN",
        type=token,
        default=os.environ.get("OTEL_SESSIONS_TOKEN"),
        help="the backend's token, or @FILE (default: $OTEL_SESSIONS_TOKEN)",
    )


def token(value: str) -> str:
    """Return a token as it was given, or from the file that is named behind an @.

    Raises ArgumentTypeError, which argparse tells, where that can't be read.
    """
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).expanduser().read_text("ascii").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text of letters and digits"
        raise argparse.ArgumentTypeError(f"{value} can't be read: {why}") from error
