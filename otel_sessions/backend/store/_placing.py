"""Index rows of spans and logs: each is placed once, the better of two copies in the place of the other."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from otel_sessions.backend.records import Flag, LogRecord, SpanRecord
from otel_sessions.backend.store._names import NameWriter
from otel_sessions.backend.store._rows import (
    LOG_COLUMNS,
    PUBLIC_FLAGS,
    SPAN_COLUMNS,
    chunk_of,
    log_row,
    nano,
    span_record,
    span_row,
)
from otel_sessions.backend.store._sessions import Sessions
from otel_sessions.backend.store._tally import hides

__all__ = ["LogArrival", "Placing", "SpanArrival"]

SpanArrival = tuple[int, SpanRecord, int]
"""A row id, what goes there, and the number of its session."""
LogArrival = tuple[int, LogRecord, "int | None"]

_INSERT_SPAN: Final = f"INSERT OR IGNORE INTO spans ({SPAN_COLUMNS}) VALUES ({','.join('?' * 33)})"
_INSERT_LOG: Final = f"INSERT OR IGNORE INTO logs ({LOG_COLUMNS}) VALUES ({','.join('?' * 19)})"
_COPY: Final = f"SELECT {SPAN_COLUMNS} FROM spans WHERE trace_id = ? AND span_id = ?"


class Placing:
    """What one transaction places, and what that takes from where."""

    def __init__(
        self, conn: sqlite3.Connection, names: NameWriter, sessions: Sessions, revision: int
    ) -> None:
        self._conn = conn
        self._names = names
        self._sessions = sessions
        self._revision = revision
        self.spans: defaultdict[int, list[SpanRecord]] = defaultdict(list)  # by session
        self.logs: defaultdict[int, list[LogRecord]] = defaultdict(list)
        self.in_chunk: Counter[int] = Counter()  # chunk -> how many rows more, or fewer, point there
        self.doubted: set[bytes] = set()  # traces of which a copy was refused or replaced
        self.replaced: list[tuple[bytes, bytes, bytes]] = []  # keys and parents of copies that made room
        self.left: set[int] = set()  # sessions whose span got a better copy that belongs to another
        self.spans_more = 0
        self.ended_more = 0  # of these, and of those that were only announced before, how many have ended
        self.logs_more = 0

    def place_spans(self, arrivals: Sequence[SpanArrival]) -> None:
        """Insert the rows of new spans; of two copies of one span keep the better."""
        inserted = self._insert(_INSERT_SPAN, self._rows(arrivals))
        self.spans_more += inserted
        if inserted < len(arrivals):
            arrivals = self._settle_copies(arrivals)
        for row_id, span, session in arrivals:
            self.ended_more += span.end is not None
            self.spans[session].append(span)
            self.in_chunk[chunk_of(row_id)] += 1

    def place_logs(self, arrivals: Sequence[LogArrival]) -> None:
        """Insert the rows of new logs; the same log again is left out."""
        numbers = self._names.numbers
        inserted = self._insert(
            _INSERT_LOG, (log_row(log, row_id, session, numbers) for row_id, log, session in arrivals)
        )
        self.logs_more += inserted
        if inserted < len(arrivals):
            stored = self._stored_since("logs", arrivals[0][0])
            arrivals = [arrival for arrival in arrivals if arrival[0] in stored]
        for row_id, log, session in arrivals:
            self.in_chunk[chunk_of(row_id)] += 1
            if session is not None:
                self.logs[session].append(log)

    def _insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> int:
        rows = list(rows)  # making them may add names, which are changes too
        before = self._conn.total_changes
        self._conn.executemany(statement, rows)
        return self._conn.total_changes - before

    def _rows(self, arrivals: Sequence[SpanArrival]) -> list[tuple[Any, ...]]:
        numbers, revision = self._names.numbers, self._revision
        return [span_row(span, row_id, session, revision, numbers) for row_id, span, session in arrivals]

    def _stored_since(self, table: str, first: int) -> set[int]:
        rows = self._conn.execute(f"SELECT id FROM {table} WHERE id >= ?", (first,))
        return {row_id for (row_id,) in rows}

    def _settle_copies(self, arrivals: Sequence[SpanArrival]) -> list[SpanArrival]:
        """Compare the copies that were refused with what is stored; return what was placed in the end."""
        stored = self._stored_since("spans", arrivals[0][0])
        placed = {arrival[0]: arrival for arrival in arrivals if arrival[0] in stored}
        for arrival in arrivals:
            if arrival[0] not in stored:
                self._settle_copy(arrival, placed)
        return list(placed.values())

    def _settle_copy(self, arrival: SpanArrival, placed: dict[int, SpanArrival]) -> None:
        row_id, span, session = arrival
        self.doubted.add(span.trace_id)
        row = self._conn.execute(_COPY, (span.trace_id, span.span_id)).fetchone()
        copy, copy_session = span_record(row, self._names.word), row[1]
        if _rank(span, session) <= _rank(copy, copy_session):
            return
        self._conn.execute("DELETE FROM spans WHERE id = ?", (row[0],))
        self._insert(_INSERT_SPAN, self._rows([arrival]))
        placed[row_id] = arrival
        if placed.pop(row[0], None) is None:
            self._take_back(copy, row[0], copy_session, span, session)

    def _take_back(self, copy: SpanRecord, row_id: int, before: int, span: SpanRecord, session: int) -> None:
        """Take back what a copy added that was stored by an earlier transaction."""
        self.ended_more -= copy.end is not None
        self.in_chunk[chunk_of(row_id)] -= 1
        self.replaced.append((copy.trace_id, copy.span_id, copy.parent_id))
        if before == session and hides(copy, span):
            known = self._sessions.by_no(session)
            if known is not None:
                known.tally.take_back(copy)
        else:
            self._sessions.count_anew(before)
        if before != session:
            self.left.add(before)


def _rank(span: SpanRecord, session: int) -> tuple[Any, ...]:
    """Rank two copies of one span: the greater is kept, whatever came first."""
    real = not span.flags & Flag.SYNTHETIC
    return (real, span.end is not None, span.end or 0, span.size, _content(span), session)


def _content(span: SpanRecord) -> str:
    """Tell two copies apart that are of equal rank, by what their index rows say."""
    flags = int(span.flags) & PUBLIC_FLAGS
    return repr(span._replace(ordinal=0, hint=None, flags=flags, cost=nano(span.cost)))
