"""The write path: one batch of requests, one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence

from otel_sessions.backend.records import (
    Changes,
    Gauge,
    LogRecord,
    Request,
    RunRecord,
    SpanRecord,
    SpanRow,
    TimelineEntry,
)
from otel_sessions.backend.resolve import told_id
from otel_sessions.backend.retention import KEEP_ALL, Retention
from otel_sessions.backend.store._chunks import Compressor, chunk_row, lessen
from otel_sessions.backend.store._connection import execute, transaction
from otel_sessions.backend.store._homes import Homes
from otel_sessions.backend.store._moves import Moves
from otel_sessions.backend.store._names import NameWriter
from otel_sessions.backend.store._placing import Placing
from otel_sessions.backend.store._relations import note_model_calls, note_parents
from otel_sessions.backend.store._removal import Removal, Remover
from otel_sessions.backend.store._rows import SPAN_COLUMNS, bounded, public_row, row_id, span_record
from otel_sessions.backend.store._runs import GAUGE_COLUMNS, RUN_COLUMNS, run_row
from otel_sessions.backend.store._sessions import Sessions
from otel_sessions.backend.store._summary import SessionState
from otel_sessions.backend.store._unused import Unused
from otel_sessions.backend.store._upkeep import due, give_back
from otel_sessions.backend.store.base import Pruned

__all__ = ["Writer"]

_INSERT_CHUNK = "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_BODY = "INSERT INTO bodies VALUES (?, ?)"
_SAVE_RUN = f"INSERT OR REPLACE INTO runs (session, {RUN_COLUMNS}) VALUES ({','.join('?' * 24)})"
_SAVE_ENTRY = "INSERT OR IGNORE INTO timeline VALUES (?, ?, ?, ?, ?)"
_SAVE_GAUGE = (
    f"INSERT INTO gauges (session, {GAUGE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (session, process) DO UPDATE SET (seq, started, ended, dropped, losses) ="
    " (excluded.seq, excluded.started, excluded.ended, excluded.dropped, excluded.losses)"
)
_SAVE_BASE = (
    "INSERT INTO process_bases VALUES (?, ?)"
    " ON CONFLICT (process) DO UPDATE SET base = min(base, excluded.base)"
)


class Writer:
    """The one writer of a database; what it remembers is forgotten whenever a transaction fails."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._names = NameWriter(conn)
        self._sessions = Sessions(conn, self._names)
        self._moves = Moves(conn, self._names, self._sessions)
        self._homes = Homes(conn, self._sessions, self._moves)
        self._remover = Remover(conn, names=self._names, sessions=self._sessions)
        self._unused = Unused(conn, self._names)
        self._compressor = Compressor()

    def append(
        self,
        requests: Sequence[Request],
        runs: Sequence[RunRecord],
        timeline: Sequence[TimelineEntry],
        gauges: Sequence[Gauge],
        bases: Mapping[str, int],
    ) -> Changes:
        """Store a batch, all or nothing."""
        kept = [request for request in requests if request.keep and (request.spans or request.logs)]
        bodies = [self._compressor.compress(request.body) for request in kept]
        try:
            with transaction(self._conn):
                revision, first_chunk = self._begin()
                if self._remover.pending:
                    self._count_off(self._remover.clear_way(kept))
                placing = self._place(kept, first_chunk, revision)
                self._homes.review(placing.doubted)
                self._note(placing, row_id(first_chunk, 0))
                self._save_lives(runs, timeline, gauges, bases)
                self._save_chunks(kept, bodies, first_chunk, placing)
                rows = self._rows(placing, revision)
                left = self._moves.left | placing.left
                saved = self._sessions.save(revision, rows)
                shrunk = self._sessions.remaining(left)
            return Changes(
                saved.changed, rows, saved.gone, shrunk, saved.sums, placing.ended_more, placing.logs_more
            )
        except BaseException:
            self._forget()
            raise

    def _begin(self) -> tuple[int, int]:
        revision, next_chunk = self._conn.execute("SELECT revision + 1, next_chunk FROM meta").fetchone()
        self._moves.begin(revision)
        return revision, next_chunk

    def _forget(self) -> None:
        for part in (self._names, self._sessions, self._homes, self._remover, self._unused):
            part.forget()

    # --- sessions that are removed -----------------------------------------------------------------------

    def prune(self, retention: Retention, now: int, idle_before: int) -> Pruned:
        """Remove what is beyond a retention, or give free pages back, in one small transaction."""
        next_up = due(self._conn, retention, now, idle_before)
        nobodys = self._remover.nobodys(next_up.nobodys_before)
        if not (next_up.sessions or nobodys or self._remover.pending):
            return Pruned(more=(retention != KEEP_ALL and self._tidy()) or give_back(self._conn))
        try:
            with transaction(self._conn):
                revision, _ = self._begin()
                removal = self._remover.remove(next_up.sessions)
                self._remover.remove_nobodys(nobodys, removal)
                saved = self._sessions.save(revision, ())
                self._count_off(removal)
                self._conn.execute("UPDATE meta SET revision = revision + 1")
        except BaseException:
            self._forget()
            raise
        self._unused.note_removed(removal.spans + removal.logs)
        # What a session added to the sums over all stays there: it happened.
        changes = Changes(saved.changed, gone=tuple(removal.ids))
        return Pruned(changes, frozenset(removal.keys), removal.spans, removal.logs, more=True)

    def _tidy(self) -> bool:
        """Delete some words and ids that nobody uses any more; return whether there may be others."""
        try:
            with transaction(self._conn):
                deleted = self._unused.step()
                if deleted:
                    self._homes.forget()  # it knows ids that are gone
        except BaseException:
            self._forget()
            raise
        return deleted is not None

    def _count_off(self, removal: Removal) -> None:
        self._conn.execute(
            "UPDATE meta SET spans = spans - ?, logs = logs - ?, chunks = chunks - ?",
            (removal.spans, removal.logs, removal.chunks),
        )

    # --- spans and logs --------------------------------------------------------------------------------

    def _place(self, requests: Sequence[Request], first_chunk: int, revision: int) -> Placing:
        spans: list[tuple[int, SpanRecord, int]] = []
        logs: list[tuple[int, LogRecord, int]] = []
        for chunk, request in enumerate(requests, first_chunk):
            at, first = request.received_at, row_id(chunk, 0)
            spans += [(first + span.ordinal, bounded(span), at) for span in request.spans]
            logs += [(first + log.ordinal, bounded(log), at) for log in request.logs]
        arrived: list[tuple[SpanRecord | LogRecord, int]] = [
            (record, at) for _, record, at in (*spans, *logs)
        ]
        self._homes.learn(record.hint for record, _ in arrived)
        loose = self._homes.settle(arrived)
        placing = Placing(self._conn, self._names, self._sessions, revision)
        if spans:
            placing.place_spans([(row, span, self._home(span, at, loose)) for row, span, at in spans])
        if logs:
            placing.place_logs([(row, log, self._log_home(log, at, loose)) for row, log, at in logs])
        return placing

    def _home(self, record: SpanRecord | LogRecord, at: int, loose: Mapping[bytes, int]) -> int:
        if record.hint is None:
            return loose[record.trace_id]
        session = self._homes.session_of(record.hint)
        session.own_seen = max(session.own_seen, at)
        return session.no

    def _log_home(self, log: LogRecord, at: int, loose: Mapping[bytes, int]) -> int | None:
        return self._home(log, at, loose) if log.hint is not None or log.trace_id else None

    def _note(self, placing: Placing, first: int) -> None:
        """Bring the roll-ups in step with what was placed and moved."""
        moves = self._moves
        for no in {**moves.spans, **moves.logs, **placing.spans, **placing.logs}:
            session = self._sessions.by_no(no)
            if session is not None:
                spans = [*moves.spans.get(no, ()), *placing.spans.get(no, ())]
                self._sessions.note_members(
                    session, spans, [*moves.logs.get(no, ()), *placing.logs.get(no, ())]
                )
        if placing.spans or moves.traces:
            note_parents(self._conn, self._sessions, first, moves.traces)
            note_model_calls(self._conn, self._names, self._sessions, first, placing.replaced)

    def _rows(self, placing: Placing, revision: int) -> ChangedRows:
        """Return the changed rows by session id; a session that rows moved from or to is asked for them."""
        rows: dict[str, Sequence[SpanRecord]] = {}
        rewritten = self._sessions.counted_anew()
        for no in {**self._moves.spans, **placing.spans, **dict.fromkeys(rewritten)}:
            session = self._sessions.by_no(no)
            if session is None:
                continue
            if no in rewritten or no in self._moves.spans:
                spans = self._spans_since(no, revision)
            else:
                spans = placing.spans[no]
            if spans:
                rows[session.id] = spans
        return ChangedRows(rows, revision)

    def _spans_since(self, no: int, revision: int) -> list[SpanRecord]:
        rows = self._conn.execute(
            f"SELECT {SPAN_COLUMNS} FROM spans WHERE session = ? AND revision = ?",
            (no, revision),
        )
        return [span_record(row, self._names.word) for row in rows]

    # --- runs, gauges, chunks ------------------------------------------------------------------------------

    def _save_lives(
        self,
        runs: Sequence[RunRecord],
        timeline: Sequence[TimelineEntry],
        gauges: Sequence[Gauge],
        bases: Mapping[str, int],
    ) -> None:
        for run in runs:
            session = self._session(run.session_key)
            session.runs[run.root_id, run.process if run.child else ""] = run
            session.own_seen = max(session.own_seen, run.last_heard_at or 0)
            execute(self._conn, _SAVE_RUN, (session.no, *run_row(run)))
        for gauge in gauges:
            session = self._session(gauge.session_key)
            known = session.gauges.get(gauge.process)
            told = gauge if known is None else gauge.joined(known)
            if told != known:
                session.gauges[gauge.process] = told
                values = (told.process, told.seq, told.started, told.ended, told.dropped, told.losses)
                execute(self._conn, _SAVE_GAUGE, (session.no, *values))
        for entry in timeline:
            values = (entry.at, entry.root_id, entry.state, entry.detail or "")
            no = self._session(entry.session_key).no
            execute(self._conn, _SAVE_ENTRY, (no, *values))
        for base in bases.items():
            execute(self._conn, _SAVE_BASE, base)

    def _session(self, key: str) -> SessionState:
        return self._sessions.by_key(key, told_id(key))

    def _save_chunks(
        self, requests: Sequence[Request], bodies: Sequence[bytes], first: int, placing: Placing
    ) -> None:
        """Store the bodies that a row points at; drop the chunks that none points at any more."""
        in_chunk = placing.in_chunk
        new = [
            (number, request, body)
            for number, (request, body) in enumerate(zip(requests, bodies, strict=True), first)
            if in_chunk[number]
        ]
        conn = self._conn
        conn.executemany(
            _INSERT_CHUNK, [chunk_row(number, request, in_chunk[number]) for number, request, _ in new]
        )
        conn.executemany(_INSERT_BODY, [(number, body) for number, _, body in new])
        fewer = [(number, change) for number, change in in_chunk.items() if number < first and change]
        dropped = sum(lessen(conn, number, change) for number, change in fewer)
        conn.execute(
            "UPDATE meta SET revision = revision + 1, next_chunk = ?, spans = spans + ?, logs = logs + ?,"
            " chunks = chunks + ?",
            (first + len(requests), placing.spans_more, placing.logs_more, len(new) - dropped),
        )


class ChangedRows(Mapping[str, "Collection[SpanRow]"]):
    """Changed rows by session id, made when somebody reads them: most have no reader."""

    def __init__(self, spans: Mapping[str, Sequence[SpanRecord]], revision: int) -> None:
        self._spans = spans
        self._revision = revision

    def __getitem__(self, session_id: str) -> Collection[SpanRow]:
        return _PublicRows(self._spans[session_id], self._revision)

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._spans

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)


class _PublicRows(Collection[SpanRow]):
    def __init__(self, spans: Sequence[SpanRecord], revision: int) -> None:
        self._spans = spans
        self._revision = revision

    def __contains__(self, row: object) -> bool:
        return row in tuple(self)

    def __iter__(self) -> Iterator[SpanRow]:
        return (public_row(span, self._revision) for span in self._spans)

    def __len__(self) -> int:
        return len(self._spans)
