"""The API over a real server: what is stored is what is told, and what can't be asked is said."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from urllib.parse import quote

import pytest
from aiohttp import ClientSession
from api_client import Reader
from backend_process import BackendProcess
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_requests import PROTOBUF, SECOND, LifeCycle, logs, new_span_id, new_trace_id, span, traces
from yarl import URL

from otel_sessions.backend.otlp_json import span_json

STRANGE_IDS = [
    "a/b",
    "what?",
    "#1",
    "100%",
    "100%25",
    "two words",
    "🦊",
    "会话",
    "{id}",
    "a+b&c=d",
    "..",
    "line\nbreak",
    "'\"<script>",
    "a/rows",
]


@pytest.fixture(scope="module")
def empty_backend(tmp_path_factory):
    """Start one backend for all claims that store nothing."""
    server = BackendProcess(tmp_path_factory.mktemp("empty")).start()
    yield server
    server.kill()


def ask(backend, claim) -> None:
    """Run a claim with a reader of the server."""

    async def run() -> None:
        async with ClientSession() as client:
            await claim(Reader(client, backend.url), client)

    asyncio.run(run())


async def problem_of(client: ClientSession, url: str) -> dict:
    """Return a problem with its status, as a program sees it."""
    async with client.get(URL(url, encoded=True)) as response:
        assert response.content_type == "application/problem+json"
        problem = json.loads(await response.read())
        assert problem["status"] == response.status
        return problem


def test_any_session_id_is_found_under_its_percent_encoded_form(backend):
    """Ids are whatever an application uses: paths, questions, emoji."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        await reader.post_traces(traces([span(name) for name in STRANGE_IDS]))
        for name in STRANGE_IDS:
            if name == "..":
                continue  # no address can hold it: clients fold it away; our own id is there for that
            detail = await reader.get(f"/api/v1/sessions/{quote(name, safe='')}")
            assert detail["session_id"] == name
            rows = await reader.get(f"/api/v1/sessions/{quote(name, safe='')}/rows")
            assert rows["session"] == detail["id"]
        for shown in (await reader.get("/api/v1/sessions"))["sessions"]:
            assert re.fullmatch(r"[A-Za-z0-9_.-]+", shown["id"]), "our own id needs no encoding"
            assert (await reader.get(f"/api/v1/sessions/{shown['id']}"))["session_id"] == shown["session_id"]

    ask(backend, claim)


def test_a_session_without_an_id_is_its_trace(backend):
    """Its id is ours, its session id null: nobody gave it one."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        await reader.post_traces(traces([span(None, "alone")]))
        (shown,) = (await reader.get("/api/v1/sessions"))["sessions"]
        assert shown["session_id"] is None
        assert shown["inferred"] is True
        assert (await reader.get(f"/api/v1/sessions/{shown['id']}"))["spans"] == 1

    ask(backend, claim)


def test_times_ids_and_the_unknown_have_one_form_in_every_answer(backend):
    """Nanoseconds survive as strings, ids are hex, and what nobody said is null."""
    start = 1_763_730_000_123_456_789
    trace, at = new_trace_id(), new_span_id()

    async def claim(reader: Reader, client: ClientSession) -> None:
        await reader.post_traces(traces([span("s", "work", trace=trace, id=at, start=start, duration=7)]))
        shown = await reader.get("/api/v1/sessions/s")
        assert shown["started_at"] == str(start)
        assert shown["cost"] is None
        assert shown["input_tokens"] is None
        assert shown["traces"] == [trace.hex()]
        one = await reader.get(f"/api/v1/spans/{trace.hex()}/{at.hex()}")
        assert (one["row"]["start"], one["row"]["end"]) == (str(start), str(start + 7))
        assert one["span"]["startTimeUnixNano"] == str(start)
        assert one["session"] == shown["id"]
        rows = await reader.get("/api/v1/sessions/s/rows")
        assert (rows["base"], rows["columns"]["start"], rows["columns"]["duration"]) == (str(start), [0], [7])
        assert rows["columns"]["id"] == [at.hex()]

    ask(backend, claim)


def test_the_list_is_filtered_paged_and_counted(backend):
    """Each filter narrows, pages neither repeat nor skip, counts are of all."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        done, waits = LifeCycle("done"), LifeCycle("waits")
        await reader.post_logs(logs([*done.start(), done.end()], service="billing"))
        await reader.post_logs(logs([*waits.start(), waits.waiting("approval")], service="billing"))
        base = 1_700_000_000 * SECOND
        await reader.post_traces(traces([span(f"old-{n}", start=base + n * SECOND) for n in range(5)]))

        async def ids(query: str) -> list[str]:
            return [
                shown["session_id"] for shown in (await reader.get(f"/api/v1/sessions?{query}"))["sessions"]
            ]

        assert await ids("state=ended") == ["done"]
        assert set(await ids("state=ended,waiting")) == {"done", "waits"}
        assert set(await ids("service=billing")) == {"done", "waits"}
        assert await ids("q=OLD-3") == ["old-3"]
        assert await ids(f"until={base + 2 * SECOND}&sort=started_at") == ["old-0", "old-1"]
        assert await ids(f"since={base + 3 * SECOND}&until={base + 9 * SECOND}") == ["old-4", "old-3"]
        seen, query = [], "limit=2&q=old"
        while True:
            page = await reader.get(f"/api/v1/sessions?{query}")
            seen += [shown["session_id"] for shown in page["sessions"]]
            if page["next"] is None:
                break
            query = f"limit=2&q=old&after={page['next']}"
        assert seen == [f"old-{n}" for n in (4, 3, 2, 1, 0)]
        counts = (await reader.get("/api/v1/sessions?limit=1"))["counts"]
        assert counts == {"running": 0, "waiting": 1, "stale": 0, "lost": 0, "idle": 5, "ended": 1}

    ask(backend, claim)


