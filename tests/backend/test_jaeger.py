"""Jaeger's APIs over a real server, without the real Jaeger: lost runs, limits, faults, tokens, long answers.

That the answers are those of the real one is claimed in tests/neighbours/test_jaeger.py.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from backend_process import BackendProcess
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_requests import PROTOBUF, SECOND, LifeCycle, logs, new_span_id, new_trace_id, span, traces

from otel_sessions.backend.jaeger.lost import WARNING

TOKEN = "a-token-of-tests"
EVER = "start=1&end=4000000000000000"
Start = Callable[..., BackendProcess]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Start one backend for all claims that do not mind what others store."""
    server = BackendProcess(tmp_path_factory.mktemp("shared")).start()
    yield server
    server.kill()


def send(backend: BackendProcess, body: bytes, path: str = "/v1/traces") -> None:
    """Send one export request."""
    assert backend.exchange("POST", path, body, PROTOBUF)[0] == 200


def ask(backend: BackendProcess, path: str) -> tuple[int, Any]:
    """Return status and JSON of an answer."""
    status, _, body = backend.exchange("GET", f"/jaeger{path}")
    return status, json.loads(body)


def trace_of(backend: BackendProcess, trace: bytes) -> dict[str, Any]:
    """Return one trace of API v1."""
    status, body = ask(backend, f"/api/traces/{trace.hex()}")
    assert status == 200, body
    (found,) = body["data"]
    return found


