"""What attributes fill: one pass over those of a resource, a span or a log; pure.

One dictionary look-up for each key (`vocabulary.entries`); only values that fill a slot are read, for making
Python objects is what decoding costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_sessions import semconv
from otel_sessions.backend.records import SessionHint
from otel_sessions.backend.resolve import hint_of, service_scope
from otel_sessions.backend.vocabulary import Entry, entries

__all__ = ["Slots", "Source", "Usage", "fill", "hint", "source_of", "span_id", "trace_id", "usage"]

_UNRANKED: Final = 1_000
_RESOURCE: Final = entries("")
_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8
_NO_TRACE: Final = bytes(_TRACE_ID_BYTES)
_NO_SPAN: Final = bytes(_SPAN_ID_BYTES)


@dataclass(slots=True)
class Slots:
    """What the attributes of one record fill: by slot the value, and the rank of the key it came from."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    ranks: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Source:
    """What a resource says of everything below it."""

    service: str
    scope: str  # the service as the owner of ids
    session: str | None
    user: str | None


class Usage(NamedTuple):
    """Tokens of one call as the conventions count them: input with what was cached, output with reasoning."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None


def fill(attributes: Iterable[KeyValue], table: Mapping[str, tuple[Entry, ...]]) -> Slots:
    """Read from attributes what fills a slot; the first usable value in order of precedence wins."""
    slots = Slots()
    values, ranks = slots.values, slots.ranks
    for attribute in attributes:
        found = table.get(attribute.key)
        if found is not None:
            for slot, rank, read in found:
                if rank < ranks.get(slot, _UNRANKED):
                    value = read(attribute.value)
                    if value is not None:
                        values[slot] = value
                        ranks[slot] = rank
    return slots


def source_of(resource: Resource) -> Source:
    """Return what a resource says of everything below it; of ids only `session.id` counts there."""
    texts = {attribute.key: attribute.value.string_value for attribute in resource.attributes}
    slots = fill(resource.attributes, _RESOURCE)
    service = texts.get(semconv.SERVICE_NAME, "")
    return Source(
        service=service,
        scope=service_scope(texts.get(semconv.SERVICE_NAMESPACE, ""), service),
        session=slots.values.get("session") if _is_global(slots) else None,
        user=slots.values.get("user"),
    )


def hint(slots: Slots, source: Source) -> SessionHint | None:
    """Return what a record and its resource say of its session."""
    own = slots.values.get("session")
    return hint_of(own, is_global=_is_global(slots), resource=source.session, service=source.scope)


def _is_global(slots: Slots) -> bool:
    return slots.ranks.get("session") == 0  # `session.id` is the first of its variants


def usage(slots: Slots, emitter: str) -> Usage:
    """Return the tokens of one call, with each emitter's habit undone.

    Claude Code's input leaves cached tokens out, as does any that is smaller than what was cached; Gemini
    CLI's output leaves thoughts out. Nobody asks a model nothing: an input of 0 is unknown.
    """
    values = slots.values
    tokens_in, tokens_out, cached = values.get("input"), values.get("output"), values.get("cache_read")
    if tokens_in is not None:
        beside = (cached or 0) + values.get("cache_write", 0)
        if emitter == "CC" or beside > tokens_in:
            tokens_in += beside
    if tokens_out is not None and emitter == "GC":
        tokens_out += values.get("reasoning", 0)
    if not tokens_in:
        return Usage(None, tokens_out or None, cached or None)
    return Usage(tokens_in, tokens_out, cached)


def trace_id(raw: bytes) -> bytes:
    """Return a valid trace id, b"" for any other."""
    return raw if len(raw) == _TRACE_ID_BYTES and raw != _NO_TRACE else b""


def span_id(raw: bytes) -> bytes:
    """Return a valid span id, b"" for any other."""
    return raw if len(raw) == _SPAN_ID_BYTES and raw != _NO_SPAN else b""