def test_a_session_without_a_run_goes_idle_by_silence_everywhere_at_once(start_backend):
    """List, filter, counts and detail agree; a session with a known run is never idle."""
    backend = start_backend("--idle-after", "0.3")

    async def claim(reader: Reader, client: ClientSession) -> None:
        run = LifeCycle("told")
        await reader.post_logs(logs(run.start()))
        async with reader.stream() as events:
            await reader.post_traces(traces([span("guessed")]))
            async for event in events:
                if event.name == "session" and event.data["state"] == "idle":
                    break
        assert (await reader.get("/api/v1/sessions/guessed"))["state"] == "idle"
        listed = await reader.get("/api/v1/sessions")
        assert {s["session_id"]: s["state"] for s in listed["sessions"]} == {
            "told": "running",
            "guessed": "idle",
        }
        assert (listed["counts"]["running"], listed["counts"]["idle"]) == (1, 1)
        (idle,) = (await reader.get("/api/v1/sessions?state=idle"))["sessions"]
        assert idle["session_id"] == "guessed"
        (running,) = (await reader.get("/api/v1/sessions?state=running"))["sessions"]
        assert running["session_id"] == "told"

    ask(backend, claim)


@pytest.mark.parametrize(
    ("path", "parameter", "named"),
    [
        ("sessions?state=on", "state", "running, waiting, stale, lost, idle, ended"),
        ("sessions?state=ended,done", "state", "done"),
        ("sessions?sort=color", "sort", "-started_at"),
        ("sessions?sort=agents", "sort", "started_at"),
        ("sessions?limit=0", "limit", "1 to 500"),
        ("sessions?limit=501", "limit", "1 to 500"),
        ("sessions?limit=ten", "limit", "1 to 500"),
        ("sessions?limit=-1", "limit", "1 to 500"),
        ("sessions?limit=%C2%B2", "limit", "1 to 500"),
        ("sessions?since=yesterday", "since", "Unix nanoseconds"),
        ("sessions?until=99999999999999999999999", "until", "Unix nanoseconds"),
        ("sessions?after=nonsense", None, "cursor"),
        ("search", "q", "q is missing"),
        ("search?q=%20", "q", "q is missing"),
        ("search?q=x&before=nonsense", "before", "cursor"),
        ("spans/xyz/0102030405060708", "trace_id", "32 hexadecimal digits"),
        ("spans/" + "ab" * 16 + "/0102", "span_id", "16 hexadecimal digits"),
    ],
)
def test_what_can_not_be_asked_is_a_400_that_says_what_can(empty_backend, path, parameter, named):
    """A typo never passes for an empty answer."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        problem = await problem_of(client, f"{empty_backend.url}/api/v1/{path}")
        assert problem["status"] == 400
        assert problem.get("parameter") == parameter
        assert named in problem["detail"]

    ask(empty_backend, claim)


@pytest.mark.parametrize(
    "path",
    [
        "sessions/nobody",
        "sessions/nobody/rows",
        "sessions/nobody/transcript",
        "sessions/nobody/otlp",
        "spans/" + "ab" * 16 + "/" + "cd" * 8,
        "stream?session=nobody",
        "nothing",
    ],
)
def test_what_is_not_stored_is_a_404_that_names_it(empty_backend, path):
    """The problem says what was looked for, and bears an id."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        problem = await problem_of(client, f"{empty_backend.url}/api/v1/{path}")
        assert problem["status"] == 404
        assert problem["instance"] == f"/api/v1/{path}"
        assert problem["request_id"]

    ask(empty_backend, claim)


