"""Roll-up rows of sessions: between what the writer knows, a row, and the record that readers get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, Final

from otel_sessions.backend.filters import words
from otel_sessions.backend.records import SessionRecord, Sums
from otel_sessions.backend.store._summary import SessionState, used_by_model
from otel_sessions.backend.store._tally import Tally
from otel_sessions.lifecycle import Pace, is_idle

__all__ = [
    "INSERT",
    "RECORD_COLUMNS",
    "STATE_COLUMNS",
    "TALLY",
    "UPDATE",
    "UPDATE_PLACE",
    "UPDATE_TALLY",
    "content",
    "place",
    "rollup_row",
    "session_record",
    "state_of",
    "sums_of",
    "update_row",
]

_RECORD: Final = tuple(SessionRecord.__slots__)
_STATE: Final = ("own_seen", "loose_seen", "paces", "words", "tally", "key", "no")
_ALL: Final = (*_RECORD, *_STATE)
RECORD_COLUMNS: Final = ", ".join(_RECORD)
STATE_COLUMNS: Final = ", ".join(_STATE)
INSERT: Final = f"INSERT INTO sessions ({', '.join(_ALL)}) VALUES ({','.join('?' * len(_ALL))})"

# What has an index is written only when it changes: most commits change none of it.
_PLACE: Final = ("state", "started_at", "no")
_VARIABLE: Final = tuple(name for name in _ALL if name not in (*_PLACE, "id", "session_id", "key"))
UPDATE: Final = f"UPDATE sessions SET {', '.join(f'{name} = ?' for name in _VARIABLE)} WHERE no = ?"
UPDATE_PLACE: Final = "UPDATE sessions SET state = ?, started_at = ? WHERE no = ?"

UPDATE_TALLY: Final = "UPDATE sessions SET tally = ? WHERE no = ?"

TALLY: Final = _ALL.index("tally")
"""Where a whole row holds its tally; empty where it is to be counted from the index rows."""

_COUNTED_AT_ONCE: Final = 200
"""Rows that are counted anew within some ms: once for each session that goes on after a restart."""
place = itemgetter(*map(_ALL.index, _PLACE))
"""Return the stored state, the start and the number of a whole row."""
content = itemgetter(*(no for no, name in enumerate(_ALL) if name != "revision"))
"""Return a whole row without its revision."""
_fields = attrgetter(*_RECORD)
_variable = itemgetter(*(_ALL.index(name) for name in (*_VARIABLE, "no")))
_summed = itemgetter(
    *map(
        _ALL.index,
        ("state", "outcome", "end_reason", "started_at", "ended_at", "errors", "model_calls", "tool_calls"),
    )
)
_compact = json.JSONEncoder(separators=(",", ":")).encode
_LISTS: Final = tuple(map(_ALL.index, ("agents", "models", "tools")))
_INFERRED, _SHOWN = map(_ALL.index, ("inferred", "state"))


def session_record(row: Sequence[Any], idle_before: int = 0) -> SessionRecord:
    """Return the record of a row of RECORD_COLUMNS; without any run, silence since `idle_before` is idle."""
    values = list(row)
    for listed in _LISTS:
        values[listed] = tuple(json.loads(row[listed]))
    values[_INFERRED] = bool(row[_INFERRED])
    record = SessionRecord(*values)
    if not record.state:
        values[_SHOWN] = "idle" if is_idle(record.last_alive_at, idle_before) else "running"
        record = SessionRecord(*values)
    return record


def rollup_row(record: SessionRecord, session: SessionState) -> tuple[Any, ...]:
    """Return the whole row of a session, in the order of INSERT."""
    values: list[Any] = list(_fields(record))
    for listed in _LISTS:
        values[listed] = _list_text(values[listed])
    values[_SHOWN] = record.state if record.runs_count else ""  # without any run it depends on the clock
    texts = (_paces_text(session.paces), words(record), _tally_text(session.tally), session.key)
    return (*values, session.own_seen, session.loose_seen, *texts, session.no)


def _tally_text(tally: Tally) -> str:
    """Write a tally where counting it anew would take long: while a session is remembered nobody reads it."""
    return tally.to_json() if tally.spans + tally.logs > _COUNTED_AT_ONCE else ""


@lru_cache(maxsize=2_048)
def _list_text(names: tuple[str, ...]) -> str:
    """Write a list of names as JSON; sessions of one program have the same."""
    return json.dumps(names)


def update_row(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values of UPDATE out of a whole row."""
    return _variable(row)


def state_of(row: tuple[Any, ...]) -> SessionState:
    """Return what the writer knows of the session of a whole row; runs and gauges have their own tables."""
    named = dict(zip(_ALL, row, strict=True))
    return SessionState(
        no=named["no"],
        id=named["id"],
        key=named["key"],
        session_id=named["session_id"],
        tally=Tally.from_json(named["tally"]) if named["tally"] else Tally(),
        traces=named["traces_count"],
        tasks=named["tasks_count"],
        own_seen=named["own_seen"],
        loose_seen=named["loose_seen"],
        paces=_paces_of(named["paces"]),
        row=row,
    )


def _paces_text(paces: Sequence[Pace]) -> str:
    plain = [[pace.since, pace.from_, pace.told, pace.lag, int(pace.steady)] for pace in paces]
    return _compact(plain) if plain else ""


def _paces_of(text: str) -> tuple[Pace, ...]:
    paces = json.loads(text) if text else ()
    return tuple(Pace(since, from_, told, lag, bool(steady)) for since, from_, told, lag, steady in paces)


def sums_of(row: tuple[Any, ...], session: SessionState) -> Sums:
    """Return what a session with this whole row adds to the sums over all sessions."""
    state, outcome, end_reason, started_at, ended_at, errors, model_calls, tool_calls = _summed(row)
    return Sums(
        state,
        outcome,
        end_reason,
        None if ended_at is None else max(0, ended_at - started_at),
        errors,
        model_calls,
        tool_calls,
        sum(gauge.dropped for gauge in session.gauges.values()) if session.gauges else 0,
        used_by_model(session.tally),
    )
