"""Claims about the counts on the wire: ended - stored spans that are not late = missing, whatever happened."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from outcomes import Ended, Recorded
from span_collector import Collector, Span

import otel_sessions
from otel_sessions import semconv
from otel_sessions.sdk import _durable, _ledger
from otel_sessions.sdk._liveness import Liveness
from otel_sessions.sdk._root import Root
from otel_sessions.sdk._split import split_parcel
from otel_sessions.sdk._spool import parcel_now
from otel_sessions.sdk._wire import encode_requests

Run = Callable[..., Ended]

COUNTS = (semconv.SPANS_STARTED, semconv.SPANS_ENDED, semconv.SPANS_DROPPED)


def _counts(root: ReadableSpan | Span) -> tuple[int, ...]:
    assert root.attributes is not None
    return tuple(root.attributes[name] for name in COUNTS)


def _stored(recorded: Recorded, session_id: str) -> int:
    spans = [span.attributes for span in recorded.all()]
    return sum(a[semconv.SESSION_ID] == session_id and semconv.LATE not in a for a in spans)


def _last_root(recorded: Recorded, session_id: str) -> ReadableSpan:
    roots = [
        span
        for span in recorded.all()
        if span.name.startswith("session ") and span.attributes[semconv.SESSION_ID] == session_id
    ]
    return max(roots, key=lambda span: span.attributes[semconv.SPANS_ENDED])


def test_counts_go_on_over_the_runs_of_a_session(recorded: Recorded):
    """They are cumulative for a session in a process: a second run must not hide what the first one lost."""
    for steps in (5, 2):
        with otel_sessions.session("s", id="same"):
            for _ in range(steps):
                with otel_sessions.step("x"):
                    pass
    first, second = [span for span in recorded.all() if span.name == "session s"]
    assert (_counts(first), _counts(second)) == ((6, 6, 0), (9, 9, 0))


def test_runs_at_the_same_time_share_their_counts(recorded: Recorded):
    """Whichever ends last tells of both."""
    outer = otel_sessions.start_session("outer", id="same")
    with otel_sessions.session("inner", id="same"), otel_sessions.step("x"):
        pass
    outer.end()
    assert _counts(recorded.one("session outer")) == (3, 3, 0)


def test_counts_of_many_later_sessions_are_kept_and_the_memory_is_bounded(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
):
    """A session that is open is never forgotten; of those that ended, the ones used longest ago are."""
    monkeypatch.setattr(_ledger, "_REMEMBERED", 10)
    with otel_sessions.session("s", id="open"):
        for number in range(30):
            with otel_sessions.session("s", id=f"short {number}"):
                pass
        assert otel_sessions.sdk._ledger.ledgers.find("open") is not None
    kept = [number for number in range(30) if _ledger.ledgers.find(f"short {number}") is not None]
    assert kept == list(range(21, 30))


def test_a_span_whose_session_the_user_names_is_counted_there(recorded: Recorded):
    """To a session of this process, open or not; elsewhere the counts are somebody else's."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("a", id="a", user_id="maria") as a:
        with otel_sessions.session("b", id="b"):
            tracer.start_span("x", attributes={"session.id": "a"}).end()
            tracer.start_span("y", attributes={"session.id": "theirs"}).end()
        thread = threading.Thread(
            target=lambda: tracer.start_span("z", attributes={"session.id": "a"}).end(),
        )
        thread.start()
        thread.join()
        assert a.id == "a"
    assert _counts(recorded.one("session a")) == (3, 3, 0)
    assert _counts(recorded.one("session b")) == (1, 1, 0)
    assert recorded.one("x").attributes["user.id"] == "maria"
    tracer.start_span("after", attributes={"session.id": "a"}).end()
    assert recorded.one("after").attributes[semconv.LATE] is True


def test_a_span_that_is_moved_to_another_session_is_counted_there(recorded: Recorded):
    """What a span bears at its end is what is stored."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("a", id="a"), otel_sessions.session("b", id="b"):
        tracer.start_span("x").end()
        for target in ("a", "theirs"):
            span = tracer.start_span("moved")
            span.set_attribute("session.id", target)
            span.end()
    for session_id in ("a", "b"):
        assert _last_root(recorded, session_id).attributes[semconv.SPANS_ENDED] == _stored(
            recorded, session_id
        )


class _ByName(Sampler):
    """Records without sampling what is called so."""

    def __init__(self, unsampled: str) -> None:
        self._unsampled = unsampled

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *_: Any, **__: Any) -> Any:
        decision = Decision.RECORD_ONLY if name == self._unsampled else Decision.RECORD_AND_SAMPLE
        return SamplingResult(decision)

    def get_description(self) -> str:
        return "by name"


def test_what_is_recorded_but_not_sampled_is_not_counted(monkeypatch: pytest.MonkeyPatch):
    """It is never sent, so nobody may miss it."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=_ByName("noise"), shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, exporter=exporter, signals=False)
    with otel_sessions.session("s"):
        for name in ("noise", "x", "noise"):
            with otel_sessions.step(name):
                pass
    assert otel_sessions.flush(10).complete
    assert [_counts(span) for span in exporter.get_finished_spans() if span.name == "session s"] == [
        (2, 2, 0)
    ]


