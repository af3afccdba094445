"""The write path: what an acknowledgement means, and what is said when there is none."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import otlp_requests
import pytest
from doubles import SECOND, HandClock, MemoryStore
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_sessions import semconv
from otel_sessions.backend import ingest as ingest_module
from otel_sessions.backend.decode import MOST_APART, DecodeError, decode
from otel_sessions.backend.faults import ATTEMPTS
from otel_sessions.backend.ingest import THREAD_FROM_BYTES, BackPressureError, Ingest, NotStoredError, Room
from otel_sessions.backend.live import Live
from otel_sessions.backend.records import Changes, Encoding, Request, Signal
from otel_sessions.backend.redact import Redactor
from otel_sessions.backend.redact_patterns import Pattern
from otel_sessions.backend.weight import MAX_VALUES
from otel_sessions.errors import BackendError


class GatedStore(MemoryStore):
    """A store whose commits wait for the gate, as on a slow disk."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def append(self, *args, **kwargs) -> Changes:  # type: ignore[no-untyped-def]
        self.entered.set()
        assert self.gate.wait(10)
        return super().append(*args, **kwargs)


def traces(name: str = "span", size: int = 0) -> bytes:
    """Encode a request of one span, padded to at least `size` bytes."""
    message = ExportTraceServiceRequest()
    span = message.resource_spans.add().scope_spans.add().spans.add()
    span.name, span.trace_id, span.span_id = name, b"t" * 16, b"s" * 8
    if size:
        span.attributes.add(key="pad").value.string_value = "x" * size
    return message.SerializeToString()


@asynccontextmanager
async def ingesting(store: MemoryStore, **options: int) -> AsyncIterator[Ingest]:
    """Run an ingest over a store."""
    ingest = Ingest(store, Live("boot", idle_after=SECOND), HandClock().clock(), **options)  # type: ignore[arg-type]
    await ingest.start()
    try:
        yield ingest
    finally:
        await ingest.stop()


async def accept(ingest: Ingest, body: bytes) -> None:
    """Hand over one request of traces."""
    await ingest.accept(Signal.TRACES, Encoding.PROTOBUF, body)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario, not for ever."""
    asyncio.run(asyncio.wait_for(scenario(), 30))  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that no event announces."""
    while not condition():  # noqa: ASYNC110 - nobody tells when a queue has grown
        await asyncio.sleep(0.001)


def stored_names(store: MemoryStore) -> list[str]:
    """Return the names of all stored spans in order."""
    return [span.name for batch in store.appended for request in batch for span in request.spans]


def test_an_accept_returns_only_after_the_commit() -> None:
    """An acknowledgement means durable; while the disk is busy there is none."""

    async def scenario() -> None:
        store = GatedStore()
        async with ingesting(store) as ingest:
            store.gate.clear()
            accepted = asyncio.create_task(accept(ingest, traces()))
            await until(store.entered.is_set)
            assert not accepted.done()
            store.gate.set()
            await accepted
            assert stored_names(store) == ["span"]

    run(scenario)


def test_what_gathers_during_a_commit_shares_the_next() -> None:
    """Forty requests behind a slow commit cost one more, in the order in which they came."""

    async def scenario() -> None:
        store = GatedStore()
        async with ingesting(store) as ingest:
            store.gate.clear()
            first = asyncio.create_task(accept(ingest, traces("first")))
            await until(store.entered.is_set)
            rest = [asyncio.create_task(accept(ingest, traces(str(n)))) for n in range(40)]
            await until(lambda: ingest.stats().waiting_requests == 40)
            store.gate.set()
            await asyncio.gather(first, *rest)
            assert [len(batch) for batch in store.appended] == [1, 40]
            assert stored_names(store) == ["first", *map(str, range(40))]

    run(scenario)


