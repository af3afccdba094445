"""Claims that /jaeger/ answers as the real Jaeger does, field by field, and that sessions are readable there.

Both get the same OTLP. Where the answers may differ, and why, is this table; all else is compared as it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_process import BackendProcess, clean_environment
from jaeger_data import (
    RECORDINGS,
    SAMPLES,
    SESSIONS,
    START,
    handmade,
    recorded,
    request,
    sent_by,
    span,
    trace_id,
)
from jaeger_pair import EVER, Pair, assert_same_traces, differences, fetch, plain_otlp, plain_traces
from processes import Jaeger, until
from tap import tapped

from otel_sessions.backend.jaeger.lost import WARNING

pytestmark = pytest.mark.neighbours

TOLERATED = {
    "names of processes": "p1, p2, … are given in the order of spans, which is random there",
    "order": "there spans, traces, services and operations come in the random order of Go's maps",
    "grouping in v3": "spans of one resource and scope may lie in several groups here: traces are sent in pieces",
    "order in v3": "attributes are a map: Jaeger shuffles them where it takes some out, and leaves an empty list",
    "copies": "what was sent twice is two spans there, the second with a warning; here it is one",
    "no time or id": "spans without an end or without a valid id are stored there; here they are open, or refused",
    "bytes without any": "an empty value of bytes is null there and an empty text here",
    "no number": "NaN makes a whole trace unreadable there (500); here it is a text",
    "bookkeeping": "the warning about a link without a trace id ends with Go's bookkeeping of a struct there",
    "backwards": "a span that ends before it starts lasts 584,000 years there, and 0 here",
    "content type": "API v3 says text/plain there, which its JSON is not",
    "reasons": "of malformed JSON and times, Go's reason is not repeated word for word",
    "attributes in v3": "query.attributes and lowerCamelCase are those of Jaeger 2; 1.62 ignores them",
    "kinds of operations": "there an attribute span.kind overrules the kind of its span in the list of operations",
    "all traces": "a limit of 0 means all of them there, and at most 1500 here",
}


@pytest.fixture
def pair(start_jaeger: Callable[..., Jaeger], backend: BackendProcess) -> Pair:
    """Start both."""
    return Pair(start_jaeger(), backend)


# --- Traces -------------------------------------------------------------------------------------------------


def test_spans_made_for_every_rule_are_what_jaeger_makes_of_them(pair):
    """Values, statuses, events, links, parents, clocks, resources: in API v1, raw and adjusted, and in API v3."""
    pair.send(handmade())
    assert assert_same_traces(pair) == 9


NOT_A_NUMBER = "chunked-json"  # the sample with an attribute that is NaN
FOLDERS = {
    path.parent.name: path.parent for root in (RECORDINGS, SAMPLES) for path in root.glob("*/recording.json")
}


@pytest.mark.parametrize("name", sorted(FOLDERS.keys() - {NOT_A_NUMBER}))
def test_recorded_spans_are_what_jaeger_makes_of_them(pair, name):
    """The samples of this repository, and recordings of real emitters where there are any."""
    bodies = recorded(FOLDERS[name])
    pair.send(bodies)
    assert bool(assert_same_traces(pair)) == bool(bodies)


def test_what_is_no_number_does_not_hide_its_trace(pair):
    """NaN is a text in API v1, where the real one fails; API v3 has a word for it in both."""
    pair.send(recorded(FOLDERS[NOT_A_NUMBER]), settle=False)
    path = "/traces/0af7651916cd43dd8448eb211c80319c"
    until(lambda: pair.ask(f"/api/v3{path}")[0][0] == 200, "Jaeger has stored it")
    theirs, ours = pair.ask(f"/api/v3{path}")
    assert plain_otlp(ours) == plain_otlp(theirs)
    (failed, _), (status, body) = pair.ask(f"/api{path}")
    assert (failed, status) == (500, 200)
    tags = {tag["key"]: (tag["type"], tag["value"]) for tag in body["data"][0]["spans"][0]["tags"]}
    assert tags["ratio"] == ("float64", "NaN")


def test_sessions_of_our_sdk_are_what_jaeger_makes_of_them(pair, tmp_path):
    """Tasks, tools, a failing step, links between runs; events that only our backend gets change nothing."""
    pair.send(sent_by(SESSIONS, tmp_path))
    assert assert_same_traces(pair) == 3


# --- Services and operations --------------------------------------------------------------------------------


OVERRULED = "aü東🚆"  # the span with an attribute span.kind


def in_order(answer: tuple[int, Any]) -> tuple[int, Any]:
    """Return an answer with its lists in order."""
    status, body = answer
    return status, {
        name: sorted(inner, key=repr) if isinstance(inner, list) else inner for name, inner in body.items()
    }


def operations(answer: tuple[int, Any]) -> tuple[int, list[Any]]:
    """Return the operations of an answer in order, but for the one whose kind is overruled."""
    status, body = answer
    listed = body["operations"] if "operations" in body else body["data"]
    return status, sorted((one for one in listed if one.get("name") != OVERRULED), key=repr)


def test_services_operations_and_dependencies_are_those_of_jaeger(pair):
    """By both APIs, for every service, with odd names too, and for one that nobody has."""
    pair.send(handmade())
    for path in ("/api/services", "/api/v3/services"):
        theirs, ours = pair.ask(path)
        assert in_order(ours) == in_order(theirs)
    services = pair.services()
    assert len(services) > 5
    for service in (*services, "nobody"):
        theirs, ours = pair.ask(f"/api/services/{urllib.parse.quote(service, safe='')}/operations")
        assert in_order(ours) == in_order(theirs)
        for kind in ("", "client", "internal", "nonsense"):
            theirs, ours = pair.ask("/api/operations", [("service", service), ("spanKind", kind)])
            assert operations(ours) == operations(theirs)
            theirs, ours = pair.ask("/api/v3/operations", [("service", service), ("span_kind", kind)])
            assert operations(ours) == operations(theirs)
    for more in ([], [("service", "caller")], [("service", "nobody")]):
        for asked in (EVERY_CALL, NO_CALL):
            theirs, ours = pair.ask("/api/dependencies", [*asked, *more])
            assert in_order(ours) == in_order(theirs)
    _, (_, body) = pair.ask("/api/dependencies", EVERY_CALL)
    assert {"parent": "caller", "child": "called", "callCount": 2} in body["data"]


EVERY_CALL = [("endTs", "4000000000000"), ("lookback", "4000000000000")]
NO_CALL = [("endTs", "4000000000000"), ("lookback", "5")]


# --- Searches -----------------------------------------------------------------------------------------------

BEGIN = START // 1000  # µs
SEARCHES: list[list[tuple[str, str]]] = [
    [("service", "rules")],
    [("service", "nobody")],
    [("service", "rules"), ("operation", "work 2")],
    [("service", "rules"), ("operation", "nothing")],
    [("service", "rules"), ("limit", "1"), ("operation", "aü東🚆")],
    [("service", "näme/mit schräg&strich?")],
    [("service", "OTLPResourceNoServiceName")],
    [("service", "rules"), ("minDuration", "1h")],
    [("service", "rules"), ("minDuration", "1.5s"), ("maxDuration", "100s")],
    [("service", "rules"), ("maxDuration", "1ms")],
    [("service", "rules"), ("start", str(BEGIN + 9_000_000_000))],
    [("service", "rules"), ("end", str(BEGIN - 1_000_000))],
    [("service", "rules"), ("tags", '{"error":"true"}')],
    [("service", "rules"), ("tags", '{"error":"true","span.kind":"client"}')],
    [("service", "rules"), ("tag", "otel.status_description:it broke: ü")],
    [("service", "rules"), ("tags", '{"float":"0.1","int":"-5","bytes":"00ff10","bool.false":"false"}')],
    [("service", "rules"), ("tags", '{"float.great":"1.5e+300","float.small":"1e-09","float.whole":"5"}')],
    [("service", "rules"), ("tags", '{"event":"bare"}')],
    [("service", "rules"), ("tags", '{"process.pid":"7","otel.scope.version":"1.2"}')],
    [("service", "rules"), ("tags", '{"array.texts":"[\\"b\\",\\"a\\"]"}')],
    [("service", "rules"), ("tags", '{"internal.span.format":"otlp"}'), ("operation", "work 12")],
    [("service", "rules"), ("tags", '{"int":"5"}')],
    [("service", "rules"), ("tags", "null"), ("lookback", "1h")],
    [("traceID", "70000000000000003"), ("traceID", "0"), ("traceID", "07" * 16)],
]


@pytest.mark.parametrize("tried", ["v1", "v3"])
def test_searches_find_what_jaeger_finds(pair, tried):
    """Every condition, alone and with others; what is found is compared whole."""
    pair.send(handmade())
    found: list[str] = []
    for search in SEARCHES:
        if tried == "v1":
            asked = [*search, *((key, value) for key, value in EVER.items() if key not in dict(search))]
            theirs, ours = pair.ask("/api/traces", asked)
            found += differences(plain_traces(ours), plain_traces(theirs), str(search))
        elif not {"tag", "tags", "traceID"} & dict(search).keys():
            theirs, ours = pair.ask("/api/v3/traces", in_v3(dict(search)))
            found += differences(plain_otlp(ours), plain_otlp(theirs), str(search))
    assert not found, "\n".join(found)


def in_v3(search: dict[str, str]) -> list[tuple[str, str]]:
    """Return a search of API v1 in the words of API v3."""
    names = {"service": "service_name", "operation": "operation_name", "limit": "num_traces"}
    names |= {"minDuration": "duration_min", "maxDuration": "duration_max"}
    words = [(f"query.{names[key]}", value) for key, value in search.items() if key in names]
    for key, name, default in (("start", "min", 1), ("end", "max", 4_000_000_000_000_000)):
        seconds, micros = divmod(int(search.get(key, default)), 1_000_000)
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        words.append((f"query.start_time_{name}", f"{at}.{micros:06}Z"))
    return words


def test_a_limit_keeps_the_newest_traces(pair):
    """As there, by when they began."""
    bodies = [
        request([span(1, trace=trace_id(no), at=no)], resource=(("service.name", "many"),)) for no in range(9)
    ]
    pair.send(bodies)
    asked = [*EVER.items(), ("service", "many")]
    theirs, ours = pair.ask("/api/traces", [(key, "4" if key == "limit" else value) for key, value in asked])
    assert plain_traces(ours) == plain_traces(theirs)
    assert [trace["traceID"][-1] for trace in ours[1]["data"]] == ["8", "7", "6", "5"]


# --- Errors -------------------------------------------------------------------------------------------------

TIMES = "query.start_time_min=2026-01-01T00:00:00Z&query.start_time_max=2027-01-01T00:00:00%2B02:00"
FAULTS = [
    "/api/traces",
    "/api/traces?service=",
    "/api/traces?service=a&start=x",
    "/api/traces?service=a&end=1.5",
    "/api/traces?service=a&start=99999999999999999999",
    "/api/traces?service=a&limit=x",
    "/api/traces?service=a&limit=3000000000",
    "/api/traces?service=a&limit=-5",
    "/api/traces?service=a&minDuration=5",
    "/api/traces?service=a&minDuration=5x",
    "/api/traces?service=a&minDuration=abc",
    "/api/traces?service=a&maxDuration=-",
    "/api/traces?service=a&maxDuration=.s",
    "/api/traces?service=a&minDuration=1h&maxDuration=1m",
    "/api/traces?service=a&minDuration=-1.5us&maxDuration=%2B1%C2%B5s",
    "/api/traces?service=a&tag=nocolon",
    "/api/traces?traceID=xyz",
    "/api/traces?traceID=" + "1" * 33,
    "/api/traces/xyz",
    "/api/traces/0",
    "/api/traces/" + "1" * 33,
    "/api/traces/" + "x" + "1" * 20,
    "/api/traces/" + "1" * 31 + "x",
    "/api/traces/-1",
    "/api/operations",
    "/api/dependencies?endTs=x",
    "/api/dependencies?endTs=1&lookback=1h",
    "/api/v3/traces/xyz",
    "/api/v3/traces/0",
    "/api/v3/traces",
    "/api/v3/traces?query.start_time_min=2026-01-01T00:00:00Z",
    f"/api/v3/traces?{TIMES}",
    f"/api/v3/traces?{TIMES}&query.num_traces=x",
    f"/api/v3/traces?{TIMES}&query.duration_min=5",
    f"/api/v3/traces?{TIMES}&query.duration_max=x",
    "/api/v3/operations",
]
REASONS = {  # where Go's own reason is not repeated: what comes before it
    "/api/traces?service=a&tags=x": "malformed 'tags' parameter, cannot unmarshal JSON: ",
    "/api/traces?service=a&tags=[]": "malformed 'tags' parameter, cannot unmarshal JSON: ",
    "/api/traces?service=a&tags={%22a%22:1}": "malformed 'tags' parameter, cannot unmarshal JSON: ",
    f"/api/v3/traces?{TIMES.replace('2027', 'x')}": "malformed parameter query.start_time_max: parsing time ",
    f"/api/v3/traces?{TIMES.replace('-01-01', '-02-30')}": "malformed parameter query.start_time_min: parsing time ",
}


def test_what_can_not_be_asked_gets_the_same_error(pair):
    """Status and words; where Go's reason is its own, all before it."""
    pair.settle()
    found: list[str] = []
    for fault in FAULTS:
        theirs, ours = pair.ask(fault)
        found += differences(ours, theirs, fault)
    for fault, begin in REASONS.items():
        (their_status, theirs), (our_status, ours) = pair.ask(fault)
        assert (our_status, their_status) == (400, 400), fault
        for body in (ours, theirs):
            error = body["error"] if "error" in body else body["errors"][0]
            assert error.get("message", error.get("msg")).startswith(begin)
    assert not found, "\n".join(found)


