"""What a batch would change in the live view, worked out without changing it.

The view is read, the store is asked for runs that are not in it, and the result is a value: whoever
commits it decides when it becomes true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from otel_sessions.backend.records import Gauge, Request, RunEvent, RunRecord, TimelineEntry
from otel_sessions.backend.resolve import global_key
from otel_sessions.backend.runs import (
    RunKey,
    apply,
    gauge_of,
    is_watched,
    key_of,
    key_of_record,
    noticed,
    same_history,
    to_this_clock,
    told,
)
from otel_sessions.lifecycle import Extended, Tick, age_of, step

__all__ = ["Arrival", "Draft", "Moment", "View", "draw"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, and when it came on the monotonic clock."""

    request: Request
    at: int


@dataclass(frozen=True, slots=True)
class Moment:
    """When a batch is folded, on both clocks, and how long the listener was away before (ns)."""

    monotonic: int
    wall: int
    away: int = 0
    tick: bool = True  # let time pass for all runs, not only for those the batch is about
    flush: bool = False  # store all signs of life that were only taken note of


@dataclass(frozen=True, slots=True)
class View:
    """What is known before the batch; nobody changes it while a draft is drawn."""

    runs: Mapping[RunKey, RunRecord]
    unstored: Iterable[RunKey]
    gauges: Mapping[str, Mapping[str, Gauge]]  # not stored yet: session key -> process -> newest
    bases: Mapping[str, int]  # process -> smallest (arrival - elapsed), on the monotonic clock


@dataclass(frozen=True, slots=True)
class Draft:
    """What a batch would change: `runs`, `timeline`, `gauges` in the store, the rest in the view."""

    moment: Moment
    runs: tuple[RunRecord, ...]
    timeline: tuple[TimelineEntry, ...]
    gauges: tuple[Gauge, ...]
    changed: Mapping[RunKey, RunRecord]
    counted: tuple[Gauge, ...]
    bases: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        """Whether the store has nothing to learn from it."""
        return not (self.runs or self.timeline or self.gauges)


@dataclass(slots=True)
class _Sketch:
    """A draft in the making."""

    view: View
    moment: Moment
    lookup: Callable[[str], Sequence[RunRecord]]
    changed: dict[RunKey, RunRecord] = field(default_factory=dict[RunKey, RunRecord])
    before: dict[RunKey, RunRecord | None] = field(default_factory=dict[RunKey, "RunRecord | None"])
    timeline: list[TimelineEntry] = field(default_factory=list[TimelineEntry])
    counted: dict[tuple[str, str], Gauge] = field(default_factory=dict[tuple[str, str], Gauge])
    bases: dict[str, int] = field(default_factory=dict[str, int])
    looked_up: dict[str, dict[RunKey, RunRecord]] = field(
        default_factory=dict[str, "dict[RunKey, RunRecord]"]
    )

    def extend(self, by: int) -> None:
        """Add the time that nobody listened to every lease."""
        for key, record in self.view.runs.items():
            self._put(key, replace(record, run=step(record.run, Extended(by), self.moment.monotonic)))

    def take(self, event: RunEvent, arrival: int, received_at: int) -> None:
        """Fold one event."""
        key = key_of(global_key(event.session_id), event)
        known = self._get(key)
        age = self._age(event, arrival)
        record = apply(known, key, event, age=age, received_at=received_at, now=arrival)
        self._put(key, record)
        if (entry := told(key, event)) is not None:
            self.timeline.append(entry)
        if (gauge := gauge_of(key[0], event)) is not None:
            self._count(gauge)

    def tick(self) -> None:
        """Let time pass for every run that is watched."""
        now = self.moment.monotonic
        for key in {**self.view.runs, **self.changed}:
            record = self._get(key)
            if record is not None and is_watched(record):
                run = step(record.run, Tick(), now)
                if run is not record.run:
                    self._put(key, replace(record, run=run))

    def finish(self) -> Draft:
        """Decide what is worth a commit, and close the sketch."""
        for key, record in self.changed.items():
            if (entry := noticed(self.before[key], record, self.moment.wall)) is not None:
                self.timeline.append(entry)
        stored = {key: record for key, record in self.changed.items() if self._worth_storing(key, record)}
        if self.moment.flush:
            stored |= {key: record for key in self.view.unstored if (record := self._get(key)) is not None}
            stored |= self.changed
        return Draft(
            self.moment,
            tuple(stored.values()),
            tuple(self.timeline),
            tuple(self._gauges({key[0] for key in stored})),
            self.changed,
            tuple(self.counted.values()),
            self.bases,
        )

    def _worth_storing(self, key: RunKey, record: RunRecord) -> bool:
        before = self.before[key]
        return before is None or not is_watched(record) or not same_history(before, record)

    def _gauges(self, sessions: set[str]) -> Iterable[Gauge]:
        """Return the newest counts of these sessions, or at a flush of all."""
        newer = set(self.counted)
        for session in self.view.gauges if self.moment.flush else sessions:
            for process, gauge in self.view.gauges.get(session, {}).items():
                if (session, process) not in newer:
                    yield gauge
        for gauge in self.counted.values():
            if self.moment.flush or gauge.session_key in sessions:
                yield gauge

    def _count(self, gauge: Gauge) -> None:
        key = gauge.session_key, gauge.process
        known = self.counted.get(key) or self.view.gauges.get(key[0], {}).get(key[1])
        self.counted[key] = gauge if known is None else gauge.joined(known)

    def _age(self, event: RunEvent, arrival: int) -> int | None:
        if event.elapsed is None or not event.process:
            return None
        base = self.bases.get(event.process, self.view.bases.get(event.process))
        self.bases[event.process], age = age_of(base, arrival, event.elapsed)
        return age

    def _get(self, key: RunKey) -> RunRecord | None:
        return self.changed.get(key) or self.view.runs.get(key) or self._stored(key)

    def _stored(self, key: RunKey) -> RunRecord | None:
        session = key[0]
        if session not in self.looked_up:
            found = self.lookup(session)
            self.looked_up[session] = {
                key_of_record(record): to_this_clock(record, self.moment.monotonic) for record in found
            }
        return self.looked_up[session].get(key)

    def _put(self, key: RunKey, record: RunRecord) -> None:
        if key not in self.before:
            self.before[key] = self.view.runs.get(key) or self.looked_up.get(key[0], {}).get(key)
        self.changed[key] = record


def draw(
    view: View,
    arrivals: Iterable[Arrival],
    moment: Moment,
    lookup: Callable[[str], Sequence[RunRecord]],
) -> Draft:
    """Fold the life cycle events of a batch, then let time pass up to `moment` if that is a tick.

    `lookup` returns the stored runs of a session key; it is asked for runs that the view does not hold
    (new, ended or lost ones). Raises what it raises.
    """
    sketch = _Sketch(view, moment, lookup)
    if moment.away:
        sketch.extend(moment.away)
    for arrival in arrivals:
        for event in arrival.request.events:
            sketch.take(event, arrival.at, arrival.request.received_at)
    if moment.tick:
        sketch.tick()
    return sketch.finish()
