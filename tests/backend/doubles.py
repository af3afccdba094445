"""What backend tests share: requests built by hand, clocks that stand still, a store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from otel_sessions import semconv
from otel_sessions.backend.clock import Clock
from otel_sessions.backend.records import (
    Changes,
    Encoding,
    Gauge,
    Request,
    RunEvent,
    RunRecord,
    SessionRecord,
    Signal,
    TimelineEntry,
)
from otel_sessions.lifecycle import Phase

SECOND = 1_000_000_000
WALL = 1_800_000_000 * SECOND
ROOT = b"rootroot"
TRACE = b"t" * 16


class HandClock:
    """Both clocks, moved by hand; `now` is monotonic."""

    def __init__(self, now: int = 1_000 * SECOND) -> None:
        self.now = now
        self.wall_ahead = WALL - now

    @property
    def wall(self) -> int:
        return self.now + self.wall_ahead

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.now)

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


def run_event(name: str, **fields: Any) -> RunEvent:
    """Build an event of the run ROOT in session s-1, sent by process p-1."""
    defaults: dict[str, Any] = {
        "session_id": "s-1",
        "trace_id": TRACE,
        "root_id": ROOT,
        "at": WALL,
        "process": "p-1",
    }
    return RunEvent(name=name, **{**defaults, **fields})


def start(seq: int = 1, elapsed: float = 0.0, **fields: Any) -> RunEvent:
    """Build a start; `elapsed` in seconds."""
    return run_event(semconv.EVENT_SESSION_START, seq=seq, elapsed=round(elapsed * SECOND), **fields)


def beat(seq: int, elapsed: float, **fields: Any) -> RunEvent:
    """Build a heartbeat; `elapsed` in seconds."""
    phase = fields.pop("phase", "running")
    return run_event(
        semconv.EVENT_SESSION_HEARTBEAT, seq=seq, elapsed=round(elapsed * SECOND), phase=phase, **fields
    )


def end(seq: int, elapsed: float, **fields: Any) -> RunEvent:
    """Build an end; `elapsed` in seconds."""
    fields = {"outcome": "ok", "end_reason": "completed", **fields}
    return run_event(semconv.EVENT_SESSION_END, seq=seq, elapsed=round(elapsed * SECOND), **fields)


def request(*events: RunEvent, body: bytes = b"", keep: bool = True, received_at: int = WALL) -> Request:
    """Build a request of life cycle events."""
    return Request(Signal.LOGS, Encoding.PROTOBUF, body, received_at, events=events, keep=keep)


def session_record(session_id: str = "abc", **fields: Any) -> SessionRecord:
    """Build the roll-up row of a session without a run."""
    values: dict[str, Any] = dict.fromkeys(SessionRecord.__dataclass_fields__)
    counts = (
        "runs_count",
        "spans",
        "errors",
        "traces_count",
        "tasks_count",
        "model_calls",
        "tool_calls",
        "revision",
    )
    values |= dict.fromkeys(counts, 0)
    values |= {
        "id": session_id,
        "state": "running",
        "phase": "running",
        "signal": "none",
        "agents": (),
        "models": (),
        "tools": (),
    }
    values |= {"started_at": WALL, "last_seen_at": WALL, "inferred": True}
    values |= fields
    values["last_alive_at"] = fields.get("last_alive_at", values["last_seen_at"])
    return SessionRecord(**values)


class MemoryStore:
    """The writing half of a store, in memory; `fails` is raised by the next appends, once for each."""

    def __init__(self) -> None:
        self.appended: list[tuple[Request, ...]] = []
        self.kept: dict[tuple[str, bytes, str], RunRecord] = {}
        self.timeline: list[TimelineEntry] = []
        self.gauges: dict[tuple[str, str], Gauge] = {}
        self.bases: dict[str, int] = {}
        self.fails: list[Exception] = []
        self.poison = b""

    def append(
        self,
        requests: Sequence[Request],
        runs: Sequence[RunRecord] = (),
        timeline: Sequence[TimelineEntry] = (),
        gauges: Sequence[Gauge] = (),
    ) -> Changes:
        if self.fails:
            raise self.fails.pop(0)
        if self.poison and any(self.poison in one.body for one in requests):
            raise OverflowError("a number too large for this store")
        self.appended.append(tuple(requests))
        for run in runs:
            self.kept[run.session_key, run.root_id, run.process if run.child else ""] = run
        self.timeline += [entry for entry in timeline if entry not in self.timeline]
        self.gauges |= {(gauge.session_key, gauge.process): gauge for gauge in gauges}
        return Changes(
            sessions=tuple(self._session(key) for key in dict.fromkeys(run.session_key for run in runs))
        )

    def _session(self, key: str) -> SessionRecord:
        run = next(run for (session, _, child), run in self.kept.items() if session == key and not child)
        state = "ended" if run.run.phase is Phase.ENDED else run.run.signal.value
        return session_record(key, state=state, runs_count=1)

    def note_process(self, process: str, base: int) -> None:
        self.bases[process] = min(base, self.bases.get(process, base))

    def runs(self, session_key: str) -> Sequence[RunRecord]:
        return [self.detached(run) for (session, *_), run in self.kept.items() if session == session_key]

    def open_runs(self) -> Sequence[RunRecord]:
        return [self.detached(run) for run in self.kept.values() if run.run.phase is not Phase.ENDED]

    def process_bases(self) -> dict[str, int]:
        return dict(self.bases)

    def close(self) -> None:
        pass

    @staticmethod
    def detached(run: RunRecord) -> RunRecord:
        """Return a run as another process would read it: its expiries are on a clock that is gone."""
        return replace(run, run=replace(run.run, live_until=7, lease_until=9))
