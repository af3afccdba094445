"""How long sessions are kept: what the user asked for, read from text; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["KEEP_ALL", "Retention", "parse_retention"]

_AGES: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_SIZES: Final = {
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)([a-z]+)")
_NS: Final = 1_000_000_000
_MOST: Final = 2**62  # what arithmetic with Unix ns and a column of SQLite can hold
_WRONG: Final = (
    "write an age (in s, m, h, d or w), a size (in MB, GB, TB, MiB, GiB or TiB) or both, as in "
    "30d, 10GB or 30d,10GB; or none to keep everything"
)


@dataclass(frozen=True, slots=True)
class Retention:
    """Bounds beyond which sessions are removed, the longest unseen first; None for no bound."""

    age: int | None = None  # ns since a session was last seen
    size: int | None = None  # bytes of the database file


KEEP_ALL: Final = Retention()


def parse_retention(text: str) -> Retention:
    """Read `30d`, `10GB`, `30d,10GB` or `none`.

    Ages in s, m, h, d, w; sizes in MB, GB, TB (powers of 1,000) or MiB, GiB, TiB. Raises ValueError with
    what to write instead.
    """
    if text.strip().lower() in {"", "none"}:
        return KEEP_ALL
    age: int | None = None
    size: int | None = None
    for part in text.lower().split(","):
        match = _PART.fullmatch(part.strip().replace(" ", ""))
        unit = match[2] if match else ""
        if match and unit in _AGES and age is None:
            age = _bounded(float(match[1]) * _AGES[unit] * _NS)
        elif match and unit in _SIZES and size is None:
            size = _bounded(float(match[1]) * _SIZES[unit])
        else:
            raise ValueError(_WRONG)
    return Retention(age, size)


def _bounded(value: float) -> int:
    if not 1 <= value <= _MOST:
        raise ValueError(_WRONG)
    return round(value)
