"""What lies in a spool, as files that other tools read: OTLP's lines of JSON, or a recording for `replay`.

A file or folder appears under its name when it is whole; what was begun is removed, whatever happens.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_sessions.backend.otlp_json import request_json
from otel_sessions.cli._spooled import Entry, Items
from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._answer import USER_AGENT

__all__ = ["Exported", "write_lines", "write_recording"]

_NS: Final = 1_000_000_000
_PATHS: Final = {"traces": "/v1/traces", "logs": "/v1/logs"}

_Request: TypeAlias = ExportTraceServiceRequest | ExportLogsServiceRequest


@dataclass(slots=True)
class Exported:
    """What is in the requests that were `written`; and the others, that can't be read, with the reason."""

    items: Items = field(default_factory=Items)
    written: int = 0
    left_out: list[tuple[Entry, str]] = field(default_factory=list[tuple[Entry, str]])


def write_lines(path: Path, entries: Iterable[Entry], advance: Callable[[], object]) -> Exported:
    """Write each request as a line of OTLP JSON, as the Collector does into files.

    The file is readable for this user alone. Raises ConfigurationError where it exists or can't be written.
    """
    exported = Exported()
    with _place_beside(path) as unfinished:
        with _open(unfinished) as file:
            for _, request in _readable(entries, exported, advance):
                file.write(json.dumps(request_json(request), ensure_ascii=False).encode() + b"\n")
        if exported.written:
            unfinished.rename(path)
    return exported


def write_recording(folder: Path, entries: Iterable[Entry], advance: Callable[[], object]) -> Exported:
    """Write a folder that `otel-sessions replay` sends again, byte for byte, in the order of their making.

    Raises ConfigurationError where it exists or can't be written.
    """
    exported, made = Exported(), list[tuple[int, dict[str, Any]]]()
    with _place_beside(folder, parents=True) as unfinished:
        unfinished.mkdir(mode=0o700)
        for entry, _ in _readable(entries, exported, advance):
            if entry.parcel is not None:
                name = f"{len(made) + 1:06}.pb"
                _write(unfinished / name, entry.parcel.body)
                made.append((entry.parcel.at, _recorded(name, entry.signal)))
        if exported.written:
            _write(unfinished / "recording.json", _index(made))
            unfinished.rename(folder)
    return exported


def _index(made: Iterable[tuple[int, dict[str, Any]]]) -> bytes:
    ordered = sorted(made, key=lambda pair: pair[0])
    first = ordered[0][0]
    requests = [{**request, "received_at_offset_s": (at - first) / _NS} for at, request in ordered]
    return json.dumps({"emitter": "otel-sessions spool", "requests": requests}, indent=1).encode()


def _recorded(name: str, signal: str) -> dict[str, Any]:
    return {
        "file": name,
        "path": _PATHS[signal],
        "content_type": "application/x-protobuf",
        "content_encoding": None,
        "transfer": "content-length",
        "user_agent": USER_AGENT,
    }


# --- Files -----------------------------------------------------------------------------------------------


@contextmanager
def _place_beside(path: Path, *, parents: bool = False) -> Generator[Path]:
    """Yield where to write what is then renamed to `path`; what is still there at the end is removed."""
    if path.exists():
        raise ConfigurationError(f"{path} exists: name another, nothing is overwritten")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            yield Path(folder) / path.name
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}") from error


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _write(path: Path, content: bytes) -> None:
    with _open(path) as file:
        file.write(content)


# --- Requests --------------------------------------------------------------------------------------------


def _readable(
    entries: Iterable[Entry], exported: Exported, advance: Callable[[], object]
) -> Iterator[tuple[Entry, _Request]]:
    """Iterate over what can be read, and note all of it, and what can't be, as exported."""
    for entry in entries:
        try:
            request = _request(entry)
        except ValueError as error:
            exported.left_out.append((entry, str(error)))
        else:
            yield entry, request
            exported.items += entry.items
            exported.written += 1
        advance()


def _request(entry: Entry) -> _Request:
    """Read the request in an entry; raise ValueError where it holds none."""
    if entry.parcel is None:
        raise ValueError(entry.trouble)
    kind = ExportLogsServiceRequest if entry.signal == "logs" else ExportTraceServiceRequest
    try:
        return kind.FromString(entry.parcel.body)
    except DecodeError as error:
        raise ValueError(f"it holds no {kind.__name__}") from error