def test_a_span_is_late_by_when_it_was_ended_not_by_what_it_says(recorded: Recorded):
    """A replay or a bridge gives end times of its own; the counts were told when the session ended."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("s", id="s"):
        span = tracer.start_span("x")
        early = time.time_ns()
        future = tracer.start_span("y")
        future.end(end_time=time.time_ns() + 10**12)
    span.end(end_time=early)
    assert recorded.one("x").attributes[semconv.LATE] is True
    assert semconv.LATE not in recorded.one("y").attributes
    assert _counts(recorded.one("session s")) == (3, 2, 0)
    assert _stored(recorded, "s") == 2


def test_what_starts_after_the_end_is_marked_at_its_start(recorded: Recorded):
    """So that exporters of others, which no copy reaches, can tell too."""
    session = otel_sessions.session("s")
    with session:
        session.end()
        with recorded.provider.get_tracer("other").start_as_current_span("x") as span:
            assert span.attributes[semconv.LATE] is True


def test_late_spans_of_one_run_are_not_missing_in_the_next(recorded: Recorded):
    """They were never counted as ended, also where the process ends with the later run open."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("one", id="s"):
        late = tracer.start_span("late")
    late.end()
    otel_sessions.start_session("two", id="s")
    tracer.start_span("open")
    otel_sessions.shutdown()
    spans = recorded.exporter.get_finished_spans()
    (second,) = [span for span in spans if span.name == "session two"]
    stored = [span for span in spans if semconv.LATE not in span.attributes]
    assert _counts(second) == (4, 3, 0)
    assert len(stored) == 3


def test_a_root_that_the_user_ends_is_counted_once(recorded: Recorded):
    """It is the current span, and anybody may end that."""
    with otel_sessions.session("first", id="s"):
        trace.get_current_span().end()
    with otel_sessions.session("second", id="s"):
        pass
    assert _counts(recorded.one("session second")) == (2, 2, 0)


@settings(max_examples=60)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["start", "end", "begin", "finish", "name"]), st.integers(0, 3)),
        max_size=40,
    )
)
def test_whatever_happens_ended_spans_are_stored_spans_that_are_not_late(steps: list[tuple[str, int]]):
    """Spans and runs of a few sessions begin and end in any order; nothing is lost here, so nothing misses."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    otel_sessions.shutdown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_LOGS_EXPORTER", "none")
        otel_sessions.init(tracer_provider=provider, exporter=exporter, signals=False)
        tracer = provider.get_tracer("other")
        prefix = f"{time.monotonic_ns()}-"
        runs: list[otel_sessions.Session] = []
        spans: list[trace.Span] = []
        for step, number in steps:
            if step == "begin":
                runs.append(otel_sessions.start_session("s", id=f"{prefix}{number}"))
            elif step == "finish" and runs:
                runs.pop(number % len(runs)).end()
            elif step == "start":
                spans.append(tracer.start_span("x"))
            elif step == "name":
                spans.append(tracer.start_span("x", attributes={"session.id": f"{prefix}{number}"}))
            elif step == "end" and spans:
                spans.pop(number % len(spans)).end()
        otel_sessions.shutdown()
    stored: dict[object, int] = {}
    told: dict[object, int] = {}
    for span in exporter.get_finished_spans():
        attributes = span.attributes or {}
        session_id = attributes.get(semconv.SESSION_ID)
        stored[session_id] = stored.get(session_id, 0) + (semconv.LATE not in attributes)
        told[session_id] = max(told.get(session_id, 0), int(attributes.get(semconv.SPANS_ENDED, 0)))
    # A span of a session that has not begun here is nobody's to count.
    begun = {f"{prefix}{number}" for step, number in steps if step == "begin"}
    unknown = _named_before_begin(steps, prefix)
    assert {i: told[i] for i in begun} == {i: stored[i] - unknown.get(i, 0) for i in begun}


def _named_before_begin(steps: list[tuple[str, int]], prefix: str) -> dict[str, int]:
    begun: set[int] = set()
    early: dict[str, int] = {}
    for step, number in steps:
        if step == "begin":
            begun.add(number)
        elif step == "name" and number not in begun:
            early[f"{prefix}{number}"] = early.get(f"{prefix}{number}", 0) + 1
    return early


def test_an_evicted_span_is_counted_when_it_ends_after_all(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Far too many open spans under one session for the whole program: roots stay, the oldest others go."""
    from otel_sessions.sdk import _registry

    monkeypatch.setattr(_registry, "_MOST_OPEN", 100)
    monkeypatch.setattr(_registry, "_ROOM", 10)
    tracer = recorded.provider.get_tracer("leaky")
    handle = otel_sessions.init(auto_session=True)
    spans = [tracer.start_span("leaked") for _ in range(300)]
    assert otel_sessions.stats().spans_open <= 110
    assert otel_sessions.stats().ignored == {"open spans": 300 - (otel_sessions.stats().spans_open - 1)}
    assert handle.session is not None
    assert handle.session.state == "running"
    for span in spans:
        span.end()
    handle.session.end()
    assert _counts(recorded.one(f"session {handle.session.name}")) == (301, 301, 0)
    assert sum("no longer looked after" in message for message in caplog.messages) == 1


