"""Which backend a command asks, and with what token."""

from __future__ import annotations

import argparse
import os

from otel_sessions.cli._token import add_token

__all__ = ["add_backend"]


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add `--url` and `--token`, with their variables as defaults."""
    parser.add_argument(
        "--url",
        default=os.environ.get("OTEL_SESSIONS_URL") or "http://127.0.0.1:4318",
        help="the backend (default: %(default)s)",
    )
    add_token(parser)
