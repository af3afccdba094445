"""A span as a block: the common ground of agents, tools, steps, model calls (`_work.py`) and tasks.

A slotted block over `start_span` and `attach` instead of `start_as_current_span`, whose pair of generators
costs 2 µs of 14. All that is known at the start goes in with one mapping: each `set_attribute` takes two
locks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from typing_extensions import Self

from otel_sessions import semconv
from otel_sessions.errors import UsageError
from otel_sessions.lifecycle import ENDINGS, ending_for
from otel_sessions.sdk import _context, _process, _provider
from otel_sessions.sdk._guard import guard, guarded
from otel_sessions.sdk._registry import registry
from otel_sessions.sdk._root import fail

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TypeVar

    from opentelemetry.context import Context

    B = TypeVar("B", bound="SpanBlock")

__all__ = ["SpanBlock", "end_span", "start_span"]


class SpanBlock:
    """A block with a span of its own, which is current inside. It may be entered again when it was left."""

    __slots__ = ("_attached", "_attributes", "_before", "_generation", "_kind", "_learned", "_name", "_span")

    def __init__(self, name: str, attributes: dict[str, Any], *, kind: SpanKind = SpanKind.INTERNAL) -> None:
        self._name = name
        self._attributes = attributes
        self._kind = kind
        self._span: trace.Span | None = None
        self._learned: dict[str, Any] | None = None
        self._before: Context | None = None
        self._attached: Context | None = None
        self._generation = 0

    @property
    def span(self) -> trace.Span:
        """The OpenTelemetry span; outside of the block one that records nothing."""
        return self._span or trace.INVALID_SPAN

    def set_attribute(self, name: str, value: Any) -> None:
        """Add an attribute to the span."""
        with guard("attribute"):
            self.span.set_attribute(name, value)

    def __enter__(self) -> Self:
        if self._span is not None:
            raise UsageError(f"the block {self._name!r} is entered already: make a new one")
        before = self._before = _context.parent_context()
        span = self._span = start_span(self._name, before, self._attributes, self._kind)
        self._learned = None
        self._generation = _process.generation()
        self._attached = _context.attach_span(span, before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        span, self._span = self._span, None
        if span is None or self._attached is None or self._before is None:
            return
        _context.restore(self._attached, self._before)
        self._before = self._attached = None
        # In a forked child the span is the parent's to end.
        if self._generation == _process.generation():
            end_span(span, exc, self._learned)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def _learn(self, attributes: Mapping[str, Any]) -> None:
        """Note attributes that are set just before the end; what comes after it is for nobody."""
        if self._learned is None:
            self._learned = {}
        self._learned.update(attributes)


def start_span(
    name: str, context: Context, attributes: Mapping[str, Any], kind: SpanKind = SpanKind.INTERNAL
) -> trace.Span:
    """Start a span of ours; whatever fails (a sampler of the user's, say), a span that records nothing."""
    return _start(name, context, attributes, kind) or trace.INVALID_SPAN


@guarded("span start")
def _start(name: str, context: Context, attributes: Mapping[str, Any], kind: SpanKind) -> trace.Span:
    return _provider.tracer().start_span(name, _below_carried(context), kind, attributes)


def _below_carried(context: Context) -> Context:
    """Return a context for a span that has no parent here, where a parent process carried a run to us."""
    runtime = _provider.current()
    place = runtime.carried_place if runtime is not None else None
    if place is None or place.root is None or trace.get_current_span(context).get_span_context().is_valid:
        return context
    return trace.set_span_in_context(place.root.as_parent(), context)


def end_span(span: trace.Span, exc: BaseException | None, learned: Mapping[str, Any] | None = None) -> None:
    """End a span with what became of it; what can't be written down of that must not keep it open."""
    _describe_end(span, exc, learned)
    _end(span)


@guarded("span end")
def _end(span: trace.Span) -> None:
    span.end()


@guarded("span end")
def _describe_end(span: trace.Span, exc: BaseException | None, learned: Mapping[str, Any] | None) -> None:
    if span.is_recording():
        missing = _missing(span)
        if learned or missing or exc is not None:
            failure = {} if exc is None else _failure(span, exc)
            span.set_attributes({**missing, **failure})
            span.set_attributes(learned or {})


def _failure(span: trace.Span, exc: BaseException) -> dict[str, Any]:
    ending = ending_for(exc)
    if not ending.error:
        return {}
    fail(span, exc, event=ending is ENDINGS["exception"])
    return {semconv.ERROR_TYPE: type(exc).__qualname__}


def _missing(span: trace.Span) -> dict[str, Any]:
    """Return what a span of ours has to bear at its end and does not: an evicted session id, its lateness."""
    entry = registry.open.get(span.get_span_context().span_id)
    place = entry.place if entry is not None else None
    if entry is None or place is None:
        return {}
    missing: dict[str, Any] = {}
    present = entry.span.attributes or {}
    if semconv.SESSION_ID not in present:
        missing = {name: value for name, value in place.stamp.items() if name not in present}
    if place.root is not None and place.root.ended:
        missing[semconv.LATE] = True
    return missing