@pytest.mark.parametrize("senders", [1, 2])
def test_who_shared_a_commit_is_waited_for_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, senders: int
) -> None:
    """Two that take turns would else never share one; who sends alone has no reason to wait."""
    monkeypatch.setattr(ingest_module, "PATIENCE_SECONDS", 20)

    async def scenario() -> None:
        time, store = HandClock(), GatedStore()
        ingest = Ingest(store, Live("boot", idle_after=SECOND), time.clock())  # type: ignore[arg-type]
        await ingest.start()
        store.gate.clear()
        first = [asyncio.create_task(accept(ingest, traces())) for _ in range(senders)]
        await until(store.entered.is_set)
        time.sleep(400)
        store.gate.set()
        await asyncio.gather(*first)
        again = asyncio.create_task(accept(ingest, traces()))
        for _ in range(100):  # turns of the loop
            await asyncio.sleep(0)
        if senders > 1:
            assert ingest.stats().waiting_requests == 1
            await asyncio.wait_for(accept(ingest, traces()), 10)
        await asyncio.wait_for(again, 10)
        await ingest.stop()
        assert [len(batch) for batch in store.appended] == [senders, senders]

    run(scenario)


def test_a_failed_commit_leaves_nobody_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is told to come back later may stay away, or come back alone."""
    monkeypatch.setattr(ingest_module, "PATIENCE_SECONDS", 20)

    async def scenario() -> None:
        time, store = HandClock(), GatedStore()
        ingest = Ingest(store, Live("boot", idle_after=SECOND), time.clock())  # type: ignore[arg-type]
        await ingest.start()
        for fails in (False, True):
            store.gate.clear()
            store.entered.clear()
            store.fails += [BackendError("the disk is gone")] * fails
            both = [asyncio.create_task(accept(ingest, traces())) for _ in range(2)]
            await until(store.entered.is_set)
            time.sleep(400)
            store.gate.set()
            await asyncio.gather(*both, return_exceptions=True)
        await asyncio.wait_for(accept(ingest, traces()), 10)
        await ingest.stop()
        assert [len(batch) for batch in store.appended] == [2, 1]

    run(scenario)


def test_a_failed_commit_is_told_to_everyone_who_waits_and_the_writer_lives_on() -> None:
    """A full disk refuses a batch; the next one is stored as if nothing had been."""

    async def scenario() -> None:
        store = GatedStore()
        async with ingesting(store) as ingest:
            store.gate.clear()
            store.fails = [BackendError("disk full")]
            waiting = [asyncio.create_task(accept(ingest, traces(str(n)))) for n in range(5)]
            await until(store.entered.is_set)
            store.gate.set()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(outcome, NotStoredError) for outcome in outcomes)
            assert "disk full" in str(outcomes[0])
            await accept(ingest, traces("later"))
            assert stored_names(store) == ["later"]
            assert ingest.stats().waiting_bytes == 0

    run(scenario)


def test_a_fault_of_ours_in_one_request_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """What a store chokes on is refused alone; those that shared its commit are stored."""

    async def scenario() -> None:
        store = GatedStore()
        store.poison = b"poison"
        async with ingesting(store) as ingest:
            store.gate.clear()
            first = asyncio.create_task(accept(ingest, traces("first")))
            await until(store.entered.is_set)
            bodies = [traces("a"), traces("poison"), traces("b")]
            rest = [asyncio.create_task(accept(ingest, body)) for body in bodies]
            await until(lambda: ingest.stats().waiting_requests == 3)
            store.gate.set()
            await first
            outcomes = await asyncio.gather(*rest, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [type(None), NotStoredError, type(None)]
            assert stored_names(store) == ["first", "a", "b"]

    with caplog.at_level(logging.ERROR):
        run(scenario)
    assert "OverflowError" in caplog.text


def test_what_fails_alone_each_time_is_not_to_be_sent_again() -> None:
    """A fault of ours may pass, so the sender comes back; one that never does would hold it up for ever."""

    async def scenario() -> None:
        store = GatedStore()
        store.poison = b"poison"
        async with ingesting(store) as ingest:
            for _ in range(ATTEMPTS - 1):
                with pytest.raises(NotStoredError):
                    await accept(ingest, traces("poison"))
            with pytest.raises(OverflowError):
                await accept(ingest, traces("poison"))
            with pytest.raises(NotStoredError):
                await accept(ingest, traces("poison", size=1))
            store.poison = b"nothing"
            await accept(ingest, traces("poison"))
            assert stored_names(store) == ["poison"]
            assert ingest.stats().waiting_bytes == 0

    run(scenario)


def test_what_is_too_dense_is_refused_before_it_is_read() -> None:
    """64 MiB of almost nothing would take 5 GiB of memory."""

    async def scenario() -> None:
        async with ingesting(GatedStore()) as ingest:
            with pytest.raises(DecodeError, match="more than 4194304 values"):
                await accept(ingest, b"\x0a\x00" * (MAX_VALUES[Encoding.PROTOBUF] + 1))
            assert ingest.stats().waiting_bytes == 0

    run(scenario)


def test_what_cannot_be_decoded_is_refused_and_stores_nothing() -> None:
    """Garbage is the sender's fault and is said so at once, small or big."""

    async def scenario() -> None:
        store = MemoryStore()
        async with ingesting(store) as ingest:
            for body in (b"\xff\xff\xff", b"\xff" * 300_000):
                with pytest.raises(DecodeError):
                    await accept(ingest, body)
            assert ingest.stats().waiting_bytes == 0
        assert store.appended == []

    run(scenario)


