"""Recording for tests: a provider of its own, a clock and ids that count, all spans kept in memory.

For `otel_sessions.testing`. Nothing here is on the path of a span that leaves the process.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Final, cast

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from otel_sessions import semconv
from otel_sessions.lifecycle import ENDINGS
from otel_sessions.sdk import _context, _provider
from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._ledger import ledgers
from otel_sessions.sdk._registry import registry

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

__all__ = ["Clock", "Noted", "Recording", "recording"]

_EPOCH: Final = 1_700_000_000 * 10**9
_STEP: Final = 10**6
_PATIENCE: Final = 5.0
_DISABLED: Final = "OTEL_SDK_DISABLED"


class Clock:
    """The time in a capture: 2023-11-14 22:13:20 UTC at first, and one millisecond more each time it is read.

    So times tell the order of things, whatever the machine does; `advance()` makes them tell durations.
    """

    __slots__ = ("_lock", "_now")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = _EPOCH

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        with self._lock:
            self._now += int(seconds * 10**9)

    def read(self) -> int:
        """Return the time in Unix nanoseconds, another one each time."""
        with self._lock:
            now = self._now
            self._now += _STEP
        return now


class Noted:
    """A span as the recording knows it: `end` is None while it is open. Times are the recording's."""

    __slots__ = ("end", "number", "span", "start")

    def __init__(self, number: int, span: ReadableSpan, start: int) -> None:
        self.number = number
        self.span = span
        self.start = start
        self.end: int | None = None


class _CountedIds(IdGenerator):
    """Trace and span ids: 1, 2, 3 and so on."""

    def __init__(self) -> None:
        self._spans, self._traces = count(1), count(1)

    def generate_span_id(self) -> int:
        """Return the next number."""
        return next(self._spans)

    def generate_trace_id(self) -> int:
        """Return the next number."""
        return next(self._traces)

    def is_trace_id_random(self) -> bool:
        """Say that it is not."""
        return False


class Recording(SpanProcessor):
    """All spans of one capture, in the order in which they started."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.provider = _provider_of_its_own()
        self._lock = threading.Lock()
        self._noted: dict[int, Noted] = {}
        self._names: Counter[str] = Counter()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - as inherited
        """Note a span that starts."""
        with self._lock:
            key = span.get_span_context().span_id
            self._noted[key] = Noted(len(self._noted), span, self.clock.read())

    def on_end(self, span: ReadableSpan) -> None:
        """Note that it ended, and what became of it."""
        context = span.get_span_context()
        with self._lock:
            noted = self._noted.get(context.span_id) if context is not None else None
            if noted is not None:
                noted.span, noted.end = span, self.clock.read()

    def noted(self) -> list[Noted]:
        """Return all spans so far."""
        with self._lock:
            return list(self._noted.values())

    def fresh_id(self, kind: str) -> str:
        """Return `session-1`, `session-2`, `task-1` and so on."""
        with self._lock:
            self._names[kind] += 1
            return f"{kind}-{self._names[kind]}"

    def end_what_is_open(self) -> None:
        """End what nobody ended, so that no later test finds it open or current."""
        ours = {id(noted.span) for noted in self.noted() if noted.end is None}
        for root in [root for root in list(registry.roots.values()) if id(root.span) in ours]:
            root.end(ENDINGS["exit_open"])
        for entry in [entry for entry in list(registry.open.values()) if id(entry.span) in ours]:
            with guard("forced end"):
                entry.span.end()

    def forget_sessions(self) -> None:
        """Leave no memory of these sessions: the next capture counts its ids from 1 again."""
        for noted in self.noted():
            attributes = cast("dict[str, AttributeValue]", noted.span.attributes or {})
            ledgers.forget(str(attributes.get(semconv.SESSION_ID)))


@contextmanager
def recording(*, capture: bool, task_traces: bool) -> Generator[Recording]:
    """Record all sessions in this block, and nothing outside of it; nothing leaves the process."""
    kept = Recording()
    arguments = _provider.Arguments(
        tracer_provider=kept.provider,
        export=False,
        span_processors=(kept,),
        capture=capture,
        signals=False,
        task_traces=task_traces,
    )
    around = _context.swap((None, Context()))
    try:
        with _provider.confined(_provider.Confinement(arguments, kept.fresh_id), _PATIENCE):
            try:
                yield kept
            finally:
                seen = [(noted, noted.span, noted.end) for noted in kept.noted()]
                kept.end_what_is_open()
                kept.forget_sessions()
        for noted, span, end in seen:  # as it was when the block was left
            noted.span, noted.end = span, end
    finally:
        _context.swap(around)


def _provider_of_its_own() -> TracerProvider:
    """Make a provider that records whatever the environment says: who captures wants to see."""
    disabled = os.environ.pop(_DISABLED, None)
    try:
        return TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource({semconv.SERVICE_NAME: "captured"}),
            id_generator=_CountedIds(),
            shutdown_on_exit=False,
        )
    finally:
        if disabled is not None:
            os.environ[_DISABLED] = disabled
