"""The way out of an ended span: a bounded queue, and the one thread that makes batches of what is in it.

What takes the batches is a `_way.py`: our own, which keeps them on disk until they are acknowledged
(`_durable.py`), or an exporter of others (`_foreign.py`). Whoever waits does so with a deadline while the
thread does the work, and what became of each span is counted.

The thread also does what must not run where it comes up: ending collected sessions.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from otel_sessions.sdk._guard import guard, say
from otel_sessions.sdk._importing import importing
from otel_sessions.sdk._quiet import is_suppressed, suppressed
from otel_sessions.sdk._way import Outbound, Sent, Way, total

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_sessions.sdk._context import Place

__all__ = ["Outlet", "SpanWorker"]

Item = TypeVar("Item")

_THREAD_NAME: Final = "otel-sessions-spans"
_RELIEF: Final = 16
"""Spans that a thread encodes when it ends one and the queue is full: 0.2 ms of CPU, and room for 16."""
_COMPLAIN_AFTER: Final = 30.0
"""Seconds without any delivery after which a running program is told; a short one hears it at its end."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where spans go and how: `make_way` makes the way out, None exports nothing.

    `target` and `hint` are for people; `delay` is in seconds, `queue` and `batch` count spans; `folder` is
    where spans wait on disk. `load` imports, in `init()`, what can't be imported any more once the
    interpreter shuts down.
    """

    make_way: Callable[[], Way] | None
    target: str | None
    hint: str | None
    delay: float
    queue: int
    batch: int
    folder: str | None = None
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
        self._way: Way | None = None
        self._reset()

    def _reset(self) -> None:
        """Be as new: at the start, and in a forked child, where the thread is gone and locks may be held."""
        self._queue: deque[Outbound | Outlet] = deque()
        self._first: deque[Outbound] = deque()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.RLock()
        self._asleep = False
        self._former: list[Way] = []
        self._in_hand = 0
        self._dropped: Counter[str] = Counter()
        self._failing_since: float | None = None
        self._complained = False

    # --- For any thread ------------------------------------------------------------------------------

    @property
    def exports(self) -> bool:
        """Whether spans are sent at all."""
        return self._outlet.make_way is not None

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is not None or self._stopped:
            return
        with self._starting, guard("thread"):
            if self._thread is None:
                # Known before it runs: the collector may come by here again in the midst of this.
                thread = self._thread = threading.Thread(target=self._run, name=_THREAD_NAME, daemon=True)
                try:
                    self._make_way()
                    thread.start()
                except RuntimeError:  # the process has too many, or is about to exit
                    self._thread = None
                    raise

    def _make_way(self) -> None:
        if self._way is None and self._outlet.make_way is not None:
            self._way = self._outlet.make_way()
            self._way.start()

    def take(self, span: ReadableSpan, place: Place | None, late: bool) -> None:
        """Put an ended span on the queue; what a full queue has no room for is encoded at once, or lost."""
        way = self._way
        if self._outlet.make_way is None or (way is not None and way.busy and is_suppressed(span)):
            return  # the second: an instrumentation traced our own request
        item = (span, place, late)
        if self._stopped:
            self._lose((item,), "shut down")
            return
        queue = self._queue
        if len(queue) >= self._outlet.queue:
            self._make_room()
        queue.append(item)
        if self._asleep or len(queue) == self._outlet.batch:
            self._asleep = False
            self._jobs.put(None)

    def _make_room(self) -> None:
        """Take the oldest off a full queue: many threads that end spans leave the one that encodes behind.

        Each of them then does its share, a fraction of a millisecond, and nothing here waits for a disk.
        """
        way = self._way
        relief = way is not None and way.has_room
        oldest: list[Outbound | Outlet] = []
        with suppress(IndexError):
            while len(oldest) < (_RELIEF if relief else 1):
                oldest.append(self._queue.popleft())
        if way is None or not relief:
            self._lose(oldest, "queue full")
            return
        spans = [item for item in oldest if not isinstance(item, Outlet)]
        self._lose((item for item in oldest if isinstance(item, Outlet)), "")  # which loses no outlet
        taken = False
        with guard("export"):
            way.relieve(spans)
            taken = True
        if not taken:
            self._lose(spans, "unsendable")

    def take_first(self, span: ReadableSpan, place: Place | None, late: bool) -> None:
        """Put an ended span before all that wait; for the roots that end with the process, which are few."""
        if self._stopped or self._outlet.make_way is None:
            self.take(span, place, late)
            return
        self._first.append((span, place, late))
        self._jobs.put(None)

    def do(self, job: Callable[[], None]) -> None:
        """Let the thread run `job`. May be called from a signal handler or a finaliser: it takes no lock."""
        self._jobs.put(job)

    @property
    def _waiting(self) -> int:
        way = self._way
        return len(self._queue) + len(self._first) + (0 if way is None else way.relieved)

    def flush(self, deadline: float) -> bool:
        """Wait until all that was taken has arrived or is lost, at most until `deadline` (monotonic s)."""
        if not self._flush(deadline, threading.Event()):
            return False
        arrived = [way.flush(deadline) for way in self._ways()]
        return all(arrived)

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
        """Flush, then end the thread; what can't be kept at `deadline` is counted as dropped.

        Where nobody listens it does not sit the deadline out: a program would end late for nothing.
        """
        leaving = threading.Event()
        for way in self._ways():
            way.hasten(leaving)
        self._flush(deadline, leaving)
        self._stopped = True
        self._jobs.put(None)
        self._lose(_drained(self._first), "not sent in time")
        self._lose(_drained(self._queue), "not sent in time")
        for way in self._ways():
            way.stop(deadline)
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def abandon(self) -> None:
        """End a way that the thread can't end, for it hangs in it; so may this."""
        if self._in_hand:
            for way in self._ways():
                way.abandon()

    def sent(self) -> Sent:
        """Return what became of the spans so far."""
        return total(
            (way.sent() for way in self._ways()),
            pending=self._waiting + self._in_hand,
            dropped=self._dropped,
            target=self._outlet.target,
        )

    def complain(self, more: str = "") -> None:
        """Say in one line what was not delivered and where, if anything; `more` is what else was not."""
        state = self.sent()
        lost = sum(state.dropped.values()) + state.pending
        if lost + state.kept:
            say(
                "otel_sessions: %d of %d spans%s were not delivered to %s%s%s%s",
                lost + state.kept,
                lost + state.kept + state.sent,
                more,
                self._outlet.target,
                f" ({state.trouble})" if state.trouble else "",
                _kept(state, self._outlet.folder),
                f"; {self._outlet.hint}" if self._outlet.hint else "",
            )

    def _ways(self) -> list[Way]:
        return [*self._former, *([self._way] if self._way is not None else [])]

    # --- Fork --------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Begin with an empty queue: the parent sends what was in it. The next span starts the thread."""
        inherited, self._way = self._ways(), None
        self._reset()
        for way in inherited:
            way.after_fork_in_child()

    # --- In the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        with suppressed():
            self._open()
            due: float | None = None
            while not self._stopped:
                due = self._turn(due)
            for way in self._ways():
                with guard("exporter"):
                    way.replaced_by(None)

    def _open(self) -> None:
        if self._way is not None:
            with guard("exporter"), importing():
                self._way.open()

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
        except queue.Empty:
            return None

    def _send_all(self, deadline: float | None) -> None:
        """Send what is queued now, batch after batch, until `deadline`; without one until there is a job."""
        for _ in range(self._waiting):
            if self._stopped or (deadline is None and not self._jobs.empty()):
                return
            if deadline is not None and time.monotonic() >= deadline:
                return
            batch = self._next_batch()
            if not batch and not (self._way is not None and self._way.relieved):
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
        former, self._way = self._way, None
        if outlet.make_way is not None:
            self._way = outlet.make_way()
            self._way.start()
        self._open()
        if former is not None:
            self._former.append(former)
            with guard("exporter"):
                former.replaced_by(self._way)

    def _send(self, batch: Sequence[Outbound]) -> None:
        self._in_hand, way, taken = len(batch), self._way, False
        with guard("exporter"):
            if way is not None:
                way.send(batch)
                taken = True
        if not taken:
            self._lose(batch, "no way out" if way is None else "unsendable")
        self._in_hand = 0
        if way is not None:
            self._watch(way.sent().answering, time.monotonic())

    def _watch(self, answering: bool | None, now: float) -> None:
        """Tell a running program, once, that nothing has been taken for long."""
        if answering is not False:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since > _COMPLAIN_AFTER and not self._complained:
            self._complained = True
            self.complain()

    def _lose(self, items: Iterable[Outbound | Outlet], why: str) -> None:
        for item in items:
            if isinstance(item, Outlet):
                self.do(partial(self._switch, item))
                continue
            self._dropped[why] += 1
            _, place, late = item
            if place is not None and not late:
                place.lost(why)


def _kept(state: Sent, folder: str | None) -> str:
    """Say what is not lost of what was not delivered."""
    if not folder or not state.on_disk:
        return ""
    verb = "is" if state.on_disk == 1 else "are"
    return (
        f": {state.on_disk} {verb} kept in {folder}, for the next program that sends there, "
        "or `otel-sessions spool send`"
    )


def _drained(queue: deque[Item]) -> Iterator[Item]:
    """Take all off a queue that the thread may still take from."""
    with suppress(IndexError):
        while True:
            yield queue.popleft()