def test_a_full_queue_answers_with_back_pressure_and_takes_again_when_it_is_emptied() -> None:
    """What waits is bounded in bytes: beyond, the sender is asked to come back."""

    async def scenario() -> None:
        store = GatedStore()
        async with ingesting(store, queue_bytes=100_000) as ingest:
            store.gate.clear()
            taken = [asyncio.create_task(accept(ingest, traces(size=40_000))) for _ in range(2)]
            await until(lambda: ingest.stats().waiting_bytes > 80_000)
            with pytest.raises(BackPressureError):
                await accept(ingest, traces(size=40_000))
            assert ingest.stats().refused == 1
            store.gate.set()
            await asyncio.gather(*taken)
            await accept(ingest, traces(size=40_000))
            assert sum(map(len, store.appended)) == 3

    run(scenario)


def test_one_request_may_be_larger_than_the_queue() -> None:
    """The bound is for many; the limit of one is the receiver's business."""
    room = Room(10)
    room.take(50)
    with pytest.raises(BackPressureError):
        room.take(1)
    room.give(50)
    room.take(1)


def test_a_sender_that_goes_away_leaves_its_request_stored_and_no_room_taken() -> None:
    """A cancelled call changes nothing for what was already handed over."""

    async def scenario() -> None:
        store = GatedStore()
        async with ingesting(store) as ingest:
            store.gate.clear()
            gone = asyncio.create_task(accept(ingest, traces("gone")))
            await until(store.entered.is_set)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            assert ingest.stats().waiting_bytes > 0
            store.gate.set()
            await accept(ingest, traces("here"))
            assert stored_names(store) == ["gone", "here"]
            assert ingest.stats().waiting_bytes == 0

    run(scenario)


