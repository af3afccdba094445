"""Which spans of a session speak in its transcript, and what they say; pure.

Models and tools speak for themselves. Agents repeat what their models said, so they speak only where the
models of their trace are silent: no inputs there, the agents' inputs; no answers there, the agents' answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogMessage

from otel_sessions.backend.attributes import plain, span_id, trace_id
from otel_sessions.backend.content import (
    Said,
    attributes_of,
    failure_of,
    said_by_event,
    said_by_span,
    tool_parts,
)
from otel_sessions.backend.decode_logs import event_name
from otel_sessions.backend.json_values import as_json
from otel_sessions.backend.messages import Part
from otel_sessions.backend.records import SpanRow
from otel_sessions.backend.store.base import StoredLog, StoredSpan
from otel_sessions.backend.vocabulary import CONTENT_EVENTS, emitter_of

__all__ = ["SpanKey", "Voice", "name_of_log", "said_in_logs", "said_together", "voice_of", "voices_of"]

_SPEAKERS: Final = frozenset({"session", "task", "agent", "workflow"})
_ERROR: Final = 2
_CLAUDE_EXECUTION: Final = "claude_code.tool.execution"  # knows whether the tool around it succeeded
_SILENCE: Final = Said()

SpanKey = tuple[bytes, bytes]
"""Trace id and span id."""


@dataclass(frozen=True, slots=True)
class Voice:
    """A span and what it says: `inputs` when it began, `outputs` when it ended."""

    row: SpanRow
    said: Said

    @property
    def key(self) -> SpanKey:
        """Where it was said."""
        return self.row.trace_id, self.row.span_id


def voice_of(stored: StoredSpan, logged: Said = _SILENCE) -> Voice | None:
    """Return what a span says by itself, with what logs say for it; None while it is only announced."""
    span, row = stored.span, stored.row
    if span is None:
        return None
    emitter = emitter_of(stored.scope.name) if stored.scope else ""
    if row.category == "tool":
        call, result = tool_parts(span, emitter)
        is_told = result.ok is not None or result.result is not None
        # Claude Code tells of a tool's end elsewhere: in the span of its execution, and in a log.
        returned = is_told or (bool(span.end_time_unix_nano) and emitter != "CC")
        return Voice(row, Said((call,), (result,) if returned else ()))
    if span.name == _CLAUDE_EXECUTION:
        return Voice(row, Said(outputs=(tool_parts(span, emitter)[1],)))
    said = said_by_span(span, emitter).or_else(logged)
    if row.category == "model" and span.status.code == _ERROR:
        failure = Part("event", name="error", text=failure_of(span), ok=False)
        said = Said(said.inputs, (*said.outputs, failure))
    return Voice(row, said)


def voices_of(spans: Iterable[StoredSpan], logged: Mapping[SpanKey, Said]) -> list[Voice]:
    """Return the spans that speak in the transcript of their session, in order of their start."""
    voices = [voice for stored in spans if (voice := _speaking(stored, logged)) is not None]
    voices.sort(key=lambda voice: (voice.row.start, voice.row.span_id))
    models = {voice.key: voice for voice in voices if voice.row.category == "model"}
    told = {key[0] for key, voice in models.items() if _holds(voice.said.inputs, "system")}
    answered = {key[0] for key, voice in models.items() if _holds(voice.said.outputs, "event")}
    return [_reduced(voice, told, answered) for voice in voices if not _repeats_outer(voice, models)]


def _speaking(stored: StoredSpan, logged: Mapping[SpanKey, Said]) -> Voice | None:
    row = stored.row
    if row.category in _SPEAKERS or row.category in ("model", "tool") or row.name == _CLAUDE_EXECUTION:
        return voice_of(stored, logged.get((row.trace_id, row.span_id), _SILENCE))
    return None


def _holds(parts: Sequence[Part], beside: str) -> bool:
    return any(part.kind != beside for part in parts)


def _repeats_outer(voice: Voice, models: Mapping[SpanKey, Voice]) -> bool:
    """Tell whether a model span stands for the same call as the model span around it."""
    outer = models.get((voice.row.trace_id, voice.row.parent_id))
    return voice.row.category == "model" and outer is not None and outer.said != _SILENCE


def _reduced(voice: Voice, told: set[bytes], answered: set[bytes]) -> Voice:
    """Take from an agent what the models of its trace say themselves."""
    row, said = voice.row, voice.said
    if row.category not in _SPEAKERS:
        return voice
    inputs = () if row.trace_id in told else said.inputs
    return replace(voice, said=Said(inputs, () if row.trace_id in answered else said.outputs))


# --- What logs say for spans ------------------------------------------------------------------------------


def name_of_log(log: LogMessage) -> str:
    """Return the name of the event that a log record is."""
    attribute = next((a.value.string_value for a in log.attributes if a.key == "event.name"), None)
    return event_name(log.event_name, attribute)


def said_together(logs: Iterable[LogMessage]) -> Said:
    """Return what logs of one span say, where the conventions put messages into events."""
    inputs: list[Part] = []
    outputs: list[Part] = []
    for log in logs:
        name = name_of_log(log)
        if name in CONTENT_EVENTS:
            said = said_by_event(name, attributes_of(log.attributes), as_json(plain(log.body)))
            inputs += said.inputs
            outputs += said.outputs
    return Said(tuple(inputs), tuple(outputs))


def said_in_logs(logs: Iterable[StoredLog]) -> dict[SpanKey, Said]:
    """Return what logs say for the spans whose ids they bear."""
    by_span: dict[SpanKey, list[LogMessage]] = {}
    for stored in logs:
        key = trace_id(stored.log.trace_id), span_id(stored.log.span_id)
        if all(key):
            by_span.setdefault(key, []).append(stored.log)
    return {key: said for key, found in by_span.items() if (said := said_together(found)) != _SILENCE}