def test_a_forked_child_counts_from_zero(run_program: Run, collector: Collector):
    """Counts are those of a process: the child's own, whether its session is inherited or begun there."""
    ended = run_program(
        """
        import os, otel_sessions
        otel_sessions.init()
        def steps(number):
            for _ in range(number):
                with otel_sessions.step("x"):
                    pass
        with otel_sessions.session("before", id="again"):
            steps(4)
        with otel_sessions.session("parent", id="parent"):
            steps(3)
            if os.fork() == 0:
                steps(2)
                with otel_sessions.session("child", id="again"):
                    steps(1)
                otel_sessions.shutdown()
                os._exit(0)
            os.wait()
        """,
        collector.env,
    )
    assert (ended.code, ended.err) == (0, "")
    assert _counts(collector.span("session child")) == (2, 2, 0)
    assert _counts(collector.span("session parent")) == (4, 4, 0)
    (childs,) = {
        tuple(event.attributes[name] for name in COUNTS)
        for event in collector.events()[-1:]
        if event.attributes.get("otel_sessions.child")
    } or {()}
    told = [
        tuple(event.attributes[name] for name in COUNTS)
        for event in collector.events("otel_sessions.session.heartbeat")
        if event.attributes.get("otel_sessions.child") and event.session_id == "parent"
    ]
    assert max(told) == (2, 2, 0), childs


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_span_that_is_lost_while_its_session_ends_is_told(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, when: str
):
    """Between the counts of the end and the moment in which later losses are told by themselves."""
    for name, value in collector.env.items():
        monkeypatch.setenv(name, value)
    ended = Liveness.ended

    def overtaken(self: Liveness, run: Root, *told: Any) -> None:
        if when == "before":
            run.lost("queue full")
        ended(self, run, *told)
        if when == "after":
            run.lost("queue full")

    otel_sessions.init(tracer_provider=TracerProvider(shutdown_on_exit=False), export=True, signals=False)
    monkeypatch.setattr(Liveness, "ended", overtaken)
    with otel_sessions.session("s", id="s"):
        pass
    assert otel_sessions.flush(10).complete
    last = max(collector.events("session.end"), key=lambda event: event.attributes[semconv.SEQ])
    assert (last.attributes[semconv.SPANS_DROPPED], last.attributes[semconv.SPANS_LOSSES]) == (
        1,
        "queue full=1",
    )


# --- Unsampled runs ---------------------------------------------------------------------------------------


def test_a_root_that_is_not_sampled_sends_no_event(collector: Collector, monkeypatch: pytest.MonkeyPatch):
    """Also one that is recorded: no span of it arrives, so its events would tell of a session of nothing."""
    for name, value in collector.env.items():
        monkeypatch.setenv(name, value)
    provider = TracerProvider(sampler=_ByName("session unseen"), shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, export=True, signals=False)
    with otel_sessions.session("unseen", id="unseen") as unseen, unseen.waiting():
        pass
    with otel_sessions.session("seen", id="seen"):
        pass
    assert otel_sessions.flush(10).complete
    assert {event.session_id for event in collector.events()} == {"seen"}
    assert {span.session_id for span in collector.spans()} == {"seen"}


