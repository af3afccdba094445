"""A filter as a person types it, read into a value: `state:lost tool:search tokens>10000 "flight"`; pure.

docs/filters.md tells the language on one page. What is no filter is a `FilterError` that names the place,
the word and what would do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Final

from otel_sessions.backend.filters import FIELDS, Ago, Condition, Field, Filter, Kind, Moment, Op, Value

__all__ = ["LONGEST", "SUGAR", "UNKNOWN", "FilterError", "parse"]

LONGEST: Final = 1000
"""Characters that a filter may have."""
UNKNOWN: Final = "unknown"
"""The value of what nobody told; quoted, it is that text."""
SUGAR: Final = {"since": Op.AT_LEAST, "until": Op.LESS}
"""Fields that are another way to compare `started`."""

_MOST: Final = 32  # conditions, and values of one condition
_CONDITION: Final = re.compile(r"(-?)([^\W\d][\w.]*)(!=|:?[<>]=?|[:=])(?!//)")
_SPACE: Final = re.compile(r"\s*")
_BARE: Final = re.compile(r"\S+")
_BARE_VALUE: Final = re.compile(r"[^\s,]*")
_QUOTED: Final = re.compile(r'"((?:\\"|[^"])*)("|$)')
_LARGEST: Final = 2**62  # of a number or a duration: no sum with it leaves 64 bits
_LAST_TIME: Final = 2**63 - 1


class FilterError(ValueError):
    """A text that is no filter: at which character, which word, what is wrong and what would do."""

    def __init__(self, detail: str, position: int, word: str, allowed: tuple[str, ...] | str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.position = position
        self.word = word
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class _Word:
    """A word or value of the text, with where it begins; a quoted one is never a keyword."""

    text: str
    at: int
    end: int
    quoted: bool


def parse(text: str, *, unknown_fields_are_text: bool = False) -> Filter:
    """Read a filter. Raises FilterError.

    A search looks for text above all, so there `Error: refused` is text although no field is called Error.
    """
    if len(text) > LONGEST:
        raise FilterError(
            f"The filter has {len(text)} characters; {LONGEST} are the most.", LONGEST, "", f"{LONGEST}"
        )
    words: list[str] = []
    conditions: list[Condition] = []
    at = _after_space(text, 0)
    while at < len(text):
        found = _CONDITION.match(text, at)
        if found is not None and (_is_field(found[2]) or not unknown_fields_are_text):
            condition, at = _condition(text, found)
            conditions.append(condition)
        else:
            word = _quoted(text, at, r"\s|$") or _bare(text, at, _BARE)
            at = word.end
            if word.text.strip():
                words.append(word.text.casefold())
        if len(conditions) > _MOST:
            raise FilterError(f"{_MOST} conditions are the most.", at, "", f"{_MOST}")
        at = _after_space(text, at)
    return Filter(tuple(dict.fromkeys(words)), tuple(conditions))


def _is_field(name: str) -> bool:
    return name.lower() in FIELDS or name.lower() in SUGAR


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _quoted(text: str, at: int, follows: str) -> _Word | None:
    """Read a quoted text that ends where a word may end; a quote that nobody closed goes to the end."""
    found = _QUOTED.match(text, at)
    if found is None or not re.match(follows, text[found.end() : found.end() + 1]):
        return None
    return _Word(found[1].replace('\\"', '"'), at, found.end(), quoted=True)


def _bare(text: str, at: int, pattern: re.Pattern[str]) -> _Word:
    found = pattern.match(text, at)
    return _Word("" if found is None else found[0], at, at if found is None else found.end(), quoted=False)


def _condition(text: str, found: re.Match[str]) -> tuple[Condition, int]:
    """Read the values of a condition whose field and operator were found; return it and where it ends."""
    minus, name, sign = found.groups()
    negated = bool(minus) != (sign == "!=")
    op = Op.IS if sign == "!=" else Op(sign.lstrip(":") or ":")
    field, op = _field_of(name.lower(), op, found)
    values: list[Value] = []
    at = found.end()
    for word in _values(text, at):
        at = word.end
        values.append(_value(field, op, word, found))
    if len(values) > 1 and op not in (Op.HAS, Op.IS):
        raise _wrong(found, text[found.start() : at], f"{op.value} takes one value.", "one value")
    if len(values) > _MOST:
        raise _wrong(found, name, f"{_MOST} values are the most.", f"{_MOST}")
    return Condition(field.name, op, tuple(dict.fromkeys(values)), negated), at


def _field_of(name: str, op: Op, found: re.Match[str]) -> tuple[Field, Op]:
    """Return the field and the operator that are meant. Raises FilterError for what does not exist."""
    if name in SUGAR:
        if op not in (Op.HAS, Op.IS) or found[3] == "!=":
            raise _wrong(found, found[0], f"{name} takes a colon, as in {name}:2h.", (":",))
        return FIELDS["started"], SUGAR[name]
    if name not in FIELDS:
        raise _wrong(
            found,
            found[2],
            f"There is no field {found[2]!r}. To find this text itself, put it in quotes.",
            (*FIELDS, *SUGAR),
        )
    field = FIELDS[name]
    compared = op not in (Op.HAS, Op.IS)
    if compared and field.kind in (Kind.CHOICE, Kind.TEXT, Kind.TEXTS):
        raise _wrong(found, found[0], f"{name} is text: it has no order.", (":", "=", "!="))
    if op is Op.HAS and field.kind not in (Kind.TEXT, Kind.TEXTS):
        op = Op.IS
    return field, op


def _values(text: str, at: int) -> Iterator[_Word]:
    """Read values with commas between; the last may be empty, for it is still being typed."""
    while True:
        word = _quoted(text, at, r"[\s,]|$") or _bare(text, at, _BARE_VALUE)
        yield word
        if text[word.end : word.end + 1] != ",":
            return
        at = word.end + 1


def _value(field: Field, op: Op, word: _Word, found: re.Match[str]) -> Value:
    if not word.text:
        example = _EXAMPLES[field.kind] if not field.choices else field.choices[0]
        raise FilterError(
            f"{found[2]} needs a value, as in {found[0]}{example}.", found.start(), found[0], _allowed(field)
        )
    if word.text.lower() == UNKNOWN and not word.quoted and field.nullable and op in (Op.HAS, Op.IS):
        return None
    value = _READ[field.kind](field, word.text)
    if value is None:
        raise FilterError(
            f"{word.text!r} is no value of {found[2]}; {_said(field)} would do.",
            word.at,
            word.text,
            _allowed(field),
        )
    if isinstance(value, Ago) and op is Op.IS:
        raise FilterError(
            f"Nothing happened exactly {word.text} ago; write {found[2]}>{word.text} for what came later.",
            word.at,
            word.text,
            (f"{found[2]}>{word.text}", f"{found[2]}<{word.text}"),
        )
    return value


def _wrong(found: re.Match[str], word: str, detail: str, allowed: tuple[str, ...] | str) -> FilterError:
    at = found.start(2) if word == found[2] else found.start()
    return FilterError(detail, at, word, allowed)


def _allowed(field: Field) -> tuple[str, ...] | str:
    if field.choices:
        return (*field.choices, UNKNOWN) if field.nullable else field.choices
    return _MEANINGS[field.kind]


def _said(field: Field) -> str:
    allowed = _allowed(field)
    return allowed if isinstance(allowed, str) else ", ".join(allowed)


# --- values ------------------------------------------------------------------------------------------

_SCALES: Final = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_UNITS: Final = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
    "d": 86_400 * 10**9, "w": 7 * 86_400 * 10**9,
}  # fmt: skip
_NUMBER: Final = re.compile(r"(\$?)([0-9]{1,15}(?:\.[0-9]{1,9})?)([kKmMbB]?)")
_LENGTH: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h|d|w)")
_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})(?:-([0-9]{2})(?:[Tt]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?)?)?"
)
_UNIX: Final = re.compile(r"[0-9]{18,19}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DECEMBER: Final = 12
_EXAMPLES: Final = {
    Kind.CHOICE: "",
    Kind.TEXT: "plan",
    Kind.TEXTS: "plan",
    Kind.NUMBER: "10",
    Kind.DURATION: "90s",
    Kind.TIME: "2026-11-20",
}
_MEANINGS: Final = {
    Kind.CHOICE: "",
    Kind.TEXT: "a text",
    Kind.TEXTS: "a text",
    Kind.NUMBER: "a number such as 10, 0.5, 20k or 1.5m",
    Kind.DURATION: "a duration such as 90s, 1h30m or 250ms",
    Kind.TIME: "a time such as 2026-11-20, 2026-11-20T18:30Z, 2026-11-20T18:30+02:00, or 2h for 2 hours ago",
}


def _choice(field: Field, text: str) -> str | None:
    return text.lower() if text.lower() in field.choices else None


def _text(_field: Field, text: str) -> str:
    return text.casefold()


def _number(field: Field, text: str) -> float | None:
    found = _NUMBER.fullmatch(text)
    if found is None or (found[1] and field.name != "cost"):
        return None
    number = Decimal(found[2]) * _SCALES[found[3].lower()]
    return int(number) if number == number.to_integral_value() and number < _LARGEST else float(number)


def _duration(_field: Field, text: str) -> int | None:
    total, at = Decimal(0), 0
    while (found := _LENGTH.match(text, at)) is not None:
        total += Decimal(found[1]) * _UNITS[found[2]]
        at = found.end()
    return min(int(total), _LARGEST) if at and at == len(text) else None


def _time(field: Field, text: str) -> Ago | Moment | None:
    ago = _duration(field, text)
    if ago is not None:
        return Ago(ago)
    if _UNIX.fullmatch(text) and int(text) < _LAST_TIME:
        return Moment(int(text), int(text) + 1)
    found = _TIME.fullmatch(text)
    try:
        return None if found is None else _moment(found)
    except (ValueError, OverflowError):  # a 30th of February, a 25th hour
        return None


def _moment(found: re.Match[str]) -> Moment:
    """Return the month, day, minute, second or instant that is written."""
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    time = (int(hour or 0), int(minute or 0), int(second or 0))
    first = datetime(int(year), int(month), int(day or 1), *time, tzinfo=_zone(offset))
    if fraction is not None:
        at = min(_ns(first) + int(fraction.ljust(9, "0")), _LAST_TIME - 1)
        return Moment(at, at + 1)
    if day is None:
        after = datetime(
            first.year + first.month // _DECEMBER, first.month % _DECEMBER + 1, 1, tzinfo=timezone.utc
        )
        return Moment(_ns(first), _ns(after))
    unit = (
        timedelta(days=1)
        if hour is None
        else timedelta(minutes=1)
        if second is None
        else timedelta(seconds=1)
    )
    return Moment(_ns(first), _ns(first + unit))


def _zone(offset: str | None) -> timezone:
    if offset is None or offset in "Zz":
        return timezone.utc
    hours, minutes = int(offset[1:3]), int(offset[4:6])
    return timezone((1 if offset[0] == "+" else -1) * timedelta(hours=hours, minutes=minutes))


def _ns(at: datetime) -> int:
    since = at - _EPOCH
    ns = (since.days * 86_400 + since.seconds) * 10**9
    return max(-_LAST_TIME, min(ns, _LAST_TIME))


_READ: Final[dict[Kind, Callable[[Field, str], Value]]] = {
    Kind.CHOICE: _choice,
    Kind.TEXT: _text,
    Kind.TEXTS: _text,
    Kind.NUMBER: _number,
    Kind.DURATION: _duration,
    Kind.TIME: _time,
}
