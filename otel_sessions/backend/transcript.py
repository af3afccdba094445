"""A session as a conversation: what was said and done, in order, each thing once; pure.

The same sentence stands in many places: in the answer of a call, in the history that each later call
repeats, on the agent's span, in a log. So a transcript is put together by three rules:

- **History is not news** (`history`): of a call's input only what goes beyond conversations already seen.
- **Sources are not added up.** Model calls, tools, agents and logs each count how often they saw a thing, and
  it is shown as often as the source that saw it most. What one knows and another does not (a tool's
  result, its success) is put together.
- **Agents speak for silent models** (`voices`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from otel_sessions.backend.attributes import span_id, trace_id
from otel_sessions.backend.content import said_by_log
from otel_sessions.backend.history import History, Key, key_of
from otel_sessions.backend.messages import Part
from otel_sessions.backend.records import SpanRow
from otel_sessions.backend.store.base import StoredLog, StoredSpan
from otel_sessions.backend.vocabulary import emitter_of
from otel_sessions.backend.voices import (
    SpanKey,
    Voice,
    name_of_log,
    said_in_logs,
    said_together,
    voice_of,
    voices_of,
)

__all__ = ["span_messages", "transcript"]

_CALLED: Final = "tool_call"
_RETURNED: Final = "tool_result"


def transcript(spans: Iterable[StoredSpan], logs: Iterable[StoredLog]) -> list[dict[str, Any]]:
    """Return the items of `sessions/{id}/transcript`, in order; see the module for what is shown once."""
    stored_logs = sorted(logs, key=_logged_at)
    draft = _Draft()
    for voice in voices_of(spans, said_in_logs(stored_logs)):
        draft.hear(voice)
    for stored in stored_logs:
        draft.read(stored)
    return [_item_json(line) for line in sorted(draft.lines, key=lambda line: line.at)]


def span_messages(stored: StoredSpan) -> list[dict[str, Any]]:
    """Return what one span says, with all the history it repeats, and what logs with its ids say for it."""
    voice = voice_of(stored, said_together(stored.events))
    if voice is None:
        return []
    began = [_item_json(_began(voice, part)) for part in voice.said.inputs]
    return began + [_item_json(_ended(voice, part)) for part in voice.said.outputs]


@dataclass(frozen=True, slots=True)
class _Line:
    """One thing that was said or done."""

    part: Part
    at: int
    agent: str | None = None
    model: str | None = None
    span: SpanKey | None = None

    def joined(self, other: _Line) -> _Line:
        """Return this with what only the other knows: the same thing, seen by two sources."""
        mine, theirs = self.part, other.part
        part = replace(
            mine,
            name=mine.name or theirs.name,
            arguments=theirs.arguments if mine.arguments is None else mine.arguments,
            result=theirs.result if mine.result is None else mine.result,
            ok=theirs.ok if mine.ok is None else mine.ok,
        )
        who = self.agent or other.agent, self.model or other.model, self.span or other.span
        return _Line(part, min(self.at, other.at), *who)


def _began(voice: Voice, part: Part) -> _Line:
    return _Line(part, voice.row.start, voice.row.agent, None, voice.key)


def _ended(voice: Voice, part: Part) -> _Line:
    row: SpanRow = voice.row
    return _Line(part, row.end or row.start, row.agent, row.model, voice.key)


def _logged_at(stored: StoredLog) -> int:
    return stored.log.time_unix_nano or stored.log.observed_time_unix_nano


class _Draft:
    """A transcript in the making: spans in order of their start, then logs."""

    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self._places: dict[Key, list[int]] = {}
        self._calls: defaultdict[str | None, list[Key]] = defaultdict(list)  # with an id, by the tool's name
        self._history = History()
        self._spoken: Counter[Key] = Counter()  # what each source has seen so far
        self._tools: Counter[Key] = Counter()
        self._agents: Counter[Key] = Counter()
        self._logs: defaultdict[str, Counter[Key]] = defaultdict(Counter)  # one source for each event name
        self._repeated: set[tuple[bytes, Key]] = set()

    def hear(self, voice: Voice) -> None:
        """Add what a span says."""
        category = voice.row.category
        if category == "model":
            self._hear_model(voice)
        elif category in ("tool", "step"):
            self._hear_tool(voice)
        else:
            self._hear_agent(voice)

    def read(self, stored: StoredLog) -> None:
        """Add what a log says."""
        emitter = emitter_of(stored.scope.name)
        key = trace_id(stored.log.trace_id), span_id(stored.log.span_id)
        name = name_of_log(stored.log)
        parts = said_by_log(stored.log, name, emitter)
        seen = self._logs[name]
        for part in self._identified(parts, seen):
            self._add(seen, _Line(part, _logged_at(stored), span=key if all(key) else None))

    def _hear_model(self, voice: Voice) -> None:
        agent = voice.row.agent
        for part in self._history.news(voice.said.inputs, voice.row.trace_id, agent):
            self._recall(_began(voice, part))
        answers = [part for part in voice.said.outputs if part.kind != "event"]
        self._history.answer(answers, agent)
        for part in voice.said.outputs:
            self._add(self._spoken, _ended(voice, part))

    def _hear_tool(self, voice: Voice) -> None:
        parts = self._identified([*voice.said.inputs, *voice.said.outputs], self._tools)
        for part in parts:
            self._add(self._tools, (_began if part.kind == _CALLED else _ended)(voice, part))

    def _hear_agent(self, voice: Voice) -> None:
        """Add what an agent says; agents within each other say the same, so a trace says it once."""
        new = self._history.news(voice.said.inputs, voice.row.trace_id, voice.row.agent)
        lines = [_began(voice, part) for part in new] + [_ended(voice, part) for part in voice.said.outputs]
        for line in lines:
            once = voice.row.trace_id, key_of(line.part)
            if once not in self._repeated:
                self._repeated.add(once)
                self._add(self._agents, line)
        self._history.answer(voice.said.outputs, voice.row.agent)

    def _recall(self, line: _Line) -> None:
        """Add what a call was told; results of tools that are known from elsewhere are the same results."""
        part = line.part
        if part.kind not in (_CALLED, _RETURNED):
            self._add(self._spoken, line)
            return
        places = self._places.get(key_of(part), [])
        calls = self._places.get((_CALLED, part.call_id or ""), [])
        if places and (part.kind == _CALLED or len(places) >= len(calls)):
            self._join(places[-1], line)
        else:
            self._append(line)

    def _identified(self, parts: list[Part], seen: Counter[Key]) -> list[Part]:
        """Give a call without an id that of the first equal call which this source has not seen yet."""
        call = next((part for part in parts if part.kind == _CALLED and part.call_id is None), None)
        if call is None:
            return parts
        for key in self._calls[call.name]:
            places = self._places[key]
            known = self.lines[places[0]].part
            if seen[key] < len(places) and _is_same(known, call):
                return [replace(part, call_id=known.call_id) for part in parts]
        return parts

    def _add(self, seen: Counter[Key], line: _Line) -> None:
        """Add a line, unless another source told the same as often as this one now has."""
        key = key_of(line.part)
        seen[key] += 1
        places = self._places.get(key, [])
        if seen[key] <= len(places):
            self._join(places[seen[key] - 1], line)
        else:
            self._append(line)

    def _append(self, line: _Line) -> None:
        key, part = key_of(line.part), line.part
        if part.kind == _CALLED and part.call_id and key not in self._places:
            self._calls[part.name].append(key)
        self._places.setdefault(key, []).append(len(self.lines))
        self.lines.append(line)

    def _join(self, place: int, line: _Line) -> None:
        self.lines[place] = self.lines[place].joined(line)


def _is_same(known: Part, call: Part) -> bool:
    return call.arguments is None or known.arguments == call.arguments


def _item_json(line: _Line) -> dict[str, Any]:
    part, span = line.part, line.span
    return {
        "kind": part.kind,
        "at": str(line.at) if line.at else None,
        "agent": line.agent,
        "model": line.model,
        "text": part.text,
        "name": part.name,
        "call_id": part.call_id,
        "arguments": part.arguments,
        "result": part.result,
        "ok": part.ok,
        "span": None if span is None else {"trace_id": span[0].hex(), "span_id": span[1].hex()},
    }
