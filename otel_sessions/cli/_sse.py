"""Server-sent events, as the backend's stream sends them, read from the lines of an answer; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Event", "events"]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the stream: `session`, `rows`, `gone`, `unmatched` or `reset`, with its JSON."""

    name: str
    data: Mapping[str, Any]


def events(answer: Iterable[bytes]) -> Iterator[Event]:
    """Read server-sent events from the lines of an answer; comments, which only keep it alive, are left out.

    A line that belongs to no event or is no JSON is left out too: a stream goes on after it.
    """
    name, data = "", b""
    for line in answer:
        word, _, value = line.rstrip(b"\r\n").partition(b":")
        value = value.removeprefix(b" ")
        if word == b"event":
            name = value.decode("utf-8", "replace")
        elif word == b"data":
            data += value
        elif not word and not value:
            if name and (document := _document(data)) is not None:
                yield Event(name, document)
            name, data = "", b""


def _document(data: bytes) -> Mapping[str, Any] | None:
    try:
        document: object = json.loads(data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None  # pyright: ignore[reportUnknownVariableType] - JSON
