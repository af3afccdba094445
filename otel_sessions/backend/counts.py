"""What a running backend counts, for whoever asks how it is: in memory, from 0 at each start; pure.

Counted where things happen, in the event loop's thread; `metrics` shows it. A label never takes more than a
bounded number of values, whatever strangers send: what comes after those is "other".
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import Enum
from typing import Final

from otel_sessions.backend.records import Changes, Request, Signal, Sums, SumsChange
from otel_sessions.backend.vitals import Chores, Emitters, Rates, RecentCommits
from otel_sessions.lifecycle import ENDINGS, EndReason, Outcome, State

__all__ = [
    "OTHER",
    "UNKNOWN",
    "Distribution",
    "Growing",
    "Labels",
    "SessionCounts",
    "WriteCounts",
]

MODELS: Final = 100
"""Models that are counted each by itself; a backend sees a dozen."""

LABEL_LENGTH: Final = 100

UNKNOWN: Final = "unknown"
OTHER: Final = "other"

COMMIT_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COMMIT_REQUESTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LAG_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SESSION_SECONDS: Final = (1, 5, 15, 60, 300, 900, 3_600, 4 * 3_600, 24 * 3_600, 7 * 24 * 3_600)

_NS: Final = 1e9

SumKey = tuple[str, ...]
"""A sum over sessions and its labels: ("tokens", provider, model, kind), ("errors",), …"""


class Distribution:
    """How values spread over buckets; a value belongs to the first whose bound it does not exceed."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Growing:
    """A sum that what arrives late may correct, shown as a number that never falls.

    What was counted twice is not taken off what was shown, but off what comes next: so the number is right
    in the long run, and never too great by more than what the last corrections were about.
    """

    def __init__(self) -> None:
        self.shown = 0
        self._sum = 0

    def add(self, amount: int) -> None:
        """Add, or with a negative amount take back."""
        self._sum += amount
        self.shown = max(self.shown, self._sum)


class Labels:
    """The first values that came for some labels, as they are; "other" for what is too much or odd."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[tuple[str, ...]] = set()

    def shown(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """Return what to count values under."""
        known = tuple(value or UNKNOWN for value in values)
        if known in self._known:
            return known
        if len(self._known) >= self._limit or not all(map(_is_plain, known)):
            return tuple(OTHER for _ in values)
        self._known.add(known)
        return known


def _is_plain(value: str) -> bool:
    return len(value) <= LABEL_LENGTH and value.isprintable()


class SessionCounts:
    """What sessions did since the start, from their sums before and after each commit.

    So nothing is counted twice that the store knows to be one: copies of a span, a model call told by two
    spans or by a span and a log, rows that move to another session.
    """

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, str]] = Counter(dict.fromkeys(ENDED_AS, 0))
        self.lost = 0
        self.durations = Distribution(SESSION_SECONDS)
        self.sums: dict[SumKey, Growing] = {(name,): Growing() for name in _PLAIN}
        self._models = Labels(MODELS)

    def note(self, changes: Iterable[SumsChange]) -> None:
        """Count what one commit changed."""
        differences: Counter[SumKey] = Counter()
        for before, after in changes:
            if after is not None and (before is None or before.state != after.state):
                self._enter(after)
            for sums, sign in ((before, -1), (after, 1)):
                for key, amount in () if sums is None else self._parts(sums):
                    differences[key] += sign * amount
        # All at once: what one session loses to another was never more.
        for key, amount in differences.items():
            if amount:
                self.sums.setdefault(key, Growing()).add(amount)

    def _enter(self, sums: Sums) -> None:
        """Count a session that came into its state."""
        if sums.state == State.LOST.value:
            self.lost += 1
        if sums.state == State.ENDED.value:
            self.ended[_one_of(Outcome, sums.outcome), _one_of(EndReason, sums.end_reason)] += 1
            if sums.duration is not None:
                self.durations.observe(sums.duration / _NS)

    def _parts(self, sums: Sums) -> Iterator[tuple[SumKey, int]]:
        for name in _PLAIN:
            yield (name,), getattr(sums, name)
        for served, used in sums.used.items():
            labels = self._models.shown(served)
            yield ("tokens", *labels, "input"), used.input
            yield ("tokens", *labels, "output"), used.output
            yield ("tokens", *labels, "cached"), used.cached
            yield ("cost", *labels), used.cost


class WriteCounts:
    """What the write path did since the start, beside what its own statistics tell."""

    def __init__(self) -> None:
        self.commit_seconds = Distribution(COMMIT_SECONDS)
        self.commit_requests = Distribution(COMMIT_REQUESTS)
        self.loop_lag = Distribution(LAG_SECONDS)
        self.spans_stored = 0
        self.spans_again = 0
        self.logs_stored = 0
        self.logs_again = 0
        self.sessions_pruned = 0
        self.spans_pruned = 0
        self.logs_pruned = 0
        self.rejected: Counter[str] = Counter({signal.value: 0 for signal in Signal})
        self.sessions = SessionCounts()
        self.rates = Rates()
        self.recent = RecentCommits()
        self.emitters = Emitters()
        self.chores = Chores()

    def note_taken(self, request: Request, now: int) -> None:
        """Count a request that was taken at `now`, monotonic ns."""
        self.rejected[request.signal.value] += request.rejected
        self.rates.note(now, len(request.spans), len(request.logs))
        self.emitters.note(request.emitted, request.received_at)

    def note_commit(self, requests: Sequence[Request], changes: Changes, duration: int) -> None:
        """Count a commit that took `duration` ns."""
        self.commit_seconds.observe(duration / _NS)
        self.recent.note(duration)
        if requests:
            self.commit_requests.observe(len(requests))
        ended = sum(span.end is not None for request in requests for span in request.spans)
        logs = sum(len(request.logs) for request in requests)
        self.spans_stored += changes.new_spans
        self.spans_again += ended - changes.new_spans
        self.logs_stored += changes.new_logs
        self.logs_again += logs - changes.new_logs
        self.sessions.note(changes.sums)

    def note_pruned(self, sessions: Collection[str], spans: int, logs: int, at: int) -> None:
        """Count what retention removed at a time, Unix ns."""
        self.chores.looked_at = at
        if sessions or spans or logs:
            self.chores.removed_at = at
        self.sessions_pruned += len(sessions)
        self.spans_pruned += spans
        self.logs_pruned += logs


_PLAIN: Final = ("errors", "model_calls", "tool_calls", "dropped")

ENDED_AS: Final = tuple(
    dict.fromkeys(
        ((ending.outcome.value if ending.outcome else UNKNOWN), ending.reason.value)
        for ending in ENDINGS.values()
    )
)
"""Outcomes with the reasons that our SDK gives them."""


def _one_of(known: type[Enum], value: str | None) -> str:
    """Return a value that is one of ours; what others made up is "other"."""
    if value is None:
        return UNKNOWN
    return value if any(value == one.value for one in known) else OTHER
