"""Tokens: what each lets its bearer do, on every way in, and what a start refuses."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from backend_process import BackendProcess, clean_environment
from otlp_requests import PROTOBUF, span, traces

from otel_sessions.backend.access import Access, Right

FULL, READ, SEND = "the-full-token", "the-read-token", "the-send-token"
TOKENS = {"full": FULL, "read": READ, "send": SEND}
READING = (
    "/sessions", "/api/v1/sessions", "/api/v1/status", "/metrics", "/jaeger/api/services", "/api/v1/openapi.json",
)  # fmt: skip
BODY = traces([span("s-1")])
Start = Callable[..., BackendProcess]


@pytest.fixture
def guarded(start_backend: Start) -> BackendProcess:
    """Start a backend with all three tokens, from the environment."""
    env = {f"OTEL_SESSIONS_{name}": token for name, token in
           (("TOKEN", FULL), ("READ_TOKEN", READ), ("SEND_TOKEN", SEND))}  # fmt: skip
    return start_backend(env=env)


def bearer(token: str) -> dict[str, str]:
    """Return the header that bears a token."""
    return {"Authorization": f"Bearer {token}"}


def test_each_token_reads_and_sends_what_it_is_for(guarded: BackendProcess) -> None:
    """Over HTTP; whoever has a token for something else is told which it needs."""
    for name, token in TOKENS.items():
        for path in READING:
            expected = 403 if name == "send" else 200
            assert guarded.exchange("GET", path, headers=bearer(token))[0] == expected, (name, path)
        for headers in (bearer(token), {"x-otel-sessions-token": token}):
            status, _, answer = guarded.exchange("POST", "/v1/traces", BODY, {**PROTOBUF, **headers})
            assert status == (403 if name == "read" else 200), answer
    assert b"may only read" in guarded.exchange("POST", "/v1/logs", b"", {**PROTOBUF, **bearer(READ)})[2]
    assert b"may only send" in guarded.exchange("GET", "/api/v1/sessions", headers=bearer(SEND))[2]
    assert guarded.exchange("GET", "/api/v1/sessions", headers=bearer("none-of-them"))[0] == 401


def test_each_token_sends_over_grpc_what_it_is_for(guarded: BackendProcess) -> None:
    """With the codes that exporters don't repeat."""
    codes = {}
    with grpc.insecure_channel(guarded.grpc) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        for name, token in {**TOKENS, "wrong": "none-of-them"}.items():
            call = export.future(BODY, metadata=(("authorization", f"Bearer {token}"),), timeout=30)
            codes[name] = call.code()
    assert codes == {
        "full": grpc.StatusCode.OK,
        "read": grpc.StatusCode.PERMISSION_DENIED,
        "send": grpc.StatusCode.OK,
        "wrong": grpc.StatusCode.UNAUTHENTICATED,
    }
    text = guarded.exchange("GET", "/metrics", headers=bearer(READ))[2].decode()
    for result in ("forbidden", "unauthenticated"):
        line = f'otel_sessions_requests_total{{result="{result}",signal="traces",transport="grpc"}} 1.0'
        assert (
            line in text
            or line.replace(
                f'result="{result}",signal="traces",transport="grpc"',
                f'transport="grpc",signal="traces",result="{result}"',
            )
            in text
        )


def test_no_method_but_reading_passes_with_a_token_for_reading(guarded: BackendProcess) -> None:
    """Whatever the path, also one that is not there: a later one can't be forgotten."""
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in (
            "/api/v1/sessions/x/pin",
            "/api/v1/sessions/x",
            "/anything",
            "/v1/metrics",
            "/jaeger/api/x",
        ):
            assert guarded.exchange(method, path, b"", bearer(READ))[0] == 403, (method, path)
            assert guarded.exchange(method, path, b"", bearer(FULL))[0] in (400, 404, 405, 415, 200)


def test_the_cookie_of_the_page_bears_the_right_of_its_token(guarded: BackendProcess) -> None:
    """One for reading opens the page and writes nothing; one for sending opens no page."""
    cookies = {}
    for name in ("full", "read"):
        status, headers, _ = guarded.exchange("GET", f"/sessions?token={TOKENS[name]}")
        assert status == 303
        assert "HttpOnly" in headers["Set-Cookie"]
        assert "SameSite=Strict" in headers["Set-Cookie"]
        cookies[name] = {"Cookie": headers["Set-Cookie"].split(";")[0]}
        assert guarded.exchange("GET", "/api/v1/sessions", headers=cookies[name])[0] == 200
    csrf = json.loads(guarded.exchange("GET", "/api/v1/csrf", headers=cookies["read"])[2])["token"]
    for name, status in (("read", 403), ("full", 404)):
        headers = {**cookies[name], "X-CSRF-Token": csrf}
        assert guarded.exchange("PUT", "/api/v1/sessions/x/pin", b"", headers)[0] == status
    assert guarded.exchange("PUT", "/api/v1/sessions/x/pin", b"", cookies["full"])[0] == 403
    status, headers, _ = guarded.exchange("GET", f"/sessions?token={SEND}")
    assert status == 403
    assert "Set-Cookie" not in headers


