"""The one thread of a process that sends life cycle events, whatever its number of runs.

Callers put events on a queue and return; the thread encodes, sends and retries them (`_outbox.py`), and
does what the runs need in between (`Work`). The thread is a daemon: nothing waits for it but `flush` and
`close`, which keep their deadline even when the target hangs.

The queue is a SimpleQueue because its `put` may interrupt itself: a session is also ended by finalisers
and signal handlers, which run in the midst of anything.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otel_sessions import semconv
from otel_sessions.sdk._answer import Answer, Transport, Verdict
from otel_sessions.sdk._critical import critical
from otel_sessions.sdk._events import Event, Origin
from otel_sessions.sdk._guard import guard, guarded, say_once
from otel_sessions.sdk._importing import importing
from otel_sessions.sdk._keeping import parcel_of
from otel_sessions.sdk._outbox import SECOND, Batch, Outbox, Pacing, Work
from otel_sessions.sdk._quiet import suppressed

if TYPE_CHECKING:
    from otel_sessions.sdk._courier import Courier

__all__ = ["EventStats", "Sender", "start_thread"]

_FLUSH_PACE: Final = 0.25
"""Seconds between tries while somebody waits in `flush`."""
_PAUSE_AFTER_FAULT: Final = 1.0
_LONGEST_SLEEP: Final = 3600.0


_COMPLAINTS: Final[Mapping[Verdict, str]] = {
    Verdict.ACCEPTED: "otel_sessions: %s took life cycle events, but: %s",
    Verdict.AGAIN: "otel_sessions: %s does not take life cycle events now: %s. They are kept and sent again",
    Verdict.REFUSED: "otel_sessions: %s refused life cycle events, which are lost: %s",
    Verdict.UNSUPPORTED: (
        "otel_sessions: %s takes no logs: %s. No life cycle events are sent any more: spans still arrive, "
        "but nobody can tell whether a session is alive, or which spans are open. "
        "OTEL_LOGS_EXPORTER=none avoids this line"
    ),
}
"""What is said of an answer, once for each kind and target."""


@dataclass(frozen=True, slots=True)
class EventStats:
    """What became of the life cycle events of this process.

    `sent`: records that the target accepted, heartbeats included. `failed`: events that it refused for
    good. `dropped`: events never sent, because the queue was full, events are stopped or the sender was
    closed. `queued`: events that wait. `kept`: after `shutdown()`, events on disk, for a later program.
    `unsent_heartbeats` are not lost: the next one replaces them. `stopped` says why no event is sent any
    more. `answering` is None before the first request.
    """

    sent: int = 0
    failed: int = 0
    dropped: int = 0
    queued: int = 0
    kept: int = 0
    unsent_heartbeats: int = 0
    stopped: str | None = None
    endpoint: str | None = None
    answering: bool | None = None
    last_error: str | None = None


def start_thread(run: Callable[[], None]) -> threading.Thread:
    """Start the sender's thread: a daemon, for the process must never wait for it."""
    thread = threading.Thread(target=run, name="otel-sessions-events", daemon=True)
    thread.start()
    return thread


class _NoWork:
    """Work of a sender that was replaced."""

    def tick(self, now: int) -> int:
        return now + int(_LONGEST_SLEEP * SECOND)

    def accompany(self, event: Event) -> Event | None:  # noqa: ARG002 - the protocol's
        return None

    def beats(self) -> Iterator[Event]:
        return iter(())

    def beat_again(self, at: int) -> None:
        pass


class _Flush:
    """Somebody who waits until what he put on the queue has left."""

    def __init__(self, deadline: float, *, patient: bool) -> None:
        self.deadline = deadline
        self.patient = patient
        self.mark = 0
        self.ok = False
        self.done = threading.Event()


