"""What attributes fill: one pass over those of a resource, a span or a log; pure.

The lists of `vocabulary` are compiled into one table an emitter, so that each key costs one look-up; only
values that fill a slot are read, for making Python objects is what decoding costs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_sessions import semconv
from otel_sessions.backend.habits import HABITS
from otel_sessions.backend.json_values import loads
from otel_sessions.backend.records import Emitter, SessionHint
from otel_sessions.backend.resolve import hint_of, service_scope
from otel_sessions.backend.vocabulary import (
    ABSENT,
    CONTENTS,
    COSTS,
    COUNTS,
    EMITTERS,
    IDS,
    KINDS,
    PATTERNS,
    PENDING,
    PLACEHOLDERS,
    SWITCHES,
    TEXTS,
)

__all__ = [
    "MAX_TIME",
    "MAX_WORD",
    "Slots",
    "Source",
    "Usage",
    "entries",
    "fill",
    "hint",
    "identity",
    "plain",
    "sender_of",
    "source_of",
    "span_id",
    "trace_id",
    "usage",
    "word",
]

Reader = Callable[[AnyValue], Any]
Entry = tuple[str, int, Reader]
"""Slot that an attribute may fill, its rank there (the least wins), and how to read its value."""

MAX_TIME: Final = 2**63 - 1
"""The last moment that a column holds; OTLP's times are unsigned."""

MAX_WORD: Final = 1_000
"""Most characters of a name or an id in an index row, which every list reads; the body keeps the whole."""

_IDENTITIES: Final = frozenset({*IDS, "task_parent", "process"})
_UNRANKED: Final = 1_000
_TRACE_ID_BYTES: Final = 16
_SPAN_ID_BYTES: Final = 8
_NO_TRACE: Final = bytes(_TRACE_ID_BYTES)
_NO_SPAN: Final = bytes(_SPAN_ID_BYTES)


# --- Words of index rows -----------------------------------------------------------------------------------


def word(text: str) -> str:
    """Return a name as index rows hold it: cut at MAX_WORD, with an ellipsis."""
    return text if len(text) <= MAX_WORD else text[: MAX_WORD - 1] + "…"


def identity(text: str) -> str:
    """Return an id as index rows hold it: past MAX_WORD its tail is a SHA-256, so that two ids stay two."""
    if len(text) <= MAX_WORD:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text[: MAX_WORD - len(digest)] + digest


# --- Reading values ----------------------------------------------------------------------------------------


