"""One run of a session: its root span, what is open in it, and its one end.

The public `Session` is a handle to a root and may be collected; the root lives as long as anything of it
is open. A root taken up from a parent process (by fork or by environment) has no span here and never ends.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    StatusCode,
    TraceFlags,
)

from otel_sessions import lifecycle, semconv
from otel_sessions.sdk import _process
from otel_sessions.sdk._guard import guard, guarded
from otel_sessions.sdk._registry import OpenEntry, registry
from otel_sessions.sdk._run import Counts, OpenSpan

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_sessions.sdk._liveness import Liveness
    from otel_sessions.sdk._options import Options

__all__ = ["Root", "describe", "fail"]

_BUSY_OPERATIONS: Final = frozenset(
    {"chat", "text_completion", "generate_content", "embeddings", "execute_tool", "retrieval"}
)
"""`gen_ai.operation.name`s of model and tool calls (semantic-conventions-genai)."""


class Root:
    """A run. Implements `_run.Run`."""

    __slots__ = (
        "__weakref__",
        "_claimed",
        "_dropped",
        "_ended",
        "_handle",
        "_lock",
        "_open",
        "_started",
        "_waits",
        "activity",
        "child",
        "ended_at",
        "ending",
        "generation",
        "liveness",
        "options",
        "previous_id",
        "resumed",
        "session_id",
        "span",
        "span_id",
        "started_at",
        "trace_id",
    )

    def __init__(self, session_id: str, options: Options, *, resumed: bool = False) -> None:
        self.session_id = session_id
        self.options = options
        self.resumed = resumed
        self.previous_id = options.resume if options.resume != session_id else None
        self.child = False
        self.span: Span = INVALID_SPAN
        self.trace_id = 0
        self.span_id = 0
        self.started_at = time.time_ns()
        self.activity = time.monotonic_ns()
        self.generation = _process.generation()
        self.liveness: Liveness | None = None
        self.ending: lifecycle.Ending | None = None
        self.ended_at: int | None = None
        self._claimed = False
        # Reentrant, for the collector may end a suspended generator's span in the midst of it.
        self._lock = threading.RLock()
        self._started = self._ended = self._dropped = 0
        self._open: dict[int, OpenEntry] = {}
        self._waits: list[str] = []
        self._handle: weakref.ref[Any] | None = None

    # --- What liveness asks -----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The session's name."""
        return self.options.name

    @property
    def title(self) -> str | None:
        """The session's title."""
        return self.options.title

    @property
    def timeout(self) -> float | None:
        """Seconds that the run may last."""
        return self.options.timeout

    @property
    def idle_timeout(self) -> float | None:
        """Seconds that the run may be idle."""
        return self.options.idle_timeout

    @property
    def sampled(self) -> bool:
        """Whether the root is recorded; one of another process is believed to be."""
        return self.span_id != 0 and (self.child or self.ended or self.span.is_recording())

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.ended_at is not None

    @property
    def phase(self) -> lifecycle.Phase:
        """What the run is doing now."""
        if self.ended:
            return lifecycle.Phase.ENDED
        return lifecycle.Phase.WAITING if self._waits else lifecycle.Phase.RUNNING

    @property
    def waiting_for(self) -> str | None:
        """What the run waits for; of several things the latest."""
        return next(reversed(self._waits.copy()), None)

    def counts(self) -> Counts:
        """Count the spans of this run in this process."""
        with self._lock:
            return Counts(self._started, self._ended, self._dropped)

    def open_spans(self, limit: int = 64) -> Sequence[OpenSpan]:
        """Return open spans of this run, the oldest first, without the root."""
        with self._lock:
            entries = [entry for entry in self._open.values() if entry.span is not self.span][:limit]
        return [_open_span(entry.span) for entry in entries]

    def last_activity(self) -> int:
        """Tell when a span last started or ended, in monotonic ns."""
        return self.activity

    def busy(self) -> bool:
        """Tell whether a model or tool call is open, or the run waits."""
        with self._lock:
            entries = list(self._open.values())
        return bool(self._waits) or any(_is_call(entry.span) for entry in entries)

    @guarded("timeout")
    def time_out(self, ending: lifecycle.Ending) -> None:
        """End the run, if it has not ended."""
        self.end(ending, message=f"the session ran into its {ending.reason.value.replace('_', ' ')}")

    # --- What the processor tells -----------------------------------------------------------------

    def opened(self, key: int, entry: OpenEntry) -> None:
        """Count a span that started in this run."""
        with self._lock:
            self._started += 1
            self._open[key] = entry
        self.activity = time.monotonic_ns()
        if self.child and id(self) not in registry.roots:
            self._report()

    def closed(self, key: int) -> None:
        """Count a span of this run that ended."""
        with self._lock:
            self._open.pop(key, None)
            self._ended += 1
        self.activity = time.monotonic_ns()

    def forget(self, key: int) -> None:
        """Expect no end of a span any more."""
        with self._lock:
            self._open.pop(key, None)

    def lost(self, spans: int = 1) -> None:
        """Count spans of this run that will never arrive."""
        with self._lock:
            self._dropped += spans

    # --- Life -------------------------------------------------------------------------------------

    def bind(self, span: Span, handle: object, collected: Callable[[Root], None] | None) -> None:
        """Take the started root span; `collected` is called when nobody holds `handle` any more.

        Without `collected` nothing is recorded, and nobody need know of the run.
        """
        context = span.get_span_context()
        self.span = span
        if context.is_valid:
            self.trace_id, self.span_id = context.trace_id, context.span_id
            # The start event bears the very time of the root span.
            self.started_at = getattr(span, "start_time", None) or self.started_at
        if collected is not None:
            self._handle = weakref.ref(handle, lambda _: collected(self))
            self._report()

    def as_parent(self) -> Span:
        """Return what children of the root have as their parent."""
        if self.span_id == 0 or self.span.get_span_context().is_valid:
            return self.span
        flags = TraceFlags(TraceFlags.SAMPLED)
        return NonRecordingSpan(SpanContext(self.trace_id, self.span_id, is_remote=True, trace_flags=flags))

    def attend(self, liveness: Liveness | None, trace_id: int, span_id: int) -> None:
        """Become a run of a parent process that carried it here by environment."""
        self.child = True
        self.liveness = liveness
        self.trace_id, self.span_id = trace_id, span_id
        self._report()

    def inherit(self) -> None:
        """Become a run of the parent process; called in a forked child, where only one thread is."""
        self.child = True
        self._lock = threading.RLock()
        self._started = self._ended = self._dropped = 0
        self._open = {}

    def leave(self) -> None:
        """Tell the counts of a parent process's run a last time: this process ends, the run does not."""
        registry.roots.pop(id(self), None)
        if self.liveness is not None:
            with guard("liveness"):
                self.liveness.ended(self, None, None, time.time_ns())

    def wait(self, reason: str) -> None:
        """Begin to wait."""
        self._waits.append(reason)
        self._report_change()

    def go_on(self, reason: str) -> None:
        """Stop waiting for `reason`."""
        with guard("waiting"):
            self._waits.remove(reason)
        self._report_change()

    def end(
        self,
        ending: lifecycle.Ending,
        *,
        message: str | None = None,
        error: BaseException | None = None,
        forced_at: int | None = None,
    ) -> bool:
        """End the run and its root span; False if it had ended or belongs to a parent process.

        `forced_at` (Unix ns) is the one end time of all that is open when the process ends.
        """
        if self.child or self.generation != _process.generation() or not self._claim():
            return False
        started, ended, dropped = self.counts()
        # A forced end takes what is open along; those spans bear the same time, so none of them is late.
        ended = ended + 1 if forced_at is None else started
        self.ending = ending
        self.ended_at = time.time_ns() if forced_at is None else forced_at
        registry.roots.pop(id(self), None)
        with guard("session end"):
            if self.span.is_recording():
                self._describe_end(ending, (started, ended, dropped), message, error)
        with guard("session end"):  # on its own: what can't be described must not keep the root open
            self.span.end(self.ended_at)
        if self.liveness is not None:
            with guard("liveness"):
                self.liveness.ended(self, ending.outcome, ending.reason, self.ended_at)
        return True

    def _claim(self) -> bool:
        with self._lock:
            if self._claimed:
                return False
            self._claimed = True
            return True

    def _describe_end(
        self,
        ending: lifecycle.Ending,
        counts: tuple[int, int, int],
        message: str | None,
        error: BaseException | None,
    ) -> None:
        attributes: dict[str, Any] = dict(
            zip((semconv.SPANS_STARTED, semconv.SPANS_ENDED, semconv.SPANS_DROPPED), counts, strict=True)
        )
        attributes[semconv.SESSION_ID] = self.session_id
        attributes[semconv.SESSION_END_REASON] = ending.reason.value
        if ending.outcome is not None:
            attributes[semconv.SESSION_OUTCOME] = ending.outcome.value
        self.span.set_attributes(attributes)  # before what others gave, which may refuse to be written down
        attributes = {}
        if message is not None and not ending.error:
            attributes[semconv.SESSION_MESSAGE] = message
        if ending.error:
            fail(self.span, error, message, event=ending is lifecycle.ENDINGS["exception"])
            if error is not None:
                attributes[semconv.ERROR_TYPE] = type(error).__qualname__
        self.span.set_attributes(attributes)

    def _report(self) -> None:
        registry.roots[id(self)] = self
        if self.liveness is not None:
            with guard("liveness"):
                self.liveness.opened(self)

    def _report_change(self) -> None:
        if self.liveness is not None:
            with guard("liveness"):
                self.liveness.changed(self)


