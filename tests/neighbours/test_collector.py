"""Claims about collector-config/ with the real Collector: what goes in comes out, whoever dies in between."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from agents import Agent, attributes, sessions, spans, stored
from backend_process import BackendProcess, clean_environment
from configs import COMMANDS, FOLDER, metrics
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from processes import get_json, until

from otel_sessions.backend.vocabulary import EMITTERS, IDS

pytestmark = pytest.mark.neighbours

OUTAGE_SECONDS = 30


def validate(otelcol: Path, *configs: Path) -> subprocess.CompletedProcess[str]:
    """Let the Collector check a configuration."""
    command = [otelcol, "validate", *(f"--config={path}" for path in configs)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_collector_accepts_each_configuration(otelcol, name):
    """With its defaults, and without a word about anything deprecated."""
    done = validate(otelcol, *COMMANDS[name])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("processors:\n  # First", "processors:\n  batching:\n  # First"),
        ("fsync: true", "fsyncs: true"),
        ("delete_key(", "delete_attribute("),
        ("span.status.message,", "span.status.description,"),
        ("[memory_limiter, redaction]", "[memory_limiter, redactions]"),
    ],
)
def test_a_configuration_with_a_name_that_does_not_exist_is_refused(otelcol, tmp_path, right, wrong):
    """A component, a setting, a function, a field or a reference with a slip never starts."""
    text = (FOLDER / "local.yaml").read_text()
    assert right in text
    config = tmp_path / "local.yaml"
    config.write_text(text.replace(right, wrong))
    assert validate(otelcol, config).returncode != 0


# --- One Collector --------------------------------------------------------------------------------------------


def test_what_an_agent_sends_is_whole_behind_a_collector(start_collector, start_backend):
    """Every span with its session.id, every run with its end, nothing missing; by HTTP and by gRPC, with a token."""
    token = "open-sesame"
    backend = start_backend("--token", token)
    collector = start_collector(FOLDER / "local.yaml", {"BACKEND_URL": backend.url, "BACKEND_TOKEN": token})
    by_http = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    by_grpc = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.grpc}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    sent = Agent.start(by_http, inner=True).spans() | Agent.start(by_grpc, inner=True).spans()
    until(lambda: set(stored(backend, token)) == sent, "every span is stored")
    for session in sessions(backend, token):
        assert (session["state"], session["outcome"], session["end_reason"]) == ("ended", "ok", "completed")
        assert (session["inferred"], session["missing_spans"]) == (False, 0)
        assert session["runs_count"] == 2
        for span in spans(backend, session, token):
            assert attributes(span)["session.id"] == session["session_id"]


def test_secrets_are_masked_on_the_way(start_collector, backend):
    """Wherever a secret stands, and nothing else: the rest of the text, and ids, stay."""
    secrets = ("sk-" + "a1B2" * 8, "AKIA" + "EXAMPLE1" * 2, "ghp_" + "c3D4" * 9)
    collector = start_collector(FOLDER / "local.yaml", {"BACKEND_URL": backend.url})
    program = f"""
import otel_sessions
from opentelemetry import trace
otel_sessions.init(service_name="leaky")
with otel_sessions.session("work", title="with {secrets[0]} inside", id="sk-session") as session:
    tracer = trace.get_tracer("t")
    with tracer.start_as_current_span("GET https://ada:{secrets[1]}@example.org/x") as span:
        span.set_attribute("http.request.header.authorization", "whatever stands here")
        span.set_attribute("gen_ai.usage.output_tokens", 7)
        span.set_attribute("harmless", "task-0123456789abcdef0123456789abcdef, http://example.org:80/@me, a basic understanding")
        span.set_attribute("list", ["harmless", "{secrets[2]}"])
        span.add_event("called", {{"url": "https://ada:{secrets[1]}@example.org/"}})
        span.set_status(trace.StatusCode.ERROR, "refused {secrets[0]}")
    with otel_sessions.model_call("m", messages='say "{secrets[2]}" twice') as call:
        call.record(input_tokens=5, messages="no")
