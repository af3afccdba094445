r"""Secrets out of a request, before anything of it is decoded, stored, streamed or told; pure.

Every body is scanned once, by one automaton for all patterns (`re2.Set`: some µs a span, and without the
lock of the interpreter). Only what may bear a secret takes the slow way: its texts are looked at one by one,
the secrets in them replaced, and the message written again. A body without a secret stays what it was,
byte by byte. Fields that this version of the protocol does not know survive, unless a secret is in them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import re2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

from otel_sessions.backend.decode import parse_bounded, unreadable
from otel_sessions.backend.otlp_json import read
from otel_sessions.backend.records import Encoding, Signal
from otel_sessions.backend.redact_patterns import (
    ATTRIBUTE,
    SECRET_NAMES,
    Pattern,
    is_secret_name,
    kinds_of,
    loosened,
    marker,
)
from otel_sessions.backend.vocabulary import IDS
from otel_sessions.errors import ConfigurationError
from otel_sessions.semconv import SESSION_PREVIOUS_ID, TASK_PARENT_ID

__all__ = ["CHECKED_BYTES", "MOST_LOOKS", "Redacted", "Redactor"]

_IDS: Final = frozenset(
    ("trace_id", "span_id", "parent_span_id", "traceId", "spanId", "parentSpanId", "profile_id", "profileId")
)
_IDENTITIES: Final = frozenset(
    (
        *(key.removeprefix("CX:").removeprefix("CC:") for keys in IDS.values() for key in keys),
        *(SESSION_PREVIOUS_ID, TASK_PARENT_ID),
    )
)
"""Attributes whose values name a session, a user, a task: two that are not the same must not become it."""
_ID_BYTES: Final = (8, 16)  # what is no id is looked at: its span is rejected, but the body is kept
_HEX: Final = re.compile(r"[0-9a-fA-F]*")
_NUMBER: Final = re.compile(r"-?[0-9]+")
_TEXTS: Final = frozenset(
    (
        *("key", "stringValue", "string_value", "name", "message", "version", "eventName", "event_name"),
        *("severityText", "severity_text", "traceState", "trace_state", "schemaUrl", "schema_url"),
        *("description", "unit"),
    )
)
"""Where digits in quotes are a text; elsewhere they are how OTLP's JSON writes a number."""
_COUNTS: Final = frozenset(("bucketCounts", "bucket_counts"))
_BYTES: Final = frozenset(("bytesValue", "bytes_value"))
_VALUE_TAG: Final = b"\x12"  # what follows a name in an encoded KeyValue; joins the texts of JSON likewise
_SIFTED_DEPTH: Final = 5  # request, resource, scope, record, attribute: those without a hit are passed over
_SIFTED_LISTS: Final = 4  # the same in JSON: of resources, scopes, records, attributes
MOST_LOOKS: Final = 2**16
"""Matches that are looked at in one request, at some 10 µs and 100 bytes each; from there on a text that has
one more is replaced as a whole."""

CHECKED_BYTES: Final = 4096
"""What is longer is no placeholder, path, name or word: it is taken for a secret without a look."""

_SCANNER_BYTES: Final = 64 * 1024 * 1024  # upper bound; what real text takes is under 2 MiB


@dataclass(frozen=True, slots=True)
class Redacted:
    """A body without secrets, and how many of which kind were in it."""

    body: bytes
    counts: Mapping[str, int]


