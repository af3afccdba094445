"""Claims about `init()` called again and again, beside providers of others, and after these have gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from outcomes import Ended
from span_collector import Collector

Run = Callable[..., Ended]

COUNTING = """
import gc, os, threading, tracemalloc
import otel_sessions

def held():
    gc.collect()
    sockets = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]
    return (
        sorted(thread.name for thread in threading.enumerate()),
        sum(one.startswith("socket:") for one in sockets),
        len(sockets),
    )

def settled():
    with otel_sessions.session("s"):
        pass
    assert otel_sessions.flush(30).complete
    return held()

"""


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1000])
@pytest.mark.parametrize("arguments", ["", "service_name='travel', signals=True, capture=True"])
def test_a_thousand_calls_cost_what_one_does(
    run_program: Run, collector: Collector, rounds: int, arguments: str
):
    """In threads, sockets, files, processors and memory; the spans of each session leave once."""
    ended = run_program(
        COUNTING
        + f"""
first = otel_sessions.init({arguments}).tracer_provider
before = settled()
tracemalloc.start()
otel_sessions.init({arguments})
settled()
gc.collect()
memory = tracemalloc.get_traced_memory()[0]
assert {{otel_sessions.init({arguments}).tracer_provider for _ in range({rounds})}} == {{first}}
gc.collect()
grown = tracemalloc.get_traced_memory()[0] - memory
assert settled() == before, before
assert grown < 16 * 1024, grown
""",
        collector.env,
    )
    assert (ended.code, ended.err) == (0, "")
    assert len(collector.spans("session s")) == 3
    assert len({span.span_id for span in collector.spans()}) == len(collector.spans())


@pytest.mark.slow
def test_changing_to_and_fro_leaves_nothing_behind(run_program: Run, collector: Collector):
    """Where spans go may be changed any number of times: no thread and no socket of an earlier way is left."""
    ended = run_program(
        COUNTING
        + """
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
otel_sessions.init()
before = settled()
url = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
for number in range(20):
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = url if number % 2 else url + "/other"
    otel_sessions.init(capture=bool(number % 2))
    settled()
after = settled()
assert after[0] == before[0], after
assert after[1] <= before[1] + 2, (before, after)
""",
        collector.env,
    )
    assert (ended.code, ended.err) == (0, "")
    assert len(collector.spans("session s")) == 22


def test_init_after_an_end_gives_a_new_session(run_program: Run, collector: Collector):
    """Never the one that has ended; ids, traces and roots are its own."""
    ended = run_program(
        """
import otel_sessions
seen = []
for number in range(3):
    handle = otel_sessions.init(auto_session=True)
    assert handle.session is otel_sessions.current_session()
    assert handle.session.state == "running"
    seen.append(handle.session)
    with otel_sessions.tool(f"t{number}"):
        pass
    assert otel_sessions.end_session()
    assert otel_sessions.current_session() is None
    assert otel_sessions.init().session is None
assert len({session.id for session in seen}) == len({session.trace_id for session in seen}) == 3
""",
        collector.env,
    )
    assert (ended.code, ended.err) == (0, "")
    roots = sorted(collector.spans("session session"), key=lambda span: span.start)
    assert [(root.end_reason, root.outcome) for root in roots] == [("completed", "ok")] * 3
    for number, root in enumerate(roots):
        assert collector.span(f"execute_tool t{number}").session_id == root.session_id


THEIRS = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
"""


@pytest.mark.parametrize("order", ["theirs first", "ours first", "repeatedly"])
def test_beside_a_provider_of_the_users_each_span_is_exported_once(
    run_program: Run, collector: Collector, order: str
):
    """The first that is set stays the one; whoever comes later joins, and adds no second exporter."""
    ours = "import otel_sessions\nfor _ in range(10): handle = otel_sessions.init()\n"
    source = {
        "theirs first": THEIRS + ours,
        "ours first": ours + THEIRS,
        "repeatedly": THEIRS + ours + THEIRS + ours,
    }[order]
    ended = run_program(
        source
        + """
assert trace.get_tracer_provider() is handle.tracer_provider
with otel_sessions.session("s"), trace.get_tracer("theirs").start_as_current_span("theirs"):
    pass
""",
        collector.env,
    )
    assert ended.code == 0, ended.err
    assert "otel_sessions" not in ended.err
    assert sorted(span.name for span in collector.spans()) == ["session s", "theirs"]
    assert len({span.session_id for span in collector.spans()}) == 1


def test_what_is_lost_with_a_provider_that_its_owner_shuts_down_is_counted_and_said(
    run_program: Run, collector: Collector
):
    """One line at once, for the sessions that are open; what ends later is counted; `init()` goes on."""
    ended = run_program(
        """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
import otel_sessions
provider = TracerProvider(shutdown_on_exit=False)
trace.set_tracer_provider(provider)
otel_sessions.init(export=True)
with otel_sessions.session("s"):
    with otel_sessions.tool("sent"):
        pass
    with otel_sessions.tool("lost"):
        provider.shutdown()
    trace.get_tracer("theirs").start_span("lost too").end()
assert otel_sessions.stats().dropped == {"shut down": 3}
result = otel_sessions.flush()
assert (result.complete, result.reason) == (False, "otel_sessions is shut down")
with otel_sessions.session("unrecorded") as session:
    assert session.trace_id is None
otel_sessions.init(export=True)
with otel_sessions.session("again"):
    pass
assert otel_sessions.flush(30).complete
""",
        collector.env,
    )
    assert ended.code == 0, ended.err
    assert sorted(span.name for span in collector.spans()) == ["execute_tool sent", "session again"]
    first, second = ended.err.splitlines()
    assert "the tracer provider was shut down with 1 open sessions" in first
    assert "sessions are not recorded after shutdown(); call init() again" in second