def fail(span: Span, error: BaseException | None, message: str | None = None, *, event: bool = True) -> None:
    """Give a span status ERROR, and record the exception as its one exception event."""
    if error is not None and event:
        with guard("exception event"):
            span.record_exception(error, escaped=True)
    span.set_status(StatusCode.ERROR, message if message is not None else describe(error))


def describe(error: BaseException | None) -> str | None:
    """Return an exception's type and text; an exception that can't be printed is named only."""
    if error is None:
        return None
    with guard("exception text"):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__


def _open_span(span: ReadableSpan) -> OpenSpan:
    context = span.get_span_context()
    parent = span.parent
    return OpenSpan(
        span_id=context.span_id if context is not None else 0,
        name=span.name,
        kind=getattr(span.kind, "value", 0) + 1,  # some third parties give None
        parent_id=None if parent is None else parent.span_id,
        start=span.start_time or 0,
        trace_id=context.trace_id if context is not None else 0,
    )


def _is_call(span: ReadableSpan) -> bool:
    attributes = span.attributes or {}
    return (
        attributes.get(semconv.GEN_AI_OPERATION_NAME) in _BUSY_OPERATIONS
        or attributes.get("openinference.span.kind") in ("LLM", "TOOL", "EMBEDDING", "RETRIEVER")
        or attributes.get("traceloop.span.kind") == "tool"
    )
