"""A backend that answers what a test tells it to: for states the real one can't be put into at will.

Slow answers, errors, a cut stream, ten thousand rows, hostile text in every field. The shell and the files
are the real ones; only `/api/v1` is canned. It runs on a thread of its own, on a free loopback port.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from otel_sessions.backend.web.assets import load_assets
from otel_sessions.backend.web.pages import page_routes

__all__ = ["CannedBackend", "Span", "a_session", "a_span_in_full", "an_answer_of_rows"]

SECOND = 1_000_000_000
CATEGORIES = ("session", "task", "agent", "model", "embedding", "tool", "retrieval", "workflow", "step")
OPEN, PLACEHOLDER = 1, 8


def now_ns() -> int:
    return time.time_ns()


def a_session(key: str = "s-1", **fields: Any) -> dict[str, Any]:
    """S of the API: an ended session of ten seconds, but for what `fields` say."""
    start = int(fields.pop("start", now_ns() - 60 * SECOND))
    session = {
        "id": key,
        "session_id": key,
        "name": "plan trip",
        "title": None,
        "service": "planner",
        "user_id": None,
        "conversation_id": None,
        "state": "ended",
        "phase": "ended",
        "signal": "none",
        "waiting_for": None,
        "outcome": "ok",
        "end_reason": "completed",
        "error": None,
        "started_at": str(start),
        "ended_at": str(start + 10 * SECOND),
        "last_seen_at": str(start + 10 * SECOND),
        "last_ended_at": str(start + 10 * SECOND),
        "duration": str(10 * SECOND),
        "runs_count": 1,
        "spans": 4,
        "errors": 0,
        "traces_count": 1,
        "tasks_count": 0,
        "turns": None,
        "model_calls": 1,
        "tool_calls": 1,
        "agents": [],
        "models": ["gpt-5.6"],
        "tools": [],
        "input_tokens": 1200,
        "output_tokens": 340,
        "cached_tokens": None,
        "cost": None,
        "missing_spans": 0,
        "inferred": False,
        "revision": 1,
    }
    if fields.get("state", "ended") != "ended":
        session |= {"phase": "running", "signal": "live", "outcome": None, "end_reason": None}
        session |= {"ended_at": None, "duration": None, "last_seen_at": str(now_ns())}
    session |= fields
    return {"last_alive_at": session["last_seen_at"], **session}


@dataclass
class Span:
    """One row, told by what matters to a test; offsets are ns from the base."""

    id: str
    parent: str = ""
    name: str = "step"
    start: int = 0
    duration: int | None = SECOND
    category: str = "step"
    status: int = 0
    flags: int = 0
    label: str | None = None
    tokens: tuple[int | None, int | None] = (None, None)
    trace: str = "0af7651916cd43dd8448eb211c80319c"
    service: str = "planner"


def an_answer_of_rows(session: str, spans: list[Span], base: int, *, revision: int = 1, delta: bool = False):
    """Lay spans out by columns: in the order given, which for a whole answer must be that of the tree."""
    traces, names, services, labels = ([*dict.fromkeys(values)] for values in (
        (s.trace for s in spans), (s.name for s in spans), (s.service for s in spans), (s.label for s in spans if s.label)
    ))  # fmt: skip
    at = {s.id: i for i, s in enumerate(spans)}
    depth: dict[str, int] = {}
    for s in spans:
        depth[s.id] = depth[s.parent] + 1 if s.parent in depth else 0
    columns: dict[str, list[Any]] = {
        "trace": [traces.index(s.trace) for s in spans],
        "id": [s.id for s in spans],
        "name": [names.index(s.name) for s in spans] if len(names) < 200 else _indices(names, spans),
        "category": [CATEGORIES.index(s.category) for s in spans],
        "service": [services.index(s.service) for s in spans],
        "start": [s.start for s in spans],
        "duration": [s.duration for s in spans],
        "status": [s.status for s in spans],
        "flags": [s.flags for s in spans],
        "task": [-1] * len(spans),
        "input_tokens": [s.tokens[0] for s in spans],
        "output_tokens": [s.tokens[1] for s in spans],
        "label": [labels.index(s.label) if s.label else -1 for s in spans],
        "kind": [1] * len(spans),
    }
    if delta:
        columns["parent_id"] = [s.parent for s in spans]
    else:
        columns["parent"] = [at.get(s.parent, -1) for s in spans]
        columns["depth"] = [depth[s.id] for s in spans]
    return {
        "event_id": "1",
        "session": session,
        "base": str(base),
        "revision": revision,
        "total": len(spans),
        "traces": traces,
        "names": names,
        "categories": list(CATEGORIES),
        "services": services,
        "tasks": [],
        "labels": labels,
        "columns": columns,
    }


def _indices(names: list[str], spans: list[Span]) -> list[int]:
    index = {name: i for i, name in enumerate(names)}
    return [index[s.name] for s in spans]


def a_span_in_full(session: str, span: Span, base: int, **fields: Any) -> dict[str, Any]:
    """Answer of `spans/{trace}/{span}` for one row."""
    start = base + span.start
    end = None if span.duration is None else start + span.duration
    attributes = [{"key": "session.id", "value": {"stringValue": session}}]
    return {
        "event_id": "1",
        "session": session,
        "span": {
            "traceId": span.trace,
            "spanId": span.id,
            "parentSpanId": span.parent,
            "name": span.name,
            "kind": 1,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(end or 0),
            "attributes": attributes,
        },
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": span.service}}]},
        "scope": {"name": "tests", "version": "1"},
        "schema_url": None,
        "row": {
            "name": span.name,
            "category": span.category,
            "start": str(start),
            "end": None if end is None else str(end),
            "status": span.status,
            "flags": span.flags,
            "parent_id": span.parent or None,
            "service": span.service,
            "task_id": None,
            "agent": None,
            "model": None,
            "tool": None,
            "input_tokens": span.tokens[0],
            "output_tokens": span.tokens[1],
        },
        "messages": [],
        "logs": [],
        "received_at": str(start),
    } | fields


def an_emitter(service: str | None, **fields: Any) -> dict[str, Any]:
    """One of the emitters that a status lists."""
    known = {"service": service, "sdk": "opentelemetry, python", "sdk_version": "1.45.2", "others": False}
    counts = {"spans": 1200, "logs": 30, "sessions": 12, "sessions_exact": True}
    return {**known, **counts, "last_seen_at": str(now_ns() - 3 * SECOND), **fields}


def a_status(**fields: Any) -> dict[str, Any]:
    """Answer of `status` where all is well and nothing came yet."""
    now = now_ns()
    return {
        "version": "0.1.0",
        "started_at": str(now - 3600 * SECOND),
        "now": str(now),
        "idle_after": str(300 * SECOND),
        "python": "3.13.0",
        "install": "pip install /home/ann/clone",
        "trouble": None,
        "rates": {"seconds": 60, "requests": 0, "spans": 0, "logs": 0},
        "commits": {"count": 0, "p50": None, "p99": None, "max": None},
        "retention": {"age": None, "size": None, "looked_at": None, "removed_at": None, "trouble": None},
        "emitters": [],
        "disk": {"folder": "/data", "size": 10**12, "free": 5 * 10**11},
        "store": {
            **dict.fromkeys(
                ("sessions", "spans", "logs", "chunks", "incomplete_sessions", "missing_spans"), 0
            ),
            "bytes_on_disk": 4096,
            "bytes_free": 0,
            "wal_bytes": 0,
            "schema_version": 5,
            "engine": "SQLite 3.45.1",
            "sessions_by_state": {},
        },
        "ingest": {
            **dict.fromkeys(("requests", "spans", "logs", "rejected", "refused", "commits"), 0),
            **dict.fromkeys(("failed_commits", "waiting_requests", "waiting_bytes", "pruned_sessions"), 0),
            "pruned_spans": 0,
            "room_bytes": 2**27,
        },
        "receivers": {"http": {}, "grpc": {}},
        "stream": {"watched_runs": 0, "readers": 1, "events": 0},
        "metrics_seen": {},
        "metric_sessions": {},
        "redacted": {"api_key": 0},
        **fields,
    }


@dataclass
class CannedBackend:
    """What it answers is plain data that a test may change at any time; events go to whoever listens."""

    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)  # what a detail has beside S
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    transcripts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    spans: dict[str, dict[str, Any]] = field(default_factory=dict)  # by span id
    hits: list[dict[str, Any]] = field(default_factory=list)
    holds_after: int = 0  # a search stops after so many hits until `let_go`
    search_next: str | None = None
    wrong: dict[str, Any] | None = None  # the problem that a search is answered with
    fields: list[dict[str, Any]] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=a_status)
    failing: dict[str, int] = field(default_factory=dict)  # start of a path below /api/v1 -> HTTP status
    delay: float = 0.0  # seconds before every answer
    page_size: int = 100
    refused_streams: bool = False
    asked: list[str] = field(default_factory=list)  # paths with their queries, in order of arrival

    _events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    _listeners: list[tuple[str | None, asyncio.Queue[Any]]] = field(default_factory=list)

    def __enter__(self) -> CannedBackend:  # noqa: PYI034 - Self is 3.11
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._let_go = asyncio.Event()
        app = web.Application(middlewares=[self._gate])
        app.add_routes(page_routes(load_assets()))
        app.add_routes(
            [
                web.get("/api/v1/stream", self._stream),
                web.get("/api/v1/sessions", self._list),
                web.get("/api/v1/sessions/{id}", self._detail),
                web.get("/api/v1/sessions/{id}/rows", self._rows),
                web.get("/api/v1/sessions/{id}/transcript", self._transcript),
                web.get("/api/v1/spans/{trace}/{span}", self._span),
                web.get("/api/v1/search/stream", self._search),
                web.get("/api/v1/filters", self._filters),
                web.get("/api/v1/status", self._status),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await self._stop.wait()
        self._cut()
        await runner.cleanup()

    # --- what a test does ------------------------------------------------------------------------

    def publish(self, name: str, data: Mapping[str, Any]) -> None:
        """Tell every open stream; a session is kept, so that the next reading agrees."""
        if name == "session":
            data = {**data, "now": str(now_ns())}
            self.sessions[data["id"]] = dict(data)
        self._loop.call_soon_threadsafe(self._publish, name, dict(data))

    def cut(self) -> None:
        """End every stream, and refuse new ones until `mend`."""
        self.refused_streams = True
        self._loop.call_soon_threadsafe(self._cut)

    def let_go(self) -> None:
        """Have a search that was held go on."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    def mend(self) -> None:
        self.refused_streams = False

    @property
    def listening(self) -> list[str | None]:
        """Which session each open stream follows."""
        return [session for session, _ in list(self._listeners)]

    # --- answers ---------------------------------------------------------------------------------

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith("/api/v1/"):
            below = request.path.removeprefix("/api/v1/")
            self.asked.append(request.path_qs)
            if self.delay and below != "stream":
                await asyncio.sleep(self.delay)
            for start, status in list(self.failing.items()):
                if below.startswith(start):
                    return _problem(status, "This was told to fail", "Nothing is really wrong.")
        return await handler(request)

    async def _list(self, request: web.Request) -> web.Response:
        wanted = [state for state in request.query.get("state", "").split(",") if state]
        text = request.query.get("q", "").lower()
        sort = request.query.get("sort", "-started_at")
        column = sort.removeprefix("-")
        everything = sorted(
            self.sessions.values(),
            key=lambda s: (int(s[column]) if column.endswith("_at") else s[column], s["id"]),
            reverse=sort.startswith("-"),
        )
        failed, text = "outcome:error" in text, text.replace("outcome:error", "").strip()
        everything = [s for s in everything if not failed or s["outcome"] == "error"]
        named = [s for s in everything if text in f"{s['name']} {s['title']} {s['service']}".lower()]
        found = [s for s in named if not wanted or s["state"] in wanted]
        skip = int(request.query.get("after", "0"))
        size = min(int(request.query.get("limit", "100")), self.page_size)
        states = ("running", "waiting", "stale", "lost", "idle", "ended")
        return self._answer(
            {
                "sessions": found[skip : skip + size],
                "next": str(skip + size) if len(found) > skip + size else None,
                "counts": {state: sum(s["state"] == state for s in named) for state in states},
                "now": str(now_ns()),
            }
        )

    async def _detail(self, request: web.Request) -> web.Response:
        session = self.sessions.get(request.match_info["id"])
        if session is None:
            return _problem(404, "No such session", f"There is no session {request.match_info['id']!r}.")
        lists = {"runs": [], "traces": [], "tasks": [], "timeline": [], "open_spans": []}
        extra = {**lists, "losses": {}, "pinned": False}
        return self._answer({**session, **extra, **self.details.get(session["id"], {}), "now": str(now_ns())})

    async def _rows(self, request: web.Request) -> web.Response:
        key = request.match_info["id"]
        whole = self.rows.get(key) or an_answer_of_rows(key, [], 0)
        if "after" in request.query:
            return self._answer(
                an_answer_of_rows(key, [], int(whole["base"]), revision=whole["revision"], delta=True)
            )
        return self._answer(whole)

    async def _transcript(self, request: web.Request) -> web.Response:
        return self._answer({"items": self.transcripts.get(request.match_info["id"], []), "next": None})

    async def _span(self, request: web.Request) -> web.Response:
        found = self.spans.get(request.match_info["span"])
        return self._answer(found) if found else _problem(404, "No such span", "It may not have arrived yet.")

    async def _search(self, request: web.Request) -> web.StreamResponse:
        if self.wrong is not None:
            return web.json_response(
                {"title": "Bad Request", "status": 400, **self.wrong},
                status=400,
                content_type="application/problem+json",
            )
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for no, hit in enumerate(self.hits, 1):
            share = no / len(self.hits)
            progress = {"reached": str(now_ns()), "share": share, "chunks": 1, "bytes": 1}
            for line in ({"hit": {"marks": [], "field": "name", **hit}}, {"progress": progress}):
                await response.write(json.dumps(line).encode() + b"\n")
            if no == self.holds_after:
                await self._let_go.wait()
        if not self.hits:
            nothing = {"reached": None, "share": 1, "chunks": 0, "bytes": 0}
            await response.write(json.dumps({"progress": nothing}).encode() + b"\n")
        end = {"end": {"next": self.search_next, "event_id": str(len(self._events))}}
        await response.write(json.dumps(end).encode() + b"\n")
        return response

    async def _filters(self, request: web.Request) -> web.Response:
        return self._answer({"fields": self.fields})

    async def _status(self, request: web.Request) -> web.Response:
        return self._answer(self.status)

    def _answer(self, data: Mapping[str, Any]) -> web.Response:
        return web.json_response({**data, "event_id": str(len(self._events))})

    # --- the stream ------------------------------------------------------------------------------

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self.refused_streams:
            return _problem(503, "Shutting down", "Try again.")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        await response.write(b": hello\n\n")
        session = request.query.get("session")
        queue: asyncio.Queue[Any] = asyncio.Queue()
        after = request.headers.get("Last-Event-ID") or request.query.get("after")
        for event in self._events[int(after) :] if after else []:
            queue.put_nowait(event)
        self._listeners.append((session, queue))
        try:
            while (event := await queue.get()) is not None:
                number, name, data = event
                if name != "rows" or data["session"] == session:
                    await response.write(
                        f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()
                    )
        except ConnectionError:
            pass  # the page went away: what is left is to forget it
        finally:
            self._listeners.remove((session, queue))
        return response

    def _publish(self, name: str, data: dict[str, Any]) -> None:
        self._events.append((len(self._events) + 1, name, data))
        for _, queue in self._listeners:
            queue.put_nowait(self._events[-1])

    def _cut(self) -> None:
        for _, queue in self._listeners:
            queue.put_nowait(None)


def _problem(status: int, title: str, detail: str) -> web.Response:
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": "r-1"}
    headers = {"Retry-After": "1"} if status == 503 else None
    return web.json_response(problem, status=status, content_type="application/problem+json", headers=headers)


def in_a_row(n: int, *, name: str = "step") -> Iterable[Span]:
    """Make a root and n - 1 children, each a millisecond after the one before."""
    yield Span("0" * 15 + "1", name="root", category="session", duration=n * 1_000_000 + SECOND)
    for i in range(1, n):
        yield Span(f"{i + 1:016x}", "0" * 15 + "1", f"{name} {i}", start=i * 1_000_000, duration=900_000)