def test_parameters_that_nobody_knows_are_ignored(backend):
    """A page and its twin share one address; the page has parameters of its own."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        await reader.post_traces(traces([span("s")]))
        assert (await reader.get("/api/v1/sessions/s?view=waterfall&span=1&from=&to="))["spans"] == 1

    ask(backend, claim)


def test_every_span_has_one_row_and_a_missing_parent_a_placeholder(backend):
    """Orphans hang below a placeholder; parents are row numbers, so the tree needs no search."""
    trace, root, lost = new_trace_id(), new_span_id(), new_span_id()

    async def claim(reader: Reader, client: ClientSession) -> None:
        base = time.time_ns()
        await reader.post_traces(
            traces(
                [
                    span("s", "child", trace=trace, parent=root, start=base + 1),
                    span("s", "orphan", trace=trace, parent=lost, start=base + 2),
                    span("s", "root", trace=trace, id=root, start=base),
                ]
            )
        )
        rows = await reader.get("/api/v1/sessions/s/rows")
        columns = rows["columns"]
        names = [rows["names"][index] for index in columns["name"]]
        assert names == ["root", "child", "", "orphan"]
        assert columns["parent"] == [-1, 0, -1, 2]
        assert columns["depth"] == [0, 1, 0, 1]
        assert columns["flags"][2] & 8
        assert rows["total"] == 4

    ask(backend, claim)


def test_rows_after_a_revision_are_what_changed_since(backend):
    """A reader that polls sees each change once, and stays where it is while there is none."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        await reader.post_traces(traces([span("s", "first")]))
        revision = (await reader.get("/api/v1/sessions/s/rows"))["revision"]
        await reader.post_traces(traces([span("other", "elsewhere")]))
        nothing = await reader.get(f"/api/v1/sessions/s/rows?after={revision}")
        assert (nothing["total"], nothing["revision"]) == (0, revision)
        await reader.post_traces(traces([span("s", "second")]))
        changed = await reader.get(f"/api/v1/sessions/s/rows?after={revision}")
        assert changed["names"] == ["second"]
        assert changed["revision"] > revision
        assert changed["columns"]["parent_id"] == [""]

    ask(backend, claim)


def test_an_announced_span_is_shown_open_and_without_a_message(backend):
    """Before its end there is an index row and nothing else to tell."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        run, at = LifeCycle("s"), new_span_id()
        await reader.post_logs(logs([*run.start(), run.opened(at, "chat m", run.root)]))
        detail = await reader.get("/api/v1/sessions/s")
        (shown,) = [item for item in detail["open_spans"] if item["span_id"] == at.hex()]
        assert shown["name"] == "chat m"
        one = await reader.get(f"/api/v1/spans/{run.trace.hex()}/{at.hex()}")
        assert one["span"] is None
        assert one["row"]["end"] is None
        assert one["row"]["flags"] & 1
        assert len(one["logs"]) == 1

    ask(backend, claim)


def as_otlp(document: dict) -> tuple[list, list]:
    """Return all spans and logs of an export, each as text, sorted."""
    spans = [s for r in document["resourceSpans"] for scope in r["scopeSpans"] for s in scope["spans"]]
    records = [s for r in document["resourceLogs"] for scope in r["scopeLogs"] for s in scope["logRecords"]]
    return sorted(json.dumps(s, sort_keys=True) for s in spans), sorted(
        json.dumps(s, sort_keys=True) for s in records
    )


def test_an_export_holds_everything_and_can_be_sent_again(backend, start_backend):
    """Posted to another server as it is, it makes the same session there."""
    trace = new_trace_id()
    many = [span("s", f"step {n}", trace=trace, note="x" * 500) for n in range(700)]
    other = start_backend()

    async def claim(reader: Reader, client: ClientSession) -> None:
        run = LifeCycle("s", trace=trace)
        await reader.post_logs(logs([*run.start(), run.waiting("approval"), run.end()]))
        await reader.post_traces(traces(many[:300]))
        await reader.post_traces(traces(many[300:], service="worker"))
        document = await reader.get("/api/v1/sessions/s/otlp")
        spans, records = as_otlp(document)
        assert spans == sorted(json.dumps(span_json(message), sort_keys=True) for message in many)
        assert {json.loads(record)["eventName"] for record in records} >= {"session.start", "session.end"}
        services = {r["resource"]["attributes"][0]["value"]["stringValue"] for r in document["resourceSpans"]}
        assert services == {"planner", "worker"}
        for path, part in (("traces", "resourceSpans"), ("logs", "resourceLogs")):
            body = json.dumps({part: document[part]})
            headers = {"Content-Type": "application/json"}
            async with client.post(f"{other.url}/v1/{path}", data=body, headers=headers) as response:
                assert response.status == 200, await response.text()
        again = await Reader(client, other.url).get("/api/v1/sessions/s/otlp")
        assert as_otlp(again) == (spans, records)

    ask(backend, claim)


def test_an_export_is_an_attachment_that_no_browser_runs(backend):
    """Its content is whatever models and users wrote."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        await reader.post_traces(traces([span("s")]))
        async with client.get(f"{backend.url}/api/v1/sessions/s/otlp") as response:
            assert response.headers["Content-Disposition"].startswith('attachment; filename="session-')
            assert "sandbox" in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"

    ask(backend, claim)


