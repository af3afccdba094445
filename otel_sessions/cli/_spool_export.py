"""What lies in a spool, as files that other tools read: OTLP's lines of JSON, or a recording for `replay`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from otel_sessions.backend.otlp_json import resource_json, scope_json, span_json
from otel_sessions.cli._spooled import Entry
from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._answer import USER_AGENT
from otel_sessions.sdk._parcel import Parcel

__all__ = ["write_lines", "write_recording"]

_NS: Final = 1_000_000_000


def write_lines(path: Path, entries: Iterable[Entry], advance: Callable[[], object]) -> int:
    """Write each request as a line of OTLP JSON, as the Collector does into files; return how many spans.

    The file appears when it is whole, readable for this user alone. Raises ConfigurationError where it exists
    or can't be written.
    """
    _refuse_existing(path)
    unfinished, spans = path.with_name(f"{path.name}.part"), 0
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for parcel in _readable(entries, advance):
                file.write(json.dumps(_request(parcel), ensure_ascii=False).encode() + b"\n")
                spans += parcel.items
        unfinished.rename(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ConfigurationError(f"{path} can't be written: {error.strerror}") from error
    return spans


def write_recording(folder: Path, entries: Iterable[Entry], advance: Callable[[], object]) -> int:
    """Write a folder that `otel-sessions replay` sends again, byte for byte; return how many spans.

    Raises ConfigurationError where it exists or can't be written.
    """
    _refuse_existing(folder)
    requests: list[dict[str, Any]] = []
    times: list[int] = []
    spans = 0
    try:
        folder.mkdir(mode=0o700, parents=True)
        for number, parcel in enumerate(_readable(entries, advance), 1):
            _write(folder / f"{number:06}.pb", parcel.body)
            requests.append(_recorded(f"{number:06}.pb"))
            times.append(parcel.at)
            spans += parcel.items
        for request, at in zip(requests, times, strict=True):
            request["received_at_offset_s"] = (at - min(times)) / _NS
        index = {"emitter": "otel-sessions spool", "requests": requests}
        _write(folder / "recording.json", json.dumps(index, indent=1).encode())
    except OSError as error:
        raise ConfigurationError(f"{folder} can't be written: {error.strerror}") from error
    return spans


def _recorded(name: str) -> dict[str, Any]:
    return {
        "file": name,
        "path": "/v1/traces",
        "content_type": "application/x-protobuf",
        "content_encoding": None,
        "transfer": "content-length",
        "user_agent": USER_AGENT,
    }


def _readable(entries: Iterable[Entry], advance: Callable[[], object]) -> Iterator[Parcel]:
    for entry in entries:
        if entry.parcel is not None:
            yield entry.parcel
        advance()


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ConfigurationError(f"{path} exists: name another, nothing is overwritten")


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _request(parcel: Parcel) -> dict[str, Any]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(parcel.body)
    return {
        "resourceSpans": [
            {
                "resource": resource_json(of_resource.resource),
                "scopeSpans": [
                    {
                        "scope": scope_json(of_scope.scope),
                        "spans": [span_json(span) for span in of_scope.spans],
                        **_schema(of_scope.schema_url),
                    }
                    for of_scope in of_resource.scope_spans
                ],
                **_schema(of_resource.schema_url),
            }
            for of_resource in request.resource_spans
        ]
    }


def _schema(url: str) -> dict[str, str]:
    return {"schemaUrl": url} if url else {}