def test_attributes_in_api_v3_narrow_the_search_and_names_may_be_in_camel_case(pair):
    """As in Jaeger 2, which the real one here is not."""
    pair.send(handmade())
    snake = in_v3({"service": "rules"})
    asked = [(re.sub("_([a-z])", lambda found: found[1].upper(), key), value) for key, value in snake]
    assert {key for key, _ in asked} == {"query.serviceName", "query.startTimeMin", "query.startTimeMax"}
    everything, (status, camel) = (pair.ask("/api/v3/traces", words)[1] for words in (snake, asked))
    assert (status, camel) == everything
    narrow = [
        *asked,
        ("query.attributes", '{"otel.status_description":"described"}'),
        ("query.searchDepth", "5"),
    ]
    _, (_, body) = pair.ask("/api/v3/traces", narrow)
    traces = {one["traceId"] for _, _, one in plain_otlp((200, body))[1]}
    assert traces == {trace_id(2).hex()}


# --- Sessions in the real one ---------------------------------------------------------------------------------


def run_agent(program: str, folder: Path, **env: str) -> subprocess.Popen[str]:
    """Start a program with our SDK that speaks to an endpoint."""
    file = folder / "agent.py"
    file.write_text(program)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, str(file)], env=clean_environment(env), stdin=pipe, stdout=pipe, text=True
    )


