"""Which sessions to show: a filter as a value, and whether a session meets it; pure.

`filter_text.parse` reads a filter from what a person typed; a store translates it for its database, and
`matches` decides the same of one session in memory, for the stream. A test holds the two together.

Text is compared case-folded, in any script. A condition on something unknown does not hold, its negation
does: `cost>1` leaves out sessions whose cost nobody told, `-cost>1` shows them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, NamedTuple

from otel_sessions.backend.records import SessionRecord
from otel_sessions.lifecycle import EndReason, Outcome, State

__all__ = [
    "EVERYTHING",
    "FIELDS",
    "Ago",
    "Condition",
    "Field",
    "Filter",
    "Kind",
    "Moment",
    "Op",
    "Value",
    "duration_of",
    "matches",
    "states_of",
    "words",
]


class Kind(str, Enum):
    """What a field holds, and so what it can be compared with."""

    CHOICE = "choice"  # one of few words
    TEXT = "text"
    TEXTS = "texts"  # several; one that fits is enough
    NUMBER = "number"
    DURATION = "duration"
    TIME = "time"


class Op(str, Enum):
    """How a value is compared; the texts are those of the language."""

    HAS = ":"  # contains, of texts only
    IS = "="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


class Ago(NamedTuple):
    """A time before now, in ns: what `2h` means where a time is wanted."""

    ns: int


class Moment(NamedTuple):
    """A stretch of time as written: a day, a minute, an instant; Unix ns, without `end` itself."""

    start: int
    end: int


Value = str | int | float | Ago | Moment | None


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that sessions can be filtered by. `of` returns what a session has: None where unknown."""

    name: str
    kind: Kind
    about: str
    of: Callable[[SessionRecord], Any]
    choices: tuple[str, ...] = ()
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """A field compared with some values, of which one has to fit; text is case-folded, None is unknown."""

    field: str
    op: Op
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """Words that all have to occur, and conditions that all have to hold."""

    words: tuple[str, ...] = ()  # case-folded
    conditions: tuple[Condition, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether the filter leaves anything out."""
        return bool(self.words or self.conditions)

    def at(self, now: int) -> Filter:
        """Return the filter with every "ago" reckoned from `now`, in Unix ns."""
        if not any(isinstance(value, Ago) for condition in self.conditions for value in condition.values):
            return self
        return replace(self, conditions=tuple(_at(condition, now) for condition in self.conditions))


EVERYTHING: Final = Filter()
"""The filter that every session meets."""


def words(session: SessionRecord) -> str:
    """Return what free words are looked for in, case-folded: ids, names, and who took part."""
    texts = (
        *(session.id, session.session_id, session.name, session.title, session.service, session.user_id),
        *session.agents,
        *session.models,
    )
    return "\n".join(text for text in texts if text).casefold()


def duration_of(session: SessionRecord) -> int | None:
    """Measure a session that has ended, in ns; one without any run to the end that is known so far.

    None while a run is open, or where a clock was set back.
    """
    ended_at = session.last_ended_at if session.runs_count == 0 else session.ended_at
    if ended_at is None or (session.runs_count and session.state != State.ENDED.value):
        return None
    return None if ended_at < session.started_at else ended_at - session.started_at


def _tokens(session: SessionRecord) -> int | None:
    known = [n for n in (session.input_tokens, session.output_tokens) if n is not None]
    return sum(known) if known else None


def _ids(session: SessionRecord) -> tuple[str, ...]:
    return (session.id,) if session.session_id is None else (session.id, session.session_id)


def _choice(name: str, about: str, column: str, choices: type[Enum], *, nullable: bool = True) -> Field:
    return Field(
        name,
        Kind.CHOICE,
        about,
        operator.attrgetter(column),
        tuple(choice.value for choice in choices),
        nullable,
    )


def _text(name: str, about: str, column: str | None = None) -> Field:
    return Field(name, Kind.TEXT, about, operator.attrgetter(column or name))


def _texts(name: str, about: str) -> Field:
    return Field(name, Kind.TEXTS, about, operator.attrgetter(f"{name}s"))


def _number(name: str, about: str, column: str | None = None, *, nullable: bool = False) -> Field:
    return Field(name, Kind.NUMBER, about, operator.attrgetter(column or name), nullable=nullable)


def _time(name: str, about: str, column: str, *, nullable: bool = False) -> Field:
    return Field(name, Kind.TIME, about, operator.attrgetter(column), nullable=nullable)


FIELDS: Final = {
    field.name: field
    for field in (
        _choice("state", "what is shown of it", "state", State, nullable=False),
        _choice("outcome", "how it turned out", "outcome", Outcome),
        _choice("reason", "why it ended", "end_reason", EndReason),
        _text("service", "service.name of who sent it"),
        _text("user", "user.id", "user_id"),
        _texts("model", "a model that it called"),
        _texts("agent", "an agent that took part"),
        _texts("tool", "a tool that it called"),
        _text("name", "its name"),
        _text("title", "its title"),
        Field("id", Kind.TEXTS, "its id, ours or the sender's", _ids, nullable=False),
        _text("conversation", "gen_ai.conversation.id", "conversation_id"),
        _text("waiting", "what it waits for", "waiting_for"),
        Field("tokens", Kind.NUMBER, "tokens, in and out together", _tokens),
        _number("tokens.in", "tokens that the models read", "input_tokens", nullable=True),
        _number("tokens.out", "tokens that the models wrote", "output_tokens", nullable=True),
        _number("tokens.cached", "tokens read from a cache", "cached_tokens", nullable=True),
        _number("cost", "cost in USD", nullable=True),
        Field("duration", Kind.DURATION, "from start to end; unknown while it runs", duration_of),
        _number("errors", "spans that failed"),
        _number("spans", "stored spans"),
        _number("turns", "turns of the conversation", nullable=True),
        _number("tasks", "tasks", "tasks_count"),
        _number("runs", "runs; more than one after a resume", "runs_count"),
        _number("calls", "calls of models", "model_calls"),
        _number("missing", "spans that are known of and not stored", "missing_spans", nullable=True),
        _time("started", "when it started", "started_at"),
        _time("ended", "when it ended", "ended_at", nullable=True),
        _time("seen", "when anything of it last arrived", "last_seen_at"),
    )
}
"""Everything to filter by, in the order in which it is offered."""


def matches(query: Filter, session: SessionRecord) -> bool:
    """Tell whether a session, with the state that is shown of it, meets a filter without any "ago"."""
    if query.words:
        text = words(session)
        if not all(word in text for word in query.words):
            return False
    return all(_holds(condition, session) for condition in query.conditions)


def states_of(query: Filter) -> frozenset[str] | None:
    """Return the only states in which a session can meet the filter, None where any may do."""
    states: frozenset[str] | None = None
    for condition in query.conditions:
        if condition.field == "state":
            named = frozenset(str(value) for value in condition.values)
            allowed = frozenset(FIELDS["state"].choices) - named if condition.negated else named
            states = allowed if states is None else states & allowed
    return states


def _at(condition: Condition, now: int) -> Condition:
    return replace(
        condition,
        values=tuple(
            Moment(now - value.ns, now - value.ns + 1) if isinstance(value, Ago) else value
            for value in condition.values
        ),
    )


def _holds(condition: Condition, session: SessionRecord) -> bool:
    field = FIELDS[condition.field]
    found = field.of(session)
    meets = _MEETS[field.kind]
    held = any(
        found is None or found == () if value is None else meets(condition.op, found, value)
        for value in condition.values
    )
    return held != condition.negated


def _meets_choice(_op: Op, found: str | None, value: str) -> bool:
    return found == value


def _meets_text(op: Op, found: str | None, value: str) -> bool:
    if found is None:
        return False
    folded = found.casefold()
    return value in folded if op is Op.HAS else value == folded


def _meets_texts(op: Op, found: tuple[str, ...], value: str) -> bool:
    return any(_meets_text(op, text, value) for text in found)


def _meets_number(op: Op, found: float | None, value: float) -> bool:
    return found is not None and _COMPARE[op](found, value)


def _meets_time(op: Op, found: int | None, value: Moment) -> bool:
    if found is None:
        return False
    if op is Op.IS:
        return value.start <= found < value.end
    return _COMPARE[op](found, value.start if op in (Op.LESS, Op.AT_LEAST) else value.end - 1)


_COMPARE: Final[dict[Op, Callable[[Any, Any], bool]]] = {
    Op.IS: operator.eq,
    Op.LESS: operator.lt,
    Op.AT_MOST: operator.le,
    Op.MORE: operator.gt,
    Op.AT_LEAST: operator.ge,
}
_MEETS: Final[dict[Kind, Callable[[Op, Any, Any], bool]]] = {
    Kind.CHOICE: _meets_choice,
    Kind.TEXT: _meets_text,
    Kind.TEXTS: _meets_texts,
    Kind.NUMBER: _meets_number,
    Kind.DURATION: _meets_number,
    Kind.TIME: _meets_time,
}
