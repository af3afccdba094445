"""Why spans are missing: the one table of reasons, for both sides of the wire. Imports nothing of ours.

A sender counts what it had to give up by these words, tells them with its other counts, and a backend
compares with what it stored. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["OTHER", "REASONS", "heard", "merged", "told"]

REASONS: Final[Mapping[str, str]] = {
    "queue full": "more spans ended at once than OTEL_BSP_MAX_QUEUE_SIZE lets wait",
    "spool full": "what waited on disk had reached its limit: the oldest went",
    "no room": "what waited in memory, without a spool, had reached its limit: the oldest went",
    "too old": "it waited on disk for longer than a spool keeps it",
    "gone from the spool": "somebody removed it from the disk",
    "rejected": "the receiver refused it, or its request for good",
    "unsendable": "it could not be encoded",
    "export failed": "an exporter of others said so",
    "no way out": "there was no exporter to give it to",
    "not sent in time": "the program ended before it was delivered, and nothing keeps it",
    "shut down": "it ended after shutdown()",
}
"""Reason -> what happened."""

OTHER: Final = "other"
"""What a sender of another version calls by a word that we don't know."""

_MOST: Final = 2**53
"""Spans; beyond, a reader of JSON counts wrong."""


def told(losses: Mapping[str, int]) -> str:
    """Write losses down for the wire: `queue full=3,rejected=1`; "" for none."""
    return ",".join(f"{reason}={number}" for reason, number in sorted(losses.items()) if number > 0)


def heard(text: str) -> dict[str, int]:
    """Read what `told` wrote; what makes no sense is left out, an unknown reason is OTHER."""
    losses: dict[str, int] = {}
    for part in text.split(",") if text else ():
        reason, _, number = part.partition("=")
        if number.isascii() and number.isdigit() and len(number) <= len(str(_MOST)):
            known = reason if reason in REASONS else OTHER
            losses[known] = min(_MOST, losses.get(known, 0) + int(number))
    return {reason: number for reason, number in losses.items() if number}


def merged(one: str, other: str) -> str:
    """Return the later of two tellings of one process, each as `told`: counts only grow."""
    if not one or not other or one == other:
        return one or other
    first, second = heard(one), heard(other)
    return told({reason: max(first.get(reason, 0), second.get(reason, 0)) for reason in first | second})
