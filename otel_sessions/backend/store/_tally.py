"""What the spans and logs of one session add up to; pure.

Every part of a tally is a sum, or a least or greatest value, so any order of adding gives the same
tally. Sums can be taken back; a least value can't, so `hides` tells when a session must be counted anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Final

from otel_sessions.backend.habits import ANSWERED
from otel_sessions.backend.records import Flag, LogRecord, SpanRecord
from otel_sessions.backend.store._rows import NESTED, nano

__all__ = ["LISTED", "OTHER", "TOOLS_LISTED", "Tally", "Usage", "hides"]

LISTED: Final = 20
"""How many agents and models a session's roll-up names."""
TOOLS_LISTED: Final = 100
"""How many tools it names: whoever connects a few MCP servers has dozens."""

OTHER: Final = "other"
"""Stands for all models beyond those, and for who serves them, where usage is summed by model."""

_LATE: Final = int(Flag.LATE)
_ROOT, _CHILD, _LOG = 0, 1, 2  # who knows a session's service best


@dataclass(slots=True)
class Usage:
    """Sums of the known values, and how many were known; costs in 1e-9 USD."""

    input_tokens: int = 0
    input_known: int = 0
    output_tokens: int = 0
    output_known: int = 0
    cached_tokens: int = 0
    cached_known: int = 0
    cost: int = 0
    cost_known: int = 0

    def add(self, record: SpanRecord | LogRecord, sign: int) -> None:
        """Add one call's usage, or take it back."""
        if record.input_tokens is not None:
            self.input_tokens += sign * record.input_tokens
            self.input_known += sign
        if record.output_tokens is not None:
            self.output_tokens += sign * record.output_tokens
            self.output_known += sign
        if record.cached_tokens is not None:
            self.cached_tokens += sign * record.cached_tokens
            self.cached_known += sign
        cost = nano(record.cost)
        if cost is not None:
            self.cost += sign * cost
            self.cost_known += sign


Dated = tuple[int, str]
Served = tuple[str, str]
"""Who serves a model, and the model; "" where nobody tells."""
Sign = tuple[int, str, str]
"""When a call said how its turn goes, what it said, and why; "" where it does not tell."""


