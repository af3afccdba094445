"""Claims about set-up: joined or built, once, changed wholly or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from outcomes import Ended, Recorded
from span_collector import Collector

import otel_sessions
from otel_sessions.sdk import _provider

HEAVY = "opentelemetry.sdk", "grpc", "aiohttp", "sqlite3", "google.protobuf", "requests", "IPython", "crewai"


@pytest.fixture(autouse=True)
def our_threads() -> Callable[[], list[str]]:
    """Name our threads of this test; those of the tests before may still be on their way out."""
    earlier = set(threading.enumerate())
    return lambda: sorted(
        t.name for t in threading.enumerate() if t not in earlier and t.name.startswith("otel-sessions")
    )


def test_importing_loads_nothing_heavy(run_program: Any):
    """A library may depend on us without its users paying for it."""
    ended = run_program("""
        import json, sys
        import otel_sessions
        from otel_sessions import session, tool, task, wrap, stats, start_session, ConfigurationError
        print(json.dumps(sorted(sys.modules)))
    """)
    loaded = json.loads(ended.out)
    assert [name for name in loaded if name.startswith(HEAVY)] == []


def test_all_public_names_are_there():
    """`__all__` is complete, sorted, and each name is loadable, documented and listed by dir()."""
    names = otel_sessions.__all__
    assert names == sorted(names)
    assert set(names) <= set(dir(otel_sessions))
    for name in names:
        value = getattr(otel_sessions, name)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = otel_sessions.nothing


def test_a_thousand_inits_leave_one_of_everything(
    our_threads: Callable[[], list[str]], recorded: Recorded, monkeypatch: pytest.MonkeyPatch
):
    """One provider, one processor, one thread and its spare; each span is exported once."""
    added: list[Any] = []
    monkeypatch.setattr(recorded.provider, "add_span_processor", added.append)
    handles = {otel_sessions.init().tracer_provider for _ in range(1000)}
    assert handles == {recorded.provider}
    assert added == []
    assert our_threads() == ["otel-sessions-spans", "otel-sessions-spare"]
    with otel_sessions.session("s"):
        pass
    assert len(recorded.all()) == 1


def test_a_provider_that_exists_is_joined_and_gets_no_exporter(monkeypatch: pytest.MonkeyPatch):
    """Two exporters to one endpoint would show each span twice."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    provider, theirs = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(theirs))
    handle = otel_sessions.init(tracer_provider=provider)
    assert (handle.tracer_provider, handle.joined, handle.session) == (provider, True, None)
    with otel_sessions.session("s") as session:
        provider.get_tracer("other").start_span("x").end()
    assert [span.name for span in theirs.get_finished_spans()] == ["x", "session s"]
    assert {span.attributes["session.id"] for span in theirs.get_finished_spans()} == {session.id}
    assert otel_sessions.flush(10).sent == 0


def test_the_global_provider_is_joined_not_replaced(run_program: Any, collector: Collector):
    """By `init()` and without it."""
    for init in ("otel_sessions.init(service_name='mine')", "pass"):
        ended: Ended = run_program(
            f"""
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor
            from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
            kept = InMemorySpanExporter()
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(kept))
            trace.set_tracer_provider(provider)
            import otel_sessions
            {init}
            with otel_sessions.session("s"):
                pass
            assert trace.get_tracer_provider() is provider
            print([span.name for span in kept.get_finished_spans()])
            """,
            collector.env,
        )
        assert (ended.code, ended.out) == (0, "['session s']\n"), ended.err
        assert ("service_name='mine' has no effect" in ended.err) == (init != "pass")
    assert collector.spans() == []
    assert len(collector.events("session.start")) == 2


def test_a_provider_of_our_own_says_what_it_is(run_program: Any, collector: Collector):
    """Service, host and process; OTEL_RESOURCE_ATTRIBUTES may add and correct."""
    ended = run_program(
        """
        import os, random
        import otel_sessions
        random.seed(42)
        handle = otel_sessions.init(service_name="travel")
        assert not handle.joined
        with otel_sessions.session("s"):
            pass
        print(os.getpid())
        """,
        {**collector.env, "OTEL_RESOURCE_ATTRIBUTES": "host.name=box,team=blue"},
    )
    resource = collector.span("session s").resource
    assert resource["service.name"] == "travel"
    assert resource["process.pid"] == int(ended.out)
    assert (resource["host.name"], resource["team"]) == ("box", "blue")
    assert resource["telemetry.sdk.name"] == "opentelemetry"
    assert resource["service.instance.id"]
    assert ended.err == ""


def test_a_seed_of_the_program_does_not_repeat_ids(run_program: Any, collector: Collector):
    """`random.seed(42)` in user code gives OpenTelemetry's own generator the same trace ids again."""
    for _ in range(2):
        run_program(
            """
            import random, otel_sessions
            otel_sessions.init()
            random.seed(42)
            with otel_sessions.session("s"):
                pass
            """,
            collector.env,
        )
    assert len({span.trace_id for span in collector.spans()}) == 2