assert otel_sessions.flush(10).pending == 0
"""
    run(program, collector.url)
    (session,) = until(lambda: [one for one in sessions(backend) if one["spans"] == 3], "3 spans are stored")
    document = backend.exchange("GET", f"/api/v1/sessions/{session['id']}/otlp")[2].decode()
    for secret in secrets:
        assert secret not in document
    assert (session["session_id"], session["title"]) == ("sk-session", "with **** inside")
    by_name = {span["name"]: span for span in spans(backend, session)}
    span = by_name["GET https****example.org/x"]
    told = attributes(span)
    assert span["status"]["message"] == "refused ****"
    assert told["http.request.header.authorization"] == "****"
    assert told["gen_ai.usage.output_tokens"] == "7"
    assert "****" not in told["harmless"]
    assert not [key for key in told if key.startswith("otel_sessions.carry")]
    transcript = backend.exchange("GET", f"/api/v1/sessions/{session['id']}/transcript")[2].decode()
    assert r"say \"****\" twice" in transcript
    assert session["input_tokens"] == 5


def run(program: str, endpoint: str) -> str:
    """Run a Python program that exports to an endpoint; return what it printed."""
    settings = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def calls(*sizes: int) -> ExportTraceServiceRequest:
    """Build one request with a call of a model for each message of so many characters."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "large"
    scope = group.scope_spans.add()
    now = time.time_ns()
    for size in sizes:
        ids = {"trace_id": os.urandom(16), "span_id": os.urandom(8)}
        span = scope.spans.add(name="chat m", start_time_unix_nano=now, end_time_unix_nano=now + 1, **ids)
        span.attributes.add(key="session.id").value.string_value = "large"
        span.attributes.add(key="gen_ai.input.messages").value.string_value = "x" * size
    return message


def test_what_is_larger_than_the_usual_limits_passes(start_collector, start_jaeger, backend):
    """What comes in one request is cut to what each takes: we 64 MiB, Jaeger 20. A span of 50 MB is ours alone."""
    jaeger = start_jaeger()
    env = {"BACKEND_URL": backend.url, "JAEGER_URL": f"http://{jaeger.otlp_http}"}
    collector = start_collector(FOLDER / "jaeger.yaml", env)
    many, one = calls(*[1_000_000] * 25), calls(50_000_000)
    for message in (many, one):
        connection = http.client.HTTPConnection(collector.http, timeout=30)
        media = {"Content-Type": "application/x-protobuf"}
        connection.request("POST", "/v1/traces", message.SerializeToString(), media)
        assert connection.getresponse().status == 200
        connection.close()
    until(lambda: [here["spans"] for here in sessions(backend)] == [26], "all is ours")
    for span in many.resource_spans[0].scope_spans[0].spans:
        until(lambda span=span: jaeger.has(span.trace_id.hex()), "each that Jaeger takes is Jaeger's")


WORKING = """
import sys
import otel_sessions
otel_sessions.init(service_name="working")
with otel_sessions.session("work", id="working"):
    with otel_sessions.tool("wait"):
        sys.stdin.read()
"""


def test_liveness_is_the_truth_behind_a_collector(start_collector, backend):
    """Live while it works. Killed while the backend is away, it is lost: its last signs, late, revive nothing."""
    collector = start_collector(FOLDER / "local.yaml", {"BACKEND_URL": backend.url})
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SESSIONS_HEARTBEAT": "0.5"}
    env = clean_environment({**env, "OTEL_SESSIONS_LEASE": "4"})
    agent = subprocess.Popen([sys.executable, "-c", WORKING], env=env, stdin=subprocess.PIPE)
    try:

        def said() -> list[tuple]:
            return [(one["state"], one["signal"], one["missing_spans"]) for one in sessions(backend)]

        until(lambda: [one[:2] for one in said()] == [("running", "live")], "it is live")
        since = sessions(backend)[0]["started_at"]
        time.sleep(5)  # longer than the lease: what keeps it live is what arrives meanwhile
        assert [one[:2] for one in said()] == [("running", "live")]
        backend.kill()
        time.sleep(1)  # some signs of life are in the queue now
    finally:
        agent.kill()
        agent.communicate()
    time.sleep(5)
    backend.start()
    until(lambda: [one[:2] for one in said()] == [("lost", "lost")], "it is lost", 20)
    assert [one["started_at"] for one in sessions(backend)] == [since]


# --- Who dies in between --------------------------------------------------------------------------------------