def test_every_answer_is_private_and_harmless(backend):
    """No cache keeps it, no browser takes it for a page."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        await reader.post_traces(traces([span("s")]))
        for path in ("sessions", "sessions/s", "sessions/s/rows", "status", "sessions/nobody"):
            async with client.get(f"{backend.url}/api/v1/{path}") as response:
                assert response.headers["Cache-Control"] == "no-store"
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Referrer-Policy"] == "no-referrer"

    ask(backend, claim)


def test_large_answers_are_compressed_for_those_who_take_it(backend):
    """The bytes are the same; a weight of zero is a no."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        await reader.post_traces(traces([span("s", f"step {n}") for n in range(200)]))
        async with ClientSession(auto_decompress=False) as raw:
            for path in ("sessions/s/rows", "sessions/s/otlp"):
                bodies = {}
                for accepted in ("gzip", "identity", "gzip;q=0", "*"):
                    headers = {"Accept-Encoding": accepted}
                    async with raw.get(f"{backend.url}/api/v1/{path}", headers=headers) as response:
                        zipped = response.headers.get("Content-Encoding") == "gzip"
                        assert zipped is (accepted in ("gzip", "*")), accepted
                        body = await response.read()
                        document = json.loads(gzip.decompress(body) if zipped else body)
                        document.pop("event_id", None)
                        bodies[accepted] = document
                assert len({json.dumps(body) for body in bodies.values()}) == 1

    ask(backend, claim)


def test_a_search_finds_text_in_any_script_and_goes_on_page_by_page(backend):
    """Substrings count, not words; each hit is a place to go to."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        trace = new_trace_id()
        await reader.post_traces(
            traces([span("s", f"step {n}", trace=trace, note="锂电池供应链") for n in range(5)])
        )
        await reader.post_traces(traces([span("s", "unrelated", trace=trace)]))
        hits, query = [], f"q={quote('电池')}&limit=2"
        while True:
            page = await reader.get(f"/api/v1/search?{query}")
            hits += page["hits"]
            if page["next"] is None:
                break
            query = f"q={quote('电池')}&limit=2&before={quote(page['next'], safe='')}"
        assert {hit["name"] for hit in hits} == {f"step {n}" for n in range(5)}
        assert len(hits) == 5
        for hit in hits:
            assert "电池" in hit["snippet"]
            assert (await reader.get(f"/api/v1/spans/{hit['trace_id']}/{hit['span_id']}"))["session"] == hit[
                "session"
            ]

    ask(backend, claim)


def test_the_counters_tell_what_came_and_prometheus_reads_the_same(backend):
    """What was stored is counted once, wherever it is shown."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        await reader.post_traces(traces([span("s"), span("s")]))
        status = await reader.get("/api/v1/status")
        assert status["store"]["spans"] == 2
        assert status["ingest"]["spans"] == 2
        assert status["store"]["sessions_by_state"]["running"] == 1
        async with client.get(f"{backend.url}/metrics") as response:
            assert response.content_type == "text/plain"
            lines = (await response.text()).splitlines()
        assert "otel_sessions_store_spans 2.0" in lines
        assert "otel_sessions_spans_stored_total 2.0" in lines
        assert 'otel_sessions_sessions{state="running"} 1.0' in lines

    ask(backend, claim)


def test_the_probes_answer(backend):
    """Alive and ready are two questions."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        for path in ("healthz", "readyz"):
            async with client.get(f"{backend.url}/{path}") as response:
                assert response.status == 200

    ask(backend, claim)


def test_methods_that_are_not_there_are_refused_with_those_that_are(backend):
    """Nothing can be written here."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        async with client.delete(f"{backend.url}/api/v1/sessions/s") as response:
            assert response.status == 405
            assert "GET" in response.headers["Allow"]
            assert (await response.json(content_type=None))["title"] == "Method Not Allowed"

    ask(backend, claim)


