"""Recorded OTLP requests on disk: a folder with a `recording.json` and one file for each body.

    {"emitter": "Claude Code", "version": "2.1.197", "scenario": "…",
     "requests": [{"file": "0001.pb", "path": "/v1/traces", "content_type": "application/x-protobuf",
                   "content_encoding": null, "transfer": "chunked", "protocol": "http/protobuf",
                   "user_agent": "…", "received_at_offset_s": 0.0}, …]}

Bodies are stored decompressed, for gRPC without the five bytes of the frame; `path` is then the method.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from otel_sessions.errors import ConfigurationError

__all__ = ["RecordedRequest", "Recording", "find_recordings", "read_recording"]

INDEX: Final = "recording.json"
_ENCODINGS: Final = (None, "identity", "gzip")
_TRANSFERS: Final = ("content-length", "chunked", "grpc")


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One export request as it was on the wire; `offset` is when it came, in seconds from the first."""

    body: Path
    path: str
    content_type: str
    content_encoding: str | None
    transfer: str
    user_agent: str
    offset: float

    @property
    def is_grpc(self) -> bool:
        """Whether it went over gRPC."""
        return self.transfer == "grpc"

    def message(self) -> bytes:
        """Read the body as stored: decompressed, unframed."""
        return self.body.read_bytes()

    def payload(self) -> bytes:
        """Read the body as it was on the wire (a gRPC message stays as stored)."""
        raw = self.message()
        return gzip.compress(raw, mtime=0) if self.content_encoding == "gzip" else raw


@dataclass(frozen=True, slots=True)
class Recording:
    """What one emitter sent in one scenario, in order of arrival."""

    folder: Path
    emitter: str
    requests: tuple[RecordedRequest, ...]


def find_recordings(folders: Iterable[Path]) -> list[Path]:
    """Return the recordings among `folders`: each folder itself, or where it is none, those right below it.

    A folder that holds no recording at all is returned too, so that reading it can say so.
    """
    found: list[Path] = []
    for folder in folders:
        below = (
            [] if (folder / INDEX).exists() else sorted(index.parent for index in folder.glob(f"*/{INDEX}"))
        )
        found.extend(below or [folder])
    return found


def read_recording(folder: Path) -> Recording:
    """Read and check a recording, bodies left on disk.

    Raises ConfigurationError naming the folder, file or field that is wrong.
    """
    index = folder / INDEX
    try:
        document: object = json.loads(index.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing = "it has no recording.json" if folder.is_dir() else "there is no such folder"
        raise ConfigurationError(f"{folder} is not a recording: {missing}") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{index} can't be read: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{index} is not a JSON object")
    fields = cast("dict[str, Any]", document)
    requests = fields.get("requests")
    if not isinstance(requests, list) or not requests:
        raise ConfigurationError(f'{index} lists no "requests"')
    entries = cast("list[object]", requests)
    return Recording(
        folder,
        str(fields.get("emitter", folder.name)),
        tuple(_request(folder, f"{index}, request {n}", entry) for n, entry in enumerate(entries, 1)),
    )


def _request(folder: Path, where: str, entry: object) -> RecordedRequest:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where}: not a JSON object")
    fields = cast("dict[str, Any]", entry)
    request = RecordedRequest(
        body=_body(folder, where, _text(where, fields, "file")),
        path=_text(where, fields, "path"),
        content_type=_text(where, fields, "content_type"),
        content_encoding=fields.get("content_encoding"),
        transfer=fields.get("transfer") or "content-length",
        user_agent=str(fields.get("user_agent") or ""),
        offset=_offset(where, fields.get("received_at_offset_s", 0)),
    )
    if request.content_encoding not in _ENCODINGS:
        raise ConfigurationError(
            f"{where}: content_encoding {request.content_encoding!r} is not known; use gzip"
        )
    if request.transfer not in _TRANSFERS:
        raise ConfigurationError(f"{where}: transfer {request.transfer!r} is none of {', '.join(_TRANSFERS)}")
    return request


def _body(folder: Path, where: str, name: str) -> Path:
    # A recording may come from anywhere; it must not make us send other files of this machine.
    if Path(name).name != name:
        raise ConfigurationError(f"{where}: file {name!r} must lie in the recording's own folder")
    if not (folder / name).is_file():
        raise ConfigurationError(f"{where}: its body {folder / name} is missing")
    return folder / name


def _text(where: str, fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ConfigurationError(f'{where}: "{key}" must be a text, not {value!r}')
    return value


def _offset(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ConfigurationError(f"{where}: received_at_offset_s must be a number of seconds, not {value!r}")
    return float(value)