def by_name(trace: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the spans of a trace by their names."""
    return {one["operationName"]: one for one in trace["spans"]}


def tags_of(one: dict[str, Any]) -> dict[str, Any]:
    """Return the tags of a span by their keys."""
    return {tag["key"]: tag["value"] for tag in one["tags"]}


def until(true: Callable[[], Any], what: str) -> Any:
    """Wait until something holds, and return it."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(what)


# --- Lost runs ----------------------------------------------------------------------------------------------


def begin(backend: BackendProcess, run: LifeCycle, *, lease: float = 0.3) -> None:
    """Begin a run with one heartbeat, after which it is silent."""
    short = {"HEARTBEAT_INTERVAL": 0.1, "LEASE": lease}
    start = run.event("session.start", SESSION_NAME="plan trip", SESSION_TITLE="Köln", **short)
    send(backend, logs([start, run.beat(**short)]), "/v1/logs")


def lose(backend: BackendProcess, run: LifeCycle) -> None:
    """Wait until a silent run is lost."""
    path = f"/api/v1/sessions/{run.session}"
    until(lambda: json.loads(backend.exchange("GET", path)[2])["state"] == "lost", "the run is lost")


def test_the_root_of_a_lost_run_is_shown_as_made_up(backend):
    """It spans all that is known of the run, says that it is inferred, and its children have a parent."""
    run = LifeCycle("s-1")
    began = time.time_ns()
    begin(backend, run)
    later = span("s-1", "step", trace=run.trace, parent=run.root, start=began + SECOND, duration=5 * SECOND)
    send(backend, traces([later]))
    lose(backend, run)
    shown = by_name(trace_of(backend, run.trace))
    assert shown.keys() == {"session plan trip", "step"}
    root, step = shown["session plan trip"], shown["step"]
    assert (root["spanID"], root["references"]) == (run.root.hex(), [])
    assert tags_of(root)["otel_sessions.synthetic"] is True
    assert tags_of(root)["otel_sessions.session.title"] == "Köln"
    assert not {"otel_sessions.seq", "otel_sessions.elapsed", "otel_sessions.lease"} & tags_of(root).keys()
    assert root["warnings"] == [WARNING]
    assert root["startTime"] >= began // 1000
    end = root["startTime"] + root["duration"]
    assert abs(end - (began + 6 * SECOND) // 1000) <= 1  # both are rounded
    assert step["warnings"] is None
    assert trace_of(backend, run.trace)["processes"]["p1"]["serviceName"] == "planner"


def test_a_lost_run_without_any_span_is_listed_and_found(backend):
    """Whoever looks for what died at its start finds it by its service and name."""
    run = LifeCycle("s-1")
    begin(backend, run)
    assert ask(backend, "/api/services")[1]["data"] is None
    assert ask(backend, f"/api/traces/{run.trace.hex()}")[0] == 404
    lose(backend, run)
    assert ask(backend, "/api/services")[1]["data"] == ["planner"]
    assert ask(backend, "/api/services/planner/operations")[1]["data"] == ["session plan trip"]
    tags = quote('{"session.id":"s-1","otel_sessions.synthetic":"true"}')
    _, body = ask(backend, f"/api/traces?service=planner&operation=session+plan+trip&tags={tags}&{EVER}")
    assert [trace["traceID"] for trace in body["data"]] == [run.trace.hex()]


def test_a_real_root_replaces_a_made_up_one(backend):
    """Also when it comes long after the run was lost, and none of its words is from the other."""
    run = LifeCycle("s-1")
    begin(backend, run)
    lose(backend, run)
    assert by_name(trace_of(backend, run.trace))["session plan trip"]["warnings"] == [WARNING]
    real = span("s-1", "session plan trip", trace=run.trace, id=run.root, duration=7 * SECOND)
    send(backend, traces([real]))
    (root,) = trace_of(backend, run.trace)["spans"]
    assert (root["duration"], root["warnings"]) == (7_000_000, None)
    assert "otel_sessions.synthetic" not in tags_of(root)


def test_what_is_open_is_not_shown_and_its_children_say_so(backend):
    """As in the real one, which can't know: of an open run only ended spans, with a missing parent."""
    run = LifeCycle("s-1")
    send(backend, logs([*run.start(), run.opened(new_span_id(), "open", run.root)]), "/v1/logs")
    send(backend, traces([span("s-1", "step", trace=run.trace, parent=run.root)]))
    (step,) = trace_of(backend, run.trace)["spans"]
    missing = f"invalid parent span IDs={run.root.hex()}; skipping clock skew adjustment"
    assert step["warnings"] == [missing]
    assert ask(backend, "/api/services/planner/operations")[1]["data"] == ["step"]


def test_a_span_that_was_open_in_a_lost_run_stays_unknown(backend):
    """Only the root is made up: of a lost tool nobody knows how long it went on."""
    run, tool = LifeCycle("s-1"), new_span_id()
    begin(backend, run)
    send(backend, logs([run.opened(tool, "execute_tool slow", run.root)]), "/v1/logs")
    send(backend, traces([span("s-1", "inside", trace=run.trace, parent=tool)]))
    lose(backend, run)
    shown = by_name(trace_of(backend, run.trace))
    assert shown.keys() == {"session plan trip", "inside"}
    assert shown["inside"]["warnings"][0].startswith(f"invalid parent span IDs={tool.hex()};")


# --- Who may ask, and what is answered --------------------------------------------------------------------


def test_a_token_guards_these_paths_as_all_others(start_backend: Start):
    """Without it 401, with it an answer: Grafana's data source sends it as a header."""
    backend = start_backend("--token", TOKEN)
    for path in ("/jaeger/api/services", "/jaeger/api/v3/services", "/jaeger/api/traces/1"):
        status, headers, _ = backend.exchange("GET", path)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    authorized = {"Authorization": f"Bearer {TOKEN}"}
    assert backend.exchange("GET", "/jaeger/api/services", headers=authorized)[0] == 200


def test_a_foreign_host_name_is_turned_away(shared):
    """A page that points its own name at this server reads no traces."""
    assert shared.exchange("GET", "/jaeger/api/services", headers={"Host": "evil.example"})[0] == 421


def test_answers_are_json_that_no_browser_may_take_for_a_page(shared):
    """What is in spans is hostile text; errors quote what was asked, as plain text."""
    send(shared, traces([span("s", "<script>alert(1)</script>")]))
    for path in ("/api/services", f"/api/traces?service=planner&{EVER}", "/api/v3/services"):
        _, headers, _ = shared.exchange("GET", f"/jaeger{path}")
        assert headers["Content-Type"].startswith("application/json")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
    status, headers, body = shared.exchange("GET", "/jaeger/api/traces/%3Cscript%3E")
    assert (status, headers["X-Content-Type-Options"]) == (400, "nosniff")
    assert headers["Content-Type"].startswith("text/plain")
    assert json.loads(body)["errors"][0]["msg"].startswith("strconv.ParseUint: parsing")


@pytest.mark.parametrize("service", ["a/b", "a b", "100%", "..", "東京?", "#", "a+b"])
def test_a_service_of_any_name_can_be_asked_for(shared, service):
    """In a path and in a query, percent-encoded."""
    send(shared, traces([span("s", "work")], service=service))
    encoded = quote(service, safe="")
    assert ask(shared, f"/api/services/{encoded}/operations")[1]["data"] == ["work"]
    assert len(ask(shared, f"/api/traces?service={encoded}&{EVER}")[1]["data"]) == 1


def test_a_store_that_can_not_be_read_is_told_in_each_api_s_own_form(backend):
    """503, in the envelope that a client of that API can read."""
    send(backend, traces([span("s", "work")]))
    with sqlite3.connect(backend.data / "sessions.db") as conn:
        conn.execute("ALTER TABLE names RENAME TO gone")
    conn.close()
    status, body = ask(backend, "/api/services")
    assert (status, body["errors"][0]["code"]) == (503, 503)
    status, body = ask(backend, "/api/v3/services")
    assert (status, body["error"]["httpCode"]) == (503, 503)


# --- Long answers -----------------------------------------------------------------------------------------


def test_a_search_keeps_the_newest_traces_over_many_pages_of_rows(backend):
    """A trace of thousands of spans hides none that is older, and a limit counts traces."""
    base = 1_700_000_000 * SECOND
    long, older = new_trace_id(), [new_trace_id() for _ in range(3)]
    crowd = [span("s", "crowd", trace=long, start=base + no * 1000 + 5 * SECOND) for no in range(1500)]
    send(backend, traces(crowd))
    send(backend, traces([span("s", "old", trace=one, start=base + no) for no, one in enumerate(older)]))
    for limit, wanted in (
        ("2", [long, older[2]]),
        ("100", [long, *reversed(older)]),
        ("0", [long, *reversed(older)]),
    ):
        _, body = ask(backend, f"/api/traces?service=planner&limit={limit}&{EVER}")
        assert [trace["traceID"] for trace in body["data"]] == [one.hex() for one in wanted]
    assert len(body["data"][0]["spans"]) == 1500
    _, body = ask(backend, f"/api/traces?service=planner&operation=old&limit=1&{EVER}")
    assert [trace["traceID"] for trace in body["data"]] == [older[2].hex()]


def test_a_long_trace_comes_whole_plain_or_compressed(shared):
    """Sent in pieces, it is one document, and the same as by the other API."""
    trace, root = new_trace_id(), new_span_id()
    chain = [root, *(new_span_id() for _ in range(3000))]
    spans = [span("s", f"step {no}", trace=trace, id=one, parent=chain[no - 1] if no else b"")
             for no, one in enumerate(chain)]  # fmt: skip
    for begin_at in range(0, len(spans), 500):
        send(shared, traces(spans[begin_at : begin_at + 500]))
    path = f"/jaeger/api/traces/{trace.hex()}"
    _, _, plain = shared.exchange("GET", path)
    _, headers, zipped = shared.exchange("GET", path, headers={"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(zipped) == plain
    assert len(zipped) < len(plain) / 5
    (shown,) = json.loads(plain)["data"]
    assert {one["spanID"] for one in shown["spans"]} == {one.hex() for one in chain}
    _, body = ask(shared, f"/api/v3/traces/{trace.hex()}")
    groups = [group for one in body["result"]["resourceSpans"] for group in one["scopeSpans"]]
    assert sum(len(group["spans"]) for group in groups) == len(chain)


def test_what_came_as_json_is_answered_as_what_came_as_protobuf(shared):
    """The encoding of a request is no part of the answer."""
    from google.protobuf.json_format import MessageToDict

    trace = new_trace_id()
    message = ExportTraceServiceRequest.FromString(traces([span("s", "work", trace=trace, note="ü")]))
    send(shared, message.SerializeToString())
    by_protobuf = trace_of(shared, trace)
    document = MessageToDict(message, use_integers_for_enums=True)
    one = document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    other = new_trace_id()
    one["traceId"], one["spanId"] = (
        other.hex(),
        message.resource_spans[0].scope_spans[0].spans[0].span_id.hex(),
    )
    headers = {"Content-Type": "application/json"}
    assert shared.exchange("POST", "/v1/traces", json.dumps(document), headers)[0] == 200
    by_json = trace_of(shared, other)
    assert json.dumps(by_json).replace(other.hex(), trace.hex()) == json.dumps(by_protobuf)