def test_a_body_takes_room_for_as_long_as_a_thread_has_it_whoever_went_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else senders that give up and come again fill the memory; what no thread has begun with is let go."""
    gate = threading.Event()
    began: list[int] = []

    def slow(signal: Signal, encoding: Encoding, body: bytes, received_at: int) -> Request:
        began.append(len(body))
        assert gate.wait(10)
        return decode(signal, encoding, body, received_at)

    monkeypatch.setattr(ingest_module, "decode", slow)

    async def scenario() -> None:
        body = traces(size=THREAD_FROM_BYTES)
        waiting = bytes(bytearray(body))  # an object of its own
        references = sys.getrefcount(waiting)
        store = MemoryStore()
        async with ingesting(store) as ingest:
            read = [asyncio.create_task(accept(ingest, body)) for _ in range(2)]
            await until(lambda: len(began) == 2)
            queued = asyncio.create_task(accept(ingest, waiting))
            await asyncio.sleep(0)
            assert ingest.stats().waiting_bytes == 3 * len(body)
            for gone in (queued, *read):
                gone.cancel()
            await asyncio.wait({queued})
            del queued, gone
            assert ingest.stats().waiting_bytes == 2 * len(body)
            assert sys.getrefcount(waiting) == references
            gate.set()
            await asyncio.wait(read)
            assert ingest.stats().waiting_bytes == 0
            assert len(began) == 2
        assert store.appended == []

    run(scenario)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_large_bodies_are_searched_for_secrets_beside_the_loop(encoding: Encoding) -> None:
    """A body of nothing but secrets takes long; everybody else is served meanwhile."""
    seen: list[threading.Thread] = []

    def check(_before: str, _secret: str) -> bool:
        seen.append(threading.current_thread())
        return False

    redactor = Redactor([Pattern("own", "SECRET", "here", check)])
    pad = {"resourceSpans": [], "pad": "SECRET" + "x" * THREAD_FROM_BYTES}
    large = {
        Encoding.PROTOBUF: traces("SECRET", THREAD_FROM_BYTES),
        Encoding.JSON: json.dumps(pad).encode(),
    }

    async def scenario() -> None:
        async with ingesting(MemoryStore(), redactor=redactor) as ingest:  # type: ignore[arg-type]
            await ingest.accept(Signal.TRACES, encoding, large[encoding])
            assert seen
            assert threading.main_thread() not in seen
            await ingest.accept(Signal.TRACES, Encoding.PROTOBUF, traces("SECRET"))
            assert threading.main_thread() in seen

    run(scenario)


def test_stopping_commits_what_was_accepted_and_refuses_the_rest() -> None:
    """Nobody is left waiting: what came in time is stored, what comes later is told to come back."""

    async def scenario() -> None:
        store = GatedStore()
        async with ingesting(store) as ingest:
            store.gate.clear()
            accepted = [asyncio.create_task(accept(ingest, traces(str(n)))) for n in range(10)]
            await until(lambda: ingest.stats().waiting_bytes > 0)
            stopping = asyncio.create_task(ingest.stop())
            await asyncio.sleep(0)
            store.gate.set()
            await asyncio.gather(stopping, *accepted)
            assert sorted(stored_names(store)) == sorted(map(str, range(10)))
            with pytest.raises(NotStoredError):
                await accept(ingest, traces("late"))

    run(scenario)


def test_metrics_are_counted_and_not_stored() -> None:
    """Their points are counted by name, for the status page."""

    async def scenario() -> None:
        message = ExportMetricsServiceRequest()
        metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="tokens")
        for value in range(3):
            metric.gauge.data_points.add(as_int=value)
        store = MemoryStore()
        async with ingesting(store) as ingest:
            await ingest.accept(Signal.METRICS, Encoding.PROTOBUF, message.SerializeToString())
            assert ingest.stats().metrics_seen == {"tokens": 3}
        assert store.appended == []

    run(scenario)


def test_metrics_are_counted_by_session_and_within_bounds() -> None:
    """The point's own session wins over its resource's; what is beyond the bounds is counted together."""

    async def scenario() -> None:
        message = ExportMetricsServiceRequest()
        resource = message.resource_metrics.add()
        resource.resource.attributes.add(key="session.id").value.string_value = "of resource"
        metrics = resource.scope_metrics.add().metrics
        points = metrics.add(name="tokens").sum.data_points
        points.add(as_int=1)
        points.add(as_int=2).attributes.add(key="session.id").value.string_value = "own"
        for number in range(MOST_APART + 9):
            metrics.add(name=f"metric {number}").gauge.data_points.add(as_int=1)
        async with ingesting(MemoryStore()) as ingest:
            for _ in range(2):
                await ingest.accept(Signal.METRICS, Encoding.PROTOBUF, message.SerializeToString())
            stats = ingest.stats()
        assert stats.metric_sessions == {"own": 2, "of resource": 2 * (MOST_APART + 10)}
        assert len(stats.metrics_seen) == MOST_APART + 1
        assert stats.metrics_seen["(other)"] == 20
        assert stats.metric_points == 2 * (MOST_APART + 11)

    run(scenario)


def test_a_process_that_was_stopped_for_a_while_extends_the_leases() -> None:
    """The writer notices a gap in its own ticks, even if telemetry wakes it before the next tick."""

    async def scenario() -> None:
        time, store = HandClock(), MemoryStore()
        moments: list[int] = []

        class Watching(Live):
            def moment(self, now: int, wall: int, *, away: int = 0, flush: bool = False):  # type: ignore[no-untyped-def]
                moments.append(away)
                return super().moment(now, wall, away=away, flush=flush)

        ingest = Ingest(store, Watching("boot", idle_after=SECOND), time.clock())  # type: ignore[arg-type]
        await ingest.start()
        await accept(ingest, traces())
        time.sleep(1.9)
        await accept(ingest, traces())
        time.sleep(60)
        await accept(ingest, traces())
        await accept(ingest, traces())
        await ingest.stop()
        assert moments[:4] == [0, 0, 60 * SECOND, 0]

    run(scenario)


def test_a_run_that_beats_while_the_disk_is_full_is_not_lost() -> None:
    """Signs of life need no disk: they count even while another run's silence can't be written down."""

    async def scenario() -> None:
        time, store = HandClock(), MemoryStore()
        ingest = Ingest(store, Live("boot", idle_after=SECOND), time.clock())  # type: ignore[arg-type]
        await ingest.start()
        alive, dead = otlp_requests.LifeCycle("alive"), otlp_requests.LifeCycle("dead")
        for life in (alive, dead):
            events = [life.event(semconv.EVENT_SESSION_START, ELAPSED=0), life.beat(ELAPSED=0)]
            await ingest.accept(Signal.LOGS, Encoding.PROTOBUF, otlp_requests.logs(events))
        store.fails = [BackendError("the disk is full")] * 10_000
        for beat in range(1, 80):
            time.sleep(1.9)
            body = otlp_requests.logs([alive.beat(ELAPSED=round(beat * 1.9 * SECOND))])
            await ingest.accept(Signal.LOGS, Encoding.PROTOBUF, body)
        store.fails = []
        await accept(ingest, traces())
        await ingest.stop()
        signals = {run.root_id: run.run.signal.value for run in store.kept.values()}
        assert signals == {alive.root: "live", dead.root: "lost"}
        assert all(entry.root_id == dead.root for entry in store.timeline if entry.state == "lost")

    run(scenario)


def test_a_writer_that_is_behind_says_so_until_it_caught_up() -> None:
    """By how long the oldest request waits, not by how many there are."""

    async def scenario() -> None:
        time, store = HandClock(), GatedStore()
        ingest = Ingest(store, Live("boot", idle_after=SECOND), time.clock())  # type: ignore[arg-type]
        await ingest.start()
        store.gate.clear()
        accepted = asyncio.create_task(accept(ingest, traces()))
        await until(store.entered.is_set)
        assert ingest.trouble() is None
        time.sleep(5)
        assert ingest.trouble() == "the writer is 5 s behind"
        store.gate.set()
        await accepted
        assert ingest.trouble() is None
        await ingest.stop()
        assert ingest.trouble() == "the backend is stopping"

    run(scenario)


def test_a_commit_that_fails_is_trouble_until_one_succeeds() -> None:
    """Whoever asks is told why."""

    async def scenario() -> None:
        store = MemoryStore()
        async with ingesting(store) as ingest:
            store.fails = [BackendError("no room")]
            with pytest.raises(NotStoredError):
                await accept(ingest, traces())
            assert ingest.trouble() == "commits fail: no room"
            await accept(ingest, traces())
            assert ingest.trouble() is None

    run(scenario)


def test_an_errand_is_run_between_two_commits_and_taken_before_the_next() -> None:
    """What it changed is known to whoever folds the next batch."""

    async def scenario() -> None:
        store, order = GatedStore(), list[str]()
        async with ingesting(store) as ingest:
            store.gate.clear()
            first = asyncio.create_task(accept(ingest, traces("first")))
            await until(store.entered.is_set)
            errand = asyncio.create_task(
                ingest.between(lambda: stored_names(store), lambda names: order.extend(["errand", *names]))
            )
            second = asyncio.create_task(accept(ingest, traces("second")))
            await asyncio.sleep(0)
            assert order == []
            store.gate.set()
            assert await errand == ["first"]
            await asyncio.gather(first, second)
            assert order == ["errand", "first"]

    run(scenario)


def test_an_errand_that_fails_ends_nothing() -> None:
    """Who wanted it is told; the writer goes on, and tells those who come too late."""

    async def scenario() -> None:
        store, taken = MemoryStore(), list[object]()

        def fail() -> None:
            raise BackendError("no room")

        async with ingesting(store) as ingest:
            with pytest.raises(BackendError, match="no room"):
                await ingest.between(fail, taken.append)
            await accept(ingest, traces())
        with pytest.raises(NotStoredError, match="stopping"):
            await ingest.between(fail, taken.append)
        assert taken == []

    run(scenario)