@dataclass(slots=True)
class Tally:
    """What the stored spans and logs of one session add up to; None where no row tells."""

    spans: int = 0
    logs: int = 0
    ended: int = 0  # ended spans that are not late: what a sender's own count is compared with
    errors: int = 0
    turns: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    log_turns: int = 0
    log_model_calls: int = 0
    log_tool_calls: int = 0
    span_usage: Usage = field(default_factory=Usage)
    log_usage: Usage = field(default_factory=Usage)
    started: int | None = None
    logged: int | None = None  # earliest time of a log
    service: tuple[int, int, str] | None = None  # of the earliest root, else span, else log
    session_name: Dated | None = None  # of the earliest span that has one
    root_name: Dated | None = None  # of the earliest root
    title: Dated | None = None  # of the latest span that has one
    user: Dated | None = None
    conversation: Dated | None = None
    last_logged: int | None = None
    last_ended: int | None = None
    outcome: tuple[int, str, str, str] | None = None  # of the root that ended last: end, outcome, why, trace
    signs: dict[str, Sign] = field(default_factory=dict[str, "Sign"])  # by trace, of whose word was last
    agents: dict[str, int] = field(default_factory=dict[str, int])  # name -> first start
    models: dict[str, int] = field(default_factory=dict[str, int])
    tools: dict[str, int] = field(default_factory=dict[str, int])
    span_usage_by_model: dict[Served, Usage] = field(default_factory=dict[Served, Usage])
    log_usage_by_model: dict[Served, Usage] = field(default_factory=dict[Served, Usage])

    @property
    def last_told(self) -> int | None:
        """The newest end of a span, or time of a log."""
        return max(filter(None, (self.last_ended, self.last_logged)), default=None)

    def add_spans(self, spans: Iterable[SpanRecord]) -> None:
        """Add spans that were just stored, or that came from another session."""
        for span in spans:
            self._count(span, 1)
            if span.category in _USAGE:
                self.count_call(span, 0 if span.flags & NESTED else 1)
            self._date(span)

    def take_back(self, span: SpanRecord) -> None:
        """Take a span's part of the sums back."""
        self._count(span, -1)
        if span.category in _USAGE:
            self.count_call(span, 0 if span.flags & NESTED else -1)

    def count_call(self, span: SpanRecord, sign: int) -> None:
        """Count a model call (1), or count it no more (-1)."""
        if sign:
            if span.category == "model":
                self.model_calls += sign
            self.span_usage.add(span, sign)
            _add_by_model(self.span_usage_by_model, span, sign)

    def add_logs(self, logs: Iterable[LogRecord]) -> None:
        """Add logs that were just stored, or that came from another session."""
        for log in logs:
            self.logs += 1
            self.log_turns += log.turn
            self.log_model_calls += log.category == "model"
            self.log_tool_calls += log.category == "tool"
            self.log_usage.add(log, 1)
            _add_by_model(self.log_usage_by_model, log, 1)
            self._date_log(log)

    def _count(self, span: SpanRecord, sign: int) -> None:
        self.spans += sign
        if span.end is not None and not span.flags & _LATE:
            self.ended += sign
        if span.status == _ERROR:
            self.errors += sign
        if span.turn:
            self.turns += sign
        if span.category == "tool":
            self.tool_calls += sign

    def _date(self, span: SpanRecord) -> None:
        start = span.start
        if start and (self.started is None or start < self.started):
            self.started = start
        if span.service:
            self.service = _least(self.service, (_CHILD if span.parent_id else _ROOT, start, span.service))
        if span.session_name:
            self.session_name = _least(self.session_name, (span.start, span.session_name))
        if span.title:
            self.title = _greatest(self.title, (span.start, span.title))
        if not span.parent_id:
            self._date_root(span)
        if span.user_id:
            self.user = _least(self.user, (start, span.user_id))
        if span.conversation_id:
            self.conversation = _least(self.conversation, (start, span.conversation_id))
        self._list(span)

    def _list(self, span: SpanRecord) -> None:
        if span.agent:
            _first(self.agents, span.agent, span.start)
        if span.model and span.category in _USAGE:
            _first(self.models, span.model, span.start)
        if span.tool and span.category == "tool":
            _first(self.tools, span.tool, span.start)

        if span.end is not None:
            self._date_end(span)

    def _date_end(self, span: SpanRecord) -> None:
        self.last_ended = _greatest(self.last_ended, span.end)
        sign = _sign(span)
        if sign is not None:
            trace = span.trace_id.hex()
            self.signs[trace] = _greatest(self.signs.get(trace), sign)

    def _date_root(self, span: SpanRecord) -> None:
        if span.name:
            self.root_name = _least(self.root_name, (span.start, span.name))
        if span.end is not None:
            told = (span.end, span.outcome or "", span.failure or "", span.trace_id.hex())
            self.outcome = _greatest(self.outcome, told)

    def _date_log(self, log: LogRecord) -> None:
        if log.time and (self.logged is None or log.time < self.logged):
            self.logged = log.time
        if log.time:
            self.last_logged = _greatest(self.last_logged, log.time)
        if log.service:
            self.service = _least(self.service, (_LOG, log.time, log.service))
        if log.user_id:
            self.user = _least(self.user, (log.time, log.user_id))
        if log.model and log.category in _USAGE:
            _first(self.models, log.model, log.time)
        if log.tool:
            _first(self.tools, log.tool, log.time)

    def to_json(self) -> str:
        """Return the tally as JSON, without what the list will never show."""
        for listed, most in ((self.agents, LISTED), (self.models, LISTED), (self.tools, TOOLS_LISTED)):
            if len(listed) > most:
                keep = sorted(listed.items(), key=lambda item: (item[1], item[0]))[:most]
                listed.clear()
                listed.update(keep)
        if len(self.signs) > LISTED:
            self.signs = dict(sorted(self.signs.items(), key=lambda item: item[1])[-LISTED:])
        sums = (_usage(self.span_usage), _usage(self.log_usage))
        by_model = (
            [(*served, *_usage(usage)) for served, usage in usages.items()]
            for usages in (self.span_usage_by_model, self.log_usage_by_model)
        )
        return _encode([*_plain(self), *sums, *by_model, self.tools])

    @classmethod
    def from_json(cls, text: str) -> Tally:
        """Return the tally that `to_json` wrote."""
        values = json.loads(text)
        plain, rest = values[: len(_PLAIN)], values[len(_PLAIN) :]
        tally = cls(span_usage=Usage(*rest[0]), log_usage=Usage(*rest[1]))
        for name, value in zip(_PLAIN, plain, strict=True):
            setattr(tally, name, tuple(value) if isinstance(value, list) else value)
        tally.signs = {trace: (at, sign, why) for trace, (at, sign, why) in tally.signs.items()}
        for known, usages in zip(
            (tally.span_usage_by_model, tally.log_usage_by_model), rest[2:4], strict=True
        ):
            known.update({(provider, model): Usage(*sums) for provider, model, *sums in usages})
        tally.tools.update(rest[4])
        return tally


