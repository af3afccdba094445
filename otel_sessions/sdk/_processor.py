"""Our one span processor: it stamps every span of the provider with its session, counts it, and hands it on.

Third-party spans pass here like ours. What the processor hands ended spans to (`Pipeline`) can be
exchanged, for a processor can't be taken off a provider again. No hook ever raises: an exception here
would leave through the user's `start_span` or `end`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from otel_sessions import semconv
from otel_sessions.sdk import _context
from otel_sessions.sdk._context import Place
from otel_sessions.sdk._guard import guard, guarded_hook
from otel_sessions.sdk._ledger import ledgers
from otel_sessions.sdk._quiet import is_suppressed
from otel_sessions.sdk._registry import OpenEntry, registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context

__all__ = ["Pipeline", "SessionProcessor"]


class Pipeline(Protocol):
    """Where ended spans go. All members return at once."""

    @property
    def processors(self) -> Sequence[SpanProcessor]:
        """The user's processors that run behind ours."""
        ...

    @property
    def trust_baggage(self) -> bool:
        """Whether `session.id` in the baggage of a remote parent is believed."""
        ...

    @property
    def carried_place(self) -> Place | None:
        """Where spans belong that have no session: a run of the parent process."""
        ...

    @property
    def cold(self) -> bool:
        """Whether nobody would take what ends: in a forked child, before `ready()`."""
        ...

    def ready(self) -> None:
        """Make sure that somebody will take what ends."""
        ...

    def take(self, span: ReadableSpan, place: Place | None, late: bool) -> None:
        """Take an ended span."""
        ...

    def close(self) -> None:
        """Send what is left, and stop, the user's processors too: the provider is being shut down."""
        ...

    def flush(self, timeout: float) -> bool:
        """Wait until what was taken is out, by the user's processors too, at most `timeout` seconds."""
        ...


class SessionProcessor(SpanProcessor):
    """Stamps, counts and hands on."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Find out where the span belongs and stamp it."""
        self._open(span, parent_context if parent_context is not None else otel.get_current())
        for processor in self.pipeline.processors:
            with guard("span processor"):
                processor.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Count the span and hand it on."""
        context: Any = span.get_span_context()
        self._close(span, context)
        for processor in self.pipeline.processors:
            with guard("span processor"):
                processor.on_end(span)

    def shutdown(self) -> None:
        """Send what is left, within the deadline of process exit."""
        with guard("shutdown"):
            self.pipeline.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what has ended; unlike BatchSpanProcessor's, the answer is true and the deadline kept."""
        with guard("flush"):
            return self.pipeline.flush(timeout_millis / 1000)
        return False

    @guarded_hook("on_start")
    def _open(self, span: Span, context: Context) -> None:
        if self.pipeline.cold:
            self.pipeline.ready()
        given: Any = context.get(_context.PLACE_KEY)
        place: Place | None = given or self._place_of(span, context)
        # A copy at once, for each miss in the original costs an exception within; `cast` has its price here.
        of_span: Any = span.attributes
        attributes: dict[str, Any] = of_span.copy()
        own_id = attributes.get(semconv.SESSION_ID)
        if own_id is not None and not _is_of(place, own_id):
            place = _place_of_id(own_id)
        own = span.get_span_context()
        key, sampled = own.span_id, own.trace_flags.sampled
        entry = OpenEntry(span, place, sampled=sampled)
        registry.opened(key, entry)
        if place is None:
            return
        if len(place.stamp) > 1:
            span.set_attributes({k: v for k, v in place.stamp.items() if k not in attributes})
        elif own_id is None:
            span.set_attribute(semconv.SESSION_ID, place.session_id)
        if place.root is not None:
            if place.root.opened(key, entry):
                span.set_attribute(semconv.LATE, True)
        elif place.ledger is not None and sampled:
            place.ledger.opened()

    @guarded_hook("on_end")
    def _close(self, span: ReadableSpan, context: trace.SpanContext) -> None:
        key = context.span_id
        entry = registry.open.pop(key, None)
        if entry is None and key in registry.inherited:
            return
        sampled = context.trace_flags.sampled if entry is None else entry.sampled
        place = entry.place if entry is not None else None
        attributes: Any = span.attributes
        try:
            session_id = attributes[semconv.SESSION_ID]
        except KeyError:  # outside of sessions, or evicted
            session_id = None
        if session_id is not None and (place is None or place.session_id != session_id):
            place = _at_end(key, place, session_id)
        late = False
        if place is not None:
            if place.root is not None:
                late = place.root.closed(key)
            elif place.ledger is not None and sampled:
                late = place.ledger.closed()
        # What is recorded but not sampled goes no further.
        if sampled:
            self.pipeline.take(span, place, late)

    def _place_of(self, span: Span, context: Context) -> Place | None:
        parent = span.parent
        if parent is not None:
            entry = registry.open.get(parent.span_id)
            if entry is not None and entry.place is not None:
                return entry.place
            place = self._remote_place(context) if parent.is_remote else _ended_place(parent, context)
            if place is not None:
                return place
        scope = _context.current_scope() or _context.living(_context.scope_of(context))
        if scope is not None:
            return scope.place
        place = self.pipeline.carried_place
        return None if place is None or is_suppressed(span) else place

    def _remote_place(self, context: Context) -> Place | None:
        if not self.pipeline.trust_baggage:
            return None
        session_id = baggage.get_baggage(semconv.SESSION_ID, context)
        return _place_of_id(session_id) if isinstance(session_id, str) else None


def _ended_place(parent: trace.SpanContext, context: Context) -> Place | None:
    """Return the place of a local parent that has ended, as in a task that outlives it: by its own stamp."""
    span = trace.get_current_span(context)
    if not isinstance(span, ReadableSpan) or span.get_span_context() != parent:
        return None
    session_id = (span.attributes or {}).get(semconv.SESSION_ID)
    if session_id is None:
        return None
    for scope in (_context.scope_of(context), _context.innermost()):
        if scope is not None and _is_of(scope.place, session_id):
            return scope.place
    return _place_of_id(session_id)


def _is_of(place: Place | None, session_id: object) -> bool:
    """Tell whether what bears this id belongs there."""
    if place is None:
        return False
    return place.session_id == session_id or (place.root is not None and place.root.bears(session_id))


def _place_of_id(session_id: Any) -> Place:
    """Return the place of what belongs to a session by its id alone: where it is one of ours, its counts'."""
    ledger = ledgers.find(session_id)
    if ledger is not None and ledger.runs:
        root = ledger.runs[-1]
        return Place(root, root.options.stamp(root.session_id))
    return Place(None, {semconv.SESSION_ID: session_id}, ledger=ledger)


def _at_end(key: int, place: Place | None, session_id: Any) -> Place | None:
    """Return the place of a span that ended under another id than it began with, or was not looked after."""
    if _is_of(place, session_id):
        return place
    if place is not None and place.root is not None:
        place.root.forget(key)
    return Place(None, {semconv.SESSION_ID: session_id}, ledger=ledgers.find(session_id))
