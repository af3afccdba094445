"""`otel-sessions replay`: send recorded OTLP requests again, just as they were on the wire."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_sessions.cli._token import add_token
from otel_sessions.errors import ConfigurationError, EndpointError

if TYPE_CHECKING:
    from otel_sessions.cli._recordings import RecordedRequest, Recording
    from otel_sessions.cli._wire import Answer, Target

__all__ = ["configure", "run"]

_HTTP: Final = "http://127.0.0.1:4318"
_GRPC: Final = "127.0.0.1:4317"
_TRIES: Final = 5
_LONGEST_WAIT: Final = 10.0  # seconds; a receiver that asks for more is taken to be out of order


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of one folder: requests accepted and refused, items rejected, the first complaint."""

    folder: Path
    total: int = 0
    accepted: int = 0
    rejected: int = 0
    complaint: str = ""

    @property
    def complete(self) -> bool:
        """Whether every request was taken whole."""
        return self.total == self.accepted > 0 and not self.rejected


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Send recorded OTLP requests (a folder with recording.json and the bodies, or a folder of such "
        "folders) to a backend, as they were on the wire. Exit code 0: all accepted; 1: some were not; "
        "2: none was."
    )
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="a recording, or a folder of recordings"
    )
    http, grpc = _endpoints(os.environ)
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        default=http,
        help="OTLP/HTTP (default: $OTEL_EXPORTER_OTLP_ENDPOINT, else $OTEL_SESSIONS_URL: %(default)s)",
    )
    parser.add_argument("--grpc", metavar="HOST:PORT", default=grpc, help="OTLP/gRPC (default: %(default)s)")
    add_token(parser)
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--speed",
        metavar="N",
        type=_speed,
        default=1.0,
        help="N times as fast as recorded (default: %(default)g)",
    )
    pace.add_argument("--asap", action="store_true", help="without any pause between requests")


def _endpoints(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return where requests over HTTP and over gRPC go; the endpoint of exporters is for their protocol."""
    named = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    http, grpc = environ.get("OTEL_SESSIONS_URL", "").strip(), ""
    if environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip().lower() == "grpc":
        grpc = named.rpartition("://")[2].rstrip("/")
    else:
        http = named or http
    return http or _HTTP, grpc or _GRPC


def run(args: argparse.Namespace) -> int:
    """Send all recordings, and tell for each what was accepted."""
    from otel_sessions.cli._recordings import find_recordings

    paths = find_recordings(args.folders)
    with _targets(args.endpoint, args.grpc, args.token) as targets:
        tallies = _replay_all(paths, targets, None if args.asap else args.speed)
    _summarize(tallies)
    if all(tally.complete for tally in tallies):
        return 0
    return 1 if any(tally.accepted for tally in tallies) else 2


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no speed: say 2 for twice as fast, or --asap")
    return speed


@contextmanager
def _targets(url: str, grpc: str, token: str | None) -> Generator[dict[bool, Target]]:
    """Yield where requests go, by whether they are gRPC."""
    from otel_sessions.cli._wire import GrpcTarget, HttpTarget

    bearer = {"authorization": f"Bearer {token}"} if token else {}
    targets: dict[bool, Target] = {
        False: HttpTarget(url, bearer),
        True: GrpcTarget(grpc, tuple(bearer.items())),
    }
    try:
        yield targets
    finally:
        for target in targets.values():
            target.close()


def _replay_all(paths: Sequence[Path], targets: dict[bool, Target], speed: float | None) -> list[Tally]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    read = [_read(path) for path in paths]
    total = sum(len(recording.requests) for recording in read if not isinstance(recording, Tally))
    tallies: list[Tally] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task("", total=total)
        for recording in read:
            if isinstance(recording, Tally):
                tallies.append(recording)
                continue
            progress.update(task, description=recording.folder.name)
            tallies.append(_replay(recording, targets, speed, lambda: progress.advance(task)))
    return tallies


def _read(path: Path) -> Recording | Tally:
    """Read a recording; a bad one becomes a tally that says so, for the others are still to be sent."""
    from otel_sessions.cli._recordings import read_recording

    try:
        return read_recording(path)
    except ConfigurationError as error:
        return Tally(path, complaint=str(error))


def _replay(
    recording: Recording, targets: dict[bool, Target], speed: float | None, advance: Callable[[], object]
) -> Tally:
    tally = Tally(recording.folder, total=len(recording.requests))
    began = time.monotonic()
    for request in recording.requests:
        if speed is not None:
            time.sleep(max(0.0, began + request.offset / speed - time.monotonic()))
        try:
            answer = _send(targets[request.is_grpc], request)
        except EndpointError as error:
            return replace(tally, complaint=tally.complaint or str(error))
        tally = _count(tally, request, answer)
        advance()
    return tally


def _send(target: Target, request: RecordedRequest) -> Answer:
    """Send a request; where the receiver asks to be tried again, do so as a real emitter would."""
    answer = target.send(request)
    for _ in range(_TRIES - 1):
        if answer.retry_after is None:
            break
        time.sleep(min(answer.retry_after, _LONGEST_WAIT))
        answer = target.send(request)
    return answer


def _count(tally: Tally, request: RecordedRequest, answer: Answer) -> Tally:
    complaint = ""
    if not answer.accepted or answer.rejected:
        complaint = f"{request.body.name} to {request.path}: {answer.status} {answer.message}".rstrip()
    return replace(
        tally,
        accepted=tally.accepted + answer.accepted,
        rejected=tally.rejected + answer.rejected,
        complaint=tally.complaint or complaint,
    )


def _summarize(tallies: Sequence[Tally]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("recording")
    for name in ("requests", "accepted", "refused", "items rejected"):
        table.add_column(name, justify="right")
    for tally in tallies:
        refused = tally.total - tally.accepted
        figures = (tally.total, tally.accepted, refused, tally.rejected)
        table.add_row(Text(tally.folder.name), *map(str, figures), style=None if tally.complete else "red")
    Console().print(table)
    for tally in tallies:
        if not tally.complete:
            print(f"otel-sessions replay: {tally.folder.name}: {tally.complaint}", file=sys.stderr)
