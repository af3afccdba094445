"""The border between a session and what reports on it: the questions that liveness may ask of a run.

`_session.Session` answers them for runs opened here, `_provider` for a session taken up from a parent
process; `_liveness.Liveness` asks. Neither module imports the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from otel_sessions import lifecycle

__all__ = ["Counts", "OpenSpan", "Run"]


class OpenSpan(NamedTuple):
    """A span that has started and not yet ended. `kind` is OTLP's number, `start` Unix time in ns.

    `trace_id` is not always the run's: code that replaces the OpenTelemetry Context starts new traces.
    """

    span_id: int
    name: str
    kind: int
    parent_id: int | None
    start: int
    trace_id: int


class Counts(NamedTuple):
    """Spans of one session in this process so far, over all its runs here, their roots included.

    Only what is sampled counts, and no late span counts as ended: ended ones, less those that are stored and
    not late, are missing. `dropped` leaves late ones out as well; `losses` says why those are lost, as
    `losses.told` writes it.
    """

    started: int
    ended: int
    dropped: int
    losses: str = ""


class Run(Protocol):
    """One run, as its reporter sees it. Every member may be read from any thread and never raises."""

    @property
    def session_id(self) -> str:
        """`session.id`."""
        ...

    @property
    def trace_id(self) -> int:
        """Trace id of the root."""
        ...

    @property
    def span_id(self) -> int:
        """Span id of the root: with the session id the key of the run."""
        ...

    @property
    def name(self) -> str:
        """The session's name, of low cardinality; "" for a run that was taken up from a parent process."""
        ...

    @property
    def title(self) -> str | None:
        """The human text of this one session."""
        ...

    @property
    def previous_id(self) -> str | None:
        """The different session id that this one continues."""
        ...

    @property
    def resumed(self) -> bool:
        """Whether the session had a run before this one."""
        ...

    @property
    def child(self) -> bool:
        """Whether this process took the run up from its parent; such a run has neither start nor end here."""
        ...

    @property
    def phase(self) -> lifecycle.Phase:
        """What the run is doing now."""
        ...

    @property
    def waiting_for(self) -> str | None:
        """What a waiting run waits for."""
        ...

    @property
    def started_at(self) -> int:
        """Unix time in ns."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that the run may last."""
        ...

    @property
    def idle_timeout(self) -> float | None:
        """Seconds that the run may be idle."""
        ...

    @property
    def sampled(self) -> bool:
        """Whether the root is recorded; an unsampled run sends no event."""
        ...

    def counts(self) -> Counts:
        """Count the spans of this session in this process."""
        ...

    def open_spans(self, limit: int = 64) -> Sequence[OpenSpan]:
        """Return spans of this run that are open now, the oldest first, the root not included."""
        ...

    def last_activity(self) -> int:
        """Tell when a span of the run last started or ended, in ns of `time.monotonic_ns`."""
        ...

    def busy(self) -> bool:
        """Tell whether a model or tool call is open, or the run waits: such a run is not idle."""
        ...

    def time_out(self, ending: lifecycle.Ending) -> None:
        """End the run in the given way, if it has not ended; never raise."""
        ...
