"""JSON from others, read so that it can't hurt: cut, half a character, no number, deep as a well; pure."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, Final

__all__ = ["MAX_DEPTH", "as_json", "loads", "without_surrogates"]

MAX_DEPTH: Final = 100
"""Levels of nesting, as protobuf limits messages."""


def loads(
    text: str | bytes, *, depth: int = MAX_DEPTH, object_of: Callable[[list[tuple[str, Any]]], Any] = dict
) -> Any:
    """Parse JSON; halves of surrogate pairs are replaced, NaN and Infinity become their names.

    `object_of` makes an object of its members, those that are repeated too. Raises ValueError for what is no
    JSON, or nests deeper than `depth`: whoever walks it may recurse.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value = json.loads(
            text, parse_constant=str, object_pairs_hook=None if object_of is dict else object_of
        )
    except RecursionError as error:
        raise ValueError("it nests too deep") from error
    if text.count("[") + text.count("{") > depth and _is_deep(value, depth):
        raise ValueError(f"it nests deeper than {depth} levels")
    return without_surrogates(value, object_of) if "\\ud" in text or "\\uD" in text else value


def _is_deep(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [inner for item in level if isinstance(item, (list, dict)) for inner in _items(item)]
    return any(isinstance(item, (list, dict)) for item in level)


def _items(value: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def without_surrogates(value: Any, object_of: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """Replace halves of surrogate pairs, which JavaScript leaves where it cuts a text; UTF-8 holds none."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [without_surrogates(item, object_of) for item in value]
    if isinstance(value, dict):
        return object_of(
            [(without_surrogates(key), without_surrogates(item, object_of)) for key, item in value.items()]
        )
    return value


def as_json(value: Any) -> Any:
    """Return a value as JSON can hold it: bytes as base64, NaN and Infinity by name, as OTLP writes them."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    return value
