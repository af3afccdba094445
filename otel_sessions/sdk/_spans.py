"""A span as a block: the common ground of agents, tools, steps, model calls (`_work.py`) and tasks.

A slotted block over `start_span` and `attach` instead of `start_as_current_span`, whose pair of generators
costs 2 µs of 14. All that is known at the start goes in with one mapping: each `set_attribute` takes two
locks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from typing_extensions import Self

from otel_sessions import semconv
from otel_sessions.lifecycle import ENDINGS, ending_for
from otel_sessions.sdk import _context, _process, _provider
from otel_sessions.sdk._failure import error_type, fail
from otel_sessions.sdk._guard import guard, guarded, ignored
from otel_sessions.sdk._registry import registry
from otel_sessions.sdk._values import attribute_value, clean

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TypeVar

    from opentelemetry.context import Context

    B = TypeVar("B", bound="SpanBlock")

__all__ = ["SpanBlock", "end_span", "learn", "start_span"]


class _Entry:
    """One time that a block was entered."""

    __slots__ = ("attached", "before", "generation", "learned", "span")

    def __init__(self, span: trace.Span, before: Context) -> None:
        self.span = span
        self.before = before
        self.learned: dict[str, Any] | None = None
        self.generation = _process.generation()
        self.attached = _context.attach_span(span, before)


class SpanBlock:
    """A block with a span of its own, which is current inside.

    It may be entered any number of times, also at once, in several threads or tasks: each entry has a span
    of its own. What is told to the block is told to the entry of the context that tells it. An exception that
    leaves it makes the span an ERROR, with 16 Ki characters of its text and 64 Ki of its stack trace.
    """

    __slots__ = ("_attributes", "_early", "_entries", "_kind", "_left", "_name")

    def __init__(self, name: str, attributes: dict[str, Any], *, kind: SpanKind = SpanKind.INTERNAL) -> None:
        self._name = name if name.isascii() else clean(name)
        self._attributes = attributes
        self._kind = kind
        self._entries: list[_Entry] = []
        self._left: _Entry | None = None  # the one that was left last
        self._early: dict[str, Any] | None = None  # what is learned before the first

    @property
    def span(self) -> trace.Span:
        """The OpenTelemetry span; outside of the block one that records nothing."""
        entry = self._entry()
        return trace.INVALID_SPAN if entry is None else entry.span

    def set_attribute(self, name: str, value: Any) -> None:
        """Add an attribute to the span."""
        with guard("attribute"):
            self.span.set_attribute(clean(name), attribute_value(value))

    def __enter__(self) -> Self:
        before = _context.parent_context()
        span = start_span(self._name, before, self._attributes, self._kind)
        entry = _Entry(span, before)
        if self._early is not None:
            entry.learned, self._early = self._early, None
            _expect(span, entry.learned)
        self._entries.append(entry)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        entries = self._entries
        entry = entries[0] if len(entries) == 1 else self._entry()
        if entry is None:
            return
        self._left = entry
        entries.remove(entry)
        _context.restore(entry.attached, entry.before)
        # In a forked child the span is the parent's to end.
        if entry.generation == _process.generation():
            end_span(entry.span, exc, entry.learned)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def _entry(self) -> _Entry | None:
        """Return the open entry of this context; of several that could be it, the one entered last."""
        entries = self._entries.copy()
        if len(entries) > 1:
            here = otel.get_current()
            span = trace.get_current_span(here)
            for entry in reversed(entries):
                if entry.attached is here or entry.span is span:
                    return entry
        return entries[-1] if entries else None

    def _learn(self, attributes: Mapping[str, Any]) -> None:
        """Note attributes that are set just before the end; what comes before the block is kept for it."""
        entry = self._entry()
        if entry is not None:
            entry.learned = learn(entry.span, entry.learned, attributes)
        elif self._left is not None:
            _too_late(self._left.span)
        else:
            self._early = {**(self._early or {}), **attributes}

    def _learned(self) -> Mapping[str, Any]:
        """Return what was learned in this entry, or the one left last."""
        entry = self._entry() or self._left
        return (self._early if entry is None else entry.learned) or {}


def learn(span: trace.Span, learned: dict[str, Any] | None, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Add to what a span will be told just before its end, also when that is forced by somebody else."""
    if learned is None:
        learned = {}
        _expect(span, learned)
    learned.update(attributes)
    if not span.is_recording():
        _too_late(span)
    return learned


def _expect(span: trace.Span, learned: dict[str, Any]) -> None:
    entry = registry.open.get(span.get_span_context().span_id)
    if entry is not None:
        entry.learned = learned


def _too_late(span: trace.Span) -> None:
    """Count what was told to a span after its end; one that was never recorded has nothing to lose."""
    if span.get_span_context().trace_flags.sampled:
        ignored(
            "late records",
            "otel_sessions: something was recorded for the block %r after its end and is lost; "
            "further ones are counted in stats().ignored",
            getattr(span, "name", "?"),
        )


def start_span(
    name: str, context: Context, attributes: Mapping[str, Any], kind: SpanKind = SpanKind.INTERNAL
) -> trace.Span:
    """Start a span of ours; whatever fails (a sampler of the user's, say), a span that records nothing."""
    return _start(name, context, attributes, kind) or trace.INVALID_SPAN


@guarded("span start")
def _start(name: str, context: Context, attributes: Mapping[str, Any], kind: SpanKind) -> trace.Span:
    return _provider.tracer().start_span(name, _provider.below_carried(context), kind, attributes)


def end_span(span: trace.Span, exc: BaseException | None, learned: Mapping[str, Any] | None = None) -> None:
    """End a span with what became of it; what can't be written down of that must not keep it open.

    One that somebody has ended before, as the end of the process does, is left as it is.
    """
    if span.is_recording():
        missing = _missing(span)
        if missing or learned or exc is not None:
            _describe_end(span, exc, missing, learned or {})
        _end(span)


@guarded("span end")
def _end(span: trace.Span) -> None:
    span.end()


@guarded("span end")
def _describe_end(
    span: trace.Span, exc: BaseException | None, ours: Mapping[str, Any], learned: Mapping[str, Any]
) -> None:
    failure = {} if exc is None else _failure(span, exc)
    span.set_attributes({**ours, **failure})
    span.set_attributes(learned)  # after what is ours, for it may refuse to be written down


def _failure(span: trace.Span, exc: BaseException) -> dict[str, Any]:
    ending = ending_for(exc)
    if not ending.error:
        return {}
    fail(span, exc, event=ending is ENDINGS["exception"])
    return {semconv.ERROR_TYPE: error_type(exc)}


def _missing(span: trace.Span) -> dict[str, Any]:
    """Return what a span of ours has to bear at its end and does not: an evicted session id, its lateness."""
    entry = registry.open.get(span.get_span_context().span_id)
    place = entry.place if entry is not None else None
    if entry is None or place is None:
        return {}
    missing: dict[str, Any] = {}
    if entry.span.dropped_attributes and semconv.SESSION_ID not in (present := entry.span.attributes or {}):
        missing = {name: value for name, value in place.stamp.items() if name not in present}
    if place.root is not None and place.root.ended:
        missing[semconv.LATE] = True
    return missing