def test_nothing_is_lost_while_the_backend_is_away_and_the_collector_is_killed(start_collector, backend):
    """30 s without a backend, the Collector killed (-9) twice meanwhile: each span is there, once."""
    collector = start_collector(FOLDER / "local.yaml", {"BACKEND_URL": backend.url})
    agent = Agent.start({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, 400, seconds=OUTAGE_SECONDS + 6)
    until(lambda: len(sessions(backend)) > 5, "the agent works")
    backend.kill()
    for _ in range(2):
        time.sleep(OUTAGE_SECONDS / 3)  # the outage itself is the claim
        collector.process.kill()
        collector.process.start()
    time.sleep(OUTAGE_SECONDS / 3)
    backend.start()
    sent = agent.spans()
    assert len(sent) == 400 * 6
    until(lambda: len(sessions(backend)) == 400, "every session is back", 60)
    until(lambda: set(stored(backend)) == sent, "every span is back", 60)
    assert [one for one, count in Counter(stored(backend)).items() if count > 1] == []
    until(lambda: {one["state"] for one in sessions(backend)} == {"ended"}, "every session has its end", 60)
    assert {one["missing_spans"] for one in sessions(backend)} == {0}


def test_what_was_acknowledged_survives_a_kill_of_the_collector(start_collector, backend):
    """The ack is for the disk: a Collector that dies with all of it undelivered delivers it after its restart."""
    backend.kill()
    collector = start_collector(FOLDER / "local.yaml", {"BACKEND_URL": backend.url})
    sent = Agent.start({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, 50).spans()
    collector.process.kill()
    collector.process.start()
    backend.start()
    until(lambda: set(stored(backend)) == sent, "every span is there")
    assert len(stored(backend)) == len(sent) == 300


# --- Beside others --------------------------------------------------------------------------------------------


def tags(span: dict) -> dict:
    """Return the tags of a span of Jaeger's API."""
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def test_both_jaeger_and_we_have_every_span_once_with_its_session(start_collector, start_jaeger, backend):
    """Jaeger searches by session.id, whatever name an id was sent under; what we have is as it was sent."""
    jaeger = start_jaeger()
    collector = start_collector(
        FOLDER / "jaeger.yaml", {"BACKEND_URL": backend.url, "JAEGER_URL": f"http://{jaeger.otlp_http}"}
    )
    sent = Agent.start({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}).spans()
    until(lambda: set(stored(backend)) == sent, "every span is ours")
    until(lambda: len(jaeger.spans("neighbour")) >= len(sent), "every span is Jaeger's")
    theirs = jaeger.spans("neighbour")
    assert Counter((span["traceID"], span["spanID"]) for span in theirs) == Counter(sent)
    names = {
        span["spanId"]: session["session_id"]
        for session in sessions(backend)
        for span in spans(backend, session)
    }
    assert {span["spanID"]: tags(span)["session.id"] for span in theirs} == names


VARIANTS = """
import json
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider(resource=Resource({"service.name": "third"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
for name, scope, attributes in json.loads(ATTRIBUTES):
    provider.get_tracer(scope).start_span(name, attributes=attributes).end()
provider.shutdown()
"""


def test_every_variant_of_a_session_id_is_session_id_in_jaeger_and_untouched_with_us(
    start_collector, start_jaeger, backend
):
    """One span a variant of the vocabulary, told apart by scope, form and precedence as the backend does."""
    thread = "01a2b3c4-0000-7000-8000-0123456789ab"
    prefixes = dict(EMITTERS)
    cases = []
    for key in IDS["session"]:
        owner, mark, bare = key.partition(":")
        name, _, path = (bare if mark else key).partition("#")
        value = json.dumps({path: thread}) if path else thread
        value = f'Thread {{ thread_id: "{thread}" }}' if bare == "key" else value
        scope = prefixes[owner] if mark else "any"
        cases.append((key, scope, {name: value}, thread))
        if mark:
            cases.append((f"{key} elsewhere", "any", {name: value}, None))
    cases += [
        ("first", "any", {"llamaindex.handler_id": "no", "langfuse.session.id": "yes"}, "yes"),
        ("own", "any", {"session.id": "yes", "langfuse.session.id": "no"}, "yes"),
        ("absent", "any", {"session.id": "unknown", "langfuse.session.id": "yes"}, "yes"),
        ("nothing", "any", {"session.id": "[no_session_id]"}, None),
        ("number", "any", {"workflow.session_id": 7}, "7"),
        ("quoted", "agentscope", {"gen_ai.conversation.id": '"RUN-1"'}, "RUN-1"),
        ("thread of the system", "codex_otel", {"thread.id": "17"}, None),
    ]
    jaeger = start_jaeger()
    collector = start_collector(
        FOLDER / "jaeger.yaml", {"BACKEND_URL": backend.url, "JAEGER_URL": f"http://{jaeger.otlp_http}"}
    )
    sent = json.dumps([case[:3] for case in cases])
    run(VARIANTS.replace("ATTRIBUTES", repr(sent)), collector.url)
    until(lambda: len(jaeger.spans("third")) == len(cases), "every span is Jaeger's")
    theirs = {span["operationName"]: tags(span).get("session.id") for span in jaeger.spans("third")}
    assert theirs == {name: value for name, _, _, value in cases}
    until(lambda: len(stored(backend)) == len(cases), "every span is ours")
    ours = {
        span["name"]: (session["session_id"], attributes(span))
        for session in sessions(backend)
        for span in spans(backend, session)
    }
    for name, _, given, value in cases:
        told, kept = ours[name]
        assert told == value, name
        assert {key: str(one) for key, one in kept.items()} == {key: str(one) for key, one in given.items()}


def test_a_joined_provider_that_exports_to_jaeger_shows_each_span_once(start_jaeger):
    """init() adds no second exporter to a provider that has one; the spans bear their session all the same."""
    jaeger = start_jaeger()
    program = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
import otel_sessions
provider = TracerProvider(resource=Resource({"service.name": "joined"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
otel_sessions.init()
with otel_sessions.session("work", id="joined"):
    with otel_sessions.tool("search"):
        trace.get_tracer("t").start_span("GET").end()
otel_sessions.flush(5)
provider.shutdown()
"""
    run(program, f"http://{jaeger.otlp_http}")
    until(lambda: len(jaeger.spans("joined")) >= 3, "every span is there")
    found = jaeger.spans("joined")
    assert sorted(span["operationName"] for span in found) == ["GET", "execute_tool search", "session work"]
    assert {tags(span)["session.id"] for span in found} == {"joined"}


def test_prometheus_counts_every_span_and_knows_no_session(start_collector, start_prometheus, backend):
    """Each metric that a document names is there; no label holds an id; exemplars lead to a trace."""
    collector = start_collector(
        FOLDER / "prometheus.yaml", {"BACKEND_URL": backend.url, "COLLECTOR_METRICS_EVERY": "4s"}
    )
    prometheus = start_prometheus({"collector": collector.metrics})
    sent = Agent.start({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}).spans()
    until(lambda: set(stored(backend)) == sent, "every span is stored")
    total = 'sum(traces_span_metrics_calls_total{service_name="neighbour"})'
    until(lambda: [one["value"][1] for one in prometheus.query(total)] == [str(len(sent))], "all are counted")
    named = metrics("".join(path.read_text() for path in FOLDER.rglob("*.[my]*")))
    assert named
    for name in named:
        full = name if name.endswith("_total") else f"{name}_count"
        assert prometheus.query(full), name
    assert prometheus.query("traces_span_metrics_calls") == []  # a slip would be seen
    series = prometheus.query('{__name__=~"traces_span_metrics_.+"}')
    labels = {label for one in series for label in one["metric"]}
    assert {"gen_ai_request_model", "gen_ai_tool_name", "otel_sessions_session_outcome"} <= labels
    assert not labels & {"session_id", "user_id", "otel_sessions_task_id"}
    tools = prometheus.query('traces_span_metrics_calls_total{gen_ai_tool_name="search"}')
    assert [one["value"][1] for one in tools] == ["3"]
    query = {
        "query": "traces_span_metrics_duration_seconds_bucket",
        "start": str(time.time() - 60),
        "end": str(time.time()),
    }
    found = get_json(f"{prometheus.url}/api/v1/query_exemplars", query)["data"]
    traces = {exemplar["labels"]["trace_id"] for one in found for exemplar in one["exemplars"]}
    assert traces
    assert traces <= {trace for trace, _ in sent}


# --- Many Collectors ------------------------------------------------------------------------------------------


def test_each_session_passes_one_gateway_and_arrives_as_it_was_sent(start_collector, start_backend):
    """Sessions inside another's trace too; and nothing is left of what found the way."""
    backends = [start_backend(), start_backend()]
    gateways = [start_collector(FOLDER / "scaled/gateway.yaml", {"BACKEND_URL": one.url}) for one in backends]
    collector = start_collector(
        FOLDER / "scaled/agent.yaml", {"GATEWAY_1": gateways[0].grpc, "GATEWAY_2": gateways[1].grpc}
    )
    sent = Agent.start({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, 20, inner=True).spans()
    until(lambda: set(stored(backends[0]) + stored(backends[1])) == sent, "every span is stored")
    until(
        lambda: all(one["state"] == "ended" for here in backends for one in sessions(here)),
        "every end is there",
    )
    there = [{session["session_id"] for session in sessions(backend)} for backend in backends]
    assert len(there[0] | there[1]) == 40
    assert there[0] & there[1] == set()
    assert min(map(len, there)) > 5
    for backend in backends:
        for session in sessions(backend):
            assert (session["missing_spans"], session["inferred"]) == (0, False)
            for span in spans(backend, session):
                for bearer in (span, span["resource"], span["scope"]):
                    assert not [key for key in attributes(bearer) if key.startswith("otel_sessions.route")]
                if span["scope"].get("name") == "third.party":
                    assert span["schema_urls"][1] == "https://opentelemetry.io/schemas/1.28.0"


INSTEAD_OF_CLICKHOUSE = """
exporters:
  otlp_http/instead: {{endpoint: "{url}"}}
service:
  pipelines:
    traces/clickhouse: {{exporters: [otlp_http/instead]}}
    logs/clickhouse: {{exporters: [otlp_http/instead]}}
"""


def test_clickhouse_gets_every_id_as_session_id_and_we_get_what_was_sent(
    start_collector, start_backend, tmp_path
):
    """By what stands in the place of ClickHouse, which is not here; a trace without an id has none there either."""
    ours, theirs = start_backend(), start_backend()
    instead = tmp_path / "instead.yaml"
    instead.write_text(INSTEAD_OF_CLICKHOUSE.format(url=theirs.url))
    gateway = start_collector([*COMMANDS["clickhouse"], instead], {"BACKEND_URL": ours.url})
    collector = start_collector(
        FOLDER / "scaled/agent.yaml", {"GATEWAY_1": gateway.grpc, "GATEWAY_2": gateway.grpc}
    )
    given = {"own": {"session.id": "a"}, "variant": {"langsmith.metadata.thread_id": "b"}, "none": {}}
    run(
        VARIANTS.replace("ATTRIBUTES", repr(json.dumps([(name, "any", one) for name, one in given.items()]))),
        collector.url,
    )

    def kept(backend: BackendProcess) -> dict[str, dict]:
        return {span["name"]: attributes(span) for one in sessions(backend) for span in spans(backend, one)}

    until(lambda: len(kept(ours)) == len(kept(theirs)) == 3, "all is there")
    assert kept(ours) == given
    assert kept(theirs) == {**given, "variant": {**given["variant"], "session.id": "b"}}


def test_a_gateway_that_is_away_delays_and_loses_nothing(start_collector, backend):
    """Its part waits on the agents' side; parts that arrived elsewhere are stored once."""
    gateways = [
        start_collector(FOLDER / "scaled/gateway.yaml", {"BACKEND_URL": backend.url}) for _ in range(2)
    ]
    collector = start_collector(
        FOLDER / "scaled/agent.yaml", {"GATEWAY_1": gateways[0].grpc, "GATEWAY_2": gateways[1].grpc}
    )
    gateways[1].process.kill()
    sent = Agent.start({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, 20).spans()
    until(lambda: stored(backend), "one gateway works")
    assert set(stored(backend)) < sent
    collector.process.kill()
    collector.process.start()
    gateways[1].process.start()
    until(lambda: set(stored(backend)) == sent, "every span is stored", 60)
    assert len(stored(backend)) == len(sent)
