"""The way out of an ended span: a bounded queue, and the one thread that batches and exports it.

BatchSpanProcessor is not used: its `force_flush` says True after losing everything and ignores its
timeout (otel-python #4568), its shutdown blocks for 30 s. Here results are counted as the exporter
reports them, and whoever waits does so with a deadline while the thread does the work. The exporter is
the official one and is imported in this thread: inline it stalls an event loop for 135-206 ms.

The thread also ends collected sessions, which must not happen where the collector comes by. What may hang in
code of others when the process ends is `_spare.py`'s.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_sessions.sdk._amend import amended
from otel_sessions.sdk._guard import guard, guarded, say
from otel_sessions.sdk._importing import importing
from otel_sessions.sdk._quiet import RetryLines, is_suppressed, suppressed

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_sessions.sdk._context import Place

__all__ = ["Outbound", "Outlet", "Sent", "SpanWorker"]

Item = TypeVar("Item")

_THREAD_NAME: Final = "otel-sessions-spans"
_COMPLAIN_AFTER: Final = 30.0
"""Seconds without any delivery after which a running program is told; a short one hears it at its end."""


Outbound = tuple["ReadableSpan", "Place | None", bool]
"""An ended span, where it belongs, and whether it ended after its run: a bare tuple, for it is many."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of the spans of this process. `answering` is None until something was tried."""

    sent: int
    pending: int
    dropped: dict[str, int]
    answering: bool | None
    trouble: str | None
    target: str | None


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where spans go and how: `open_exporter` is called in the thread, and None exports nothing.

    `target` and `hint` are for people; `delay` is in seconds, `queue` and `batch` count spans. `load`
    imports, in `init()`, what can't be imported any more once the interpreter shuts down.
    """

    open_exporter: Callable[[], SpanExporter] | None
    target: str | None
    hint: str | None
    delay: float
    queue: int
    batch: int
    load: Callable[[], object] | None = None

    def prepare(self) -> None:
        """Import what a program that ends at once could not import in the thread."""
        if self.load is not None:
            with guard("exporter"), importing():
                self.load()


class SpanWorker:
    """The queue and the thread."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._stopped = False
        self._reset()

    def _reset(self) -> None:
        """Be as new: at the start, and in a forked child, where the thread is gone and locks may be held."""
        self._queue: deque[Outbound | Outlet] = deque()
        self._first: deque[Outbound] = deque()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._opening = False
        self._starting = threading.RLock()
        self._asleep = False
        self._exporter: SpanExporter | None = None
        self._in_flight: Sequence[Outbound] = ()
        self._sent = 0
        self._dropped: Counter[str] = Counter()
        self._answering: bool | None = None
        self._trouble: str | None = None
        self._silent = False
        self._leaving: threading.Event | None = None
        self._failing_since: float | None = None
        self._complained = False
        self._retries = RetryLines(self._on_retry)

    # --- For any thread ------------------------------------------------------------------------------

    @property
    def exports(self) -> bool:
        """Whether spans are sent at all."""
        return self._outlet.open_exporter is not None

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is not None or self._stopped:
            return
        with self._starting, guard("thread"):
            if self._thread is None:
                # Known before it runs: the collector may come by here again in the midst of this.
                thread = self._thread = threading.Thread(target=self._run, name=_THREAD_NAME, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the process has too many, or is about to exit
                    self._thread = None
                    raise

    def take(self, span: ReadableSpan, place: Place | None, late: bool) -> None:
        """Put an ended span on the queue; a full queue loses its oldest."""
        if self._outlet.open_exporter is None or (self._in_flight and is_suppressed(span)):
            return  # the second: an instrumentation traced our own request
        item = (span, place, late)
        if self._stopped:
            self._lose((item,), "shut down")
            return
        queue = self._queue
        if len(queue) >= self._outlet.queue:
            with suppress(IndexError):
                self._lose((queue.popleft(),), "queue full")
        queue.append(item)
        if self._asleep or len(queue) == self._outlet.batch:
            self._asleep = False
            self._jobs.put(None)

    def take_first(self, span: ReadableSpan, place: Place | None, late: bool) -> None:
        """Put an ended span before all that wait; for the roots that end with the process, which are few."""
        if self._stopped or self._outlet.open_exporter is None:
            self.take(span, place, late)
            return
        self._first.append((span, place, late))
        self._jobs.put(None)

    def do(self, job: Callable[[], None]) -> None:
        """Let the thread run `job`. May be called from a signal handler or a finaliser: it takes no lock."""
        self._jobs.put(job)

    @property
    def _waiting(self) -> int:
        return len(self._queue) + len(self._first)

    def flush(self, deadline: float) -> bool:
        """Wait until everything taken so far was tried, at most until `deadline` (monotonic s)."""
        return self._flush(deadline, threading.Event())

    def _flush(self, deadline: float, done: threading.Event) -> bool:
        if self._waiting:
            self.start()  # it may have been impossible before
        if self._thread is None or self._stopped:
            return not self._waiting

        def job() -> None:
            try:
                self._send_all(deadline)
            finally:
                done.set()

        self.do(job)
        return done.wait(max(0.0, deadline - time.monotonic())) and not self._waiting

    def hurry(self, deadline: float) -> None:
        """Send what is queued without further delay; returns at once."""
        self.do(lambda: self._send_all(deadline))

    def change(self, outlet: Outlet) -> None:
        """Go on by another outlet; what was taken before leaves the old way."""
        self._queue.append(outlet)
        self._outlet = outlet
        self._jobs.put(None)

    def stop(self, deadline: float) -> None:
        """Flush, then end the thread; what is left at `deadline` is counted as dropped.

        Where nobody listens it does not sit the deadline out: a program would end late for nothing.
        """
        leaving = self._leaving = threading.Event()
        if self._silent:
            leaving.set()
        self._flush(deadline, leaving)
        self._stopped = True
        self._jobs.put(None)
        self._lose(_drained(self._first), "not sent in time")
        self._lose(_drained(self._queue), "not sent in time")
        if self._silent:  # a retry is under way: this ends it
            self._stop_exporter()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def abandon(self) -> None:
        """Shut the exporter down where the thread can't, for it hangs in it; so may this."""
        if self._in_flight:
            self._stop_exporter()

    def sent(self) -> Sent:
        """Return what became of the spans so far."""
        return Sent(
            sent=self._sent,
            pending=self._waiting + len(self._in_flight),
            dropped=dict(self._dropped),
            answering=self._answering,
            trouble=self._trouble,
            target=self._outlet.target,
        )

    def complain(self, more: str = "") -> None:
        """Say in one line what was not delivered and where, if anything; `more` is what else was not."""
        state = self.sent()
        lost = sum(state.dropped.values()) + state.pending
        if lost:
            say(
                "otel_sessions: %d of %d spans%s were not delivered to %s%s%s",
                lost,
                lost + state.sent,
                more,
                self._outlet.target,
                f" ({state.trouble})" if state.trouble else "",
                f"; {self._outlet.hint}" if self._outlet.hint else "",
            )

    # --- Fork --------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Begin with an empty queue: the parent sends what was in it. The next span starts the thread."""
        self._retries.leave()
        self._reset()

    # --- In the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        with suppressed():
            self._open(self._outlet)
            due: float | None = None
            while not self._stopped:
                due = self._turn(due)
            self._stop_exporter()
            self._retries.leave()

    @guarded("exporter")
    def _open(self, outlet: Outlet) -> None:
        open_exporter = outlet.open_exporter
        if open_exporter is not None:
            self._opening = True
            try:
                with importing():
                    self._exporter = open_exporter()
            finally:
                self._opening = False
            self._retries.listen()

    def _turn(self, due: float | None) -> float | None:
        """Wait for a job, a full batch or the time to send; return when what is queued is due."""
        job = self._await(due)
        if job is not None:
            with guard("job"):
                job()
        now = time.monotonic()
        if self._waiting >= self._outlet.batch or (due is not None and now >= due):
            with guard("export"):
                self._send_all(None)
        if not self._waiting:
            return None
        return due if due is not None and due > now else now + self._outlet.delay

    def _await(self, due: float | None) -> Callable[[], None] | None:
        if due is None:
            self._asleep = True
            if not self._waiting:
                return self._jobs.get()
            self._asleep = False
            return None
        try:
            return self._jobs.get(timeout=max(0.0, due - time.monotonic()))
        except Empty:
            return None

    def _send_all(self, deadline: float | None) -> None:
        """Send what is queued now, batch after batch, until `deadline`; without one until there is a job."""
        for _ in range(self._waiting):
            if self._stopped or (deadline is None and not self._jobs.empty()):
                return
            if deadline is not None and time.monotonic() >= deadline:
                return
            if not (batch := self._next_batch()):
                return
            self._send(batch)

    def _next_batch(self) -> list[Outbound]:
        """Take a batch off the queue; it ends where the outlet changes, and the next goes the new way."""
        batch: list[Outbound] = []
        with suppress(IndexError):
            while len(batch) < self._outlet.batch:
                batch.append(self._first.popleft())
        with suppress(IndexError):
            while len(batch) < self._outlet.batch:
                item = self._queue.popleft()
                if not isinstance(item, Outlet):
                    batch.append(item)
                elif batch:
                    self._queue.appendleft(item)
                    break
                else:
                    self._switch(item)
        return batch

    def _switch(self, outlet: Outlet) -> None:
        former, self._exporter = self._exporter, None
        self._open(outlet)
        if former is not self._exporter:
            _shut(former)

    def _send(self, batch: Sequence[Outbound]) -> None:
        self._in_flight = batch
        try:
            delivered = self._export(batch)
        finally:
            self._in_flight = ()
        if delivered:
            self._sent += len(batch)
            self._answering, self._silent, self._trouble, self._failing_since = True, False, None, None
        elif len(batch) > 1 and self._retries.indigestible:
            # One bad span (a lone surrogate in its name, too many bytes) fails a whole batch.
            middle = len(batch) // 2
            self._send(batch[:middle])
            self._send(batch[middle:])
        else:
            self._lose(batch, "unsendable" if self._retries.indigestible else "export failed")
            self._note_failure()

    def _export(self, batch: Sequence[Outbound]) -> bool:
        exporter = self._exporter
        if exporter is None:
            return False
        self._retries.begin()
        result: SpanExportResult | None = None
        with guard("exporter"):
            result = exporter.export([_outgoing(item) for item in batch])
        return result is SpanExportResult.SUCCESS

    def _note_failure(self) -> None:
        if self._retries.indigestible:
            return
        self._answering = False
        self._trouble = self._retries.reason or self._trouble or "the exporter reported a failure"
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since > _COMPLAIN_AFTER and not self._complained:
            self._complained = True
            self.complain()

    def _stop_exporter(self) -> None:
        """Shut the exporter down, once."""
        exporter, self._exporter = self._exporter, None
        _shut(exporter)

    def _on_retry(self, reason: str, *, reached: bool) -> None:
        self._answering, self._trouble, self._silent = False, reason, not reached
        if self._silent and self._leaving is not None:
            self._leaving.set()

    def _lose(self, items: Iterable[Outbound | Outlet], why: str) -> None:
        for item in items:
            if isinstance(item, Outlet):
                self.do(partial(self._switch, item))
                continue
            self._dropped[why] += 1
            place = item[1]
            if place is not None:
                place.lost()


@guarded("exporter shutdown")
def _shut(exporter: SpanExporter | None) -> None:
    if exporter is not None:
        exporter.shutdown()


def _drained(queue: deque[Item]) -> Iterator[Item]:
    """Take all off a queue that the thread may still take from."""
    with suppress(IndexError):
        while True:
            yield queue.popleft()


def _outgoing(item: Outbound) -> ReadableSpan:
    """Return the span with what was evicted or became known at its end; at worst as it is."""
    span, place, late = item
    with guard("amend"):
        return amended(span, place, late=late)
    return span
