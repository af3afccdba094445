"""`otel-sessions COMMAND`: chooses the command and imports only that one.

A command is a module `otel_sessions.cli.NAME` with `configure(parser)` and `run(args) -> exit code`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from otel_sessions._version import __version__
from otel_sessions.errors import OtelSessionsError

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "serve": "receive telemetry, store it, show it on a page",
    "demo": "run an invented agent, to see a session live",
    "show": "print sessions in the terminal",
    "tail": "follow sessions in the terminal, live",
    "run": "run any command as a session",
    "doctor": "find out why nothing arrives, or not all of it, and how to mend it",
    "spool": "see, send, export or clear what could not be delivered",
    "backup": "copy all sessions into a file, while a backend runs or not",
    "prune": "remove old sessions",
    "pin": "keep a session whatever the retention is",
    "unpin": "keep a session no longer than the retention says",
    "replay": "send recorded OTLP requests again",
}
"""Command -> its one line in the help; each is a module beside this one."""

_FAILED: Final = 2
_INTERRUPTED: Final = 130
_CUT_OFF: Final = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; what we know how to explain is one line on stderr."""
    try:
        try:
            return _run(argv)
        finally:
            if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - pythonw has none
                sys.stdout.flush()  # who reads no more is noticed here, not in the interpreter's last words
    except BrokenPipeError:
        return _nobody_reads()


def _nobody_reads() -> int:
    """Throw away what `head` and its like did not wait for; return what a shell shows of who does that."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _CUT_OFF


def _run(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        args = _parser(chosen).parse_args(arguments)
        return importlib.import_module(f"otel_sessions.cli.{args.command}").run(args)
    except OtelSessionsError as error:
        print(f"otel-sessions: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="otel-sessions", description="The truth about every session of an AI agent."
    )
    parser.add_argument("--version", action="version", version=f"otel-sessions {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        command = commands.add_parser(name, help=line)
        if name == chosen:
            importlib.import_module(f"otel_sessions.cli.{name}").configure(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