@pytest.mark.parametrize(
    "path", ["//evil.example/", "/\\evil.example/", "/\\/evil.example/", "\\/x", "http://evil.example//x"]
)
def test_opening_the_page_never_leads_to_another_server(guarded: BackendProcess, path: str) -> None:
    """Browsers read a backslash as a slash, and two at the beginning as another host."""
    host, port = guarded.http.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        request = (
            f"GET {path}?token={FULL}&q=a%20b HTTP/1.1\r\nHost: {guarded.http}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(request.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
    location = answer.headers.get("Location")
    if location is None:
        assert answer.status == 400
    else:
        assert answer.status == 303
        assert re.fullmatch(r"/(?![/\\])[^\\]*\?q=a(%20|\+)b", location), location


def test_behind_tls_the_cookie_is_for_tls_alone(guarded: BackendProcess) -> None:
    """As a proxy says; without one there is no TLS here."""
    for headers, secure in (({}, False), ({"X-Forwarded-Proto": "https"}, True)):
        cookie = guarded.exchange("GET", f"/sessions?token={FULL}", headers=headers)[1]["Set-Cookie"]
        assert ("Secure" in cookie) is secure


def test_no_cookie_sends_telemetry(guarded: BackendProcess) -> None:
    """A page on another port of this machine is the same site: its requests bring the cookie along."""
    cookie = guarded.exchange("GET", f"/sessions?token={FULL}")[1]["Set-Cookie"].split(";")[0]
    assert guarded.exchange("POST", "/v1/traces", BODY, {**PROTOBUF, "Cookie": cookie})[0] == 401


def test_tokens_come_from_files_and_so_never_from_the_list_of_processes(
    start_backend: Start, tmp_path: Path
) -> None:
    """With a line end, as editors and `echo` leave it."""
    (tmp_path / "full").write_text(FULL + "\n")
    backend = start_backend("--token", f"@{tmp_path / 'full'}", env={"OTEL_SESSIONS_READ_TOKEN": READ})
    assert backend.exchange("GET", "/api/v1/sessions", headers=bearer(FULL))[0] == 200
    assert backend.exchange("GET", "/api/v1/sessions", headers=bearer(READ))[0] == 200
    assert backend.exchange("GET", "/api/v1/sessions")[0] == 401
    assert FULL not in Path(f"/proc/{backend.pid}/cmdline").read_text()
    show = [sys.executable, "-m", "otel_sessions.cli.main", "show", "--list", "--url", backend.url, "--token"]
    for name, code in (("full", 0), ("none", 2)):
        done = subprocess.run(
            [*show, f"@{tmp_path / name}"], capture_output=True, text=True, env=clean_environment(), check=False
        )  # fmt: skip
        assert done.returncode == code, done.stderr
    assert "none can't be read: No such file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--read-token", READ], "set that one too"),
        (["--send-token", SEND], "set that one too"),
        (["--token", FULL, "--read-token", FULL], "have to differ"),
        (["--token", FULL, "--read-token", "short"], "--read-token is not a usable token"),
        (["--token", "@no-such-file"], "--token=@no-such-file can't be read: No such file"),
        (["--http", "0.0.0.0:0"], "without a token anybody there"),
        (["--http", "0.0.0.0:0", "--read-token", READ], "without a token anybody there"),
        (["--grpc", "[::]:0"], "without a token anybody there"),
    ],
)
def test_a_start_with_tokens_that_protect_nothing_is_refused(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    """With one line that says what to do, and that shows no token."""
    command = [sys.executable, "-m", "otel_sessions.cli.main", "serve", "--data", str(tmp_path)]
    done = subprocess.run(
        [*command, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *arguments],
        capture_output=True, text=True, env=clean_environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not [token for token in TOKENS.values() if token in done.stderr]


def test_a_token_is_found_wherever_it_stands_among_others() -> None:
    """By header of either name; never by a part of it, nor by none."""
    access = Access({FULL: Right.FULL, READ: Right.READ})
    assert access.right_in({"authorization": f"bearer  {READ} "}) is Right.READ
    assert access.right_in({"authorization": "Basic x", "x-otel-sessions-token": FULL}) is Right.FULL
    for wrong in ("", "Bearer", "Bearer ", f"Bearer {FULL[:-1]}", f"Basic {FULL}", f"Bearer {FULL}é"):
        assert access.right_in({"authorization": wrong}) is None
    assert access.right_of_cookie("") is None
    assert access.right_of_cookie(FULL) is None
