"""One encoded request on its way: its bytes, and what must be known of it to account for it.

Before it: `_wire.py` encodes. After it: `_spool.py` keeps it on disk, `_courier.py` sends it. Pure.

As a file: a mark, the length and checksum of what follows, a head of JSON, the request as it is sent. A file
that was cut off (power loss; a death leaves a `.tmp`) or changed is recognised, never sent.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct, error
from typing import Any, Final, cast

__all__ = ["DamagedParcelError", "Parcel", "parcel_from_bytes", "parcel_to_bytes"]

_MARK: Final = b"otel-sessions spool 1\n"
_LENGTHS: Final = Struct("<III")  # of the head, of the body, checksum of both


class DamagedParcelError(ValueError):
    """A file of a spool is not what was written into it."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """An OTLP request with `items` spans or log records in it.

    `sessions` counts them by session id ("" for those without, and for late ones), so that whoever drops it
    can say whose they were. `at` is when it was made, in Unix ns; `boot` and `uptime` (s) tell its age where
    clocks are wrong.
    """

    body: bytes
    items: int
    sessions: Mapping[str, int]
    at: int
    boot: str = ""
    uptime: float = 0.0


def parcel_to_bytes(parcel: Parcel) -> bytes:
    """Write a parcel as the content of a file."""
    head = json.dumps(
        {
            "items": parcel.items,
            "sessions": dict(parcel.sessions),
            "at": parcel.at,
            "boot": parcel.boot,
            "uptime": parcel.uptime,
        }
    ).encode()
    checksum = zlib.crc32(parcel.body, zlib.crc32(head))
    return b"".join((_MARK, _LENGTHS.pack(len(head), len(parcel.body), checksum), head, parcel.body))


def parcel_from_bytes(content: bytes) -> Parcel:
    """Read the content of a file; raise DamagedParcelError for what is none."""
    begin = len(_MARK) + _LENGTHS.size
    try:
        if not content.startswith(_MARK):
            raise DamagedParcelError("it doesn't begin as a parcel does")
        head_size, body_size, checksum = _LENGTHS.unpack_from(content, len(_MARK))
        head, body = content[begin : begin + head_size], content[begin + head_size :]
        if len(head) != head_size or len(body) != body_size:
            raise DamagedParcelError("it is cut off, or longer than it was")
        if zlib.crc32(body, zlib.crc32(head)) != checksum:
            raise DamagedParcelError("its checksum is wrong")
        known = cast("Mapping[str, Any]", json.loads(head))
        return Parcel(
            body,
            int(known["items"]),
            {str(name): int(number) for name, number in known["sessions"].items()},
            int(known["at"]),
            str(known["boot"]),
            float(known["uptime"]),
        )
    except (error, KeyError, TypeError, AttributeError, ValueError) as problem:
        if isinstance(problem, DamagedParcelError):
            raise
        raise DamagedParcelError(f"its head can't be read: {problem}") from problem
