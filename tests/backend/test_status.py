"""What a backend says of itself under /api/v1/status, by a real one."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from backend_process import BackendProcess
from otlp_requests import PROTOBUF, LifeCycle, logs, span, traces

from otel_sessions.backend.metrics import RESULTS


def status(backend: BackendProcess) -> dict[str, Any]:
    """Return what it says."""
    code, _, body = backend.exchange("GET", "/api/v1/status")
    assert code == 200
    return json.loads(body)


def test_it_tells_who_sends_how_much_and_how_fast_it_stores_that(backend: BackendProcess):
    """Rates, commits and emitters are of what was acknowledged; what nobody told is null."""
    quiet = status(backend)
    assert quiet["rates"] == {"seconds": 60, "requests": 0, "spans": 0, "logs": 0}
    assert quiet["commits"] == {"count": 0, "p50": None, "p99": None, "max": None}
    assert quiet["emitters"] == []
    for body in (traces([span("a"), span("b")], service="planner"), traces([span(None)], service="mail")):
        backend.exchange("POST", "/v1/traces", body, PROTOBUF)
    backend.exchange("POST", "/v1/logs", logs(LifeCycle("a").start(), service="planner"), PROTOBUF)
    busy = status(backend)
    assert busy["rates"]["spans"] > 0
    assert busy["commits"]["count"] == 3
    assert 0 < int(busy["commits"]["p50"]) <= int(busy["commits"]["p99"]) <= int(busy["commits"]["max"])
    sent = {emitter["service"]: emitter for emitter in busy["emitters"]}
    assert (sent["planner"]["spans"], sent["planner"]["sessions"]) == (2, 2)
    assert sent["planner"]["logs"] >= 1
    assert (sent["mail"]["spans"], sent["mail"]["sessions"]) == (1, 0)
    assert sent["mail"]["sdk"] is None
    assert int(quiet["now"]) <= int(sent["mail"]["last_seen_at"]) <= time.time_ns()


def test_it_tells_where_the_data_lies_and_what_room_there_is(backend: BackendProcess):
    """The write-ahead log is part of what is on disk; the disk has at least the room that is free."""
    backend.exchange("POST", "/v1/traces", traces([span("s")]), PROTOBUF)
    told = status(backend)
    assert told["disk"]["folder"] == str(backend.data)
    assert 0 < told["disk"]["free"] <= told["disk"]["size"]
    assert 0 < told["store"]["wal_bytes"] < told["store"]["bytes_on_disk"]
    assert told["store"]["engine"].startswith("SQLite 3.")
    assert told["trouble"] is None


@pytest.mark.slow
def test_it_tells_the_bounds_of_retention_and_when_something_was_removed(tmp_path: Path):
    """A bound that is not set is null, and so is what has not happened."""
    backend = BackendProcess(tmp_path, ["--retention", "1s,2MB", "--idle-after", "1"]).start()
    try:
        before = status(backend)["retention"]
        assert (before["age"], before["size"], before["trouble"]) == (str(10**9), 2 * 10**6, None)
        assert before["removed_at"] is None
        backend.exchange("POST", "/v1/traces", traces([span("old")]), PROTOBUF)
        deadline = time.monotonic() + 60
        while not (removed := status(backend)["retention"]["removed_at"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert int(removed) <= int(status(backend)["retention"]["looked_at"]) + 1
    finally:
        backend.kill()


def test_it_says_what_readyz_says(tmp_path: Path):
    """The file is taken away under it: it is in trouble, on both pages, and alive."""
    backend = BackendProcess(tmp_path).start()
    try:
        (tmp_path / "sessions.db").rename(tmp_path / "elsewhere.db")
        code, _, _ = backend.exchange("POST", "/v1/traces", traces([span("s")]), PROTOBUF)
        assert code == 503
        told = status(backend)
        assert "removed or replaced" in told["trouble"]
        code, _, body = backend.exchange("GET", "/readyz")
        assert code == 503
        assert json.loads(body)["detail"] == told["trouble"]
        assert backend.exchange("GET", "/healthz")[0] == 200
        assert told["receivers"]["http"] == {"not_stored": 1}
        (tmp_path / "elsewhere.db").rename(tmp_path / "sessions.db")
        deadline = time.monotonic() + 60
        while backend.exchange("GET", "/readyz")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert status(backend)["trouble"] is None
    finally:
        backend.kill()


def test_the_page_explains_every_refusal_that_is_counted():
    """Whoever adds a word to what receivers note says on the page what it means."""
    page = (Path(__file__).parents[2] / "otel_sessions/backend/web/static/js/condition.js").read_text()
    table = page.partition("const REFUSED = lexicon({")[2].partition("});")[0]
    explained = set(re.findall(r"^  ([a-z_]+): \[", table, re.MULTILINE))
    assert set(RESULTS) - {"stored", "partial"} <= explained
