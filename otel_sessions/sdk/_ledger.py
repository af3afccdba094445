"""How many spans of each session this process has started, ended and lost: one ledger a session.

What is told on the wire is cumulative for a session in a process, over all its runs here: a later run that
began at zero would hide what an earlier one lost. Late spans are never counted as ended, so that the ended
ones, less the stored ones that are not late, are those that are missing. So late ones that are lost aren't
counted here either: nobody misses them, and of those that are missed they would hide the reason.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_sessions import semconv
from otel_sessions.losses import told
from otel_sessions.sdk import _process
from otel_sessions.sdk._critical import critical
from otel_sessions.sdk._run import Counts

if TYPE_CHECKING:
    from otel_sessions.sdk._root import Root

__all__ = ["Ledger", "counted_in", "ledgers"]

_REMEMBERED: Final = 10_000
"""Ledgers of sessions without an open run that are kept, the ones used last: 5 MB.

One that is dropped matters only if its session is resumed here after that many others: then its counts
begin anew, and as many lost spans of the later run go unnoticed as the earlier ones had ended.
"""

_AMENDED: Final = 1_000
"""Sessions that ended last of which later losses are still told: as many as wait in a queue at once, and each
holds its run in memory, 3 kB."""


def counted_in(attributes: Mapping[str, Any]) -> str:
    """Return the session that counts a span with these attributes if it is lost; "" for a late one."""
    return "" if attributes.get(semconv.LATE) is True else str(attributes.get(semconv.SESSION_ID) or "")


class Ledger:
    """The counts of one session in this process, and its open runs here."""

    __slots__ = ("amend", "ended", "lock", "losses", "runs", "started")

    def __init__(self) -> None:
        self.runs: tuple[Root, ...] = ()
        self.renew()

    def renew(self) -> None:
        """Begin at zero, as a forked child does; its parent may have held the lock just then."""
        # Reentrant, for the collector may end a suspended generator's span in the midst of it.
        self.lock = threading.RLock()
        self.started = self.ended = 0
        self.losses: Counter[str] = Counter()
        self.amend: Callable[[], None] | None = None

    @critical
    def counts(self) -> Counts:
        """Return all counts as they are now."""
        with self.lock:
            losses = self.losses
            return Counts(self.started, self.ended, losses.total() if losses else 0, told(losses))

    @critical
    def opened(self) -> None:
        """Count a span that started in none of the open runs."""
        with self.lock:
            self.started += 1

    @critical
    def closed(self) -> bool:
        """Count a span that ended and belongs to no run; tell whether it is late: no run is open."""
        with self.lock:
            late = not self.runs
            if not late:
                self.ended += 1
        return late

    @critical
    def lost(self, why: str, spans: int = 1) -> None:
        """Count spans in time that will never arrive, by a reason of `losses.REASONS`; have that told."""
        with self.lock:
            self.losses[why] += spans
            amend = None if self.runs else self.amend
        if amend is not None:
            amend()


class Ledgers:
    """The ledgers of this process by session id; safe to use from any thread."""

    __slots__ = ("_amended", "_closed", "_lock", "_open")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: dict[str, Ledger] = {}
        self._closed: OrderedDict[str, Ledger] = OrderedDict()
        self._amended: deque[Ledger] = deque()

    @critical
    def enter(self, session_id: str, run: Root) -> tuple[Ledger, bool]:
        """Return the ledger that a run counts in from now on, and whether the session had a run before."""
        with self._lock:
            ledger = self.find(session_id)
            known = ledger is not None
            if ledger is None:
                ledger = Ledger()
            self._open[session_id] = ledger
            self._closed.pop(session_id, None)
            with ledger.lock:
                ledger.runs = (*ledger.runs, run)
        return ledger, known

    @critical
    def leave(self, session_id: str, run: Root) -> None:
        """Note that a run has ended; without another one its ledger is kept for a later run, for a while."""
        with self._lock:
            ledger = self._open.get(session_id)
            if ledger is None:
                return
            with ledger.lock:
                ledger.runs = tuple(other for other in ledger.runs if other is not run)
            if not ledger.runs:
                self._closed[session_id] = ledger
                del self._open[session_id]
                while len(self._closed) > _REMEMBERED:
                    self._closed.popitem(last=False)

    @critical
    def forget(self, session_id: str) -> None:
        """Know nothing of a session any more."""
        with self._lock:
            self._open.pop(session_id, None)
            self._closed.pop(session_id, None)

    @critical
    def amend(self, ledger: Ledger, amend: Callable[[], None]) -> None:
        """Have `amend` called when a span is lost after the end of all runs; of the latest sessions only."""
        with self._lock:
            if ledger.amend is None:
                self._amended.append(ledger)
            ledger.amend = amend
            if len(self._amended) > _AMENDED:
                self._amended.popleft().amend = None

    @critical
    def telling(self) -> dict[str, Counts]:
        """Return the counts of each session that has an open run here, or lost a span."""
        with self._lock:
            known = {**self._closed, **self._open}
            return {key: one.counts() for key, one in known.items() if one.runs or one.losses}

    def find(self, session_id: Any) -> Ledger | None:
        """Return the ledger of a session that has or had a run here."""
        return self._open.get(session_id) or self._closed.get(session_id)

    def renew(self) -> None:
        """Begin all counts at zero, in a forked child; that it had these sessions stays true."""
        self._lock = threading.RLock()
        self._amended.clear()
        for ledger in (*self._open.values(), *self._closed.values()):
            ledger.renew()


ledgers: Final = Ledgers()
_process.around_fork(in_child=ledgers.renew)
