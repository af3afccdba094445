"""Attribute values as OpenTelemetry takes them: what it can't hold becomes JSON or text, under our guard.

OpenTelemetry would call `__str__` of foreign objects in the midst of `start_span`, where an exception
leaves through the user's code, and warn about each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._guard import guard

__all__ = ["attribute_value", "attribute_values", "to_json"]

_LONGEST: Final = 64 * 1024
"""Characters of one recorded argument, result or message list; the rest is cut and marked."""
_CUT: Final = "…[cut]"
_PLAIN: Final = frozenset({str, bool, int, float})


def attribute_values(attributes: Any) -> dict[str, Any]:
    """Return attributes with values that OpenTelemetry can hold; None values are left out.

    Raises ConfigurationError for what is no mapping.
    """
    if not isinstance(attributes, Mapping):
        raise ConfigurationError(f"attributes={attributes!r} has to be a mapping of names to values")
    return {
        key: value if type(value) in _PLAIN else attribute_value(value)
        for key, value in attributes.items()
        if value is not None
    }


def attribute_value(value: Any) -> Any:
    """Return a value that OpenTelemetry can hold."""
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple)) and all(type(item) in _PLAIN for item in value):
        return tuple(value)
    return to_json(value)


def to_json(value: Any) -> str:
    """Return a value as JSON, cut at 64 Ki characters; what JSON has no word for is told as text."""
    if isinstance(value, str):
        return _cut(value)
    with guard("content"):
        return _cut(json.dumps(value, ensure_ascii=False, default=_foreign))
    return f"<{type(value).__name__}>"


def _foreign(value: Any) -> Any:
    for method in ("model_dump", "to_dict", "_asdict"):
        dump = getattr(value, method, None)
        if callable(dump) and not isinstance(value, type):
            return dump()
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, (set, frozenset)) or (
        isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray))
    ):
        return list(value)
    return repr(value) if type(value).__repr__ is not object.__repr__ else f"<{type(value).__name__}>"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + _CUT
