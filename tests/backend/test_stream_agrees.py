"""List, roll-up, rows and stream agree: whoever follows the stream has what a reload would show.

A real store, the live view and the frames that the stream sends, on clocks that are moved by hand: so that
exports, time, removals, restarts and readers that join, read and are cut meet in every order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from api_client import Event, Mirror
from doubles import HandClock, beat, end, request, run_event, start
from hypothesis import given, note, settings
from hypothesis import strategies as st
from store_requests import log, logs, span, trace_id, traces

from otel_sessions import semconv
from otel_sessions.backend.api.shapes import session_json
from otel_sessions.backend.api.stream import _Frames
from otel_sessions.backend.columns import full
from otel_sessions.backend.draft import Arrival
from otel_sessions.backend.filter_text import parse
from otel_sessions.backend.live import Live
from otel_sessions.backend.records import Changes, Request
from otel_sessions.backend.resolve import global_key, session_id
from otel_sessions.backend.retention import Retention
from otel_sessions.backend.store.base import SessionQuery
from otel_sessions.backend.store.sqlite import SqliteStore

SECOND = 1_000_000_000
IDLE_AFTER = 300 * SECOND
NAMES = ("one", "two", "three")
FILTERS = ("", "one", "state:running", "state:idle,lost", "-state:ended spans>2", "errors>0", "runs=0")
STATES = ((), ("running", "waiting"), ("ended", "idle"))
RINGS = (1_000, 1_000, 8)
"""Events that the feed keeps: of few, whoever does not read for long is told to load afresh."""


class Backend:
    """A store and its live view, driven as ingest drives them."""

    def __init__(self, folder: Path, ring: int) -> None:
        self.time = HandClock()
        self.folder = folder
        self.ring = ring
        self.boots = 0
        self.seq = 10
        self.begin()

    def begin(self) -> None:
        """Open the store and take over what it knows, as a backend that starts."""
        self.boots += 1
        self.store = SqliteStore(self.folder)
        self.live = Live(f"boot{self.boots}", idle_after=IDLE_AFTER)
        self.live._feed._max_events = self.ring
        quiet = [s for s in self.list().values() if s.runs_count == 0 and s.state == "running"]
        self.live.load(
            self.store.open_runs(),
            self.store.process_bases(),
            quiet,
            now=self.time.now,
            wall=self.time.wall,
        )

    def restart(self) -> None:
        """Stop politely, and start anew with another clock."""
        self.commit(flush=True)
        self.close()
        self.time.now += 5_000 * SECOND
        self.time.wall_ahead -= 5_000 * SECOND
        self.begin()

    def close(self) -> None:
        self.live.close()
        self.store.close()

    def commit(self, *requests: Request, flush: bool = False) -> None:
        """Fold, store and tell one batch."""
        arrived = [replace(one, received_at=self.time.wall) for one in requests]
        moment = self.live.moment(self.time.now, self.time.wall, flush=flush)
        arrivals = [Arrival(one, self.time.now) for one in arrived]
        draft = self.live.fold(arrivals, moment, self.store.runs)
        changes = Changes()
        if arrived or not draft.is_empty:
            changes = self.store.append(
                [one for one in arrived if one.keep], draft.runs, draft.timeline, draft.gauges
            )
        self.live.commit(draft, changes)

    def pass_time(self, seconds: int) -> None:
        """Let time pass, with a tick whenever something is due."""
        for _ in range(seconds):
            self.time.sleep(1)
            if self.live.due(self.time.now):
                self.commit()
            self.live.tell_idle(self.time.wall)

    def prune(self) -> None:
        """Remove what was not seen for a minute and rests."""
        more = True
        while more:
            pruned = self.store.prune(Retention(age=60 * SECOND), self.time.wall, self.idle_before)
            self.live.forget(pruned.keys, pruned.changes)
            more = pruned.more

    @property
    def idle_before(self) -> int:
        return self.time.wall - IDLE_AFTER

    def list(self, text: str = "", states: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return all pages of the list."""
        query = SessionQuery(states, parse(text), limit=2, idle_before=self.idle_before)
        found: dict[str, Any] = {}
        while True:
            page = self.store.sessions(query)
            found |= {record.id: record for record in page.sessions}
            if page.next is None:
                return found
            query = replace(query, after=page.next)


