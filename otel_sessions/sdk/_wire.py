"""Ended spans -> OTLP bytes, written by hand: a fifth of what the official encoder costs.

Before it: `_export.py` takes spans off the queue. After it: what carries bytes. Pure: no message objects,
a span is a list of `bytes` that is joined once. Parsed, a request equals that of the official encoder
(`opentelemetry-exporter-otlp-proto-common`), which a property test checks, but for what would lose
something there:

- an int beyond 64 bits, half a surrogate, an object: its text, instead of a lost attribute or batch;
- nesting beyond `_DEPTH`: its text, instead of a request that no receiver parses;
- the W3C flags of spans and links and the trace state of links: sent, as OTLP 1.5 has them.

Field numbers: opentelemetry-proto 1.11, `trace.proto`, `common.proto`, `resource.proto`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, TraceState

__all__ = ["Encoded", "Item", "attributes_of", "encode_requests", "encode_span"]


class Encoded(NamedTuple):
    """A serialised `ExportTraceServiceRequest`, and whose spans are in it: how many by session id."""

    body: bytes
    sessions: Mapping[str, int]


Item = tuple["ReadableSpan", Mapping[str, Any], str]
"""A span to encode, the attributes that it is sent with, in a plain dict, and its session id."""

_DEPTH: Final = 24
"""Levels of nested values. protobuf's parsers stop at 100 messages; a level of a map takes three."""

_SHORT: Final = 64

_ONE_BYTE: Final = 1 << 7
_TWO_BYTES: Final = 1 << 14
_SMALL: Final = tuple(bytes((number,)) for number in range(_ONE_BYTE))
_MASK_64: Final = 2**64 - 1
_UINT_32: Final = 2**32 - 1

_FIXED_32: Final = Struct("<I").pack
_FIXED_64: Final = Struct("<Q").pack
_DOUBLE: Final = Struct("<d").pack
_TIMES: Final = Struct("<BQBQ").pack
"""Start and end of a span, each behind its tag."""

_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200

_TRUE: Final = b"\x10\x01"
_FALSE: Final = b"\x10\x00"


def encode_requests(
    items: Iterable[Item], *, limit: int, resource: Mapping[str, Any] | None = None
) -> Iterator[Encoded]:
    """Encode spans into as few requests as stay under `limit` bytes; a span beyond it goes alone.

    `resource` takes the place of attributes that a resource has, and adds none.
    """
    groups = _Groups(resource or {})
    for span, attributes, session in items:
        encoded = encode_span(span, attributes)
        size = len(encoded)
        if groups.size and groups.size + size > limit:
            yield groups.request()
            groups = _Groups(resource or {})
        groups.add(span, session, encoded, size)
    if groups.size:
        yield groups.request()


_Scopes = dict[int, "tuple[InstrumentationScope | None, list[bytes]]"]


class _Groups:
    """Spans of one request by resource and scope, compared by identity, which is what a provider shares."""

    __slots__ = ("_by_resource", "_last", "_replaced", "_resource", "_scope", "_sessions", "size")

    def __init__(self, replaced: Mapping[str, Any]) -> None:
        self._by_resource: dict[int, tuple[Resource, _Scopes]] = {}
        self._replaced = replaced
        self._sessions: dict[str, int] = {}
        # As a rule a span is of the same scope as the one before it.
        self._resource: Resource | None = None
        self._scope: InstrumentationScope | None = None
        self._last: list[bytes] = []
        self.size = 0

    def add(self, span: ReadableSpan, session: str, encoded: bytes, size: int) -> None:
        resource, scope = span.resource, span.instrumentation_scope
        if resource is not self._resource or scope is not self._scope:
            self._turn_to(resource, scope)
        self._last.append(encoded)
        self.size += size + 6
        sessions = self._sessions
        sessions[session] = sessions.get(session, 0) + 1

    def _turn_to(self, resource: Resource, scope: InstrumentationScope | None) -> None:
        of_resource = self._by_resource.get(id(resource))
        if of_resource is None:
            of_resource = self._by_resource[id(resource)] = (resource, {})
            self.size += 1024  # about what a resource takes
        of_scope = of_resource[1].get(id(scope))
        if of_scope is None:
            of_scope = of_resource[1][id(scope)] = (scope, [])
        self._resource, self._scope, self._last = resource, scope, of_scope[1]

    def request(self) -> Encoded:
        parts: list[bytes] = []
        for resource, scopes in self._by_resource.values():
            replaced = {name: value for name, value in self._replaced.items() if name in resource.attributes}
            body = [_message(b"\x0a", _pairs(b"\x0a", {**resource.attributes, **replaced}))]
            for scope, spans in scopes.values():
                inner = [_message(b"\x0a", _scope(scope))]
                for span in spans:
                    inner += (b"\x12", _varint(len(span)), span)
                if scope is not None and scope.schema_url:
                    inner.append(_text(b"\x1a", scope.schema_url))
                body.append(_message(b"\x12", b"".join(inner)))
            if resource.schema_url:
                body.append(_text(b"\x1a", resource.schema_url))
            parts.append(_message(b"\x0a", b"".join(body)))
        return Encoded(b"".join(parts), self._sessions)