def test_with_a_token_the_page_and_the_api_ask_for_it(start_backend):
    """A program shows the token, a browser the cookie it got for it; nobody else reads."""
    backend = start_backend("--token", "very-secret-token")

    async def claim(reader: Reader, client: ClientSession) -> None:
        for path in ("/api/v1/sessions", "/sessions", "/api/v1/stream", "/metrics"):
            async with client.get(backend.url + path) as response:
                assert response.status == 401, path
                assert response.content_type == "application/problem+json"
        headers = {"Authorization": "Bearer very-secret-token"}
        async with client.get(f"{backend.url}/api/v1/sessions", headers=headers) as response:
            assert response.status == 200
        people = {"Accept": "text/html"}
        async with client.get(f"{backend.url}/sessions", headers=people) as response:
            assert (response.status, response.content_type) == (401, "text/html")

    ask(backend, claim)


def test_a_span_is_shown_as_it_came(backend):
    """Typed values, links, events, states of trace: all that the sender said."""
    message = span("s", "work", count=3, ratio=0.5, flag=True, words=["a", "b"], error=True)
    message.trace_state = "vendor=1"
    message.flags = 257
    message.links.add(trace_id=new_trace_id(), span_id=new_span_id())
    message.events.add(name="exception", time_unix_nano=5)
    message.status.message = "it broke"

    async def claim(reader: Reader, client: ClientSession) -> None:
        await reader.post_traces(traces([message]))
        path = f"/api/v1/spans/{message.trace_id.hex()}/{message.span_id.hex()}"
        one = await reader.get(path)
        assert one["span"] == span_json(message)
        assert one["span"]["links"][0]["spanId"] == message.links[0].span_id.hex()
        assert one["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "planner"}}]
        assert one["scope"] == {"name": "tests", "version": "1"}
        assert (await reader.get(path.upper().replace("/API/V1/SPANS", "/api/v1/spans")))["span"] == one[
            "span"
        ]

    assert Span.FromString(message.SerializeToString()) == message
    ask(backend, claim)


def test_a_transcript_is_in_order_and_comes_in_pages(backend):
    """Turn by turn as it was said, whatever the size of a page."""

    def said(n: int) -> dict:
        message = [{"role": "assistant", "parts": [{"type": "text", "content": f"answer {n}"}]}]
        asked = [{"role": "user", "parts": [{"type": "text", "content": f"question {n}"}]}]
        return {
            "gen_ai__operation__name": "chat",
            "gen_ai__request__model": "m",
            "gen_ai__input__messages": json.dumps(asked),
            "gen_ai__output__messages": json.dumps(message),
        }

    async def claim(reader: Reader, client: ClientSession) -> None:
        base, trace = time.time_ns() - 100 * SECOND, new_trace_id()
        await reader.post_traces(
            traces([span("s", "chat m", trace=trace, start=base + n * SECOND, **said(n)) for n in range(4)])
        )
        whole = (await reader.get("/api/v1/sessions/s/transcript"))["items"]
        texts = [item["text"] for item in whole]
        assert texts == [text for n in range(4) for text in (f"question {n}", f"answer {n}")]
        paged, query = [], "limit=3"
        while True:
            page = await reader.get(f"/api/v1/sessions/s/transcript?{query}")
            paged += page["items"]
            if page["next"] is None:
                break
            query = f"limit=3&after={page['next']}"
        assert paged == whole
        problem = await problem_of(client, f"{backend.url}/api/v1/sessions/s/transcript?after=nonsense")
        assert (problem["status"], problem["parameter"]) == (400, "after")

    ask(backend, claim)


def test_the_same_bytes_are_readable_while_others_write(backend):
    """Readers see whole commits: a session's own count and its rows agree in the end."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        bodies = [traces([span("s", f"{n}-{k}") for k in range(20)]) for n in range(10)]

        async def post(body: bytes) -> None:
            async with client.post(f"{backend.url}/v1/traces", data=body, headers=PROTOBUF) as response:
                assert response.status == 200

        posting = asyncio.gather(*(post(body) for body in bodies))
        while not posting.done():
            listed = await reader.get("/api/v1/sessions")
            for shown in listed["sessions"]:
                assert shown["spans"] % 20 == 0, "half a request was seen"
        await posting
        assert (await reader.get("/api/v1/sessions/s"))["spans"] == 200
        assert (await reader.get("/api/v1/sessions/s/rows"))["total"] == 200

    ask(backend, claim)