class Page:
    """A page: loaded once, then kept up by the stream, and loaded again only where it is told to."""

    def __init__(self, backend: Backend, text: str, states: tuple[str, ...], follow: str | None) -> None:
        self._backend = backend
        self._text, self._states = text, states
        self._follow = session_id(global_key(follow)) if follow else None
        self._reading: Any = None
        self.load()

    def load(self) -> None:
        """Load all afresh, and begin to follow from there."""
        self.after = self._backend.live.last_event_id()
        self.mirror = self.reloaded()

    def reloaded(self) -> Mirror:
        """Return what a reload would show."""
        backend, mirror = self._backend, Mirror()
        for record in backend.list(self._text, self._states).values():
            mirror.sessions[record.id] = session_json(record, idle_before=backend.idle_before)
        if self._follow is not None:
            columns = backend.store.columns(self._follow)
            mirror.take_rows(json.loads(b"".join(full(self._follow, columns, {}))))
        return mirror

    async def read(self, most: int = 10**9) -> None:
        """Read events as far as there are any, and no more than so many."""
        while most > 0:
            if self._reading is None:
                backend = self._backend
                served = SimpleNamespace(
                    clock=backend.time.clock(), settings=SimpleNamespace(idle_after=IDLE_AFTER)
                )
                self._frames = _Frames(served, parse(self._text), self._states, self._follow)  # type: ignore[arg-type]
                self._events = backend.live.subscribe(self.after, self._follow)
                self._reading = asyncio.ensure_future(anext(self._events, None))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not self._reading.done():
                return
            event = self._reading.result()
            if event is None:  # the backend stopped
                await self.cut()
                continue
            self._reading = asyncio.ensure_future(anext(self._events, None))
            most -= 1
            self.after = event.id
            frame = await self._frames.of(event)
            for told in events_in(frame or b""):
                self.take(told)

    def take(self, event: Event) -> None:
        """Take one event in, as the page does."""
        if event.name == "reset":
            self.load()
            return
        self.mirror.apply(event)
        if event.name == "unmatched":
            self.mirror.sessions.pop(event.data["id"], None)
        if event.name == "gone" and event.data["id"] == self._follow:
            self.mirror.rows.clear()

    async def cut(self) -> None:
        """Lose the connection, not the place."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
            await self._events.aclose()
            self._reading = None


def events_in(frame: bytes) -> Iterator[Event]:
    """Read the events of what one write sent."""
    for text in frame.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in text.split("\n"))
        yield Event(fields["id"], fields["event"], json.loads(fields["data"]))


def exported(spans: list[tuple[int | None, int, int, int, int, bool]]) -> Request:
    """Make an export; some spans tell no session, some tell it under a key that a late word explains."""
    made = []
    for which, number, parent, trace, lasting, scoped in spans:
        name = None if which is None else NAMES[which]
        named = {"gen_ai__conversation__id": name} if scoped and name else {}
        made.append(
            span(
                number,
                None if named else name,
                trace=trace,
                parent=parent if parent < number else 0,
                lasting=lasting,
                error=number == 4,
                **named,
            )
        )
    return traces(*made)


SPAN = st.tuples(
    st.none() | st.integers(0, 2),
    st.integers(1, 6),
    st.integers(0, 5),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
)
STEP = st.one_of(
    st.tuples(st.just("export"), st.lists(SPAN, min_size=1, max_size=4)),
    st.tuples(st.just("note"), st.integers(0, 2)),
    st.tuples(st.sampled_from(["start", "wait", "beat", "end"]), st.integers(0, 2)),
    st.tuples(st.just("pass"), st.sampled_from([1, 10, 70, 130, 310])),
    st.tuples(st.just("prune"), st.none()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(
        st.just("join"),
        st.tuples(st.sampled_from(FILTERS), st.sampled_from(STATES), st.none() | st.sampled_from(NAMES)),
    ),
    st.tuples(st.just("read"), st.tuples(st.integers(0, 6), st.integers(1, 4))),
    st.tuples(st.just("cut"), st.integers(0, 6)),
)


def life(backend: Backend, kind: str, which: int) -> Request:
    """Make one life cycle event, or a start with its first heartbeat."""
    elapsed = backend.time.now / SECOND
    about: dict[str, Any] = {
        "session_id": NAMES[which],
        "root_id": bytes([which + 1]) * 8,
        "trace_id": trace_id(which + 7),
        "process": f"p-{which}",
        "at": backend.time.wall,
    }
    backend.seq += 2
    if kind == "start":
        begun = start(backend.seq, elapsed, **about)
        return request(begun, beat(backend.seq + 1, elapsed, **about))
    if kind == "beat":
        return request(beat(backend.seq, elapsed, **about), keep=False)
    if kind == "end":
        return request(end(backend.seq, elapsed, **about))
    waiting = {"phase": "waiting", "waiting_for": "approval"}
    told = run_event(
        semconv.EVENT_SESSION_STATE, seq=backend.seq, elapsed=round(elapsed * SECOND), **waiting, **about
    )
    return request(told)


async def act(backend: Backend, pages: list[Page], kind: str, what: Any) -> None:
    """Do one step."""
    if kind == "export":
        backend.commit(exported(what))
    elif kind == "note":
        backend.commit(logs(log(NAMES[what], body=str(backend.time.now))))
    elif kind == "pass":
        backend.pass_time(what)
    elif kind == "prune":
        backend.prune()
    elif kind == "restart":
        backend.restart()
    elif kind == "join":
        text, states, follow = what
        # Who follows one session follows all of them: that is the page of a session.
        pages.append(Page(backend, "" if follow else text, () if follow else states, follow))
    elif kind == "read":
        which, most = what
        await (pages[which % len(pages)].read(most) if pages else asyncio.sleep(0))
    elif kind == "cut":
        await (pages[what % len(pages)].cut() if pages else asyncio.sleep(0))
    else:
        backend.commit(life(backend, kind, what))


EARLY = (
    ("", (), None),
    ("", (), "one"),
    ("", (), "two"),
    ("state:running", (), None),
    ("", ("ended", "idle"), None),
)
"""The pages that are open from early on; others join later."""


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.lists(STEP, max_size=6),
    st.lists(STEP, min_size=1, max_size=20),
    st.sampled_from(RINGS),
)
def test_whoever_follows_the_stream_has_what_a_reload_shows(
    before: list[tuple[str, Any]], after: list[tuple[str, Any]], ring: int
) -> None:
    """Wherever it joined, was cut or fell behind; filtered or not; across removals and restarts."""

    async def scenario(folder: Path) -> None:
        backend, pages = Backend(folder, ring), list[Page]()
        try:
            for kind, what in (*before, *(("join", page) for page in EARLY), *after):
                await act(backend, pages, kind, what)
            for number, page in enumerate(pages):
                note(f"page {number}")
                await page.read()
                fresh = page.reloaded()
                assert page.mirror.rows == fresh.rows
                assert without_clock(page.mirror.sessions) == without_clock(fresh.sessions)
        finally:
            for page in pages:
                await page.cut()
            backend.close()

    with TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


def without_clock(sessions: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a session that is shown says of nothing but its last commit."""
    return {key: {k: v for k, v in s.items() if k != "now"} for key, s in sessions.items()}
