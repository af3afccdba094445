"""Why spans of a session are missing: what the senders say, and what nobody can say."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable

from otel_sessions import losses
from otel_sessions.backend.records import SessionRecord
from otel_sessions.lifecycle import State

__all__ = ["losses_by_reason", "read_losses"]


def read_losses(conn: sqlite3.Connection, no: int, record: SessionRecord) -> dict[str, int]:
    """Return why spans of one session are missing, by reason."""
    gauges = conn.execute("SELECT dropped, losses FROM gauges WHERE session = ?", (no,)).fetchall()
    return losses_by_reason(record.missing_spans or 0, gauges, lost=record.state == State.LOST.value)


def losses_by_reason(missing: int, gauges: Iterable[tuple[int, str]], *, lost: bool) -> dict[str, int]:
    """Share out what is missing: `gauges` are what each process dropped, and why.

    What the senders dropped has their reasons, as far as it did not arrive after all; the rest was sent and
    is not stored, or was never sent by a process that died. Without any counts the missing are parents that
    others name.
    """
    told = list(gauges)
    if not told:
        return {"missing_parents": missing} if missing else {}
    found: Counter[str] = Counter()
    for dropped, text in told:
        reasons = losses.heard(text)
        found.update(reasons)
        found["dropped"] += max(0, dropped - sum(reasons.values()))
    shared: dict[str, int] = {}
    for reason, number in sorted(found.items()):
        shared[reason.replace(" ", "_")] = min(number, missing)
        missing -= min(number, missing)
    shared["process_died" if lost else "not_received"] = missing
    return {reason: number for reason, number in shared.items() if number}