_SUMMED: Final = ("span_usage", "log_usage", "span_usage_by_model", "log_usage_by_model", "tools")
_PLAIN: Final = tuple(f.name for f in fields(Tally) if f.name not in _SUMMED)
_plain = attrgetter(*_PLAIN)
_usage = attrgetter(*(f.name for f in fields(Usage)))
_encode = json.JSONEncoder(separators=(",", ":")).encode
_USAGE: Final = frozenset({"model", "embedding"})
_NOTHING_USED: Final = (None, None, None, None)
_ERROR: Final = 2


def hides(old: SpanRecord, new: SpanRecord) -> bool:
    """Tell whether `new`, put in the place of `old`, tells all words and dates that `old` told.

    Where it does, a tally that adds `new` and takes `old` back from the sums is right; else it must be
    counted anew. The end of an announced span, the usual case, hides its announcement: an earlier start
    hides a later one, but for titles, of which the latest counts.
    """
    dated = new.start == old.start or (0 < new.start < old.start and old.title is None)
    same = dated and old.parent_id == new.parent_id and old.service == new.service
    told = (
        (old.task_id, new.task_id),
        (old.user_id, new.user_id),
        (old.conversation_id, new.conversation_id),
        (old.agent, new.agent),
        (old.model, new.model),
        (old.provider, new.provider),
        (old.tool, new.tool),
        (old.session_name, new.session_name),
        (old.title, new.title),
    )
    return (
        same
        and all(before is None or before == after for before, after in told)
        and (bool(old.parent_id) or old.name == new.name)
        and (old.end is None or bool(old.parent_id) or _end(new) == _end(old))
        and (old.end is None or (new.end or 0) >= old.end)
        and ((_sign(new) or _SILENCE) >= (_sign(old) or _SILENCE))
        and (old.category not in _USAGE or new.category in _USAGE)
        and (old.tool is None or (old.category == "tool") == (new.category == "tool"))
    )


def _add_by_model(usages: dict[Served, Usage], record: SpanRecord | LogRecord, sign: int) -> None:
    """Add usage to that of its model, or take it back; whether a model has a sum of its own never changes."""
    if (record.input_tokens, record.output_tokens, record.cached_tokens, record.cost) == _NOTHING_USED:
        return
    served = record.provider or "", record.model or ""
    if served not in usages and len(usages) >= LISTED:
        served = OTHER, OTHER
    usages.setdefault(served, Usage()).add(record, sign)


def _end(span: SpanRecord) -> tuple[Any, ...]:
    return span.end, span.outcome, span.failure


def _sign(span: SpanRecord) -> Sign | None:
    """Return what a call, or an agent, says of its turn.

    That a call went wrong counts from when it began: what was answered since, beside it or after it, takes
    that back. An agent went wrong when it ended, after all that was answered in it.
    """
    if not span.parent_id or span.outcome is None or span.end is None:
        return None
    at = span.start if span.outcome != ANSWERED and span.category == "model" else span.end
    return at, span.outcome, span.failure or ""


_SILENCE: Final = (-1, "", "")


def _least(known: Any, new: Any) -> Any:
    return new if known is None or new < known else known


def _greatest(known: Any, new: Any) -> Any:
    return new if known is None or new > known else known


def _first(firsts: dict[str, int], name: str, start: int) -> None:
    known = firsts.get(name)
    if known is None or start < known:
        firsts[name] = start
