"""How Go writes and reads what Jaeger's API is made of: durations, numbers, nested values; pure.

Jaeger's answers hold such texts (warnings, arrays as JSON, error messages), and its parameters are read by
Go's parsers. Sources: Go's packages time, strconv and encoding/json.
"""

from __future__ import annotations

import base64
import json
import math
import re
from decimal import Decimal
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

__all__ = [
    "MAX_INT64",
    "GoError",
    "duration_text",
    "nested_json",
    "number_text",
    "parse_duration",
    "parse_int",
]

MAX_INT64: Final = 2**63 - 1
_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_MAX_CHARACTERS: Final = 200  # of a duration; Python reads no number of thousands of digits
_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
_ESCAPED: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_PLAIN_FROM, _PLAIN_BELOW = 1e-6, 1e21  # outside, Go's JSON writes an exponent, as JavaScript does


class GoError(ValueError):
    """A text is not what Go would take; the message is Go's."""


# --- Durations --------------------------------------------------------------------------------------------


def duration_text(duration: int) -> str:
    """Write a duration in ns as Go does: `1h0m0s`, `1.5s`, `250µs`, `0s`."""
    if duration == 0:
        return "0s"
    sign, size = "-" if duration < 0 else "", abs(duration)
    for unit in ("ns", "µs", "ms"):
        if size < _UNITS[unit] * 1_000:
            return f"{sign}{_fraction(size, _UNITS[unit])}{unit}"
    minutes, rest = divmod(size, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{text}{_fraction(rest, _UNITS['s'])}s"


def _fraction(size: int, unit: int) -> str:
    whole, rest = divmod(size, unit)
    digits = str(unit + rest)[1:].rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def parse_duration(text: str) -> int:
    """Read a duration as Go does: `1.5s`, `1h30m`, `-20ms`, `0`; return ns. Raises GoError."""
    bare = text[1:] if text[:1] in ("-", "+") else text
    if bare == "0":
        return 0
    total, at = 0, 0
    if not 0 < len(bare) <= _MAX_CHARACTERS:
        raise _invalid(text)
    while at < len(bare):
        part = _PART.match(bare, at)
        assert part is not None  # noqa: S101 - it matches the empty text
        total += _part(text, *part.groups())
        at = part.end()
    if total > MAX_INT64:
        raise _invalid(text)
    return -total if text[0] == "-" else total


def _part(text: str, whole: str, decimals: str | None, unit: str) -> int:
    if not whole and not decimals:
        raise _invalid(text)
    if not unit:
        raise GoError(f"time: missing unit in duration {_quoted(text)}")
    if unit not in _UNITS:
        raise GoError(f"time: unknown unit {_quoted(unit)} in duration {_quoted(text)}")
    size = _UNITS[unit]
    part = int(decimals) * size // 10 ** len(decimals) if decimals else 0
    return int(whole or "0") * size + part


def _invalid(text: str) -> GoError:
    return GoError(f"time: invalid duration {_quoted(text)}")


# --- Numbers ----------------------------------------------------------------------------------------------


def parse_int(text: str, *, bits: int = 64) -> int:
    """Read a whole number in decimal digits that fits so many bits. Raises GoError."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise GoError(f"strconv.ParseInt: parsing {_quoted(text)}: invalid syntax")
    number = int(text) if len(text) <= len(str(MAX_INT64)) + 1 else MAX_INT64 + 1
    if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise GoError(f"strconv.ParseInt: parsing {_quoted(text)}: value out of range")
    return number


def number_text(number: float) -> str:
    """Write a float as Jaeger's search compares it: at most ten digits, an exponent where it is shorter."""
    if math.isnan(number):
        return "NaN"
    return f"{number:.10g}" if math.isfinite(number) else "+Inf" if number > 0 else "-Inf"


# --- Nested values ----------------------------------------------------------------------------------------


def nested_json(value: AnyValue) -> str:
    """Write an array or a map as Go's encoding/json does; "" where it holds NaN or infinity."""
    try:
        return _json(value)
    except GoError:
        return ""


def _json(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return f"[{','.join(map(_json, value.array_value.values))}]"
    if kind == "kvlist_value":
        members = {item.key: item.value for item in value.kvlist_value.values}
        return "{" + ",".join(f"{_quoted(key)}:{_json(members[key])}" for key in sorted(members)) + "}"
    if kind == "double_value":
        return _json_number(value.double_value)
    if kind == "string_value":
        return _quoted(value.string_value)
    if kind == "bytes_value" and value.bytes_value:
        return f'"{base64.b64encode(value.bytes_value).decode()}"'
    return json.dumps(getattr(value, kind)) if kind in ("bool_value", "int_value") else "null"


def _json_number(number: float) -> str:
    if not math.isfinite(number):
        raise GoError("json: unsupported value")
    if number and not _PLAIN_FROM <= abs(number) < _PLAIN_BELOW:
        return repr(number).replace("e-0", "e-")
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_ESCAPED)
