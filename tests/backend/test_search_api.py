"""The filter and the search over a real server: what is asked, what is told while it goes on, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from urllib.parse import quote

import pytest
from aiohttp import ClientSession, ClientTimeout
from api_client import Event, Reader
from otlp_requests import LifeCycle, logs, new_trace_id, span, traces

from otel_sessions.backend.api import search as search_module
from otel_sessions.backend.app import running
from otel_sessions.backend.clock import system_clock
from otel_sessions.backend.settings import Address, Settings
from otel_sessions.backend.store.sqlite import SqliteStore


def ask(backend, claim) -> None:
    """Run a claim with a reader of the server."""

    async def run() -> None:
        async with ClientSession() as client:
            await claim(Reader(client, backend.url), client)

    asyncio.run(run())


async def lines_of(client: ClientSession, url: str) -> list[dict]:
    """Read a streamed search to its end."""
    async with client.get(url) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "application/x-ndjson"
        return [json.loads(line) async for line in response.content]


async def fill(reader: Reader, count: int = 5) -> None:
    """Store steps that tell of Zürich, each in a session of its own; the last failed."""
    for n in range(count):
        told = {"note": "a flight to Zürich, 旅行"}
        await reader.post_traces(traces([span(f"s-{n}", f"step {n}", error=n == count - 1, **told)]))


def test_a_wrong_filter_says_where_it_is_wrong(backend):
    """The problem names the parameter, the place, the word and what would do; list, search and stream alike."""

    async def claim(_reader: Reader, client: ClientSession) -> None:
        for path in ("sessions", "search", "search/stream", "stream"):
            async with client.get(f"{backend.url}/api/v1/{path}?q=x%20state:asleep") as response:
                assert response.status == 400
                problem = json.loads(await response.read())
            assert problem["parameter"] == "q"
            assert (problem["position"], problem["word"]) == (8, "asleep")
            assert "lost" in problem["allowed"]
            assert "asleep" in problem["detail"]

    ask(backend, claim)


def test_the_list_takes_a_filter(backend):
    """Conditions and words together, beside the older parameters."""

    async def claim(reader: Reader, _client: ClientSession) -> None:
        await fill(reader)
        for query, expected in [
            ("q=errors%3E0", ["s-4"]),
            ("q=id:s-1,s-2", ["s-2", "s-1"]),
            ("q=id:s-1,s-2%20step", ["s-2", "s-1"]),
            ("q=since:1h&limit=1", ["s-4"]),
            ("q=until:1h", []),
            ("q=-state:running&state=running", []),
        ]:
            listed = await reader.get(f"/api/v1/sessions?{query}")
            assert [session["session_id"] for session in listed["sessions"]] == expected, query

    ask(backend, claim)


def test_the_fields_of_a_filter_are_told_with_values_that_are_there(backend):
    """So that a page can complete what is typed."""

    async def claim(reader: Reader, _client: ClientSession) -> None:
        await reader.post_traces(traces([span("s", "execute_tool look", gen_ai__tool__name="look",
                                              gen_ai__operation__name="execute_tool")]))  # fmt: skip
        fields = {field["name"]: field for field in (await reader.get("/api/v1/filters"))["fields"]}
        assert fields["tool"]["values"] == ["look"]
        assert "lost" in fields["state"]["values"]
        assert fields["tokens"]["operators"][0] == ">"
        assert fields["since"]["operators"] == [":"]

    ask(backend, claim)


def test_a_streamed_search_tells_hits_then_how_far_it_came_then_where_to_go_on(backend):
    """Every hit is told once; the cursor of the end goes on without a gap."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        await fill(reader)
        url = f"{backend.url}/api/v1/search/stream?limit=2&q={quote('ZÜRICH 旅')}"
        hits, cursor = [], None
        while True:
            lines = await lines_of(client, url + (f"&before={cursor}" if cursor else ""))
            assert [name for line in lines for name in line if name != "hit"][-2:] == ["progress", "end"]
            hits += [line["hit"] for line in lines if "hit" in line]
            cursor = lines[-1]["end"]["next"]
            if cursor is None:
                break
        assert [hit["name"] for hit in hits] == [f"step {n}" for n in (4, 3, 2, 1, 0)]
        assert lines[-2]["progress"]["share"] == 1
        for hit in hits:
            characters = [*hit["snippet"]]
            assert ["".join(characters[begin:end]) for begin, end in hit["marks"]] == ["Zürich", "旅"]
            assert hit["field"] == "attributes.note"

    ask(backend, claim)


