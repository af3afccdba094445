"""`otel-sessions serve`: the backend in one process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_sessions.backend.app import Listening

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; each has a variable of the environment, which it beats."""
    parser.description = (
        "Receive OTLP over gRPC and HTTP, store it in a folder, show it on a page. "
        "Stops on Ctrl-C or SIGTERM, with everything it acknowledged on disk."
    )
    option = parser.add_argument
    option("--grpc", metavar="HOST:PORT", help="OTLP/gRPC (default: 127.0.0.1:4317) [OTEL_SESSIONS_GRPC]")
    option(
        "--http",
        metavar="HOST:PORT",
        help="OTLP/HTTP, page and API (default: 127.0.0.1:4318; port 0: a free one) [OTEL_SESSIONS_HTTP]",
    )
    option("--port", type=_no_port, help=argparse.SUPPRESS)
    option("--data", metavar="DIR", help="data folder (default: this user's own) [OTEL_SESSIONS_DATA]")
    option("--store", metavar="KIND", help="kind of store (default: sqlite) [OTEL_SESSIONS_STORE]")
    option(
        "--retention",
        metavar="BOUNDS",
        help="remove sessions unseen for an age, and the oldest beyond a size: 30d, 10GB or 30d,10GB "
        "(default: none, keep everything) [OTEL_SESSIONS_RETENTION]",
    )
    option(
        "--token",
        metavar="TOKEN",
        help="ask everybody for it; needed to listen beyond this machine; @FILE reads it from a file "
        "[OTEL_SESSIONS_TOKEN]",
    )
    option(
        "--read-token",
        metavar="TOKEN",
        help="one that may read but not write, or @FILE [OTEL_SESSIONS_READ_TOKEN]",
    )
    option(
        "--send-token",
        metavar="TOKEN",
        help="one that may send telemetry but not read, or @FILE [OTEL_SESSIONS_SEND_TOKEN]",
    )
    option(
        "--idle-after",
        metavar="TIME",
        help="silence after which a session that tells nothing of its life is shown as idle: "
        "seconds, or 90s, 5m, 1h (default: 300) [OTEL_SESSIONS_IDLE_AFTER]",
    )
    option(
        "--host-name",
        metavar="NAMES",
        help="further names of the page, comma between (beside localhost) [OTEL_SESSIONS_HOST_NAME]",
    )
    option(
        "--max-body",
        metavar="SIZE",
        help="largest OTLP request, as sent and inflated (default: 64MiB) [OTEL_SESSIONS_MAX_BODY]",
    )
    option(
        "--otlp-origins",
        metavar="ORIGINS",
        help="whose web pages may send telemetry: loopback, none, * or origins, comma between "
        "(default: loopback) [OTEL_SESSIONS_OTLP_ORIGINS]",
    )
    option(
        "--no-redact",
        dest="redact",
        action="store_const",
        const="off",
        help="store secrets as they come, instead of [redacted:KIND] [OTEL_SESSIONS_REDACT=off]",
    )
    option(
        "--redact-pattern",
        metavar="NAME=REGEX",
        action="append",
        help="a further shape of secrets, or one in place of ours; may be repeated "
        "[OTEL_SESSIONS_REDACT_PATTERN, one a line]",
    )
    option("--redact-file", metavar="FILE", help="such patterns, one a line [OTEL_SESSIONS_REDACT_FILE]")
    option("--json", action="store_true", help="print one line of JSON once ready, instead of a greeting")


def _no_port(value: str) -> str:
    raise argparse.ArgumentTypeError(
        f"there are two ports: give --http 127.0.0.1:{value} for page, API and OTLP/HTTP, "
        "and --grpc HOST:PORT for OTLP/gRPC"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    # What goes wrong in grpc's core comes to us as an error too; its own lines would only add noise.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from otel_sessions.backend.app import serve
    from otel_sessions.backend.redact_pace import check_pace
    from otel_sessions.backend.settings import ENVIRONMENT, read_settings

    if args.redact_pattern is not None:
        args.redact_pattern = "\n".join(args.redact_pattern)
    settings = read_settings({name: getattr(args, name) for name in ENVIRONMENT}, os.environ)
    check_pace(settings.redaction, time.thread_time_ns)
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("aiohttp.server").addFilter(_is_no_bad_request)
    _allow_many_connections()
    _run_loop(serve(settings, _announce_json if args.json else _greet))
    return 0


def _announce_json(listening: Listening) -> None:
    where = {"http": str(listening.http), "grpc": str(listening.grpc), "data": str(listening.data)}
    print(json.dumps(where), flush=True)


def _greet(listening: Listening) -> None:
    print(
        f"otel-sessions is listening\n"
        f"  page       http://{listening.http}/\n"
        f"  OTLP/HTTP  http://{listening.http}\n"
        f"  OTLP/gRPC  http://{listening.grpc}\n"
        f"  data       {listening.data}\n"
        f"Stop with Ctrl-C.",
        flush=True,
    )


def _is_no_bad_request(record: logging.LogRecord) -> bool:
    """Leave out what is no HTTP: whoever sent it was told, and could fill the log with tracebacks."""
    from aiohttp.http_exceptions import HttpProcessingError

    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it happens to be installed; it is faster, and needed by nobody."""
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    with contextlib.suppress(ImportError):
        import uvloop  # pyright: ignore[reportMissingImports] - optional, no dependency

        run = uvloop.run
    run(main)  # outside of the handling of that error, or every traceback to come would name it


def _allow_many_connections() -> None:
    """Raise the soft limit of open files, often 1,024, as far as the system lets us."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