def tags_of(one: dict[str, Any]) -> dict[str, Any]:
    """Return the tags of a span, or of a log, by their keys."""
    tags = one["tags"] if "tags" in one else one["fields"]
    return {tag["key"]: tag["value"] for tag in tags}


def test_sessions_are_readable_in_the_real_jaeger(start_jaeger, tmp_path):
    """Names, kinds, errors and links, in both APIs; each span once, and no warning about what ended."""
    jaeger = start_jaeger()
    with run_agent(SESSIONS, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{jaeger.otlp_http}") as agent:
        assert agent.wait(60) == 0
    until(lambda: len(jaeger.spans("reisebüro")) == 10, "all ten spans are stored")
    spans = jaeger.spans("reisebüro")
    assert len({(one["traceID"], one["spanID"]) for one in spans}) == 10
    assert [one["warnings"] for one in spans] == [None] * 10
    kinds = {"chat gpt-9": "client", **dict.fromkeys(NAMES - {"chat gpt-9"}, "internal")}
    assert {one["operationName"]: tags_of(one)["span.kind"] for one in spans} == kinds
    by_name = {one["operationName"]: one for one in spans}
    failed = by_name["fails"]
    assert tags_of(failed)["error"] is True
    assert tags_of(failed)["otel.status_code"] == "ERROR"
    (event,) = failed["logs"]
    assert tags_of(event)["event"] == "exception"
    assert tags_of(event)["exception.message"] == "nein: ü"
    assert [name for name, one in by_name.items() if "error" in tags_of(one)] == ["fails"]
    plan = next(one for one in spans if tags_of(one).get("otel_sessions.session.title"))
    assert tags_of(plan)["otel_sessions.session.outcome"] == "ok"
    (link,) = by_name["session inner"]["references"]
    assert (link["refType"], link["traceID"], link["spanID"]) == (
        "FOLLOWS_FROM",
        plan["traceID"],
        plan["spanID"],
    )
    assert {tags_of(one)["session.id"] for one in spans} == {"jaeger-1", "jaeger-2"}
    assert_readable_in_v3(jaeger, plan["traceID"])


NAMES = {"session plan", "session inner", "task question", "invoke_agent planner", "execute_tool search"}
NAMES |= {"chat gpt-9", "fails", "again"}


def assert_readable_in_v3(jaeger: Jaeger, trace: str) -> None:
    """Check one session's trace as Jaeger gives it back in OTLP."""
    status, spans = plain_otlp(fetch(f"{jaeger.query_url}/api/v3/traces/{trace}"))
    assert status == 200
    by_name = {one["name"]: one for _, _, one in spans}
    assert by_name.keys() == NAMES - {"session inner", "again"}
    assert by_name["chat gpt-9"]["kind"] == 3
    assert by_name["fails"]["status"] == {"code": 2, "message": "ValueError: nein: ü"}
    assert [event["name"] for event in by_name["fails"]["events"]] == ["exception"]
    assert by_name["task question"]["parentSpanId"] == by_name["session plan"]["spanId"]


OPEN = """
import otel_sessions

otel_sessions.init(service_name="open")
with otel_sessions.session("long", id="long-1", title="Köln"):
    with otel_sessions.tool("first"):
        pass
    print("ready", flush=True)
    input()
"""


def test_an_open_session_only_lacks_its_root_and_a_lost_one_gets_one_here(pair, tmp_path):
    """The real one warns of a missing parent for ever; so do we while it is open, and then tell what is known."""
    with tapped() as (endpoint, bodies):
        agent = run_agent(
            OPEN,
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_SESSIONS_HEARTBEAT="0.2",
            OTEL_SESSIONS_LEASE="3",
        )
        with agent:
            until(lambda: any(body.path == "/v1/traces" for body in bodies), "the tool's span is exported")
            pair.send(list(bodies), settle=False)
            until(lambda: pair.jaeger.spans("open"), "Jaeger has stored it")
            (first,) = pair.jaeger.spans("open")
            (parent,) = first["references"]
            missing = f"invalid parent span IDs={parent['spanID']}; skipping clock skew adjustment"
            assert first["warnings"] == [missing]
            assert assert_same_traces(pair) == 1
            agent.kill()
    until(lambda: state_of(pair.backend, "long-1") == "lost", "the run is lost")
    theirs, ours = pair.ask(f"/api/traces/{first['traceID']}")
    assert theirs[1]["data"][0]["spans"][0]["warnings"] == [missing]
    root, child = sorted(ours[1]["data"][0]["spans"], key=lambda one: len(one["references"]))
    assert child == {**first, "warnings": None, "processID": child["processID"]}
    assert (root["spanID"], root["operationName"]) == (parent["spanID"], "session long")
    assert root["startTime"] <= child["startTime"]
    assert root["startTime"] + root["duration"] >= child["startTime"] + child["duration"]
    assert tags_of(root)["otel_sessions.synthetic"] is True
    assert tags_of(root)["otel_sessions.session.title"] == "Köln"
    assert root["warnings"] == [WARNING]
    _, ours = pair.ask(f"/api/v3/traces/{first['traceID']}")
    assert {one["name"] for _, _, one in plain_otlp(ours)[1]} == {"session long", "execute_tool first"}


def state_of(backend: BackendProcess, session: str) -> str:
    """Return the state of a session as our page shows it."""
    return fetch(f"{backend.url}/api/v1/sessions/{session}")[1]["state"]
