"""Attribute values as OpenTelemetry takes them: what it can't hold becomes JSON or text, under our guard.

OpenTelemetry would call `__str__` of foreign objects in the midst of `start_span`, where an exception
leaves through the user's code, and warn about each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from itertools import islice
from numbers import Integral, Real
from reprlib import Repr
from typing import Any, Final

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._guard import guard

__all__ = ["attribute_value", "attribute_values", "clean", "shortened", "to_json"]

_LONGEST: Final = 64 * 1024
"""Characters of one recorded argument, result or message list; the rest is cut and marked."""
_CUT: Final = "…[cut]"
_DEEPEST: Final = 64
"""Values within values; what is deeper, or without end, is told by its type."""
_ROOM: Final = _LONGEST + 2 * _DEEPEST
"""Characters that are made: enough that the brackets which close what is left unfinished are cut off."""
_SEPARATOR: Final = 2
"""Characters between two items of a list."""
_AROUND_NAME: Final = 4
"""Characters around the name of a member: quotes, colon and space."""
_WIDEST: Final = 14_000
"""Bits of a number that is written out: Python turns no more than 4,300 digits into text."""
_VAST: Final = 1_000
"""Items of a foreign object, such as a data frame, that is not asked for all of itself at once."""
_DUMPS: Final = ("model_dump", "to_dict", "_asdict")
_PLAIN: Final = frozenset({str, bool, int, float})

_repr: Final = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


def attribute_values(attributes: Any) -> dict[str, Any]:
    """Return attributes with values that OpenTelemetry can hold; None values are left out.

    Raises ConfigurationError for what is no mapping.
    """
    if type(attributes) is not dict and not isinstance(attributes, Mapping):
        raise ConfigurationError(f"attributes={shown(attributes)} has to be a mapping of names to values")
    with guard("attributes"):  # a mapping of the user's own may fail
        return _values(attributes)
    return {}


def _values(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[Any, Any] = {}
    for key, value in attributes.items():
        name = clean(key) if type(key) is str else key
        kind = type(value)
        if kind is str:
            found[name] = value if value.isascii() else clean(value)
        elif kind in _PLAIN:
            found[name] = value
        elif value is not None:
            found[name] = attribute_value(value)
    return found


def attribute_value(value: Any) -> Any:
    """Return a value that OpenTelemetry can hold."""
    kind = type(value)
    if issubclass(kind, str):
        return clean(value)
    if issubclass(kind, (int, float)):
        return value
    if issubclass(kind, Real):  # numpy's numbers
        return int(value) if issubclass(kind, Integral) else float(value)
    if (
        issubclass(kind, (list, tuple))
        and len(value) <= _LONGEST
        and all(type(item) in _PLAIN for item in value)
    ):
        return tuple(clean(item) if type(item) is str else item for item in value)
    return to_json(value)


def to_json(value: Any) -> str:
    """Return a value as JSON, cut at 64 Ki characters; what JSON has no word for is told as text.

    Of texts, lists, mappings and other sequences only the part that is recorded is looked at. Half a
    surrogate pair, which no exporter can send, becomes "?".
    """
    walk = _Walk()
    if issubclass(type(value), str):
        return walk.marked(walk.text(value))
    with guard("content"):
        return walk.marked(json.dumps(walk.plain(value, 0), ensure_ascii=False))
    return _named(value)


class _Walk:
    """The way through one value, which ends where the room is used up.

    No item is counted for more than JSON will write of it, so room below zero means: something is left out.
    Types are asked, never `isinstance` or the object itself: a mock or remote proxy has whatever
    attribute it is asked for, and may say that it is of any class.
    """

    __slots__ = ("room",)

    def __init__(self) -> None:
        self.room = _ROOM

    def plain(self, value: Any, depth: int) -> Any:
        """Return as much of a value as there is room for, in types of JSON."""
        kind = type(value)
        if issubclass(kind, str):
            return self.text(value)
        if value is None or issubclass(kind, (int, float)):
            return self.word(value)
        if depth == _DEEPEST:
            return self.text(_named(value))
        if issubclass(kind, (dict, list, tuple)):
            return self.members(value, depth) if issubclass(kind, dict) else self.items(value, depth)
        with guard("content"):
            return self.foreign(value, depth)
        return self.text(_named(value))

    def text(self, text: str) -> str:
        """Return the beginning of a text: one character more than there is room for, if it has that."""
        beginning = clean(str.__getitem__(text, slice(max(self.room, 0) + 1)))
        self.room -= len(beginning)
        return beginning

    def word(self, value: float | None) -> float | str | None:
        """Return a number, true, false or null."""
        bits = value.bit_length() if isinstance(value, int) else 0
        if bits > _WIDEST:
            return self.text(_named(value))
        self.room -= max(1, bits // 4)
        return value

    def items(self, values: Iterable[Any], depth: int) -> list[Any]:
        """Return the first items of a list, a set, a range."""
        found: list[Any] = []
        for item in islice(values, _ROOM):
            found.append(self.plain(item, depth + 1))
            self.room -= _SEPARATOR
            if self.room < 0:
                break
        return found

    def members(self, values: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        """Return the first members of a mapping."""
        found: dict[Any, Any] = {}
        for name, item in islice(values.items(), _ROOM):
            key = self.key(name)
            found[key] = self.plain(item, depth + 1)
            self.room -= _AROUND_NAME + _SEPARATOR
            if self.room < 0:
                break
        return found

    def key(self, name: Any) -> Any:
        """Return the name of a member, as JSON can write it."""
        if name is None or issubclass(type(name), (int, float)):
            return self.word(name)
        with guard("content"):
            return self.text(name if issubclass(type(name), str) else str(name))
        return self.text(_named(name))

    def foreign(self, value: Any, depth: int) -> Any:
        """Return an object in the form that its type is known to have, else its repr."""
        kind = type(value)
        for method in _DUMPS:
            if callable(getattr(kind, method, None)) and not _is_vast(value):
                return self.plain(getattr(value, method)(), depth + 1)
        if issubclass(kind, Mapping):
            return self.members(value, depth)
        if issubclass(kind, (bytes, bytearray)):
            return self.text(repr(value[: _ROOM + 1]))
        if issubclass(kind, (Sequence, AbstractSet, ValuesView)):
            return self.items(value, depth)
        return self.text(_named(value) if kind.__repr__ is object.__repr__ else repr(value))

    def marked(self, text: str) -> str:
        """Return the text that was made, cut and marked if it is too long."""
        return text if self.room >= 0 and len(text) <= _LONGEST else text[:_LONGEST] + _CUT


def _is_vast(value: Any) -> bool:
    return hasattr(type(value), "__len__") and len(value) > _VAST


def shown(value: object) -> str:
    """Return how a message shows what a caller passed: shortened, and whatever its `repr` does."""
    with guard("repr"):
        return _repr.repr(value)
    return _named(value)


def _named(value: object) -> str:
    return f"<{type(value).__name__}>"


def clean(text: str) -> str:
    """Return a text that can be sent: half a surrogate pair, which no exporter can send, becomes "?"."""
    if type(text) is str and text.isascii():
        return text
    return str.encode(text, "utf-8", "replace").decode()


def shortened(text: str, longest: int) -> str:
    """Return a text that can be sent, cut and marked beyond `longest` characters."""
    return clean(text) if len(text) <= longest else clean(str.__getitem__(text, slice(longest))) + _CUT