def plain(value: AnyValue) -> Any:
    """Return an attribute's value as plain Python: None where it is empty, lists and dicts where it nests."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: plain(item.value) for item in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def _as_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, bytes):
        return value.hex() or None
    return json.dumps(value, default=bytes.hex) if value else None


def _as_id(value: Any) -> str | None:
    text = _as_text(value)
    return None if text is None or text.strip() in ABSENT else text


def _as_quoted_id(value: Any) -> str | None:
    """Strip the one layer of JSON quotes that AgentScope 1 puts around texts."""
    if isinstance(value, str) and value.startswith('"') and (inner := _json(value)) is not None:
        return _as_id(inner)
    return _as_id(value)


def _as_reason(value: Any) -> str | None:
    """Return the first of several finish reasons, as an array or (AgentScope) as JSON of one."""
    if isinstance(value, str) and value.startswith("["):
        value = _json(value)
    return _as_text(value[0] if isinstance(value, list) and value else value)


_MAX_DIGITS: Final = 18  # more is no count of anything, and would not fit 64 bits


def _as_count(value: Any) -> int | None:
    if isinstance(value, str) and len(value) <= _MAX_DIGITS and value.isascii() and value.isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 10**_MAX_DIGITS:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _as_cost(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    is_amount = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")
    return float(value) if is_amount else None


def _as_switch(value: Any) -> bool | None:
    return True if value is True else None


def _json(text: Any) -> Any:
    """Parse JSON that may be none, as cut texts are."""
    try:
        return loads(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _is_present(value: AnyValue) -> bool | None:
    # A text is the usual case, and asking for its size would encode it; an empty one takes two bytes.
    return True if value.string_value or value.ByteSize() > len(b"\n\0") else None


def _is_said(value: AnyValue) -> bool | None:
    """Tell whether a value is there; unlike a content, a count of 0 says something."""
    return True if value.WhichOneof("value") is not None and value != _EMPTY_TEXT else None


_EMPTY_TEXT: Final = AnyValue(string_value="")


# --- Compiled tables: one dictionary look-up an attribute ---------------------------------------------


def _reader_of(convert: Callable[[Any], Any], pattern: str | None, path: str) -> Reader:
    return _reader(convert, path) if pattern is None else _pattern_reader(convert, pattern)


def _reader(convert: Callable[[Any], Any], path: str) -> Reader:
    if path:
        return _path_reader(convert, path.split("."))
    if convert is _as_text:
        return lambda value: value.string_value or _as_text(plain(value))
    if convert is _as_id:
        return _read_id
    if convert is _as_count:
        return _read_count
    return lambda value: convert(value.string_value or plain(value))


def _read_id(value: AnyValue) -> str | None:
    text = value.string_value
    return _as_id(plain(value)) if not text or text.strip() in ABSENT else text


def _read_count(value: AnyValue) -> int | None:
    number = value.int_value
    return number if number > 0 else _as_count(plain(value))


def _path_reader(convert: Callable[[Any], Any], path: list[str]) -> Reader:
    def read(value: AnyValue) -> Any:
        found = plain(value)
        if isinstance(found, str):
            found = _json(found)
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return None if found is None else convert(found)

    return read


def _pattern_reader(convert: Callable[[Any], Any], pattern: str) -> Reader:
    """Read only what a text holds that looks like this."""
    match = re.compile(pattern).fullmatch

    def read(value: AnyValue) -> Any:
        text = value.string_value
        found = match(text) if text else None
        return None if found is None else convert(found[1])

    return read


def _kind_reader(kinds: Mapping[str, str]) -> Reader:
    return lambda value: kinds.get(value.string_value.lower())


def _without(convert: Callable[[Any], Any], placeholder: str) -> Callable[[Any], Any]:
    return lambda value: None if value == placeholder else convert(value)


_CONVERSIONS: Final = (
    (IDS, _as_id),
    (TEXTS, _as_text),
    (COUNTS, _as_count),
    (COSTS, _as_cost),
    (SWITCHES, _as_switch),
)


def _compile(emitter: str) -> dict[str, tuple[Entry, ...]]:
    table: dict[str, tuple[Entry, ...]] = {}

    def add(slot: str, rank: int, key: str, read: Callable[[str], Reader]) -> None:
        owner, mark, bare = key.partition(":")
        if mark and owner != emitter:
            return
        name, _, path = (bare if mark else key).partition("#")
        table[name] = (*table.get(name, ()), (slot, rank, read(path)))

    for slots, convert in _CONVERSIONS:
        for slot, keys in slots.items():
            for rank, key in enumerate(keys):
                chosen = _as_reason if slot == "finish" else _conversion(convert, emitter, key)
                add(slot, rank, key, partial(_reader_of, chosen, PATTERNS.get((emitter, key))))
    for rank, (key, kinds) in enumerate(KINDS.items()):
        add("kind", rank, key, lambda _path, kinds=kinds: _kind_reader(kinds))
    for key in CONTENTS:
        add("content", 0, key, lambda _path: _is_present)
    habit = HABITS[emitter]
    for slot, keys in (("pending", PENDING), ("answered", habit.answers), ("asked", habit.questions)):
        for key in keys:
            add(slot, 0, key, lambda _path: _is_said)
    return table


def _conversion(convert: Callable[[Any], Any], emitter: str, key: str) -> Callable[[Any], Any]:
    if emitter == "AS" and convert is _as_id:
        return _as_quoted_id
    placeholder = PLACEHOLDERS.get((emitter, key))
    return convert if placeholder is None else _without(convert, placeholder)


_TABLES: Final = {emitter: _compile(emitter) for emitter in ("", *(emitter for emitter, _ in EMITTERS))}


def entries(emitter: str) -> Mapping[str, tuple[Entry, ...]]:
    """Return, by attribute key, what its value may fill in records of this emitter."""
    return _TABLES[emitter]


_RESOURCE: Final = entries("")

# --- One pass over the attributes --------------------------------------------------------------------------


class Slots(NamedTuple):
    """What the attributes of one record fill: by slot the value, and the rank of the key it came from."""

    values: dict[str, Any]
    ranks: dict[str, int]


class Source(NamedTuple):
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
    values: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    known, rank_of = table.get, ranks.get
    for attribute in attributes:
        found = known(attribute.key)
        if found is None:
            continue
        value = attribute.value
        for slot, rank, read in found:
            if rank < rank_of(slot, _UNRANKED):
                said = read(value)
                if said is not None:
                    if said.__class__ is str and len(said) > MAX_WORD:
                        said = identity(said) if slot in _IDENTITIES else word(said)
                    values[slot] = said
                    ranks[slot] = rank
    return Slots(values, ranks)


def source_of(resource: Resource) -> Source:
    """Return what a resource says of everything below it; of ids only `session.id` counts there."""
    texts = {attribute.key: attribute.value.string_value for attribute in resource.attributes}
    slots = fill(resource.attributes, _RESOURCE)
    service = texts.get(semconv.SERVICE_NAME, "")
    return Source(
        service=word(service),
        scope=identity(service_scope(texts.get(semconv.SERVICE_NAMESPACE, ""), service)),
        session=slots.values.get("session") if _is_global(slots) else None,
        user=slots.values.get("user"),
    )


def sender_of(resource: Resource) -> Emitter:
    """Return who sends, as the resource says it: its service and the SDK that it uses."""
    texts = {attribute.key: attribute.value.string_value for attribute in resource.attributes}
    sdk = (texts.get("telemetry.sdk.name", ""), texts.get("telemetry.sdk.language", ""))
    return Emitter(
        word(texts.get(semconv.SERVICE_NAME, "")),
        word(", ".join(filter(None, sdk))),
        word(texts.get("telemetry.sdk.version", "")),
    )


def hint(slots: Slots, source: Source) -> SessionHint | None:
    """Return what a record and its resource say of its session."""
    own = slots.values.get("session")
    return hint_of(own, is_global=_is_global(slots), resource=source.session, service=source.scope)


def _is_global(slots: Slots) -> bool:
    return slots.ranks.get("session") == 0  # `session.id` is the first of its variants


def usage(slots: Slots, emitter: str) -> Usage:
    """Return the tokens of one call, with each emitter's habit undone.

    An input that is smaller than what was cached leaves the cache out, whoever sends it, and an output that
    is smaller than its thoughts the thoughts. Nobody asks a model nothing: an input of 0 is unknown.
    """
    values, habit = slots.values, HABITS[emitter]
    tokens_in, tokens_out, cached = values.get("input"), values.get("output"), values.get("cache_read")
    if tokens_in is not None:
        beside = (cached or 0) + values.get("cache_write", 0)
        if habit.cache_beside_input or beside > tokens_in:
            tokens_in += beside
    if tokens_out is not None:
        thoughts = values.get("reasoning", 0)
        if habit.thoughts_beside_output or thoughts > tokens_out:
            tokens_out += thoughts
    if not tokens_in:
        return Usage(None, tokens_out or None, cached or None)
    return Usage(tokens_in, tokens_out, cached)


def trace_id(raw: bytes) -> bytes:
    """Return a valid trace id, b"" for any other."""
    return raw if len(raw) == _TRACE_ID_BYTES and raw != _NO_TRACE else b""


def span_id(raw: bytes) -> bytes:
    """Return a valid span id, b"" for any other."""
    return raw if len(raw) == _SPAN_ID_BYTES and raw != _NO_SPAN else b""
