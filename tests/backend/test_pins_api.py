"""Pins over the API: a session that no retention removes, by whoever may write."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp.test_utils import make_mocked_request
from backend_process import BackendProcess
from otlp_requests import PROTOBUF, span, traces

from otel_sessions.backend.api.pins import pin
from otel_sessions.backend.api.problems import ProblemError


def store(backend: BackendProcess, *sessions: str) -> None:
    """Have sessions of one span each."""
    for session in sessions:
        status, _, _ = backend.exchange("POST", "/v1/traces", traces([span(session)]), PROTOBUF)
        assert status == 200


def is_pinned(backend: BackendProcess, session: str) -> bool:
    """Read whether a session is kept."""
    return json.loads(backend.exchange("GET", f"/api/v1/sessions/{session}")[2])["pinned"]


def test_a_session_is_pinned_and_unpinned_by_either_of_its_ids(backend: BackendProcess) -> None:
    """As often as anybody likes, and over a restart."""
    store(backend, "trip")
    ours = json.loads(backend.exchange("GET", "/api/v1/sessions/trip")[2])["id"]
    assert not is_pinned(backend, "trip")
    for method, wanted in (("PUT", True), ("PUT", True), ("DELETE", False), ("DELETE", False), ("PUT", True)):
        for name in ("trip", ours):
            status, _, answer = backend.exchange(method, f"/api/v1/sessions/{name}/pin")
            assert (status, json.loads(answer)) == (200, {"id": ours, "pinned": wanted})
            assert is_pinned(backend, "trip") is wanted
    backend.restart()
    assert is_pinned(backend, "trip")


def test_a_session_that_is_not_there_can_not_be_pinned(backend: BackendProcess) -> None:
    """The answer is a problem, and nothing is kept for later."""
    status, headers, answer = backend.exchange("PUT", "/api/v1/sessions/nobody/pin")
    assert (status, json.loads(answer)["status"]) == (404, 404)
    assert headers["Content-Type"].startswith("application/problem+json")
    store(backend, "nobody")
    assert not is_pinned(backend, "nobody")


def test_a_session_that_goes_while_it_is_pinned_is_not_said_to_be_kept() -> None:
    """Retention may take it between the look at it and the write."""

    async def between(errand: Callable[[], bool], take: Callable[[bool], object]) -> bool:
        there = errand()
        take(there)
        return there

    store = SimpleNamespace(record=lambda _: SimpleNamespace(id="ours"), pin=lambda _, pinned: False)
    services = SimpleNamespace(store=store, ingest=SimpleNamespace(between=between))
    request = make_mocked_request("PUT", "/api/v1/sessions/trip/pin", match_info={"id": "trip"})
    with pytest.raises(ProblemError) as raised:
        asyncio.run(pin(services, request))  # type: ignore[arg-type]
    assert raised.value.status == 404


@pytest.mark.slow
def test_what_is_pinned_outlives_the_retention(tmp_path: Path) -> None:
    """The other one goes; once it is unpinned, it goes too."""
    backend = BackendProcess(tmp_path, ["--retention", "2s", "--idle-after", "1"]).start()
    try:
        store(backend, "kept", "let go")
        assert backend.exchange("PUT", "/api/v1/sessions/kept/pin")[0] == 200

        def there() -> list[str]:
            sessions = json.loads(backend.exchange("GET", "/api/v1/sessions")[2])["sessions"]
            return [session["session_id"] for session in sessions]

        deadline = time.monotonic() + 60
        while there() != ["kept"]:
            assert time.monotonic() < deadline, there()
            time.sleep(0.2)
        assert backend.exchange("DELETE", "/api/v1/sessions/kept/pin")[0] == 200
        while there():
            assert time.monotonic() < deadline, there()
            time.sleep(0.2)
    finally:
        backend.stop()