def test_a_child_of_an_unsampled_run_sends_no_event(collector: Collector, run_program: Run):
    """Not the program that takes it up, not the process that is forked."""
    ended = run_program(
        """
        import os, subprocess, sys, otel_sessions
        otel_sessions.init()
        with otel_sessions.session("unseen"):
            if os.fork() == 0:
                with otel_sessions.step("x"):
                    pass
                otel_sessions.shutdown()
                os._exit(0)
            os.wait()
            program = "import otel_sessions as o; o.init(); o.step('x').__enter__(); o.shutdown()"
            subprocess.run([sys.executable, "-c", program], env=otel_sessions.child_env(), check=True)
        """,
        {**collector.env, "OTEL_TRACES_SAMPLER": "parentbased_always_off"},
    )
    assert (ended.code, ended.err) == (0, "")
    assert collector.events() == []
    assert collector.spans() == []


def test_an_unsampled_session_still_keeps_its_time(monkeypatch: pytest.MonkeyPatch, collector: Collector):
    """Its limits are the user's; only nobody is told."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, export=True, signals=False)
    with otel_sessions.session("s", timeout=0.05) as session:
        end = time.monotonic() + 20
        while session.state != "ended" and time.monotonic() < end:
            threading.Event().wait(0.01)
        assert session.end_reason == "timeout"
    assert otel_sessions.flush(10).complete
    assert collector.events() == []


class _Picky(InMemorySpanExporter):
    """Takes no span of one session."""

    def export(self, spans: Any) -> SpanExportResult:
        refused = any(span.attributes[semconv.SESSION_ID] == "refused" for span in spans)
        return SpanExportResult.FAILURE if refused else super().export(spans)


def test_stats_tell_of_each_session_what_became_of_its_spans(monkeypatch: pytest.MonkeyPatch):
    """Those that are open, and those that lost a span, after their end as well; what is whole and over is no news."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    otel_sessions.init(
        tracer_provider=TracerProvider(shutdown_on_exit=False), exporter=_Picky(), signals=False
    )
    for session_id in ("refused", "whole"):
        with otel_sessions.session("s", id=session_id), otel_sessions.step("x"):
            pass
        otel_sessions.flush(10)
    with otel_sessions.session("s", id="open"):
        found = otel_sessions.stats().sessions
        assert found.keys() & {"refused", "whole", "open"} == {"refused", "open"}
        assert (found["open"].started, found["open"].ended, found["open"].dropped) == (1, 0, {})
        assert found["refused"].ended == 2
        assert found["refused"].dropped == {"export failed": 2}


class _Failing(InMemorySpanExporter):
    """Takes nothing."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.FAILURE


@pytest.mark.parametrize("exporter", [None, _Failing()], ids=["ours", "of others"])
def test_a_late_span_that_is_lost_is_not_missing(
    monkeypatch: pytest.MonkeyPatch, silent_port: int, exporter: _Failing | None
):
    """Those that ended in time are all lost, and have the reasons; what was late was never counted among them."""
    for name, value in {
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_SESSIONS_SPOOL": "off",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent_port}",
    }.items():
        monkeypatch.setenv(name, value)
    provider = TracerProvider(shutdown_on_exit=False)
    otel_sessions.init(tracer_provider=provider, exporter=exporter, export=True, signals=False)
    session_id = f"late and lost {exporter}"
    with otel_sessions.session("s", id=session_id):
        late = otel_sessions.step("late")
        late.__enter__()
    late.__exit__(None, None, None)
    otel_sessions.shutdown(0.5)
    found = otel_sessions.stats()
    counted = found.sessions[session_id]
    assert (counted.started, counted.ended, sum(counted.dropped.values())) == (2, 1, 1)
    assert sum(found.dropped.values()) == 2


def test_a_late_span_is_of_no_session_for_who_drops_its_request(recorded: Recorded):
    """Whole or cut in two: it is sent as it is, and counted nowhere when it is lost."""
    with otel_sessions.session("s", id="s"):
        late = otel_sessions.step("late")
        late.__enter__()
    late.__exit__(None, None, None)
    items = [_durable._item((span, None, False)) for span in recorded.all()]
    (request,) = encode_requests(items, limit=10**6, resource={})
    parcel = parcel_now(request.body, request.sessions)
    assert (parcel.items, parcel.sessions) == (2, {"s": 1, "": 1})
    halves = [dict(half.sessions) for half in split_parcel(parcel)]
    assert sorted(halves, key=str) == [{"": 1}, {"s": 1}]
