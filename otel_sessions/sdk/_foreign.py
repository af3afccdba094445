"""An exporter of others as a way out: what it says of a batch is counted as it says it.

BatchSpanProcessor is not used: its `force_flush` says True after losing everything and ignores its
timeout (otel-python #4568), its shutdown blocks for 30 s. An exporter is opened in the worker's thread:
imported inline it stalls an event loop for 135-206 ms.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_sessions.sdk._amend import amended
from otel_sessions.sdk._guard import guard, guarded
from otel_sessions.sdk._importing import importing
from otel_sessions.sdk._quiet import RetryLines
from otel_sessions.sdk._way import Outbound, Sent, Way

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["ForeignWay"]


class ForeignWay:
    """The way by a SpanExporter."""

    def __init__(self, open_exporter: Callable[[], SpanExporter], target: str | None) -> None:
        """`open_exporter` is called in the worker's thread."""
        self._open_exporter = open_exporter
        self._target = target
        self._exporter: SpanExporter | None = None
        self._in_flight: Sequence[Outbound] = ()
        self._sent = 0
        self._dropped: Counter[str] = Counter()
        self._answering: bool | None = None
        self._trouble: str | None = None
        self._silent = False
        self._nobody_listens: threading.Event | None = None
        self._retries = RetryLines(self._on_retry)

    def start(self) -> None:
        """Need no thread: it sends in the worker's."""

    @guarded("exporter")
    def open(self) -> None:
        """Import or make the exporter."""
        with importing():
            self._exporter = self._open_exporter()
        self._retries.listen()

    @property
    def has_room(self) -> bool:
        """Tell that an exporter is called in the worker's thread only."""
        return False

    def relieve(self, batch: Sequence[Outbound]) -> None:
        """Take nothing: there is no room."""
        raise NotImplementedError

    @property
    def relieved(self) -> int:
        """Return that nothing was taken so."""
        return 0

    @property
    def busy(self) -> bool:
        """Whether the exporter is at work."""
        return bool(self._in_flight)

    def send(self, batch: Sequence[Outbound]) -> None:
        """Export a batch; one that can't be encoded is halved until the bad span is alone."""
        self._in_flight = batch
        try:
            delivered = self._export(batch)
        finally:
            self._in_flight = ()
        if delivered:
            self._sent += len(batch)
            self._answering, self._silent, self._trouble = True, False, None
        elif len(batch) > 1 and self._retries.indigestible:
            # One bad span (a lone surrogate in its name, too many bytes) fails a whole batch.
            middle = len(batch) // 2
            self.send(batch[:middle])
            self.send(batch[middle:])
        else:
            self._lose(batch, "unsendable" if self._retries.indigestible else "export failed")
            if not self._retries.indigestible:
                self._answering = False
                self._trouble = self._retries.reason or self._trouble or "the exporter reported a failure"

    def _export(self, batch: Sequence[Outbound]) -> bool:
        exporter = self._exporter
        if exporter is None:
            return False
        self._retries.begin()
        result: SpanExportResult | None = None
        with guard("exporter"):
            result = exporter.export([_outgoing(item) for item in batch])
        return result is SpanExportResult.SUCCESS

    def _lose(self, batch: Sequence[Outbound], why: str) -> None:
        self._dropped[why] += len(batch)
        for _, place, late in batch:
            if place is not None and not late:
                place.lost(why)

    def flush(self, deadline: float) -> bool:  # noqa: ARG002 - the protocol's
        """Wait for nothing: what `send` returned from was exported or is lost."""
        return True

    def hasten(self, nobody_listens: threading.Event) -> None:
        """Set the event once a retry tells that nobody answers."""
        self._nobody_listens = nobody_listens
        if self._silent:
            nobody_listens.set()

    def replaced_by(self, other: Way | None) -> None:
        """Shut the exporter down, unless it goes on as another way."""
        self._retries.leave()
        if not isinstance(other, ForeignWay) or other._exporter is not self._exporter:  # noqa: SLF001 - its own class
            self.abandon()

    def stop(self, deadline: float) -> None:  # noqa: ARG002 - the protocol's
        """End a retry that is under way."""
        if self._silent:
            self.abandon()

    def abandon(self) -> None:
        """Shut the exporter down, once."""
        exporter, self._exporter = self._exporter, None
        _shut(exporter)

    def sent(self) -> Sent:
        """Tell what the exporter took and what it lost."""
        return Sent(
            sent=self._sent,
            dropped=dict(self._dropped),
            answering=self._answering,
            trouble=self._trouble,
            target=self._target,
        )

    def after_fork_in_child(self) -> None:
        """Stop listening: the thread that did is gone."""
        self._retries.leave()

    def _on_retry(self, reason: str, *, reached: bool) -> None:
        self._answering, self._trouble, self._silent = False, reason, not reached
        if self._silent and self._nobody_listens is not None:
            self._nobody_listens.set()


@guarded("exporter shutdown")
def _shut(exporter: SpanExporter | None) -> None:
    if exporter is not None:
        exporter.shutdown()


def _outgoing(item: Outbound) -> ReadableSpan:
    """Return the span with what was evicted or became known at its end; at worst as it is."""
    span, place, late = item
    with guard("amend"):
        return amended(span, place, late=late)
    return span