class Redactor:
    """The patterns of one backend, ready to be used from any thread. Raises ConfigurationError."""

    def __init__(self, patterns: Sequence[Pattern], key: bytes | None = None) -> None:
        """Compile the patterns; with a key, ids that are secrets are told apart by what it makes of them."""
        self._key = key
        self.kinds = kinds_of(patterns)
        self._patterns = [_Compiled(pattern, pattern.regex) for pattern in patterns]
        self._anywhere = [_Compiled(pattern, loosened(pattern.regex)) for pattern in patterns]
        self._scanner = _scanner_of([*(pattern.scanned for pattern in patterns), *_NAMED])

    def redact(self, signal: Signal, encoding: Encoding, body: bytes) -> Redacted:
        """Return a request's body without secrets. Raises DecodeError where it can't be read."""
        cleaning = _Cleaning(self)
        if encoding is Encoding.JSON:
            return cleaning.json_body(signal, body)
        return cleaning.protobuf_body(signal, body) if self.scan(body) else Redacted(body, {})

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        return _Cleaning(self).text(text)

    def scan(self, data: bytes) -> list[int]:
        """Return the patterns that may match; those of secret names come after them."""
        return self._scanner.Match(data) or []

    def looks(self, data: bytes) -> Iterator[tuple[int, int, str]]:
        """Look at what may be a secret, pattern by pattern; yield where it is, empty if none, and what."""
        for number in sorted(self.scan(data)):
            if number < len(self._patterns):
                yield from self._patterns[number].looks(data)

    def marker(self, kind: str, secret: bytes, *, apart: bool) -> bytes:
        """Return what stands in the place of a secret; of an id, so that the same one has the same."""
        if not apart or self._key is None:
            return marker(kind).encode()
        return marker(f"{kind}#{hashlib.blake2b(secret, key=self._key, digest_size=6).hexdigest()}").encode()

    def kind_within(self, data: bytes) -> str | None:
        """Return the kind of a secret within encoded data of which only the length is known; else None."""
        for number in self.scan(data):
            if number >= len(self._patterns):
                return ATTRIBUTE
            for start, end, kind in itertools.islice(self._anywhere[number].looks(data), MOST_LOOKS):
                if end > start:
                    return kind
        return None


_NAMED: Final = (SECRET_NAMES + _VALUE_TAG.decode(), r"\n[\x00-\x7f][A-Za-z0-9_./-]*" + SECRET_NAMES)
"""A name before the tag of its value; and behind its own tag and length, where the value came first."""


def _scanner_of(regexes: Sequence[str]) -> re2.Set:
    options = _options()
    options.max_mem = _SCANNER_BYTES
    scanner = re2.Set.SearchSet(options)
    try:
        for regex in regexes:
            scanner.Add(regex)
        scanner.Compile()
    except re2.error as error:
        raise ConfigurationError(
            "the patterns of --redact-pattern are too large together; give fewer."
        ) from error
    return scanner


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    return options


class _Compiled:
    """One pattern with its group."""

    def __init__(self, pattern: Pattern, regex: str) -> None:
        self._pattern = pattern
        self._regex = re2.compile(regex.encode(), _options())
        self._group = self._regex.groupindex.get(b"secret", 0)

    def looks(self, data: bytes) -> Iterator[tuple[int, int, str]]:
        """Yield where it matches; nothing of it where its check disagrees."""
        at = 0
        while (match := self._regex.search(data, at)) is not None:
            begin, (start, end) = match.start(), match.span(self._group)
            at = max(end, begin + 1)
            yield start, end if self._agrees(data, begin, start, end) else start, self._pattern.kind

    def _agrees(self, data: bytes, begin: int, start: int, end: int) -> bool:
        check = self._pattern.check
        if check is None or end - begin > CHECKED_BYTES:
            return True
        return check(data[begin:start].decode(errors="replace"), data[start:end].decode(errors="replace"))


_NUMBER_BYTES: Final = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_MEMBER: Final = re.compile(rb'(\\*")\s*:\s*\Z')
_MEMBER_BYTES: Final = 64


def _quote_of(data: bytes, start: int, end: int) -> bytes:
    """Return the quote that a number in JSON lacks, within a string too: a marker is a text."""
    if end - start > _MEMBER_BYTES or not _NUMBER_BYTES.fullmatch(data, start, end):
        return b""
    member = _MEMBER.search(data[max(0, start - _MEMBER_BYTES) : start])
    return b"" if member is None else member[1]


