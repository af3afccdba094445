"""What it costs to ask the SQLite store by service and trace: the same, however much it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from telemetry import BEGAN, SECOND, decoded, span, traces

from otel_sessions.backend.store.base import SpanQuery
from otel_sessions.backend.store.sqlite import SqliteStore

SERVICES = ("agent", "tools", "gateway")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Open an empty store."""
    opened = SqliteStore(tmp_path / "data")
    yield opened
    opened.close()


def grow(store: SqliteStore, first: int, last: int) -> None:
    """Add spans of three services, each with three names, and ten of them to a trace."""
    for place, service in enumerate(SERVICES):
        spans = [
            span(
                no * len(SERVICES) + place,
                name=f"work {no % 3}",
                at=no,
                trace=(no // 10 + 1).to_bytes(16, "big"),
            )
            for no in range(first, last)
        ]
        store.append([decoded(traces(spans, given={"service.name": service}))])


READS: dict[str, Callable[[SqliteStore], object]] = {
    "services": lambda store: store.services(),
    "operations": lambda store: store.operations("tools"),
    "newest": lambda store: store.find(SpanQuery("tools", visit=50)),
    "newest of a name": lambda store: store.find(SpanQuery("tools", "work 1", visit=50)),
    "none that lasts so long": lambda store: store.find(SpanQuery("tools", shortest=9 * SECOND, visit=50)),
    "of one hour": lambda store: store.find(
        SpanQuery("tools", since=BEGAN + 20 * SECOND, until=BEGAN + 60 * SECOND)
    ),
    "a trace": lambda store: store.trace((3).to_bytes(16, "big")),
    "calls of one minute": lambda store: store.calls(BEGAN + 20 * SECOND, BEGAN + 60 * SECOND),
}


@pytest.mark.parametrize("name", READS)
def test_what_is_asked_by_service_costs_the_same_at_any_size(store: SqliteStore, name: str) -> None:
    """In steps of SQLite's machine, which no load of this machine changes."""
    read = READS[name]
    grow(store, 1, 200)
    few = _steps(store, read)
    grow(store, 200, 4_000)
    assert _steps(store, read) < 1.3 * few + 20


def test_calls_of_many_services_are_counted_as_far_as_there_is_time(store: SqliteStore) -> None:
    """What is left out is said."""
    parents = [span(no, trace=no.to_bytes(16, "big")) for no in (1, 2)]
    store.append([decoded(traces(parents, given={"service.name": "agent"}))])
    for no, service in ((1, "tools"), (2, "gateway")):
        child = span(no + 10, no, at=5, trace=no.to_bytes(16, "big"))
        store.append([decoded(traces([child], given={"service.name": service}))])
    whole = store._traces.calls(BEGAN, BEGAN + 60 * SECOND)
    assert (whole.counts, whole.complete) == ({("agent", "tools"): 1, ("agent", "gateway"): 1}, True)
    clock = iter([0.0, 1.0, 2.0, 9.0])
    part = store._traces.calls(BEGAN, BEGAN + 60 * SECOND, lambda: next(clock))
    assert (len(part.counts), part.complete) == (1, False)


def _steps(store: SqliteStore, read: Callable[[SqliteStore], object]) -> int:
    """Return how many steps of ten instructions a read takes."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    read(store)
    with store._readers.snapshot() as conn:
        conn.set_progress_handler(step, 10)
    try:
        read(store)
    finally:
        with store._readers.snapshot() as conn:
            conn.set_progress_handler(None, 0)
    assert steps
    return steps
