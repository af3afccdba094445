"""The stream: a page that follows it shows what a page that loads afresh shows."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket

import pytest
from aiohttp import ClientSession
from api_client import Event, Mirror, Reader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from otlp_requests import LifeCycle, logs, new_trace_id, span, traces

from otel_sessions.backend.api import stream as stream_module
from otel_sessions.backend.app import running
from otel_sessions.backend.clock import system_clock
from otel_sessions.backend.settings import Address, Settings


async def loaded(reader: Reader, session: str, service: str) -> tuple[Mirror, str]:
    """Load what a page of one session shows, and the position to follow from."""
    mirror = Mirror()
    listed = await reader.get(f"/api/v1/sessions?limit=500&service={service}")
    mirror.sessions = {shown["id"]: shown for shown in listed["sessions"]}
    detail = await reader.get(f"/api/v1/sessions/{session}")
    columns = await reader.get(f"/api/v1/sessions/{session}/rows")
    shown = {name: value for name, value in detail.items() if name in listed["sessions"][0]}
    mirror.sessions[detail["id"]] = shown
    mirror.take_rows(columns)
    assert columns["total"] == len(columns["columns"]["id"])
    return mirror, listed["event_id"]


class FollowingPage:
    """A page of one session: loaded once, then kept up by the stream alone."""

    def __init__(self, reader: Reader, session: str, service: str) -> None:
        self._reader = reader
        self._session = session
        self._service = service
        self.mirror = Mirror()
        self._after = ""

    async def load(self) -> None:
        """Load all afresh."""
        self.mirror, self._after = await loaded(self._reader, self._session, self._service)

    async def follow(self, until: str, cuts: list[int]) -> None:
        """Apply events until one told of a session named `until`, or a load after a reset showed it.

        The stream is cut and resumed after each number of events in `cuts`.
        """
        while until not in {shown["session_id"] for shown in self.mirror.sessions.values()}:
            event = await self._some_events(until, cuts.pop(0) if cuts else 10**9)
            if event.name == "reset":
                await self.load()

    async def _some_events(self, until: str, most: int) -> Event:
        async with self._reader.stream(after=self._after, session=self._session) as events:
            async for event in events:
                self._after = event.id
                if event.name == "session" and event.data["service"] != self._service:
                    continue  # of an earlier example
                self.mirror.apply(event)
                most -= 1
                told = event.name == "session" and event.data["session_id"] == until
                if told or event.name == "reset" or not most:
                    return event
        raise AssertionError("the stream ended by itself")


def told_session(base: str, which: int, number: int) -> str | None:
    """Say whose a span is: some do not tell, and some tell a session that their trace is not of."""
    if number % 3 == 0:
        return None
    return f"{base}-{which if number != 5 else (which + 1) % 3}"


def post_of(actions: list[tuple], lives: dict, base: str, places: list) -> tuple[list, list]:
    """Turn drawn actions into the spans and events of one round of posts."""
    spans, events = [], []
    for kind, which, number, parent in actions:
        life = lives.setdefault(which, LifeCycle(f"{base}-{which}"))
        trace_id, span_ids = places[which]
        if kind == "span":
            spans.append(
                span(
                    told_session(base, which, number),
                    f"step {number}",
                    trace=trace_id,
                    id=span_ids[number],
                    parent=span_ids[parent] if parent < number else b"",  # in a cycle a row hides its parent
                    start=1_700_000_000_000_000_000 + number,
                    duration=1 + parent,  # the same span again may have ended later
                    error=number == 4,
                )
            )
        elif kind == "start":
            events += life.start()
        elif kind == "wait":
            events.append(life.waiting("approval"))
        else:
            events.append(life.end())
    return spans, events


ACTION = st.tuples(
    st.sampled_from(["span", "span", "span", "start", "wait", "end"]),
    st.integers(0, 2),
    st.integers(0, 5),
    st.integers(0, 5),
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.lists(st.lists(ACTION, min_size=1, max_size=6), min_size=1, max_size=6),
    load_after=st.integers(0, 6),
    cuts=st.lists(st.integers(1, 5), max_size=4),
)
def test_load_and_follow_is_the_same_as_load_again(backend, rounds, load_after, cuts):
    """Whenever a page loads amid posts, and wherever its stream is cut and resumed, it misses nothing."""

    async def run() -> None:
        base = secrets.token_hex(4)
        places = [(new_trace_id(), [secrets.token_bytes(8) for _ in range(6)]) for _ in range(3)]
        lives: dict[int, LifeCycle] = {}
        async with ClientSession() as client:
            reader = Reader(client, backend.url)
            await reader.post_traces(traces([span(f"{base}-0", trace=places[0][0])], service=base))
            session = (await reader.get(f"/api/v1/sessions/{base}-0"))["id"]
            posted = asyncio.Semaphore(0)

            async def post() -> None:
                for actions in rounds:
                    spans, events = post_of(actions, lives, base, places)
                    if spans:
                        await reader.post_traces(traces(spans, service=base))
                    if events:
                        await reader.post_logs(logs(events, service=base))
                    posted.release()

            posting = asyncio.create_task(post())
            for _ in range(min(load_after, len(rounds))):
                await posted.acquire()
            page = FollowingPage(reader, session, base)
            await page.load()
            await posting
            for last in ("done", "again", "and again"):
                await reader.post_traces(traces([span(f"{base} {last}")], service=base))
                await page.follow(f"{base} {last}", list(cuts))
                fresh, _ = await loaded(reader, session, base)
                if page.mirror == fresh:
                    return  # else the server stored signs of life between the two looks
            assert page.mirror.rows == fresh.rows
            assert page.mirror.sessions == fresh.sessions

    asyncio.run(run())


def test_rows_are_told_only_of_the_session_that_is_followed_and_sessions_always(backend):
    """A page of one session still hears of all others, without their spans."""

    async def run() -> None:
        async with ClientSession() as client:
            reader = Reader(client, backend.url)
            await reader.post_traces(traces([span("mine")]))
            start = (await reader.get("/api/v1/sessions/mine"))["event_id"]
            await reader.post_traces(traces([span("other")]))
            await reader.post_traces(traces([span("mine", "second")]))
            await reader.post_traces(traces([span("last")]))
            heard = []
            async with reader.stream(after=start, session="mine") as events:
                async for event in events:
                    data = event.data
                    heard.append(
                        (event.name, data["session_id"] if event.name == "session" else data["names"])
                    )
                    if heard[-1] == ("session", "last"):
                        break
            assert heard == [
                ("session", "other"),
                ("session", "mine"),
                ("rows", ["second"]),
                ("session", "last"),
            ]

    asyncio.run(run())


def test_rows_that_move_to_another_session_leave_the_page_they_were_on(backend):
    """A late root tells where its trace belongs; who followed the wrong session is told to load afresh."""

    async def run() -> None:
        trace, root, guess = new_trace_id(), secrets.token_bytes(8), secrets.token_bytes(8)
        async with ClientSession() as client:
            reader = Reader(client, backend.url)
            loose = [span(None, f"loose {n}", trace=trace, parent=guess) for n in range(2)]
            guessed = span("wrong", "guess", trace=trace, id=guess, parent=root)
            await reader.post_traces(traces([*loose, guessed]))
            mirror, after = await loaded(reader, "wrong", "planner")
            assert len(mirror.rows) == 3
            await reader.post_traces(traces([span("right", "root", trace=trace, id=root)]))
            await reader.post_traces(traces([span("last")]))
            async with reader.stream(after=after, session="wrong") as events:
                async for event in events:
                    mirror.apply(event)
                    if event.name == "reset":
                        mirror, _ = await loaded(reader, "wrong", "planner")
                    if event.name == "session" and event.data["session_id"] == "last":
                        break
            fresh, _ = await loaded(reader, "wrong", "planner")
            assert len(fresh.rows) == 1
            assert mirror == fresh

    asyncio.run(run())


def test_without_a_position_the_stream_begins_now(backend):
    """Nothing of the past is told to whoever does not ask for it."""

    async def run() -> None:
        async with ClientSession() as client:
            reader = Reader(client, backend.url)
            await reader.post_traces(traces([span("past")]))
            async with reader.stream() as events:
                await reader.post_traces(traces([span("present")]))
                async for event in events:
                    assert event.data["session_id"] == "present"
                    break

    asyncio.run(run())


def test_the_header_of_a_browser_wins_over_the_address(backend):
    """A browser that reconnects by itself asks the old address with a newer id."""

    async def run() -> None:
        async with ClientSession() as client:
            reader = Reader(client, backend.url)
            first = (await reader.get("/api/v1/sessions"))["event_id"]
            await reader.post_traces(traces([span("old")]))
            second = (await reader.get("/api/v1/sessions"))["event_id"]
            await reader.post_traces(traces([span("new")]))
            async with reader.stream(after=first, last_event_id=second) as events:
                async for event in events:
                    assert event.data["session_id"] == "new"
                    break

    asyncio.run(run())


@pytest.mark.parametrize("after", ["0", "nonsense", "ffffffffffff-3", "-", "9" * 400])
def test_an_unknown_position_is_told_to_load_afresh_and_goes_on(backend, after):
    """A position of an earlier server, or of none, is a reset; what comes after it is told."""

    async def run() -> None:
        async with ClientSession() as client:
            reader = Reader(client, backend.url)
            async with reader.stream(after=after) as events:
                assert (await anext(events)).name == "reset"
                await reader.post_traces(traces([span("next")]))
                event = await anext(events)
                assert (event.name, event.data["session_id"]) == ("session", "next")

    asyncio.run(run())


def test_a_restart_of_the_server_resets_its_readers(start_backend):
    """Positions are of one start of the server; a reader from before it loads afresh."""
    backend = start_backend()

    async def position() -> str:
        async with ClientSession() as client:
            reader = Reader(client, backend.url)
            await reader.post_traces(traces([span("a")]))
            return (await reader.get("/api/v1/sessions"))["event_id"]

    async def resume(after: str) -> None:
        async with ClientSession() as client, Reader(client, backend.url).stream(after=after) as events:
            assert (await anext(events)).name == "reset"

    after = asyncio.run(position())
    backend.restart()
    asyncio.run(resume(after))


def test_streams_end_when_the_server_is_stopped(start_backend):
    """An open stream does not hold up the end of the server."""
    backend = start_backend()

    async def run() -> None:
        async with ClientSession() as client, Reader(client, backend.url).stream() as events:
            assert await asyncio.to_thread(backend.stop) == 0
            assert [event async for event in events] == []

    asyncio.run(run())


@contextlib.asynccontextmanager
async def server(folder):
    """Run a backend in this process, so that its patience can be shortened."""
    here = Address("127.0.0.1", 0)
    async with running(Settings(here, here, folder, 300 * 10**9), system_clock()) as (listening, _):
        yield f"http://{listening.http}"


async def readers_become(reader: Reader, count: int) -> None:
    """Wait until so many streams are open."""
    while (await reader.get("/api/v1/status"))["stream"]["readers"] != count:  # noqa: ASYNC110 - told over HTTP
        await asyncio.sleep(0.02)


def test_a_quiet_stream_is_kept_alive_by_comments(tmp_path, monkeypatch):
    """Proxies cut what is silent; a comment disturbs no reader."""
    monkeypatch.setattr(stream_module, "PING_SECONDS", 0.02)

    async def run() -> None:
        async with server(tmp_path) as url, ClientSession() as client:
            async with client.get(f"{url}/api/v1/stream") as response:
                lines = [await response.content.readline() for _ in range(8)]
            assert lines == [b": connected\n", b"\n", *[b": ping\n", b"\n"] * 3]

    asyncio.run(run())


def test_a_stream_is_given_up_when_its_reader_has_gone(tmp_path, monkeypatch, caplog):
    """Closed tabs leave nothing behind, not even a line in the log."""
    monkeypatch.setattr(stream_module, "PING_SECONDS", 0.02)

    async def run() -> None:
        async with server(tmp_path) as url, ClientSession() as client:
            reader = Reader(client, url)
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(5):
                    await stack.enter_async_context(reader.stream())
                await readers_become(reader, 5)
            await readers_become(reader, 0)

    asyncio.run(run())
    assert caplog.text == ""


def test_a_reader_that_takes_nothing_is_cut_off(tmp_path, monkeypatch):
    """A suspended tab holds neither memory nor a place for ever."""
    monkeypatch.setattr(stream_module, "STALLED_SECONDS", 0.1)

    async def run() -> None:
        async with server(tmp_path) as url, ClientSession() as client:
            reader = Reader(client, url)
            await reader.post_traces(traces([span("s")]))
            host, _, port = url.removeprefix("http://").partition(":")
            with socket.socket() as idle:
                idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                idle.connect((host, int(port)))
                request = f"GET /api/v1/stream?session=s HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
                idle.sendall(request.encode())
                await readers_become(reader, 1)
                while (await reader.get("/api/v1/status"))["stream"]["readers"]:
                    await reader.post_traces(traces([span("s", f"step {n}") for n in range(2000)]))

    asyncio.run(run())


def test_streams_beyond_the_limit_are_refused_and_told_when_to_come_back(tmp_path, monkeypatch):
    """Each holds a connection; so many and no more."""
    monkeypatch.setattr(stream_module, "MAX_STREAMS", 2)

    async def run() -> None:
        async with server(tmp_path) as url, ClientSession() as client:
            reader = Reader(client, url)
            async with reader.stream(), reader.stream():
                await readers_become(reader, 2)
                async with client.get(f"{url}/api/v1/stream") as response:
                    assert response.status == 503
                    assert int(response.headers["Retry-After"]) > 0
                    assert "2 streams" in (await response.json(content_type=None))["detail"]

    asyncio.run(run())


def test_streams_asked_for_at_once_are_no_more_than_the_limit(tmp_path, monkeypatch):
    """A place is taken when it is promised, and is free again when its reader has gone."""
    monkeypatch.setattr(stream_module, "MAX_STREAMS", 2)
    monkeypatch.setattr(stream_module, "PING_SECONDS", 0.02)  # a write shows who has gone

    async def run() -> None:
        async with server(tmp_path) as url, ClientSession() as client:
            reader = Reader(client, url)
            await reader.post_traces(traces([span("s")]))
            for _ in range(2):
                asked = (client.get(f"{url}/api/v1/stream?session=s") for _ in range(12))
                responses = await asyncio.gather(*asked)
                statuses = sorted(response.status for response in responses)
                for response in responses:
                    response.close()
                assert statuses == [200] * 2 + [503] * 10
                await readers_become(reader, 0)
            async with client.get(f"{url}/api/v1/stream?session=nobody") as response:
                assert response.status == 404
            async with reader.stream(), reader.stream():
                await readers_become(reader, 2)

    asyncio.run(run())
