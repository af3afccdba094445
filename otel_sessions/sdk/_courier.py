"""Carry requests to one address until they are acknowledged, whatever happens to it meanwhile.

Before it: `_export.py` encodes batches into parcels. After it: `_transport.py`, `_grpc.py`. A parcel is on
disk (`_spool.py`) before it is sent, so that neither a dead receiver nor the death of this process loses it;
where no spool can be, parcels wait in memory, within a bound, and what goes over it is counted.

One daemon thread sends. What the protocol lets be tried again is tried without end, with pauses; what was
refused for good is set aside; what is too large is cut in two. Retrying is by "OTLP/HTTP Response" and
"OTLP/gRPC Response" of the protocol's specification 1.11.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from otel_sessions.sdk._answer import Answer, Transport, Verdict
from otel_sessions.sdk._critical import critical
from otel_sessions.sdk._guard import guard, say_once
from otel_sessions.sdk._importing import importing
from otel_sessions.sdk._outbox import Pacing
from otel_sessions.sdk._parcel import Parcel
from otel_sessions.sdk._quiet import suppressed
from otel_sessions.sdk._spool import Kept, Spool

__all__ = ["Carried", "Courier", "Destination"]

_FLUSH_PACE: Final = 0.25
"""Seconds between tries while somebody waits."""
_LOOK_AFTER_OTHERS: Final = 15.0
"""Seconds between looks for what dead processes left."""
_FIRST_LOOK: Final = 1.0
"""Seconds until the first such look where nothing else is to be sent: nothing is imported here before, for a
program that has just called `init()` may be about to exchange what it imports (gevent's `patch_all`)."""
_PAUSE_AFTER_FAULT: Final = 1.0
_FOR_COUNTING: Final = 0.05
"""Seconds beyond the deadline in which what is left is counted, unless the disk holds that up."""
_LONGEST_TIMEOUT: Final = 8
"""Times the timeout that a receiver gets in the end which was too slow, each time twice what it had: one that
needs 11 s would be sent the same every 10 s for ever, and store it each time."""
_CUTS_IN_DOUBT: Final = 16
"""Refusals in a row, without a clear reason, up to which a request is cut: each time the first half is tried
next, so that 16 lead from 32,768 spans to one. If that isn't taken either, size is not the trouble."""
_LOST: Final = "They are lost"
_SET_ASIDE: Final = (
    "They are set aside: `otel-sessions spool send --rejected` delivers them, "
    "and with --renewed also by another token"
)
_MEMORY: Final = 64 * 1024 * 1024
"""Bytes that wait in memory where no spool can be."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where parcels go: `connect` and `open_spool` are called in the thread; None spools nothing.

    `split` cuts a parcel that was too large into smaller ones, or returns it alone; `timeout` (s) is for one
    request, at first; `what` is in the parcels, for people.
    """

    address: str
    connect: Callable[[], Transport]
    open_spool: Callable[[], Spool] | None
    split: Callable[[Parcel], list[Parcel]]
    timeout: float = 10.0
    memory: int = _MEMORY
    pacing: Pacing = field(default_factory=Pacing)
    what: str = "spans"


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of the parcels of this process, counted in spans or records.

    `sent` were acknowledged, `kept` wait on disk, `waiting` in memory; `dropped` are lost, by reason;
    `inherited` of those that were sent were left by processes that are gone.
    """

    sent: int
    kept: int
    waiting: int
    inherited: int
    dropped: Mapping[str, int]
    answering: bool | None
    trouble: str | None


@dataclass(frozen=True, slots=True)
class _Load:
    """The next parcel to send, and where it lies."""

    parcel: Parcel
    kept: Kept | None
    own: bool


class _Waiter:
    """Somebody who waits until so many parcels are settled; one without patience, while anybody answers.

    `deadline` is in seconds of the courier's clock; one that has `left` waits no more.
    """

    __slots__ = ("deadline", "done", "left", "mark", "patient")

    def __init__(self, mark: int, deadline: float, *, patient: bool) -> None:
        self.mark = mark
        self.deadline = deadline
        self.patient = patient
        self.left = False
        self.done = threading.Event()


class Courier:
    """The parcels of one address, and the thread that sends them."""

    def __init__(
        self,
        destination: Destination,
        *,
        lost: Callable[[str, int, str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`lost` is told of a session, how many of its items will never arrive, and why."""
        self._destination = destination
        self._tell_lost = lost
        self._clock = clock
        self._jitter = jitter
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._retired = False
        self.sending = False
        self._spool: Spool | None = None
        self._memory: deque[Parcel] = deque()
        self._in_memory = 0
        self._items_in_memory = 0
        self._in_hand: _Load | None = None
        self._transport: Transport | None = None
        self._taken = 0
        self._settled = 0
        self._items = 0
        self._own_sent = 0
        self._inherited = 0
        self._dropped: Counter[str] = Counter()
        self._told: Counter[tuple[str, str]] = Counter()
        self._silent = False
        self._answering: bool | None = None
        self._trouble: str | None = None
        self._failures = 0
        self._not_before = 0.0
        self._failed_at = 0.0
        self._told_to_wait = False
        self._doubts = 0
        self._timeout = self._destination.timeout
        self._waiters: list[_Waiter] = []
        self._look = self._clock() + _FIRST_LOOK
        self._swept = False

    # --- For any thread -------------------------------------------------------------------------------------

    @critical
    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._lock, guard("thread"):
            if self._thread is None and not self._stopped:
                thread = self._thread = threading.Thread(
                    target=self._run, name="otel-sessions-courier", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # the process has too many, or is about to exit
                    self._thread = None
                    raise

    def take(self, parcel: Parcel) -> None:
        """Take charge of a parcel; when this returns it is on disk, where there is a spool."""
        with self._lock:
            if not self._taken:
                self._look = min(self._look, self._clock())
            self._taken += 1
            self._items += parcel.items
            if not self._put(parcel):
                self._remember(parcel)
            self._changed.notify_all()
            self._let_go_after_the_end()
        self.start()

    def flush(self, deadline: float, *, patient: bool = True) -> bool:
        """Wait until what was taken so far was acknowledged or refused, at most until `deadline`.

        Without `patient` it does not sit the deadline out where nobody answers, or asks for more time.
        """
        waiter = self._begin_to_wait(deadline, patient=patient)
        if waiter is None:
            return False
        if self._thread is not None:
            waiter.done.wait(max(0.0, deadline - self._clock()))
        waiter.left = True
        return self._settled >= waiter.mark

    @critical
    def _begin_to_wait(self, deadline: float, *, patient: bool) -> _Waiter | None:
        """Wait from now on; None if the disk holds everything up until the deadline."""
        if not self._lock.acquire(timeout=max(0.0, deadline - self._clock())):
            return None
        try:
            waiter = _Waiter(self._taken, deadline, patient=patient)
            self._waiters = [other for other in self._waiters if not other.left]
            self._waiters.append(waiter)
            self._tell_waiters()
            self._changed.notify_all()
        finally:
            self._lock.release()
        return waiter

    def stop(self, deadline: float) -> None:
        """Send what can be until `deadline`; what is on disk stays there, what is in memory is lost."""
        self.flush(deadline, patient=False)
        self._halt(deadline)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, deadline - self._clock()))
        self._give_up()

    @critical
    def _halt(self, deadline: float) -> None:
        self._stopped = True
        if self._lock.acquire(timeout=max(0.0, deadline - self._clock())):
            try:
                self._tell_waiters()
                self._changed.notify_all()
            finally:
                self._lock.release()

    @critical
    def _give_up(self) -> None:
        if self._lock.acquire(timeout=_FOR_COUNTING):
            try:
                while self._memory:
                    parcel = self._memory.popleft()
                    self._items_in_memory -= parcel.items
                    # The disk may take now what it did not take then.
                    if not self._put(parcel):
                        self._lose(parcel.sessions, "not sent in time")
                self._in_memory = 0
                self._let_go_after_the_end()
            finally:
                self._lock.release()

    def _let_go_after_the_end(self) -> None:
        """Leave what came after the thread to whoever comes next: a folder in hand is an open file."""
        ended = self._stopped and (self._thread is None or not self._thread.is_alive())
        if ended and self._spool is not None:
            with guard("spool"):
                self._spool.close()

    @property
    def stopped(self) -> bool:
        """Whether it sends no more."""
        return self._stopped

    @critical
    def retire(self) -> None:
        """Send what was taken, and end then."""
        with self._lock:
            self._retired = True
            self._changed.notify_all()

    def carried(self) -> Carried:
        """Return what became of everything so far; takes no lock, for a slow disk may hold that for long."""
        sent, dropped, waiting = self._own_sent, dict(self._dropped), self._items_in_memory
        return Carried(
            sent=sent,
            kept=max(0, self._items - sent - sum(dropped.values()) - waiting),
            waiting=waiting,
            inherited=self._inherited,
            dropped=dropped,
            answering=self._answering,
            trouble=self._trouble,
        )

    def after_fork_in_child(self) -> None:
        """Begin anew: the parent sends what it took. Its connection is left alone, it is the parent's."""
        spool = self._spool
        self._reset()
        if spool is not None:
            spool.after_fork_in_child()
            self._spool = spool

    # --- Disk, and memory where there is none ---------------------------------------------------------------

    def _put(self, parcel: Parcel, *, first: bool = False) -> bool:
        try:
            spool = self._opened()
            if spool is None:
                return False
            spool.put(parcel, first=first)
        except OSError as error:
            say_once(
                ("spool", self._destination.address),
                "otel_sessions: %s can't be kept on disk (%s): what is not delivered at the end of this "
                "program is lost. OTEL_SESSIONS_SPOOL names another folder",
                self._destination.what,
                error,
            )
            return False
        self._note_losses(spool)
        return True

    def _opened(self) -> Spool | None:
        open_spool = self._destination.open_spool
        if self._spool is None and open_spool is not None:
            self._spool = open_spool()
        return self._spool

    def _remember(self, parcel: Parcel, *, first: bool = False) -> None:
        (self._memory.appendleft if first else self._memory.append)(parcel)
        self._in_memory += len(parcel.body)
        self._items_in_memory += parcel.items
        begin = 1 if self._in_hand is not None and self._in_hand.parcel is self._memory[0] else 0
        while self._in_memory > self._destination.memory and len(self._memory) > begin + 1:
            oldest = self._memory[begin]
            del self._memory[begin]
            self._in_memory -= len(oldest.body)
            self._items_in_memory -= oldest.items
            self._settled += 1
            self._lose(oldest.sessions, "no room")

    def _note_losses(self, spool: Spool) -> None:
        """Count what the spool had to drop since the last look."""
        for (why, session), number in spool.lost.items():
            more = number - self._told[why, session]
            if more:
                self._told[why, session] = number
                self._lose({session: more}, why)
        for why, number in spool.lost_of_others.items():
            say_once(
                ("left by others", self._destination.address, why),
                "otel_sessions: %d spans or more that earlier programs had left for %s are lost: %s",
                number,
                self._destination.address,
                why,
            )

    def _lose(self, sessions: Mapping[str, int], why: str) -> None:
        for session, number in sessions.items():
            self._dropped[why] += number
            if self._tell_lost is not None:
                self._tell_lost(session, number, why)

    # --- The thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        with suppressed():
            while not self._stopped:
                pause = _PAUSE_AFTER_FAULT
                with guard("courier"):
                    self._carry_next()
                    pause = 0.0
                if pause:
                    time.sleep(pause)
            with self._lock, guard("spool"):
                if self._spool is not None:
                    self._spool.close()
        if self._transport is not None:
            with guard("close the connection"):
                self._transport.close()

    def _carry_next(self) -> None:
        load = self._await_load()
        if load is not None:
            try:
                answer = self._send(load.parcel)
                with self._lock:
                    self._settle(load, answer, self._clock())
            finally:
                self._in_hand = None

    def _await_load(self) -> _Load | None:
        """Wait until there is a parcel that may be sent now; None at the end."""
        with self._lock:
            while not self._stopped:
                now = self._clock()
                self._look_after_others(now)
                pause = self._pause(now)
                if pause <= 0:
                    try:
                        self._in_hand = self._next()
                    except OSError as error:  # no file can be opened just now
                        self._trouble = f"{type(error).__name__}: {error}"
                        self._failed_at, self._not_before = now, now + _PAUSE_AFTER_FAULT
                        continue
                    if self._in_hand is not None:
                        return self._in_hand
                    self._stopped = self._stopped or self._retired
                    pause = self._look - now
                if not self._stopped:
                    self._changed.wait(max(0.0, pause))
        return None

    def _pause(self, now: float) -> float:
        """Return for how many seconds nothing may be sent; for somebody who waits not so long."""
        at = self._not_before
        if not self._told_to_wait and any(not waiter.left for waiter in self._waiters):
            at = min(at, self._failed_at + _FLUSH_PACE)
        return at - now

    def _look_after_others(self, now: float) -> None:
        if now < self._look:
            return
        self._look = now + _LOOK_AFTER_OTHERS
        with guard("spool"):
            try:
                spool = self._opened()
            except OSError:
                return
            if spool is not None:
                if not self._swept:
                    self._swept = True
                    self._sweep(spool, now)
                spool.let_go_of_empty()
                spool.take_over(now)

    def _sweep(self, spool: Spool, now: float) -> None:
        removed = spool.sweep(now)
        if removed:
            say_once(
                ("swept", spool.folder),
                "otel_sessions: %d spans that earlier programs had left for other receivers were too old, "
                "and are removed",
                removed,
            )

    def _next(self) -> _Load | None:
        if self._memory:
            return _Load(self._memory[0], None, own=True)
        spool = self._spool
        first = spool.first() if spool is not None else None
        if spool is not None:
            self._note_losses(spool)
        if first is None or spool is None:
            self._settled = self._taken
            self._tell_waiters()
            return None
        return _Load(first[1], first[0], own=first[0].sessions is not None)

    def _send(self, parcel: Parcel) -> Answer:
        self.sending = True
        try:
            return self._connected().send(parcel.body, self._timeout)
        except OSError as error:  # a certificate that can't be read, a proxy that makes no sense
            return Answer(Verdict.AGAIN, f"{type(error).__name__}: {error}", reached=False)
        finally:
            self.sending = False

    def _connected(self) -> Transport:
        if self._transport is None:
            with importing():
                self._transport = self._destination.connect()
        return self._transport

    def _settle(self, load: _Load, answer: Answer, now: float) -> None:
        """Draw the consequences of an answer."""
        if load.kept is None and not (self._memory and self._memory[0] is load.parcel):
            return  # given up for lost meanwhile
        self._answering = answer.reached and answer.verdict is Verdict.ACCEPTED
        self._silent = not answer.reached
        if answer.verdict is Verdict.AGAIN:
            if answer.timed_out:
                self._timeout = min(2 * self._timeout, _LONGEST_TIMEOUT * self._destination.timeout)
            self._wait(answer, now)
            return
        self._failures, self._told_to_wait, self._not_before = 0, False, 0.0
        if answer.verdict is Verdict.ACCEPTED:
            self._trouble, self._doubts = answer.detail or None, 0
            self._count_sent(load, answer)
            self._leave(load)
        elif self._may_cut(load, answer) and len(parts := self._destination.split(load.parcel)) > 1:
            self._replace(load, parts)
        else:
            self._trouble = answer.detail
            self._refuse(load, answer.detail)
        self._tell_waiters()

    def _wait(self, answer: Answer, now: float) -> None:
        self._failures += 1
        self._trouble = answer.detail
        self._told_to_wait = answer.retry_after is not None
        self._failed_at = now
        self._not_before = now + self._destination.pacing.pause(
            self._failures, answer.retry_after, self._jitter()
        )
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        for waiter in self._waiters:
            too_late = self._told_to_wait and self._not_before >= waiter.deadline
            in_vain = not waiter.patient and (self._silent or too_late)
            if self._stopped or in_vain or self._settled >= waiter.mark:
                waiter.done.set()

    def _count_sent(self, load: _Load, answer: Answer) -> None:
        rejected = min(answer.rejected, load.parcel.items)
        if not load.own:
            self._inherited += load.parcel.items - rejected
            return
        self._own_sent += load.parcel.items - rejected
        if rejected:
            # Whose they were the receiver doesn't say; where there is one session, it is its.
            sessions = load.parcel.sessions
            self._lose({next(iter(sessions)) if len(sessions) == 1 else "": rejected}, "rejected")

    def _leave(self, load: _Load) -> None:
        if load.kept is None:
            self._memory.popleft()
            self._in_memory -= len(load.parcel.body)
            self._items_in_memory -= load.parcel.items
        elif self._spool is not None:
            self._spool.remove(load.kept)
        self._settled += load.own

    def _may_cut(self, load: _Load, answer: Answer) -> bool:
        """Tell whether parts of what was refused may be taken."""
        self._doubts += answer.perhaps_too_large
        in_doubt = answer.perhaps_too_large and self._doubts <= _CUTS_IN_DOUBT
        return load.parcel.items > 1 and (answer.too_large or in_doubt)

    def _replace(self, load: _Load, parts: list[Parcel]) -> None:
        """Put the parts of a parcel in its place: what is small enough is found before the next is tried."""
        if not load.own:
            self._replace_inherited(load, parts)
            return
        for waiter in self._waiters:
            if waiter.mark > self._settled:
                waiter.mark += len(parts)
        self._taken += len(parts)
        if load.kept is None:
            self._leave(load)
        for part in reversed(parts):
            if not self._put(part, first=True):
                self._remember(part, first=True)
        if load.kept is not None:
            self._leave(load)

    def _replace_inherited(self, load: _Load, parts: list[Parcel]) -> None:
        """Cut what another process left: on disk only, where it was safe."""
        try:
            for part in reversed(parts):
                if self._spool is not None:
                    self._spool.put(part, inherited=True, first=True)
        except OSError as error:
            self._refuse(load, f"too large, and it could not be cut: {error}")
        else:
            self._leave(load)

    def _refuse(self, load: _Load, why: str) -> None:
        say_once(
            ("refused", self._destination.address, why[:80]),
            "otel_sessions: %s refused %s for good: %s. %s",
            self._destination.address,
            self._destination.what,
            why,
            _LOST if load.kept is None or self._spool is None else _SET_ASIDE,
        )
        if load.kept is not None and self._spool is not None:
            self._spool.reject(load.kept, load.parcel, why)
            self._note_losses(self._spool)
            self._settled += load.own
        else:
            self._leave(load)
            self._lose(load.parcel.sessions, "rejected")
