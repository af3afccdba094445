"""How many values a body holds, told before it is read: two bytes can become a hundred in memory; pure.

An empty message of protobuf takes two bytes on the wire and 50 to 170 in memory, `{}` in JSON three and 70
to 190. So 64 MiB of nothing, 64 KiB when compressed, would take 5 GiB. Counting bytes costs about 2 ns each.
"""

from __future__ import annotations

from typing import Final

from otel_sessions.backend.records import Encoding

__all__ = ["MAX_VALUES", "is_too_dense"]

MAX_VALUES: Final = {Encoding.PROTOBUF: 2**22, Encoding.JSON: 2**21}
"""Small values in one request: 64 MiB of protobuf with one in every 16 bytes have as many, or 45 MiB of JSON
that is nothing but short attributes. Objects of JSON weigh more, take 10 µs each to read, and all else stands
still while Python parses their text."""

_TINY: Final = 12  # bytes of a field from which on it weighs in memory about what it weighs on the wire
_MIB: Final = 2**20

_CLASSES: Final = bytes(
    ord("t") if 8 <= byte < 128 and byte & 7 == 2  # noqa: PLR2004 - wire type 2: a length follows
    else ord("0") if byte == 0
    else ord("l") if byte < _TINY
    else ord("h") if byte >= 128  # noqa: PLR2004 - more of a number follows
    else ord(".")
    for byte in range(256)
)  # fmt: skip


def is_too_dense(encoding: Encoding, body: bytes) -> bool:
    """Tell whether a body holds more values than an honest one, as near as it can be told from its bytes."""
    most = MAX_VALUES[encoding]
    if len(body) < 2 * most:
        return False  # each takes two bytes at least
    if encoding is Encoding.JSON:
        return body.count(b"{") + body.count(b"[") > most or body.count(b",") > 2 * most
    return _tiny_fields(body) > most


def _tiny_fields(body: bytes) -> int:
    """Count fields with a length of few bytes, those whose length is written in more bytes than it needs too.

    Texts have such pairs of bytes only by chance. Slice by slice, for counting holds the interpreter's lock.
    """
    count = 0
    for at in range(0, len(body), _MIB):
        classes = body[at : at + _MIB + 1].translate(_CLASSES)
        count += classes.count(b"t0") + classes.count(b"tl") + classes.count(b"h0")
    return count