# --- Without init() --------------------------------------------------------------------------------------


def test_without_init_and_endpoint_blocks_work_unrecorded(run_program: Any):
    """One line says so; nothing else changes, and no provider is set."""
    ended = run_program("""
        from opentelemetry import trace
        import otel_sessions

        @otel_sessions.tool
        def work():
            return 7

        for _ in range(3):
            with otel_sessions.session("s", timeout=60) as session, session.task("t"):
                assert work() == 7
                assert otel_sessions.current_session() is session
            assert session.outcome == "ok" and session.trace_id is None
        assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        assert otel_sessions.flush().complete
        import sys
        assert "opentelemetry.sdk.trace" not in sys.modules
    """)
    assert ended.code == 0, ended.err
    assert ended.err.count("\n") == 1
    assert "are not recorded: call otel_sessions.init()" in ended.err


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_an_endpoint_in_the_environment_is_enough(run_program: Any, collector: Collector, variable: str):
    """Then spans and life cycle events go there."""
    own = variable.endswith("TRACES_ENDPOINT")
    env = {variable: collector.url + ("/v1/traces" if own else "")}
    if own:
        env["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = collector.url + "/v1/logs"
    ended = run_program("import otel_sessions\nwith otel_sessions.session('s'): pass", env)
    assert (ended.code, ended.err) == (0, "")
    assert collector.span("session s").outcome == "ok"
    assert collector.events()[0].name == "session.start"


def test_without_init_and_endpoint_no_event_is_sent(run_program: Any):
    """A console exporter alone names nobody who would take them."""
    ended = run_program(
        "import otel_sessions\nwith otel_sessions.session('s'): pass", {"OTEL_TRACES_EXPORTER": "console"}
    )
    assert (ended.code, ended.err) == (0, "")
    assert '"name": "session s"' in ended.out


def test_a_bad_environment_raises_in_init_only(run_program: Any):
    """`init()` names the variable; implicit set-up goes on unrecorded, with one line."""
    env = {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "abc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    ended = run_program("import otel_sessions\nwith otel_sessions.session('s'): print('works')", env)
    assert (ended.code, ended.out) == (0, "works\n")
    assert ended.err.count("\n") == 1
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" in ended.err
    ended = run_program("import otel_sessions\notel_sessions.init()", env)
    assert ended.code == 1
    assert "ConfigurationError: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT='abc'" in ended.err


def test_a_disabled_sdk_does_nothing(run_program: Any, collector: Collector):
    """OTEL_SDK_DISABLED=true: blocks work, nothing is sent, no thread runs."""
    ended = run_program(
        """
        import threading, otel_sessions
        handle = otel_sessions.init()
        assert handle.tracer_provider is None
        with otel_sessions.session("s") as session, otel_sessions.tool("t"):
            pass
        assert session.outcome == "ok"
        assert threading.active_count() == 1
        """,
        {**collector.env, "OTEL_SDK_DISABLED": "true"},
    )
    assert (ended.code, ended.err) == (0, "")
    assert collector.spans() == []
    assert collector.events() == []


# --- Changing what was set up --------------------------------------------------------------------------------


def test_a_later_call_changes_what_it_names(our_threads: Callable[[], list[str]], recorded: Recorded):
    """Another exporter takes over with the next span; what was ended before goes the old way."""
    second = InMemorySpanExporter()
    with otel_sessions.session("first"):
        pass
    otel_sessions.init(exporter=second)
    with otel_sessions.session("second"):
        pass
    assert otel_sessions.flush(10).complete
    assert [span.name for span in recorded.exporter.get_finished_spans()] == ["session first"]
    assert [span.name for span in second.get_finished_spans()] == ["session second"]
    otel_sessions.init()
    with otel_sessions.session("third"):
        pass
    assert otel_sessions.flush(10).complete
    assert len(second.get_finished_spans()) == 2
    assert our_threads() == ["otel-sessions-spans", "otel-sessions-spare"]


def test_what_cant_be_changed_is_refused_and_nothing_changes(recorded: Recorded):
    """Another provider raises, and the capture that was asked for with it is not switched on."""
    with pytest.raises(otel_sessions.ConfigurationError, match="pass tracer_provider to the first call"):
        otel_sessions.init(tracer_provider=TracerProvider(shutdown_on_exit=False), capture=True)
    assert _provider.content().value == "explicit"
    assert _provider.current().arguments.exporter is recorded.exporter


def test_another_service_name_is_refused(run_program: Any):
    """A resource can't be changed; pretending so would be a lie."""
    ended = run_program(
        """
        import otel_sessions
        otel_sessions.init(service_name="a")
        otel_sessions.init(service_name="a", capture=True)
        otel_sessions.init()
        otel_sessions.init(service_name="b")
        """,
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
    )
    assert ended.code == 1
    assert "service_name='b': tracing runs as 'a'" in ended.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"exporter": 7}, "exporter"),
        ({"exporter": InMemorySpanExporter(), "export": False}, "export=False"),
        ({"span_processors": [7]}, "span_processors"),
        ({"tracer_provider": 7}, "tracer_provider"),
        ({"service_name": ""}, "service_name"),
        ({"service_name": 7}, "service_name"),
    ],
)
def test_an_option_of_the_wrong_kind_is_named(options: dict[str, Any], named: str):
    """The error names the option, before anything was set up."""
    with pytest.raises(otel_sessions.ConfigurationError, match=named):
        otel_sessions.init(**options)
    assert _provider.current() is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BSP_SCHEDULE_DELAY", "nan"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SOME"),
        ("OTEL_SESSIONS_HEARTBEAT", "often"),
    ],
)
def test_a_variable_without_sense_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str):
    """The error names the variable, before anything was set up."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(otel_sessions.ConfigurationError, match=variable):
        otel_sessions.init()
    assert _provider.current() is None


def test_an_auto_session_spans_the_program_and_is_superseded(run_program: Any, collector: Collector):
    """A second `init(auto_session=True)` ends the session that the first began."""
    run_program(
        """
        import otel_sessions
        first = otel_sessions.init(service_name="travel", auto_session=True).session
        with otel_sessions.tool("a"):
            pass
        second = otel_sessions.init(auto_session=True).session
        assert first.end_reason == "superseded" and first.outcome is None
        assert otel_sessions.current_session() is second
        with otel_sessions.tool("b"):
            pass
        second.end()
        assert otel_sessions.current_session() is None
        """,
        collector.env,
    )
    first, second = collector.spans("session travel") + collector.spans("session session")
    assert (first.end_reason, first.outcome) == ("superseded", None)
    assert collector.span("execute_tool a").session_id == first.session_id
    assert collector.span("execute_tool b").session_id == second.session_id
    assert second.links == []


def test_after_shutdown_nothing_is_recorded_until_init(
    our_threads: Callable[[], list[str]], recorded: Recorded, caplog: pytest.LogCaptureFixture
):
    """Sessions work all the same; what was open was ended and sent; one line says so."""
    open_one = otel_sessions.start_session("open")
    result = otel_sessions.shutdown(10)
    assert (result.complete, result.sent) == (True, 1)
    assert (open_one.end_reason, open_one.outcome) == ("process_exit", None)
    with otel_sessions.session("unrecorded") as session:
        pass
    assert (session.outcome, session.trace_id) == ("ok", None)
    assert our_threads() == []
    again = InMemorySpanExporter()
    otel_sessions.init(tracer_provider=recorded.provider, exporter=again)
    with otel_sessions.session("again"):
        pass
    assert otel_sessions.flush(10).complete
    assert [span.name for span in again.get_finished_spans()] == ["session again"]
    assert sum("after shutdown()" in message for message in caplog.messages) == 1


def test_a_process_at_its_limit_of_threads_is_set_up_all_the_same(run_program: Any):
    """Its resource is detected without threads; what can't be sent is said, and no session fails."""
    ended = run_program(
        """
        import json, threading
        import otel_sessions

        def full(self):
            raise RuntimeError("can't start new thread")

        start, threading.Thread.start = threading.Thread.start, full
        handle = otel_sessions.init(service_name="travel")
        with otel_sessions.session("s") as session:
            pass
        assert session.outcome == "ok" and session.trace_id
        threading.Thread.start = start
        print(json.dumps(dict(handle.tracer_provider.resource.attributes)))
        """,
        {"OTEL_RESOURCE_ATTRIBUTES": "team=blue,service.name=other", "OTEL_TRACES_EXPORTER": "none"},
    )
    assert ended.code == 0, ended.err
    resource = json.loads(ended.out)
    assert (resource["service.name"], resource["team"]) == ("travel", "blue")
    assert (resource["telemetry.sdk.name"], resource["telemetry.sdk.language"]) == ("opentelemetry", "python")
    assert resource["process.pid"]
    assert resource["service.instance.id"]
    assert resource["telemetry.sdk.version"].count(".") == 2
    assert "can't start new thread" in ended.err


def test_a_provider_without_processors_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Other vendors' providers can't be joined; our own spans go to them, and one line says what is lost."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    otel_sessions.init(tracer_provider=trace.NoOpTracerProvider())
    with otel_sessions.session() as session, otel_sessions.tool("t"):
        pass
    assert session.outcome == "ok"
    assert sum("takes no span processor" in message for message in caplog.messages) == 1