class Sender:
    """Takes events from any thread and sends them from its own."""

    def __init__(
        self,
        work: Work,
        *,
        connect: Callable[[], Transport],
        resource: Callable[[], Mapping[str, Any]],
        origin: Callable[[], Origin],
        address: str | None,
        hint: str | None = None,
        stopped: str | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        spawn: Callable[[Callable[[], None]], threading.Thread] | None = None,
        timeout: float = 10.0,
        queue: int = 32_768,
        request_bytes: int = 1024 * 1024,
        pacing: Pacing | None = None,
        complain_after: float = 0.0,
        lock: threading.RLock | None = None,
        keeper: Courier | None = None,
    ) -> None:
        """Make a sender that has not started.

        `stopped` says from the start why nothing is to be sent; `hint` is added to complaints about the
        target at `address`; `timeout` (s) is for one request. That nobody answers is said after
        `complain_after` seconds of silence: a program that ends sooner tells of it at its end. `lock` is
        for who holds one while he calls `put`. He shares it, for `put` may be interrupted by a finaliser
        that ends a session and wants his: two locks would be taken in both orders. `keeper` takes charge of
        events that could not be sent at once; without one they wait here.
        """
        self._keeper = keeper
        self._work = work
        self._connect = connect
        self._resource = resource
        self._origin = origin
        self._address = address
        self._hint = hint
        self._stopped_from_start = stopped
        self._clock = clock
        self._spawn = spawn or start_thread
        self._timeout = timeout
        self._limit = queue
        self._request_bytes = request_bytes
        self._pacing = pacing or Pacing()
        self._complain_after = int(complain_after * SECOND)
        self._inherited: list[Transport] = []
        self._transport: Transport | None = None
        self._reset(lock)

    def _reset(self, lock: threading.RLock | None) -> None:
        # Connections of a parent process are kept, unused: closing them here would end them there.
        if self._transport is not None:
            self._inherited.append(self._transport)
        self._transport = None
        self._inbox: queue.SimpleQueue[Event | _Flush | None] = queue.SimpleQueue()
        self._lock = lock or threading.RLock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._accepted = 0
        self._overflow = 0
        self._lost_at_flush = 0
        self._unanswered_since: int | None = None
        self._flushes: list[_Flush] = []
        self._record: Callable[[Event], Any] | None = None
        self._request: Callable[[Batch], bytes] | None = None
        self._outbox = Outbox(
            self._work,
            self._encoded,
            limit=self._limit,
            request_bytes=self._request_bytes,
            pacing=self._pacing,
        )
        self._outbox.tally.stopped = self._stopped_from_start

    # --- For any thread: return at once ---------------------------------------------------------

    def start(self) -> None:
        """Start the thread, while there may be one."""
        thread = self._thread
        if self._closed or (thread is not None and thread.is_alive()):
            return
        # Whoever finds the lock taken, a finaliser inside `start` among them, leaves it to its holder.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None or not self._thread.is_alive():
                if self._keeper is not None:
                    self._keeper.start()
                self._thread = self._spawn(self._run)
        except RuntimeError as error:  # no thread can be started while the interpreter shuts down
            self._thread = None
            say_once(
                ("events", "thread", self._address),
                "otel_sessions: life cycle events are not sent: %s",
                error,
            )
        finally:
            self._starting.release()

    @critical
    def put(self, event: Event) -> bool:
        """Queue an event; False if it was dropped, and counted, at once."""
        with self._lock:
            if self._closed or self._inbox.qsize() >= self._limit:
                self._overflow += 1
                return False
            self._accepted += 1
            self._inbox.put(event)
        self.start()
        return True

    def wake(self) -> None:
        """Let the thread look for work now."""
        self._inbox.put(None)
        self.start()

    def flush(self, deadline: float) -> bool:
        """Wait until all that is queued has left, or until `deadline` (`time.monotonic()`).

        True only if the target accepted all of it, and nothing was lost since the flush before.
        """
        left = self._flush(deadline, patient=True)
        return left and (self._keeper is None or self._keeper.flush(deadline))

    def _flush(self, deadline: float, *, patient: bool) -> bool:
        if self._closed or self._thread is threading.current_thread():
            return False
        flush = _Flush(deadline, patient=patient)
        self._inbox.put(flush)
        self.start()
        flush.done.wait(max(0.0, deadline - time.monotonic()))
        return flush.ok

    def close(self, deadline: float) -> None:
        """Flush, end the thread and let go of the connection, by `deadline` (`time.monotonic()`).

        Where nobody listens it does not sit the deadline out: a program would end late for nothing.
        """
        if self._closed:
            return
        if self._thread is not None or not self._inbox.empty():
            self._flush(deadline, patient=False)
        self._closed = True
        thread = self._thread
        if thread is not None:
            self._inbox.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._keeper is not None:
            self._keeper.stop(deadline)

    def retire(self) -> None:
        """Look after no run any more, and send only what is queued; another sender does the rest."""
        self._work = self._outbox.work = _NoWork()

    def stats(self) -> EventStats:
        """Tell what became of the events."""
        tally = self._outbox.tally
        queued = len(self._outbox) + self._accepted - self._outbox.added
        abandoned = queued if self._closed else 0
        sent = failed = waiting = kept = 0
        if self._keeper is not None:
            carried = self._keeper.carried()
            sent, failed = carried.sent, sum(carried.dropped.values())
            waiting, kept = carried.waiting, carried.kept
        return EventStats(
            sent=tally.sent + sent,
            failed=tally.failed + failed,
            dropped=tally.dropped + self._overflow + abandoned,
            queued=queued - abandoned + waiting + (0 if self._closed else kept),
            kept=kept if self._closed else 0,
            unsent_heartbeats=tally.unsent_beats,
            stopped=tally.stopped,
            endpoint=self._address,
            answering=tally.answering,
            last_error=tally.last_error,
        )

    def after_fork_in_child(self, lock: threading.RLock | None = None) -> None:
        """Begin anew in a forked child: its parent has the thread, the connection and what was queued.

        Another thread of the parent may hold the lock for ever: the child shares `lock` instead.
        """
        self._reset(lock)
        if self._keeper is not None:
            self._keeper.after_fork_in_child()

    # --- The thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        with suppressed():
            self._work_on()
        if self._transport is not None:
            with guard("close the connection of life cycle events"):
                self._transport.close()

    def _work_on(self) -> None:
        prepared = self._stopped_from_start is not None
        sleep = 0.0
        while not self._closed:
            self._drain(sleep)
            if self._accepted and not prepared:
                prepared = True
                self._prepare()
            sleep = _PAUSE_AFTER_FAULT
            with guard("send life cycle events"):
                sleep = self.turn()
        self._hand_over()

    def _prepare(self) -> None:
        """Import what sending needs, when there is something to send.

        Not before: a program that has just called `init()` may be about to exchange what it imports, as
        gevent's `patch_all` does, and must find nothing half imported.
        """
        # What the network or a file has to say against it is told with the first request.
        with guard("prepare to send life cycle events"), suppress(OSError):
            self._load()
            self._open()

    def turn(self) -> float:
        """Do all that is due now; return for how many seconds nothing will be."""
        now = self._clock()
        due = self._work.tick(now)
        self._drain(0)
        if self._flushes:
            self._outbox.hurry(now)
        while self._outbox.ready(self._clock()):
            batch = self._outbox.next_batch()
            if batch is None:
                break
            answer = self._send(batch)
            go_on = self._outbox.settle(batch, answer, self._clock())
            if answer.verdict is Verdict.AGAIN:
                self._hand_over()
            if not go_on:
                break
        self._answer_flushes()
        now = self._clock()
        if now < self._outbox.not_before:
            due = min(due, self._outbox.not_before)
        longest = _FLUSH_PACE if self._flushes else _LONGEST_SLEEP
        return min(longest, max(0.0, (due - now) / SECOND))

    @guarded("keep life cycle events")
    def _hand_over(self) -> None:
        """Give what can't be sent now to the keeper, who has it on disk before this returns."""
        if self._keeper is None or self._request is None or self._outbox.tally.stopped is not None:
            return
        self._drain(0)
        told = [
            event for event in self._outbox.take_waiting() if event.name != semconv.EVENT_SESSION_HEARTBEAT
        ]
        records = tuple(record for event in told if (record := self._encoded(event)) is not None)
        if records:
            body = self._request(Batch(len(records), 0, 0, records))
            self._keeper.take(parcel_of(told, body))

    def _drain(self, sleep: float) -> None:
        """Take what is queued; wait up to `sleep` seconds for the first item."""
        try:
            item = self._inbox.get(timeout=sleep) if sleep else self._inbox.get_nowait()
            while True:
                if isinstance(item, Event):
                    self._outbox.add(item)
                elif item is not None:
                    item.mark = self._outbox.added
                    self._flushes.append(item)
                item = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _send(self, batch: Batch) -> Answer:
        answer = Answer(Verdict.AGAIN, "a fault of otel_sessions, see its log line", reached=False)
        with guard("send a request of life cycle events"):
            try:
                transport = self._open()
                if self._request is not None:
                    answer = transport.send(self._request(batch), self._timeout)
            except OSError as error:  # a certificate that can't be read, a proxy that makes no sense
                answer = Answer(Verdict.AGAIN, f"{type(error).__name__}: {error}", reached=False)
        self._report(answer)
        return answer

    def _load(self) -> None:
        """Import what encoding needs: slow, hence here and early."""
        if self._record is not None:
            return
        with importing():
            from otel_sessions.sdk import _encode  # noqa: PLC0415 - protobuf is for this thread only
        resource = _encode.to_resource(self._resource())
        self._request = lambda batch: _encode.to_request(batch.records, resource)
        self._record = lambda event: _encode.to_record(event, self._origin())

    def _open(self) -> Transport:
        if self._transport is None:
            with importing():
                self._transport = self._connect()
        return self._transport

    def _encoded(self, event: Event) -> Any:
        with guard("encode a life cycle event"):
            self._load()
            return None if self._record is None else self._record(event)
        return None

    def _answer_flushes(self) -> None:
        if not self._flushes:
            return
        tally = self._outbox.tally
        lost = tally.failed + tally.dropped + self._overflow
        whole = self._stopped_from_start is not None or (
            tally.stopped is None and lost == self._lost_at_flush
        )
        waiting: list[_Flush] = []
        for flush in self._flushes:
            if self._outbox.passed(flush.mark):
                flush.ok = whole
                self._lost_at_flush = lost
                flush.done.set()
            elif time.monotonic() < flush.deadline and (flush.patient or tally.answering is not False):
                waiting.append(flush)
            else:
                flush.done.set()
        self._flushes = waiting

    # --- One line for each kind of trouble ------------------------------------------------------------

    def _report(self, answer: Answer) -> None:
        if answer.reached:
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = self._clock()
        since = self._unanswered_since
        if since is not None and self._clock() - since < self._complain_after:
            return
        if answer.verdict is Verdict.ACCEPTED and not (answer.rejected or answer.detail):
            return
        hint = "" if self._hint is None else f" ({self._hint})"
        what = (
            f"{answer.detail}{hint}"
            if answer.rejected == 0
            else f"{answer.rejected} refused: {answer.detail}"
        )
        say_once(("events", answer.verdict, self._address), _COMPLAINTS[answer.verdict], self._address, what)
