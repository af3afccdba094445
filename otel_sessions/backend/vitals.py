"""How a backend does just now, and who sends to it: rates, recent commits, emitters, its own chores.

For the status page; `counts.py` has what only grows. Values and times come in, all is bounded, whatever
strangers send.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_sessions.backend.records import Emitted, Emitter

__all__ = [
    "OTHERS",
    "Chores",
    "EmitterCounts",
    "Emitters",
    "Rate",
    "Rates",
    "RecentCommits",
    "Spread",
]

SECONDS: Final = 60
"""The window of rates: what came in the last minute, by the second."""

COMMITS: Final = 500
"""Commits that are recent: some seconds of a busy backend."""

EMITTERS: Final = 100
SESSIONS: Final = 1_000
"""Ids of sessions that are remembered of one emitter; from there on there are "1,000 or more"."""

_NS: Final = 1_000_000_000


class Rate(NamedTuple):
    """Things a second."""

    requests: float
    spans: float
    logs: float


class Rates:
    """What came a second, over the last minute or since the start, whichever is shorter."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, list[int]]] = deque()
        self._since: int | None = None

    def note(self, now: int, spans: int, logs: int) -> None:
        """Count one request that was taken at `now`, monotonic ns."""
        second = now // _NS
        self._since = now if self._since is None else self._since
        if not self._slots or self._slots[-1][0] != second:
            self._slots.append((second, [0, 0, 0]))
        slot = self._slots[-1][1]
        slot[0] += 1
        slot[1] += spans
        slot[2] += logs
        self._forget(second)

    def at(self, now: int) -> Rate:
        """Return the rates at `now`."""
        self._forget(now // _NS)
        sums = [sum(slot[kind] for _, slot in self._slots) for kind in range(3)]
        if self._since is None:
            return Rate(0.0, 0.0, 0.0)
        seconds = min(float(SECONDS), max(1.0, (now - self._since) / _NS))
        return Rate(*(number / seconds for number in sums))

    def _forget(self, second: int) -> None:
        while self._slots and self._slots[0][0] <= second - SECONDS:
            self._slots.popleft()


@dataclass(frozen=True, slots=True)
class Spread:
    """How long some commits took, ns; None where there was none."""

    count: int
    p50: int | None
    p99: int | None
    max: int | None


class RecentCommits:
    """How long the last commits took."""

    def __init__(self) -> None:
        self._took: deque[int] = deque(maxlen=COMMITS)

    def note(self, took: int) -> None:
        """Note a commit that took so many ns."""
        self._took.append(took)

    def spread(self) -> Spread:
        """Return their median, their 99th percentile (nearest rank) and the longest."""
        if not self._took:
            return Spread(0, None, None, None)
        ranked = sorted(self._took)
        return Spread(len(ranked), _rank(ranked, 50), _rank(ranked, 99), ranked[-1])


def _rank(ranked: Sequence[int], percent: int) -> int:
    return ranked[-(-len(ranked) * percent // 100) - 1]


# --- Emitters --------------------------------------------------------------------------------------------


OTHERS: Final = Emitter("")
"""What stands for all emitters beyond the number that is counted; its counts say `others`."""


@dataclass(slots=True)
class EmitterCounts:
    """What one emitter sent since the start; `last_seen_at` in Unix ns."""

    spans: int = 0
    logs: int = 0
    last_seen_at: int = 0
    others: bool = False
    sessions: set[int] = field(default_factory=set[int])  # hashes of their ids

    def add(self, emitted: Emitted, at: int) -> None:
        """Count what came at a time, Unix ns."""
        self.spans += emitted.spans
        self.logs += emitted.logs
        self.last_seen_at = max(self.last_seen_at, at)
        if len(self.sessions) < SESSIONS:
            self.sessions.update(map(hash, list(emitted.sessions)[: SESSIONS - len(self.sessions)]))


class Emitters:
    """The first emitters that came, each by itself, and all others together."""

    def __init__(self) -> None:
        self._counts: dict[Emitter, EmitterCounts] = {}
        self._others = EmitterCounts(others=True)

    def note(self, emitted: Iterable[Emitted], at: int) -> None:
        """Count what a request holds that came at a time, Unix ns."""
        for one in emitted:
            self._of(one.emitter).add(one, at)

    def counts(self) -> list[tuple[Emitter, EmitterCounts]]:
        """Return all, who was seen last first."""
        found = sorted(self._counts.items(), key=lambda pair: -pair[1].last_seen_at)
        return [*found, (OTHERS, self._others)] if self._others.last_seen_at else found

    def _of(self, emitter: Emitter) -> EmitterCounts:
        counts = self._counts.get(emitter)
        if counts is None:
            if len(self._counts) >= EMITTERS:
                return self._others
            counts = self._counts[emitter] = EmitterCounts()
        return counts


# --- Chores ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Chores:
    """What retention did: when it last looked, and last removed something; Unix ns. "" is no trouble."""

    looked_at: int | None = None
    removed_at: int | None = None
    trouble: str = ""
