"""`otel-sessions doctor`: why nothing arrives, or not all of it, and the line that mends it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from otel_sessions.cli._token import add_token
from otel_sessions.errors import UsageError

__all__ = ["configure", "run"]

_LONGEST_WAIT = 3600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Look at what is installed and set here, follow the way to the endpoint, send a real probe session "
        "and see whether it comes out of the backend whole. Run it with the agent's Python and environment. "
        "Exit code 0: no problem was found; 1: at least one was."
    )
    option = parser.add_argument
    option(
        "--endpoint",
        metavar="URL",
        help="send to this one instead of where OTEL_EXPORTER_OTLP_* say",
    )
    option(
        "--backend",
        metavar="URL",
        help="where the page is (default: $OTEL_SESSIONS_URL, else what is behind the endpoint, else "
        "http://127.0.0.1:4318)",
    )
    add_token(parser)
    option(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="how long the probe may be on its way (default: %(default)g)",
    )
    option("--no-probe", action="store_true", help="send nothing")
    option("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Look at everything and say it; 1 where a problem was found."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong in there comes to us as an error
    from otel_sessions.cli._console import console
    from otel_sessions.cli._doctor.drawing import as_json, draw
    from otel_sessions.cli._doctor.examine import examine
    from otel_sessions.cli._doctor.findings import Verdict, worst
    from otel_sessions.cli._doctor.gather import Asked, gather

    if not 0 <= args.wait <= _LONGEST_WAIT:
        raise UsageError(f"--wait {args.wait:g}: give seconds, from 0 to {_LONGEST_WAIT:g}")
    environ = _environment(os.environ, args.endpoint)
    asked = Asked(backend=args.backend, token=args.token, wait=args.wait, probe=not args.no_probe)
    with _telling() as tell:
        facts = gather(environ, asked, tell)
    findings = examine(facts)
    if args.json:
        print(as_json(findings, facts))
    else:
        draw(findings, facts, console())
    return 1 if worst(findings) is Verdict.PROBLEM else 0


def _environment(environ: Mapping[str, str], endpoint: str | None) -> dict[str, str]:
    """Return the environment as an agent would find it that sends to this endpoint."""
    if endpoint is None:
        return dict(environ)
    others = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT")
    kept = {name: value for name, value in environ.items() if name not in others}
    return {**kept, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}


@contextmanager
def _telling() -> Generator[Callable[[str], object]]:
    """Show on a terminal what is looked at; what is yielded is called with that."""
    from rich.console import Console

    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield lambda _: None
        return
    from otel_sessions.cli._drawing import clean

    with screen.status("looking") as status:
        yield lambda what: status.update(f"looking at {clean(what)}")