def encode_span(span: ReadableSpan, attributes: Mapping[str, Any]) -> bytes:
    """Encode one span as a `Span` message with these attributes; `attributes_of` returns its own."""
    context = cast("SpanContext", span.get_span_context())  # typed as optional, but a span has one
    parent, flags = span.parent, context.trace_flags & 0xFF | _HAS_IS_REMOTE
    trace_id, span_id = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
    parts = [b"\x0a\x10", trace_id, b"\x12\x08", span_id]
    if context.trace_state:
        parts.append(_text(b"\x1a", _trace_state(context.trace_state)))
    if parent is not None:
        parts += (b"\x22\x08", parent.span_id.to_bytes(8, "big"))
        if parent.is_remote:
            flags |= _IS_REMOTE
    parts += (_span_name(span.name), _kind(span.kind), _times(span.start_time, span.end_time))
    _add_attributes(parts, attributes)
    if span.dropped_attributes:
        parts.append(_count(b"\x50", span.dropped_attributes))
    if events := span.events:
        parts += [_message(b"\x5a", _event(event)) for event in events]
    if span.dropped_events:
        parts.append(_count(b"\x60", span.dropped_events))
    if links := span.links:
        parts += [_message(b"\x6a", _link(link)) for link in links]
    if span.dropped_links:
        parts.append(_count(b"\x70", span.dropped_links))
    parts += (_status(span.status), b"\x85\x01", _FIXED_32(flags))
    return b"".join(parts)


def _add_attributes(parts: list[bytes], attributes: Mapping[str, Any]) -> None:
    """Encode the attributes of a span, behind its other parts: most of its bytes, and of the work."""
    add = parts.append
    for name, value in attributes.items():
        kind = type(value)
        if kind is str and len(value) < _SHORT:
            add(_short(name, value))
        elif kind is int and _ONE_BYTE <= value < _TWO_BYTES:
            parts += (_number(name), bytes((value & 127 | _ONE_BYTE, value >> 7)))
        elif kind is bool:
            add(_flag(name, value))
        else:
            body = _key(name) + _value(value)
            size = len(body)
            parts += (b"\x4a", _SMALL[size] if size < _ONE_BYTE else _varint(size), body)


_KINDS: Final = tuple(b"\x30" + _SMALL[number + 1] for number in range(5))
"""The kind of a span behind its tag, by the value that the API gives it."""


def _kind(kind: SpanKind) -> bytes:
    try:
        return _KINDS[kind.value]
    except (AttributeError, LookupError, TypeError):  # some third parties give None
        return _KINDS[0]


def _times(start: int | None, end: int | None) -> bytes:
    try:
        return _TIMES(0x39, start, 0x41, end)
    except struct_error:  # what is no time of this world
        return b"\x39" + _time(start) + b"\x41" + _time(end)


def _status(status: Status) -> bytes:
    code = status.status_code.value
    described = _text(b"\x12", status.description) if status.description else b""
    if not code and not described:
        return b"\x7a\x00"
    return _message(b"\x7a", described + b"\x18" + _SMALL[code] if code else described)


def _event(event: Event) -> bytes:
    body = b"\x09" + _time(event.timestamp) + _text(b"\x12", event.name) + _pairs(b"\x1a", event.attributes)
    return body + _count(b"\x20", event.dropped_attributes) if event.dropped_attributes else body


def _link(link: Link) -> bytes:
    context = link.context
    parts = [_ids(context)]
    if context.trace_state:
        parts.append(_text(b"\x1a", _trace_state(context.trace_state)))
    parts.append(_pairs(b"\x22", link.attributes))
    if link.dropped_attributes:
        parts.append(_count(b"\x28", link.dropped_attributes))
    parts += (b"\x35", _FIXED_32(_flags(context) | context.trace_flags & 0xFF))
    return b"".join(parts)


def _ids(context: SpanContext) -> bytes:
    """Encode trace and span id, with which spans and links begin."""
    return (
        b"\x0a\x10" + context.trace_id.to_bytes(16, "big") + b"\x12\x08" + context.span_id.to_bytes(8, "big")
    )


def _scope(scope: InstrumentationScope | None) -> bytes:
    if scope is None:
        return b""
    version = _text(b"\x12", scope.version) if scope.version else b""
    return _text(b"\x0a", scope.name) + version + _pairs(b"\x1a", scope.attributes)


def _flags(context: SpanContext | None) -> int:
    """Return whether the other side is known to be remote; the names of the bits are in `SpanFlags`."""
    return _HAS_IS_REMOTE | _IS_REMOTE if context is not None and context.is_remote else _HAS_IS_REMOTE


