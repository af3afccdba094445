"""Runs for the tests of liveness: what `_run.Run` asks for, with every answer settable."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any

from otel_sessions.lifecycle import Ending, Phase
from otel_sessions.sdk._run import Counts, OpenSpan

_ids = itertools.count(1)


@dataclass
class FakeRun:
    session_id: str = ""
    trace_id: int = 0
    span_id: int = 0
    name: str = "plan trip"
    title: str | None = None
    previous_id: str | None = None
    resumed: bool = False
    child: bool = False
    phase: Phase = Phase.RUNNING
    waiting_for: str | None = None
    started_at: int = field(default_factory=time.time_ns)
    timeout: float | None = None
    idle_timeout: float | None = None
    sampled: bool = True
    tally: Counts = field(default_factory=lambda: Counts(1, 0, 0))
    open: list[OpenSpan] = field(default_factory=list)
    activity: int = field(default_factory=time.monotonic_ns)
    is_busy: bool = False
    endings: list[Ending] = field(default_factory=list)
    on_time_out: Any = None

    def __post_init__(self) -> None:
        number = next(_ids)
        self.session_id = self.session_id or f"session-{number}"
        self.trace_id = self.trace_id or (number << 64) + 1
        self.span_id = self.span_id or number

    def counts(self) -> Counts:
        return self.tally

    def open_spans(self, limit: int = 64) -> list[OpenSpan]:
        return self.open[:limit]

    def last_activity(self) -> int:
        return self.activity

    def busy(self) -> bool:
        return self.is_busy or self.phase is Phase.WAITING

    def time_out(self, ending: Ending) -> None:
        self.endings.append(ending)
        self.phase = Phase.ENDED
        if self.on_time_out is not None:
            self.on_time_out()
