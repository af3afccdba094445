"""Who may ask a running backend: names that can't be rebound, and writes from no page but its own."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from backend_process import BackendProcess

from otel_sessions.backend.web.guard import host_is_private

EVIL = {"Host": "evil.example"}
FOREIGN = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
)


def test_a_rebound_name_reads_nothing(backend: BackendProcess) -> None:
    """No page, no session, no trace, no number; probes tell nothing."""
    for path in ("/", "/sessions", "/api/v1/sessions", "/api/v1/stream", "/jaeger/api/services", "/metrics"):
        status, _, answer = backend.exchange("GET", path, headers=EVIL)
        assert status == 421, path
        assert b"evil.example" in answer
    for path in ("/healthz", "/readyz"):
        assert backend.exchange("GET", path, headers=EVIL)[0] == 200


def test_a_name_that_is_allowed_reads_everything(start_backend: Callable[..., BackendProcess]) -> None:
    """As behind a proxy that passes the name on."""
    backend = start_backend("--host-name", "traces.example,other.example")
    for path in ("/sessions", "/api/v1/sessions", "/jaeger/api/services", "/metrics"):
        assert backend.exchange("GET", path, headers={"Host": "traces.example"})[0] == 200
        assert backend.exchange("GET", path, headers=EVIL)[0] == 421


def test_metrics_are_scraped_under_names_of_containers(backend: BackendProcess) -> None:
    """Which nobody outside can give an address; pages and API are read by people, who can name theirs."""
    for host in ("otel-sessions:4318", "host.docker.internal:4318", "backend.local"):
        assert backend.exchange("GET", "/metrics", headers={"Host": host})[0] == 200
        assert backend.exchange("GET", "/api/v1/sessions", headers={"Host": host})[0] == 421


def test_with_a_token_metrics_take_any_name(start_backend: Callable[..., BackendProcess]) -> None:
    """A rebound page has neither the token nor the cookie of another name."""
    backend = start_backend("--token", "the-full-token")
    assert backend.exchange("GET", "/metrics", headers=EVIL)[0] == 401
    shown = {**EVIL, "Authorization": "Bearer the-full-token"}
    assert backend.exchange("GET", "/metrics", headers=shown)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_no_foreign_page_writes(backend: BackendProcess, method: str) -> None:
    """Whatever the path, also one that is not there: a later one can't be forgotten."""
    csrf = {"X-CSRF-Token": json.loads(backend.exchange("GET", "/api/v1/csrf")[2])["token"]}
    for path in ("/api/v1/sessions/x/pin", "/api/v1/sessions/x", "/jaeger/api/x", "/sessions", "/anything"):
        for headers in FOREIGN:
            assert backend.exchange(method, path, b"", headers | csrf)[0] == 403, (path, headers)
        own = {"Origin": backend.url, "Sec-Fetch-Site": "same-origin"}
        assert backend.exchange(method, path, b"", own)[0] == 403, path
        for headers in ({}, own | csrf):
            assert backend.exchange(method, path, b"", headers)[0] in (404, 405), (path, headers)


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("backend", True), ("backend:4318", True), ("host.docker.internal", True), ("box.local.", True),
        ("evil.example", False), ("internal.evil.example", False), ("local.evil", False), ("", False),
        ("evil.example@backend", False), ("[::1", False),
    ],
)  # fmt: skip
def test_a_name_without_a_dot_or_of_a_reserved_domain_is_private(host: str, private: bool) -> None:
    """By what the internet's names can be."""
    assert host_is_private(host) is private


def test_every_answer_keeps_browsers_from_taking_it_for_something_else(backend: BackendProcess) -> None:
    """Pages, files, data, errors: no sniffing, no frames, no scripts but ours."""
    for path in (
        "/sessions",
        "/api/v1/sessions",
        "/nowhere",
        "/api/v1/nowhere",
        "/jaeger/api/services",
        "/metrics",
    ):
        _, headers, _ = backend.exchange("GET", path, headers={"Accept": "text/html"})
        assert headers.get("X-Content-Type-Options") == "nosniff", path
        if headers["Content-Type"].startswith("text/html"):
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
