"""One run of a session: its root span, what is open in it, and its one end.

The public `Session` is a handle to a root and may be collected; the root lives as long as anything of it
is open. A root taken up from a parent process (by fork or by environment) has no span here and never ends.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Collection, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, TraceFlags

from otel_sessions import lifecycle, semconv
from otel_sessions.sdk import _process
from otel_sessions.sdk._critical import critical
from otel_sessions.sdk._failure import error_type, fail
from otel_sessions.sdk._guard import guard, guarded, say_once
from otel_sessions.sdk._ledger import Ledger, ledgers
from otel_sessions.sdk._registry import OpenEntry, registry
from otel_sessions.sdk._run import Counts, OpenSpan
from otel_sessions.sdk._values import to_json

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_sessions.sdk._liveness import Liveness
    from otel_sessions.sdk._options import Options

__all__ = ["Root"]

_BUSY_OPERATIONS: Final = frozenset(
    {"chat", "text_completion", "generate_content", "embeddings", "execute_tool", "retrieval"}
)
"""`gen_ai.operation.name`s of model and tool calls (semantic-conventions-genai)."""


class Root:
    """A run. Implements `_run.Run`."""

    __slots__ = (
        "__weakref__",
        "_entered_as",
        "_final",
        "_handle",
        "_ledger",
        "_open",
        "_waits",
        "_worn_id",
        "activity",
        "child",
        "ended_at",
        "ending",
        "generation",
        "liveness",
        "options",
        "previous_id",
        "resumed",
        "sampled",
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
        self.sampled = False
        self._worn_id: str | None = None
        self._ledger = Ledger()  # its own, until it enters the session's
        self._entered_as = session_id
        self._final: Counts | None = None
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

    @critical
    def counts(self) -> Counts:
        """Count the spans of this session in this process, over all its runs; of an ended run, at its end."""
        ledger = self._ledger
        with ledger.lock:
            return self._final or ledger.counts()

    @critical
    def open_spans(self, limit: int = 64) -> Sequence[OpenSpan]:
        """Return open spans of this run that will be sent, the oldest first, without the root."""
        with self._ledger.lock:
            entries = [e for e in self._open.values() if e.span is not self.span and e.sampled][:limit]
        return [_open_span(entry.span) for entry in entries]

    def last_activity(self) -> int:
        """Tell when a span last started or ended, in monotonic ns."""
        return self.activity

    @critical
    def busy(self) -> bool:
        """Tell whether a model or tool call is open, or the run waits."""
        with self._ledger.lock:
            entries = list(self._open.values())
        return bool(self._waits) or any(_is_call(entry.span) for entry in entries)

    @guarded("timeout")
    def time_out(self, ending: lifecycle.Ending) -> None:
        """End the run, if it has not ended."""
        self.end(ending, message=f"the session ran into its {ending.reason.value.replace('_', ' ')}")

    # --- What the processor tells -----------------------------------------------------------------

    @critical
    def opened(self, key: int, entry: OpenEntry) -> bool:
        """Note a span that started in this run, and count it if it will be sent; tell whether it is late."""
        ledger = self._ledger
        with ledger.lock:
            if entry.sampled:
                ledger.started += 1
            self._open[key] = entry
        if self.options.idle_timeout is not None:
            self.activity = time.monotonic_ns()
        if self.child:
            self._begin_as_child(entry)
        return self.ended_at is not None

    def _begin_as_child(self, entry: OpenEntry) -> None:
        if self._worn_id is None:  # no root of ours could show it
            self._worn_id = cast("str | None", (entry.span.attributes or {}).get(semconv.SESSION_ID))
        if id(self) not in registry.roots:
            self._report()

    @critical
    def closed(self, key: int) -> bool:
        """Note that a span of this run ended, and count it if it is sent; tell whether it is late.

        What ends after the run is late, whatever end time it bears: the counts have been told by then. What
        the end of the run has counted is neither counted again nor late.
        """
        ledger = self._ledger
        with ledger.lock:
            entry = self._open.pop(key, None)
            if entry is None:
                return False
            late = self.ended_at is not None
            if entry.sampled and not late:
                ledger.ended += 1
        if self.options.idle_timeout is not None:
            self.activity = time.monotonic_ns()
        return late

    @critical
    def forget(self, key: int) -> None:
        """Expect no end of a span any more."""
        with self._ledger.lock:
            self._open.pop(key, None)

    def lost(self, why: str) -> None:
        """Count a span of this run that will never arrive."""
        self._ledger.lost(why)

    def bears(self, worn_id: object) -> bool:
        """Tell whether a span's `session.id` is this session's as a limit of the tracer provider cuts it."""
        if self._worn_id is None and self.span_id == 0 and isinstance(worn_id, str) and not self.child:
            # The root span itself, which is just starting.
            self._worn_id = worn_id if self.session_id.startswith(worn_id) else None
        return self._worn_id is not None and worn_id == self._worn_id

    # --- Life -------------------------------------------------------------------------------------

    def enter_ledger(self) -> None:
        """Count where all runs of the session in this process are counted."""
        self._ledger, known = ledgers.enter(self._entered_as, self)
        self.resumed = self.resumed or known

    def bind(
        self, span: Span, handle: object, collected: Callable[[Root], None] | None, *, exported: bool = True
    ) -> None:
        """Take the started root span; `collected` is called when nobody holds `handle` any more.

        Without `collected` nothing is recorded, and nobody need know of the run. `exported` tells whether
        our exporter sends the spans; where another's does, the session goes by the id as they bear it.
        """
        context = span.get_span_context()
        self.span = span
        self.sampled = context.trace_flags.sampled and span.is_recording()
        if context.is_valid:
            self.trace_id, self.span_id = context.trace_id, context.span_id
            # The start event bears the very time of the root span.
            self.started_at = getattr(span, "start_time", None) or self.started_at
        if self._worn_id is not None:
            self._be_known_as(self._worn_id, exported=exported)
        if collected is not None:
            self._handle = weakref.ref(handle, lambda _: collected(self))
            self._report()

    def _be_known_as(self, worn_id: str, *, exported: bool) -> None:
        say_once(
            "cut id",
            "otel_sessions: a limit of the tracer provider (OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, or "
            "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT) cuts the session id %r to %r%s",
            self.session_id,
            worn_id,
            "; our exporter restores it, exporters of others do not"
            if exported
            else ", by which the session is known: set the limit higher, or pass shorter ids",
        )
        if not exported:
            self.session_id = worn_id

    def as_parent(self) -> Span:
        """Return what children of the root have as their parent."""
        if self.span_id == 0 or self.span.get_span_context().is_valid:
            return self.span
        flags = TraceFlags(TraceFlags.SAMPLED if self.sampled else TraceFlags.DEFAULT)
        return NonRecordingSpan(SpanContext(self.trace_id, self.span_id, is_remote=True, trace_flags=flags))

    def attend(self, liveness: Liveness | None, parent: SpanContext, span_id: int) -> None:
        """Become a run of a parent process that carried it here by environment, below its span `parent`."""
        self.child = True
        self.liveness = liveness
        self.trace_id, self.span_id = parent.trace_id, span_id
        # Where only the session was carried, nobody said that the run is not recorded.
        self.sampled = span_id != 0 and (not parent.is_valid or parent.trace_flags.sampled)
        self.enter_ledger()
        self._report()

    def inherit(self) -> None:
        """Become a run of the parent process; called in a forked child, where only one thread is."""
        self.child = True
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
        left_open: Collection[int] = (),
    ) -> bool:
        """End the run and its root span; False if it had ended or belongs to a parent process.

        `forced_at` (Unix ns) is the one end time of all that is open when the process ends, but for the
        spans whose `id()` is in `left_open`. What is about to be ended then is counted as ended.
        """
        if self.child or self.generation != _process.generation():
            return False
        counts = self._close_ledger(ending, forced_at, left_open)
        if counts is None:
            return False
        registry.roots.pop(id(self), None)
        ledgers.leave(self._entered_as, self)
        # Before the span: a processor of the user's that hangs when that ends must not hold up the news.
        if self.liveness is not None and self.ended_at is not None:
            with guard("liveness"):
                self.liveness.ended(self, ending.outcome, ending.reason, self.ended_at)
                ledgers.amend(self._ledger, self._amend)
                self._amend_if_behind()
        with guard("session end"):
            if self.span.is_recording():
                self._describe_end(ending, counts, message, error)
        with guard("session end"):  # on its own: what can't be described must not keep the root open
            self.span.end(self.ended_at)
        return True

    @critical
    def _close_ledger(
        self, ending: lifecycle.Ending, forced_at: int | None, left_open: Collection[int]
    ) -> Counts | None:
        """Be ended, and return the counts of that instant; None if the run had ended.

        The root is counted with it. A forced end takes along what is still open, and none of that is late.
        """
        ledger = self._ledger
        with ledger.lock:
            if self._final is not None:
                return None
            taken = [self.span_id]
            if forced_at is not None:
                taken = [key for key, entry in self._open.items() if id(entry.span) not in left_open]
            entries = [entry for entry in map(self._open.pop, taken, repeat(None)) if entry is not None]
            ledger.ended += sum(entry.sampled for entry in entries)
            counts = self._final = ledger.counts()
            self.ending = ending
            self.ended_at = time.time_ns() if forced_at is None else forced_at
            return counts

    @critical
    def _amend(self) -> None:
        """Tell the end once more, with spans that were lost since."""
        ledger = self._ledger
        with ledger.lock:
            now, then = ledger.counts(), self._final
            if then is not None:
                self._final = then._replace(dropped=now.dropped, losses=now.losses)
        if self.liveness is not None and self.ending is not None and self.ended_at is not None:
            with guard("liveness"):
                self.liveness.amended(self, self.ending.outcome, self.ending.reason, self.ended_at)

    @critical
    def _amend_if_behind(self) -> None:
        """Tell what was lost after the counts of the end, and before anybody was called for that."""
        ledger = self._ledger
        with ledger.lock:
            behind = (
                self._final is not None and not ledger.runs and self._final.dropped != ledger.counts().dropped
            )
        if behind:
            self._amend()

    def _describe_end(
        self,
        ending: lifecycle.Ending,
        counts: Counts,
        message: str | None,
        error: BaseException | None,
    ) -> None:
        attributes: dict[str, Any] = {
            semconv.SPANS_STARTED: counts.started,
            semconv.SPANS_ENDED: counts.ended,
            semconv.SPANS_DROPPED: counts.dropped,
        }
        if counts.losses:
            attributes[semconv.SPANS_LOSSES] = counts.losses
        attributes[semconv.SESSION_ID] = self.session_id
        attributes[semconv.SESSION_END_REASON] = ending.reason.value
        if ending.outcome is not None:
            attributes[semconv.SESSION_OUTCOME] = ending.outcome.value
        self.span.set_attributes(attributes)  # before what others gave, which may refuse to be written down
        attributes = {}
        if message is not None and not ending.error:
            attributes[semconv.SESSION_MESSAGE] = to_json(message)
        if ending.error:
            fail(self.span, error, message, event=ending is lifecycle.ENDINGS["exception"])
            if error is not None:
                attributes[semconv.ERROR_TYPE] = error_type(error)
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


def _open_span(span: ReadableSpan) -> OpenSpan:
    context = span.get_span_context()
    parent = span.parent
    return OpenSpan(
        span_id=context.span_id if context is not None else 0,
        name=span.name,
        kind=getattr(span.kind, "value", 0) + 1,  # some third parties give None
        parent_id=None if parent is None else parent.span_id,
        start=int(span.start_time or 0),  # some give seconds with a fraction
        trace_id=context.trace_id if context is not None else 0,
    )


def _is_call(span: ReadableSpan) -> bool:
    attributes = span.attributes or {}
    return (
        attributes.get(semconv.GEN_AI_OPERATION_NAME) in _BUSY_OPERATIONS
        or attributes.get("openinference.span.kind") in ("LLM", "TOOL", "EMBEDDING", "RETRIEVER")
        or attributes.get("traceloop.span.kind") == "tool"
    )
