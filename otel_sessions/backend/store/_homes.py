"""Where spans and logs live: in the session they tell, else in that of their trace, else in the trace's own.

What a service sends under another key is the session that it also sends as `session.id`, seen on anything
of it, ever. Whatever arrives late moves what came before, so any order of arrival ends the same.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from otel_sessions.backend.records import LogRecord, SessionHint, SpanRecord
from otel_sessions.backend.resolve import HomeRank, global_key, home_rank, scoped_twin, session_key, trace_key
from otel_sessions.backend.store._moves import Moves
from otel_sessions.backend.store._rows import OWN
from otel_sessions.backend.store._sessions import Sessions
from otel_sessions.backend.store._summary import SessionState

__all__ = ["Arrived", "Homes", "parts"]

Record = SpanRecord | LogRecord
Arrived = tuple[Record, int]
"""A record, and when it came."""

_REMEMBERED: Final = 50_000
_ASKED_AT_ONCE: Final = 500

T = TypeVar("T")


@dataclass(slots=True)
class _Loose:
    """A trace with members that do not tell their session."""

    session: int | None = None  # where they live; None until decided
    rank: HomeRank | None = None  # of the member that decides
    hint: SessionHint | None = None  # of that member, where it came just now
    seen: int = 0  # latest arrival of a member that does not tell
    changed: bool = False


class Homes:
    """Decides about sessions; `Moves` carries the rows."""

    def __init__(self, conn: sqlite3.Connection, sessions: Sessions, moves: Moves) -> None:
        self._conn = conn
        self._sessions = sessions
        self._moves = moves
        self._keys: dict[tuple[str, str], str] = {}
        self._told: set[tuple[str, str]] = set()
        self._any_loose = True

    def forget(self) -> None:
        """Forget all that is remembered, after a transaction was rolled back."""
        self._keys.clear()
        self._told.clear()
        self._any_loose = True

    # --- what a hint means -----------------------------------------------------------------------------

    def learn(self, hints: Iterable[SessionHint | None]) -> None:
        """Note which values services send as `session.id`; sessions that turn out to be one are merged."""
        told = self._told
        for hint in hints:
            if hint is not None and not hint.scope and (hint.service, hint.value) not in told:
                self._learn(hint)

    def _learn(self, hint: SessionHint) -> None:
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        self._told.add((hint.service, hint.value))
        twin = scoped_twin(hint)
        if twin is None:
            return
        self._conn.execute("INSERT OR IGNORE INTO global_ids VALUES (?, ?)", (hint.service, hint.value))
        self._keys.pop((hint.service, hint.value), None)
        session = self._sessions.known(twin)
        if session is not None:
            self._moves.merge(session, self._sessions.by_key(session_key(hint), hint.value))

    def session_of(self, hint: SessionHint) -> SessionState:
        """Return the session that a hint tells."""
        pair = (hint.scope, hint.value)
        key = self._keys.get(pair)
        if key is None:
            if len(self._keys) >= _REMEMBERED:
                self._keys.clear()
            key = self._keys[pair] = self._key_of(hint)
        return self._sessions.by_key(key, hint.value)

    def _key_of(self, hint: SessionHint) -> str:
        is_global = (
            hint.scope
            and self._conn.execute(
                "SELECT 1 FROM global_ids WHERE service = ? AND value = ?", (hint.scope, hint.value)
            ).fetchone()
        )
        return global_key(hint.value) if is_global else session_key(hint)

    # --- the homes of traces -----------------------------------------------------------------------------

    def settle(self, arrived: Sequence[Arrived]) -> Mapping[bytes, int]:
        """Decide where the members live that do not tell: trace id -> number of the session.

        Members stored earlier move along where a better rank arrived.
        """
        traces = {record.trace_id for record, _ in arrived if record.trace_id}
        silent = {record.trace_id for record, _ in arrived if record.hint is None and record.trace_id}
        if not silent and not self._has_loose():
            return {}
        self._any_loose = True
        loose = dict(self._stored(traces))
        for trace_id in silent - loose.keys():
            loose[trace_id] = self._from_rows(trace_id)
        if loose:
            _weigh(loose, arrived)
        return {trace_id: self._decide(trace_id, one) for trace_id, one in loose.items()}

    def review(self, traces: Collection[bytes]) -> None:
        """Decide once more about traces of which a copy was refused or replaced, from what is stored."""
        for trace_id, one in dict(self._stored(traces)).items():
            fresh = self._from_rows(trace_id)
            if fresh.rank != one.rank or (fresh.session or one.session) != one.session:
                fresh.seen, fresh.changed = one.seen, True
                self._moves.carry(trace_id, one.session, self._place(trace_id, fresh), one.seen)
                self._keep(trace_id, fresh)

    def _decide(self, trace_id: bytes, one: _Loose) -> int:
        if not one.changed and one.session is not None:
            return one.session
        before = one.session
        session = self._place(trace_id, one)
        if before is not None and before != session.no:
            self._moves.carry(trace_id, before, session, one.seen)
        session.loose_seen = max(session.loose_seen, one.seen)
        self._keep(trace_id, one)
        return session.no

    def _place(self, trace_id: bytes, one: _Loose) -> SessionState:
        """Find the session that a trace's members live in now."""
        if one.hint is not None:
            session: SessionState | None = self.session_of(one.hint)
        else:
            session = None if one.session is None else self._sessions.by_no(one.session)
        if session is None:
            session = self._sessions.by_key(trace_key(trace_id), None)
        one.session = session.no
        return session

    def _keep(self, trace_id: bytes, one: _Loose) -> None:
        rank = None if one.rank is None else json.dumps([one.rank.kind, one.rank.time, one.rank.id.hex()])
        self._conn.execute(
            "INSERT OR REPLACE INTO loose_traces VALUES (?, ?, ?, ?)", (trace_id, one.session, rank, one.seen)
        )

    def _has_loose(self) -> bool:
        if self._any_loose:
            self._any_loose = self._conn.execute("SELECT 1 FROM loose_traces LIMIT 1").fetchone() is not None
        return self._any_loose

    def _stored(self, traces: Collection[bytes]) -> Iterator[tuple[bytes, _Loose]]:
        for part in parts(traces, _ASKED_AT_ONCE):
            rows = self._conn.execute(
                "SELECT trace_id, session, decider, seen FROM loose_traces"
                f" WHERE trace_id IN ({','.join('?' * len(part))})",
                part,
            )
            for trace_id, session, decider, seen in rows:
                yield trace_id, _Loose(session, None if decider is None else _rank(decider), seen=seen)

    def _from_rows(self, trace_id: bytes) -> _Loose:
        """Find who decides about a trace among what is stored."""
        row = (
            self._conn.execute(
                "SELECT session, parent_id <> x'' AS child, start, span_id FROM spans"
                " WHERE trace_id = ? AND flags & ? ORDER BY child, start, span_id LIMIT 1",
                (trace_id, OWN),
            ).fetchone()
            or self._conn.execute(
                "SELECT session, 2, time, digest FROM logs WHERE trace_id = ? AND trace_id <> x''"
                " AND flags & ? ORDER BY time, digest LIMIT 1",  # the partial index asks to be named
                (trace_id, OWN),
            ).fetchone()
        )
        return _Loose(changed=True) if row is None else _Loose(row[0], HomeRank(*row[1:]), changed=True)


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut into lists of at most `size`, as many as one statement takes."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _weigh(loose: Mapping[bytes, _Loose], arrived: Sequence[Arrived]) -> None:
    """Let what arrived just now compete for the homes of its traces."""
    for record, received_at in arrived:
        one = loose.get(record.trace_id)
        if one is None:
            continue
        if record.hint is None:
            if received_at > one.seen:
                one.seen, one.changed = received_at, True
            continue
        rank = home_rank(record)
        if one.rank is None or rank < one.rank:
            one.rank, one.hint, one.changed = rank, record.hint, True


def _rank(text: str) -> HomeRank:
    kind, time, hex_id = json.loads(text)
    return HomeRank(kind, time, bytes.fromhex(hex_id))