def test_a_search_takes_conditions_with_its_words(backend):
    """They say of which sessions; without a word there is nothing to find."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        await fill(reader)
        answer = await reader.get("/api/v1/search?q=" + quote('errors>0 "flight to"'))
        assert [hit["name"] for hit in answer["hits"]] == ["step 4"]
        assert answer["progress"]["share"] == 1
        lines = await lines_of(client, f"{backend.url}/api/v1/search/stream?q=errors%3E0%20flight")
        assert [line["hit"]["name"] for line in lines if "hit" in line] == ["step 4"]
        async with client.get(f"{backend.url}/api/v1/search?q=errors%3E0") as response:
            assert response.status == 400
            assert "no word to find" in json.loads(await response.read())["detail"]

    ask(backend, claim)


def test_hostile_text_in_a_snippet_stays_text(backend):
    """It is JSON, sandboxed and never sniffed."""

    async def claim(reader: Reader, client: ClientSession) -> None:
        attack = "<script>alert(1)</script>"
        await reader.post_traces(traces([span("s", "x", note=attack)]))
        async with client.get(f"{backend.url}/api/v1/search/stream?q=alert") as response:
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "sandbox" in response.headers["Content-Security-Policy"]
            hit = json.loads((await response.text()).splitlines()[0])["hit"]
        assert hit["snippet"] == attack

    ask(backend, claim)


# --- the stream of what changes ------------------------------------------------------------------------


def test_a_filtered_stream_agrees_with_the_filtered_list(backend):
    """A session that comes to match appears, one that ceases to is said to, others are told of once."""

    async def claim(reader: Reader, _client: ClientSession) -> None:
        async def next_of(events, *names: str) -> Event:
            async for event in events:
                if event.name in names:
                    return event
            raise AssertionError("the stream ended")

        async def listed() -> set[str]:
            answer = await reader.get("/api/v1/sessions?q=errors%3E0%20-state:ended")
            return {session["session_id"] for session in answer["sessions"]}

        life, trace = LifeCycle("s"), new_trace_id()
        start = (await reader.get("/api/v1/sessions"))["event_id"]
        async with reader.stream(after=start, query="errors>0 -state:ended") as events:
            await reader.post_logs(logs(life.start()))
            told = await next_of(events, "session", "unmatched")
            assert (told.name, list(told.data)) == ("unmatched", ["id"])
            await reader.post_traces(traces([span("s", "fine", trace=trace)]))
            assert await listed() == set()
            await reader.post_traces(traces([span("s", "wrong", trace=trace, error=True)]))
            told = await next_of(events, "session", "unmatched")
            assert (told.name, told.data["session_id"], told.data["errors"]) == ("session", "s", 1)
            assert await listed() == {"s"}
            await reader.post_logs(logs([life.end()]))
            told = await next_of(events, "unmatched")
            assert told.data == {"id": (await reader.get("/api/v1/sessions/s"))["id"]}
            assert await listed() == set()

    ask(backend, claim)


def test_the_session_that_is_followed_is_told_whatever_the_filter(backend):
    """A page of one session keeps the list in the background, and itself up to date."""

    async def claim(reader: Reader, _client: ClientSession) -> None:
        await reader.post_traces(traces([span("mine", "x")]))
        session = (await reader.get("/api/v1/sessions/mine"))["id"]
        start = (await reader.get("/api/v1/sessions"))["event_id"]
        async with reader.stream(after=start, session=session, query="state:lost") as events:
            await reader.post_traces(traces([span("other", "x")]))
            await reader.post_traces(traces([span("mine", "y")]))
            names = [event.name async for event in _until(events, lambda event: event.name == "session")]
        assert names[0] == "unmatched"

    ask(backend, claim)


async def _until(events, is_last):
    async for event in events:
        yield event
        if is_last(event):
            return


# --- bounds -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def server(folder):
    """Run a backend in this loop; yield its address."""
    free = Address("127.0.0.1", 0)
    async with running(Settings(grpc=free, http=free, data=folder, idle_after=10**12), system_clock()) as (
        listening,
        _,
    ):
        yield f"http://{listening.http}"


class HeldStore:
    """Holds every search until it is let go, or told to stop; then it is as the store itself."""

    def __init__(self) -> None:
        self.waiting = 0
        self.stopped = 0
        self.let_go = False

    def search(self, inner, query, stopped):
        self.waiting += 1
        while not self.let_go and not stopped():
            time.sleep(0.005)
        self.stopped += stopped()
        return inner(query, stopped)


@pytest.fixture
def held(monkeypatch):
    """Put every search of the process on hold."""
    store = HeldStore()
    real = SqliteStore.search

    def search(self, query, stopped=lambda: False):
        return store.search(lambda *args: real(self, *args), query, stopped)

    monkeypatch.setattr(SqliteStore, "search", search)
    return store


async def until(condition) -> None:
    """Wait for a condition; pytest's timeout ends it."""
    while not condition():  # noqa: ASYNC110 - other threads make it true
        await asyncio.sleep(0.01)


def test_searches_beyond_the_limit_are_told_when_to_come_back(tmp_path, held):
    """Few read at the same moment, few more wait their turn, and the rest may try again; others are served."""

    async def run() -> None:
        async with server(tmp_path) as url, ClientSession() as client:
            reader = Reader(client, url)
            asked = [
                asyncio.ensure_future(reader.get("/api/v1/search?q=x"))
                for _ in range(search_module.MAX_SCANS)
            ]
            await until(lambda: held.waiting == search_module.RUNNING_AT_ONCE)
            async with client.get(f"{url}/api/v1/search/stream?q=x") as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert (await reader.get("/api/v1/sessions"))["sessions"] == []
            assert held.waiting == search_module.RUNNING_AT_ONCE
            held.let_go = True
            assert [answer["hits"] for answer in await asyncio.gather(*asked)] == [[]] * len(asked)
            assert (await reader.get("/api/v1/search?q=x"))["hits"] == []

    asyncio.run(run())


@pytest.mark.parametrize("path", ["search", "search/stream"])
def test_a_search_ends_when_its_reader_goes_away(tmp_path, held, path):
    """The worker thread is told to stop, and the place is free again."""

    async def run() -> None:
        async with server(tmp_path) as base, ClientSession() as client:
            url = f"{base}/api/v1/{path}?q=x"
            asked = asyncio.ensure_future(client.get(url, timeout=ClientTimeout(total=60)))
            await until(lambda: held.waiting == 1)
            asked.cancel()
            await until(lambda: held.stopped == 1)
            held.let_go = True
            for _ in range(search_module.MAX_SCANS + 1):
                async with client.get(url) as response:
                    assert response.status == 200

    asyncio.run(run())