def _merged(found: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    merged: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(found, key=lambda one: (one[0], -one[1])):
        if merged and start < merged[-1][1]:
            begun, until, first = merged[-1]
            merged[-1] = (begun, max(until, end), first)
        else:
            merged.append((start, end, kind))
    return merged


class _Cleaning:
    """One pass over one body, with its counts."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._counts: Counter[str] = Counter()
        self._repeated = False
        self._looks = 0
        self._is_id = False  # whether what is looked at is the value of an attribute that names somebody

    # --- texts ------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """Return a text without its secrets."""
        data = text.encode("utf-8", "surrogatepass")
        clean = self.data(data)
        return text if clean is data else clean.decode("utf-8", "replace")

    def data(self, data: bytes) -> bytes:
        """Return bytes without the secrets in them; the same object where there are none."""
        found: list[tuple[int, int, str]] = []
        for start, end, kind in self._redactor.looks(data):
            self._looks += 1
            if self._looks > MOST_LOOKS:
                self._counts[kind] += 1
                return self._redactor.marker(kind, data, apart=self._is_id)
            if end > start:
                found.append((start, end, kind))
        return self._replaced(data, _merged(found)) if found else data

    def _replaced(self, data: bytes, secrets: list[tuple[int, int, str]]) -> bytes:
        parts: list[bytes] = []
        at = 0
        for start, end, kind in secrets:
            quote = _quote_of(data, start, end)
            mark = self._redactor.marker(kind, data[start:end], apart=self._is_id)
            parts += (data[at:start], quote, mark, quote)
            at = end
            self._counts[kind] += 1
        return b"".join((*parts, data[at:]))

    # --- protobuf ---------------------------------------------------------------------------------

    def protobuf_body(self, signal: Signal, body: bytes) -> Redacted:
        """Clean a request that has a hit somewhere."""
        message = parse_bounded(signal, Encoding.PROTOBUF, body)
        self._message(message, 0)
        # What is sent twice is read once: the first text is in no message, but was in the body.
        clean = message.SerializeToString()
        return Redacted(body if clean == body else clean, self._counts)

    def _message(self, message: Message, depth: int) -> None:
        if depth <= _SIFTED_DEPTH and not self._redactor.scan(message.SerializeToString()):
            return
        if isinstance(message, KeyValue) and is_secret_name(message.key):
            self._hide(message.value)
        was, self._is_id = (
            self._is_id,
            self._is_id or (isinstance(message, KeyValue) and message.key in _IDENTITIES),
        )
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                for one in value if field.is_repeated else (value,):
                    self._message(one, depth + 1)
            elif field.type in _CLEANERS and not (field.name in _IDS and len(value) in _ID_BYTES):
                self._scalar(message, field, value)
        self._is_id = was
        self._unknown(message)

    def _scalar(self, message: Message, field: FieldDescriptor, value: Any) -> None:
        clean = _CLEANERS[field.type]
        if field.is_repeated:
            for place, one in enumerate(value):
                value[place] = clean(self, one)
        else:
            cleaned = clean(self, value)
            if cleaned is not value:
                setattr(message, field.name, cleaned)

    def _hide(self, value: AnyValue) -> None:
        """Replace the value of an attribute that is named as a secret."""
        kind = value.WhichOneof("value")
        hidden = _HIDDEN_ITEMS if kind == "array_value" else _HIDDEN_VALUE
        if kind in _TELLS_NOTHING or not _is_filled(value, kind) or value == hidden:
            return
        value.CopyFrom(hidden)
        self._counts[ATTRIBUTE] += 1

    def _unknown(self, message: Message) -> None:
        """Drop what this protocol does not know of a message where a secret is in it."""
        for data in _payloads(UnknownFieldSet(message)):
            kind = self._redactor.kind_within(data)
            if kind is not None:
                message.DiscardUnknownFields()
                self._counts[kind] += 1
                return

    # --- JSON -------------------------------------------------------------------------------------

    def json_body(self, signal: Signal, body: bytes) -> Redacted:
        """Clean a request in JSON; scanned as text, for escapes hide what is in it."""
        try:
            value = read(body, self._object)
        except ValueError as error:
            raise unreadable(signal, Encoding.JSON, error) from error
        if self._redactor.scan(_VALUE_TAG.join((*_texts(value), b""))):
            value = self._json(value, 0)
        if not self._counts and not self._repeated:
            return Redacted(body, {})
        return Redacted(json.dumps(value, ensure_ascii=False).encode(), self._counts)

    def _object(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        """Make an object of JSON; what is overridden by a later member is in the body, but in no value."""
        made = dict(members)
        self._repeated |= len(made) < len(members)
        return made

    def _json(self, value: Any, lists: int) -> Any:
        """Clean a value that lies within so many lists."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._json_item(item, lists + 1) for item in value]
        if isinstance(value, dict):
            return self._json_object(value, lists)
        return value

    def _json_item(self, item: Any, lists: int) -> Any:
        if lists <= _SIFTED_LISTS and not self._redactor.scan(_VALUE_TAG.join((*_texts(item), b""))):
            return item
        return self._json(item, lists)

    def _json_object(self, value: dict[str, Any], lists: int) -> dict[str, Any]:
        name = value.get("key")
        name = name if isinstance(name, str) and isinstance(value.get("value"), dict) else ""
        if is_secret_name(name):
            value = {**value, "value": self._json_hidden(value["value"])}
        was, self._is_id = self._is_id, self._is_id or name in _IDENTITIES
        clean = {self.text(key): self._json_field(key, item, lists) for key, item in value.items()}
        self._is_id = was
        return clean

    def _json_field(self, key: str, item: Any, lists: int) -> Any:
        if _is_no_text(key, item):
            return item
        if key in _BYTES and (data := _bytes_of(item)) is not None:
            clean = self.data(data)
            return item if clean is data else base64.b64encode(clean).decode()
        return self._json(item, lists)

    def _json_hidden(self, value: dict[str, Any]) -> dict[str, Any]:
        hidden: dict[str, Any] = {"stringValue": _HIDDEN}
        if _ARRAYS & value.keys():
            hidden = {"arrayValue": {"values": [hidden]}}
        if not _is_filled_json(value) or value == hidden:
            return value
        self._counts[ATTRIBUTE] += 1
        return hidden


_HIDDEN: Final = marker(ATTRIBUTE)
_HIDDEN_VALUE: Final = AnyValue(string_value=_HIDDEN)
_HIDDEN_ITEMS: Final = AnyValue(array_value=ArrayValue(values=[_HIDDEN_VALUE]))
_TELLS_NOTHING: Final = (None, "bool_value")
_JSON_TELLS_NOTHING: Final = frozenset(("boolValue", "bool_value"))
_ARRAYS: Final = frozenset(("arrayValue", "array_value"))
_CLEANERS: Final[Mapping[int, Callable[[_Cleaning, Any], Any]]] = {
    FieldDescriptor.TYPE_STRING: _Cleaning.text,
    FieldDescriptor.TYPE_BYTES: _Cleaning.data,
}


def _is_no_text(key: str, item: Any) -> bool:
    """Tell whether a field of JSON bears an id or numbers; a pattern of a user may well find digits."""
    if not isinstance(item, str):
        return key in _COUNTS
    if key in _IDS:
        return _HEX.fullmatch(item) is not None
    return key not in _TEXTS and _NUMBER.fullmatch(item) is not None


def _is_filled(value: AnyValue, kind: str | None) -> bool:
    """Tell whether there is anything to hide: no text, no bytes, no items, and asterisks are no secret."""
    if kind in ("array_value", "kvlist_value"):
        return bool(getattr(value, kind).values)
    return bool(value.string_value.strip("*") or value.bytes_value or kind in ("int_value", "double_value"))


def _is_filled_json(value: dict[str, Any]) -> bool:
    filled = {
        name
        for name, item in value.items()
        if item not in ("", None, {}, [], {"values": []})
        and not (isinstance(item, str) and not item.strip("*"))
    }
    return bool(filled - _JSON_TELLS_NOTHING)


def _payloads(fields: UnknownFieldSet) -> Iterator[bytes]:
    """Iterate over all data in fields of which nothing but the number is known."""
    for field in fields:
        if isinstance(field.data, bytes):
            yield field.data
        elif isinstance(field.data, UnknownFieldSet):
            yield from _payloads(field.data)


def _texts(value: Any) -> Iterator[bytes]:
    """Iterate over everything in JSON that may bear a secret, as bytes."""
    if isinstance(value, str):
        yield value.encode()
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key.encode()
            yield _bytes_of(item) or b"" if key in _BYTES else b""
            yield from _texts(item)


def _bytes_of(item: Any) -> bytes | None:
    """Read base64 as protobuf's JSON is read, in both alphabets, padded or not; None for anything else."""
    try:
        return base64.urlsafe_b64decode(item + "=" * (4 - len(item) % 4))
    except (binascii.Error, TypeError, ValueError):
        return None