def _trace_state(state: TraceState) -> str:
    return ",".join(f"{key}={value}" for key, value in state.items())


# --- Attributes --------------------------------------------------------------------------------


def _pairs(tag: bytes, attributes: Mapping[str, Any] | None) -> bytes:
    if not attributes:
        return b""
    return b"".join(_message(tag, _key(name) + _value(value)) for name, value in attributes.items())


@lru_cache(maxsize=4096)
def _key(name: str) -> bytes:
    """Encode the key of a `KeyValue`, and the tag of the value after it."""
    return _text(b"\x0a", name) + b"\x12"


@lru_cache(maxsize=1024)
def _span_name(name: str) -> bytes:
    return _text(b"\x2a", name)


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """Return a span's attributes as a plain dict: its own mapping takes a lock, or a call, for each item."""
    attributes: Any = span.attributes
    copy = getattr(attributes, "copy", None)
    copied = copy() if copy is not None else attributes
    return copied if type(copied) is dict else dict(copied or {})


def _value(value: Any, depth: int = 0) -> bytes:
    """Encode an `AnyValue` with its length before it."""
    kind = type(value)
    if kind is str:
        try:
            data = value.encode()
        except UnicodeEncodeError:
            data = _utf8(value)
        size = _varint(len(data))
        return _varint(1 + len(size) + len(data)) + b"\x0a" + size + data
    if kind is bool:
        return b"\x02" + (_TRUE if value else _FALSE)
    if kind is int:
        if 0 <= value < _ONE_BYTE:
            return b"\x02\x18" + _SMALL[value]
        body = _int(value)
    elif kind is float:
        return b"\x09\x21" + _DOUBLE(value)
    else:
        body = _other(value, depth)
    return _varint(len(body)) + body


@lru_cache(maxsize=4096)
def _number(name: str) -> bytes:
    """Encode an attribute of a number, up to its last two bytes."""
    key = _key(name)
    return b"\x4a" + _varint(len(key) + 4) + key + b"\x03\x18"


@lru_cache(maxsize=4096)
def _flag(name: str, value: bool) -> bytes:
    return _message(b"\x4a", _key(name) + _value(value))


@lru_cache(maxsize=4096)
def _short(name: str, text: str) -> bytes:
    """Encode an attribute of a short text, with its tag; ids, models and operations come again and again."""
    return _message(b"\x4a", _key(name) + _value(text))


def _int(value: int) -> bytes:
    if -(2**63) <= value < 2**63:
        return b"\x18" + _varint(value & _MASK_64)
    return _text(b"\x0a", str(value))


def _other(value: Any, depth: int) -> bytes:
    """Encode what is no plain str, bool, int or float; subclasses of these among it."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return _message(b"\x3a", value)
    for base, encode in _SUBCLASSED:
        if isinstance(value, base):
            return encode(value)
    if depth < _DEPTH and isinstance(value, Mapping):
        pairs = [_key(_plain(key)) + _value(item, depth + 1) for key, item in value.items()]
        return _message(b"\x32", b"".join(_message(b"\x0a", pair) for pair in pairs))
    if depth < _DEPTH and isinstance(value, Sequence):
        items = [b"\x0a" + _value(item, depth + 1) for item in value]
        return _message(b"\x2a", b"".join(items))
    return _text(b"\x0a", _plain(value))


_SUBCLASSED: Final[tuple[tuple[type, Callable[[Any], bytes]], ...]] = (
    (str, lambda value: _text(b"\x0a", value)),
    (int, lambda value: _int(int(value))),
    (float, lambda value: b"\x21" + _DOUBLE(value)),
)


def _plain(value: Any) -> str:
    """Return a value's own text; it is what is left of a value that OTLP has no place for."""
    try:
        return str(value)
    except (RecursionError, ValueError, TypeError) as error:  # too deep, too many digits, no text
        return f"<{type(value).__name__}: {type(error).__name__}>"


# --- The wire --------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    if number < _ONE_BYTE:
        return _SMALL[number]
    if number < _TWO_BYTES:
        return bytes((number & 127 | _ONE_BYTE, number >> 7))
    parts = bytearray()
    while number >= _ONE_BYTE:
        parts.append(number & 127 | _ONE_BYTE)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _message(tag: bytes, body: bytes) -> bytes:
    return tag + _varint(len(body)) + body


def _text(tag: bytes, text: str) -> bytes:
    data = _utf8(text)
    return tag + _varint(len(data)) + data


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate, as a cut emoji leaves it
        return text.encode("utf-8", "backslashreplace")
    except AttributeError:  # no text: a number for a name, say
        return _utf8(_plain(text))


def _time(at: int | None) -> bytes:
    return _FIXED_64(min(max(int(at or 0), 0), _MASK_64))


def _count(tag: bytes, number: int) -> bytes:
    return tag + _varint(min(number, _UINT_32))
