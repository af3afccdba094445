"""A filter of sessions as conditions of SQL over roll-up rows; every value is bound.

`filters.matches` decides the same in memory. Comparisons with NULL are made false before they are negated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from otel_sessions.backend.filters import FIELDS, Condition, Filter, Kind, Moment, Op, Value
from otel_sessions.backend.store._connection import FOLD

__all__ = ["Clause", "clauses", "starts_of"]


class Clause(NamedTuple):
    """One condition, and the values of its question marks."""

    sql: str
    values: tuple[Any, ...]


_COLUMNS: Final = {
    "outcome": "outcome",
    "reason": "end_reason",
    "service": "service",
    "user": "user_id",
    "model": "models",
    "agent": "agents",
    "tool": "tools",
    "name": "name",
    "title": "title",
    "conversation": "conversation_id",
    "waiting": "waiting_for",
    "tokens": "CASE WHEN input_tokens IS NULL THEN output_tokens"
    " ELSE input_tokens + ifnull(output_tokens, 0) END",
    "tokens.in": "input_tokens",
    "tokens.out": "output_tokens",
    "tokens.cached": "cached_tokens",
    "cost": "cost",
    "duration": "CASE WHEN state = 'ended' AND ended_at >= started_at THEN ended_at - started_at"
    " WHEN runs_count = 0 AND last_ended_at >= started_at THEN last_ended_at - started_at END",
    "errors": "errors",
    "spans": "spans",
    "turns": "turns",
    "tasks": "tasks_count",
    "runs": "runs_count",
    "calls": "model_calls",
    "missing": "missing_spans",
    "started": "started_at",
    "ended": "ended_at",
    "seen": "last_seen_at",
}
_IN_WORDS: Final = frozenset({"service", "user", "model", "agent", "name", "title", "id"})
"""Fields whose text is in `words`: looked for there first, where it costs least."""


def clauses(query: Filter, idle_before: int) -> list[Clause]:
    """Return the conditions of a filter without any "ago"; last alive by `idle_before` means idle."""
    looked_for = [Clause("instr(words, ?) > 0", (word,)) for word in query.words]
    return [*looked_for, *(_clause(condition, idle_before) for condition in query.conditions)]


def starts_of(query: Filter) -> list[Clause]:
    """Return those conditions on the start that an index can answer: a range, not its negation."""
    return [
        _clause(condition, 0)
        for condition in query.conditions
        if condition.field == "started" and not condition.negated and len(condition.values) == 1
    ]


def _clause(condition: Condition, idle_before: int) -> Clause:
    parts = [_part(condition, value, idle_before) for value in condition.values]
    sql = " OR ".join(part.sql for part in parts)
    values = tuple(value for part in parts for value in part.values)
    if condition.negated:
        return Clause(f"NOT ifnull({sql}, 0)", values)
    return Clause(f"({sql})", values)


def _part(condition: Condition, value: Value, idle_before: int) -> Clause:
    field = FIELDS[condition.field]
    if field.name == "state":
        shown = "CASE WHEN state <> '' THEN state WHEN last_alive_at <= ? THEN 'idle' ELSE 'running' END = ?"
        return Clause(shown, (idle_before, value))
    if field.name == "id":
        test = _text_test(condition.op)
        return _after_words(
            condition,
            value,
            Clause(f"({test.format('id')} OR ifnull({test.format('session_id')}, 0))", (value, value)),
        )
    column = _COLUMNS[field.name]
    if value is None:
        return Clause(f"{column} = '[]'" if field.kind is Kind.TEXTS else f"({column}) IS NULL", ())
    return _after_words(condition, value, _TESTS[field.kind](column, condition.op, value))


def _after_words(condition: Condition, value: Value, clause: Clause) -> Clause:
    """Ask the cheap question first, where the text can't be in the field without being in `words`."""
    if condition.field not in _IN_WORDS:
        return clause
    return Clause(f"(instr(words, ?) > 0 AND ifnull({clause.sql}, 0))", (value, *clause.values))


def _text_test(op: Op) -> str:
    return f"instr({FOLD}({{}}), ?) > 0" if op is Op.HAS else f"{FOLD}({{}}) = ?"


def _is_one_of(column: str, _op: Op, value: Value) -> Clause:
    return Clause(f"{column} = ?", (value,))


def _is_text(column: str, op: Op, value: Value) -> Clause:
    return Clause(f"ifnull({_text_test(op).format(column)}, 0)", (value,))


def _is_among(column: str, op: Op, value: Value) -> Clause:
    return Clause(
        f"EXISTS (SELECT 1 FROM json_each({column}) WHERE {_text_test(op).format('value')})", (value,)
    )


def _is_number(column: str, op: Op, value: Value) -> Clause:
    return Clause(f"ifnull(({column}) {op.value} ?, 0)", (value,))


def _is_time(column: str, op: Op, value: Value) -> Clause:
    if not isinstance(value, Moment):
        raise TypeError(f"{value!r} is no moment: reckon the filter from a time first, by Filter.at")
    if op is Op.IS:
        return Clause(f"({column} >= ? AND {column} < ?)", (value.start, value.end))
    return Clause(f"{column} {op.value} ?", (value.start if op in (Op.LESS, Op.AT_LEAST) else value.end - 1,))


_TESTS: Final[dict[Kind, Callable[[str, Op, Value], Clause]]] = {
    Kind.CHOICE: _is_one_of,
    Kind.TEXT: _is_text,
    Kind.TEXTS: _is_among,
    Kind.NUMBER: _is_number,
    Kind.DURATION: _is_number,
    Kind.TIME: _is_time,
}
