"""One shape for every error, over a real socket."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import ClientError, ClientSession, web

from otel_sessions.backend.api.problems import ProblemError, problem_middleware
from otel_sessions.errors import BackendError


async def unknown(_request):
    """Refuse with members of our own."""
    raise ProblemError(400, "state=on is unknown; allowed: running.", parameter="state", allowed=["running"])


async def broken(_request):
    """Fail as nobody foresaw."""
    raise ZeroDivisionError


async def refused(_request):
    """Fail as a full disk makes a store fail."""
    raise BackendError("The disk is full; free some space in /data.")


async def forbidden(_request):
    """Refuse as a middleware of another part does."""
    raise web.HTTPForbidden(text="Writes are taken from this server's own pages only.")


async def moved(_request):
    """Point elsewhere, which is no error."""
    raise web.HTTPFound("/elsewhere")


async def half(request):
    """Break in the middle of an answer."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"[1,")
    raise ZeroDivisionError


ROUTES = [
    web.get("/unknown", unknown),
    web.get("/broken", broken),
    web.get("/refused", refused),
    web.get("/forbidden", forbidden),
    web.get("/moved", moved),
    web.get("/half", half),
    web.get("/v1/traces", forbidden),
]


def ask(claim) -> None:
    """Run a claim against a real server on a free port."""

    async def run() -> None:
        app = web.Application(middlewares=[problem_middleware])
        app.add_routes(ROUTES)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        try:
            async with ClientSession(f"http://127.0.0.1:{port}") as client:
                await claim(client)
        finally:
            await runner.cleanup()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "path", "status", "title", "detail"),
    [
        ("GET", "/unknown?state=on", 400, "Bad Request", "state=on is unknown; allowed: running."),
        (
            "GET",
            "/nowhere",
            404,
            "Not Found",
            "Nothing lives at /nowhere; /api/v1/openapi.json lists what does.",
        ),
        ("POST", "/broken", 405, "Method Not Allowed", "POST is not allowed here; allowed: GET, HEAD."),
        ("GET", "/forbidden", 403, "Forbidden", "Writes are taken from this server's own pages only."),
        ("GET", "/refused", 503, "Service Unavailable", "The disk is full; free some space in /data."),
        (
            "GET",
            "/broken",
            500,
            "Internal Server Error",
            "The server failed; its log has the details under this request_id.",
        ),
    ],
)
def test_every_failure_is_a_problem_document(method, path, status, title, detail):
    """Whatever fails, and whoever noticed, the reader gets one shape with an id to ask about."""

    async def claim(client: ClientSession) -> None:
        async with client.request(method, path) as response:
            assert response.status == status
            assert response.content_type == "application/problem+json"
            problem = json.loads(await response.read())
            assert (problem["title"], problem["detail"], problem["status"]) == (title, detail, status)
            assert problem["type"] == "about:blank"
            assert problem["instance"] == path
            assert problem["request_id"] == response.headers["X-Request-Id"]

    ask(claim)


def test_a_problem_tells_what_would_have_been_right():
    """Members beyond the standard name the parameter, the allowed values, the methods, the time to wait."""

    async def claim(client: ClientSession) -> None:
        async with client.get("/unknown") as response:
            problem = json.loads(await response.read())
            assert (problem["parameter"], problem["allowed"]) == ("state", ["running"])
        async with client.post("/unknown") as response:
            assert response.headers["Allow"] == "GET,HEAD"
        async with client.get("/refused") as response:
            assert int(response.headers["Retry-After"]) > 0

    ask(claim)


def test_a_fault_of_ours_is_logged_under_the_id_that_the_reader_got(caplog):
    """A 500 leaks nothing to the reader and everything to the log."""

    async def claim(client: ClientSession) -> None:
        async with client.get("/broken") as response:
            text = await response.text()
            assert "ZeroDivision" not in text
            assert response.headers["X-Request-Id"] in caplog.text
            assert "ZeroDivisionError" in caplog.text

    ask(claim)


def test_a_redirect_is_no_problem():
    """Only failures are turned into problems."""

    async def claim(client: ClientSession) -> None:
        async with client.get("/moved", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, "/elsewhere")

    ask(claim)


def test_an_answer_that_breaks_half_way_is_cut_and_never_patched_up():
    """A reader must not take the first half, or an error text behind it, for the whole."""

    async def claim(client: ClientSession) -> None:
        async with client.get("/half") as response:
            with pytest.raises(ClientError):
                await response.read()

    ask(claim)


def test_the_paths_of_otlp_keep_their_own_errors():
    """OTLP owes its clients a status in their own encoding."""

    async def claim(client: ClientSession) -> None:
        async with client.get("/v1/traces") as response:
            assert (response.status, response.content_type) == (403, "text/plain")

    ask(claim)
