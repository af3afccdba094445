"""Redaction in a running backend: no file in its folder, no answer, no line of its log bears a secret."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from backend_process import BackendProcess, clean_environment
from fake_secrets import IN_CONTEXT, SECRETS
from google.protobuf.message import Message
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_requests import PROTOBUF, LifeCycle, key_values, logs, span, traces

from otel_sessions.backend.otlp_json import span_json
from otel_sessions.backend.store.sqlite import SqliteStore

JSON = {"Content-Type": "application/json"}
ALL = (*SECRETS, *IN_CONTEXT)
NEEDLES = [one.secret.encode() for one in ALL if len(one.secret) > 6]
PLAIN = SECRETS[0]
Start = Callable[..., BackendProcess]


def tell_tale(session: str) -> Span:
    """Make a span that bears every secret, each in several places; text that no index would pass over."""
    attributes = {f"a{number}": one.text for number, one in enumerate(ALL)}
    one = span(session, f"call {PLAIN.text}", gen_ai__operation__name="chat", **attributes)
    one.status.message = f"401: {PLAIN.text} is not valid"
    one.status.code = one.status.STATUS_CODE_ERROR
    stack = 'File "x.py"\n  ' + "\n".join(secret.text for secret in ALL)
    one.events.add(name="exception").attributes.extend(
        key_values({"exception.stacktrace": stack, "exception.message": PLAIN.text})
    )
    one.attributes.extend(
        key_values(
            {
                "gen_ai.input.messages": json.dumps(
                    [{"role": "user", "parts": [{"type": "text", "content": f"my key is {PLAIN.text}"}]}]
                ),
                "http.request.header.authorization": ["an-unguessable-value"],
                "gen_ai.request.model": PLAIN.text,
                "gen_ai.agent.name": PLAIN.text,
            }
        )
    )
    return one


def by_http(backend: BackendProcess, body: bytes, path: str = "/v1/traces") -> None:
    """Send protobuf over HTTP."""
    status, _, answer = backend.exchange("POST", path, body, PROTOBUF)
    assert status == 200, answer


def by_json(backend: BackendProcess, one: Span) -> None:
    """Send a span in JSON."""
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span_json(one)]}]}]}
    status, _, answer = backend.exchange("POST", "/v1/traces", json.dumps(body), JSON)
    assert status == 200, answer


def by_grpc(backend: BackendProcess, body: bytes) -> None:
    """Send a message over gRPC."""
    with grpc.insecure_channel(backend.grpc) as channel:
        name = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        channel.unary_unary(name)(body, timeout=30)


def files_that_bear(folder: Path, needles: list[bytes]) -> list[tuple[str, bytes]]:
    """Look for secrets in every file of a folder, in the bytes of the database as they are decompressed too."""
    found = [
        (path.name, needle)
        for path in folder.rglob("*")
        if path.is_file()
        for data in [path.read_bytes()]
        for needle in needles
        if needle in data
    ]
    return found + [("chunks", needle) for data in _chunks(folder) for needle in needles if needle in data]


def _chunks(folder: Path) -> Iterator[bytes]:
    """Read every body that is stored, decompressed."""
    for path in folder.rglob("*.db"):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                for row in db.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - names of its own tables
                    for value in row:
                        if isinstance(value, str):
                            yield value.encode()
                        elif isinstance(value, bytes):
                            yield value
                            yield from _decompressed(value)


def _decompressed(data: bytes) -> Iterator[bytes]:
    from backports.zstd import ZstdDecompressor, ZstdError

    with contextlib.suppress(ZstdError):
        yield ZstdDecompressor().decompress(data)


def send_everything(backend: BackendProcess) -> None:
    """Send every secret on every way in."""
    by_http(backend, traces([tell_tale("by-http")], service=f"svc {PLAIN.text}"))
    by_json(backend, tell_tale("by-json"))
    by_grpc(backend, traces([tell_tale("by-grpc")]))
    life = LifeCycle(f"id {PLAIN.text}")
    opened = life.opened(b"opened!!", f"open {PLAIN.text}")
    by_http(backend, logs([*life.start(f"named {PLAIN.text}"), opened, life.waiting(PLAIN.text)]), "/v1/logs")


def test_no_secret_reaches_the_disk_or_an_answer(start_backend: Start, tmp_path: Path) -> None:
    """While it runs, in a backup, after SIGKILL, after the next start: whatever came in, on whatever way."""
    backend = start_backend()
    streamed = _Stream(backend)
    send_everything(backend)
    assert files_that_bear(backend.data, NEEDLES) == []
    check_answers(backend)
    assert streamed.text_with("named [redacted:openai-key]").find(PLAIN.secret) == -1
    backup = tmp_path / "copies" / "backup.db"
    backup.parent.mkdir()
    command = [
        sys.executable,
        "-m",
        "otel_sessions.cli.main",
        "backup",
        "--data",
        str(backend.data),
        str(backup),
    ]
    subprocess.run(command, check=True, env=clean_environment(), capture_output=True)
    assert files_that_bear(backup.parent, NEEDLES) == []
    backend.kill()
    assert list(backend.data.glob("*-wal"))
    assert files_that_bear(backend.data, NEEDLES) == []
    backend.start()
    check_answers(backend)
    assert files_that_bear(backend.data, NEEDLES) == []
    assert backend.stop() == 0
    assert PLAIN.secret not in backend.stderr


class _Stream:
    """What the live stream tells, read from its start."""

    def __init__(self, backend: BackendProcess) -> None:
        import urllib.request

        self._answer = urllib.request.urlopen(f"{backend.url}/api/v1/stream", timeout=30)  # noqa: S310 - loopback

    def text_with(self, awaited: str) -> str:
        """Read until a text came; return all that came until then."""
        lines: list[str] = []
        while not lines or awaited not in lines[-1]:
            lines.append(self._answer.readline().decode())
        self._answer.close()
        return "".join(lines)


def check_answers(backend: BackendProcess) -> None:
    """Read everything that a client can read."""
    listed = read(backend, "/api/v1/sessions")["sessions"]
    assert len(listed) == 4
    marked = quote("[redacted:")
    paths = ["/api/v1/status", f"/api/v1/search?q={marked}", "/metrics", "/jaeger/api/services"]
    for session in listed:
        base = f"/api/v1/sessions/{session['id']}"
        paths += [base, f"{base}/rows", f"{base}/transcript", f"{base}/otlp"]
        for trace in read(backend, base)["traces"]:
            paths += [f"/jaeger/api/traces/{trace}", f"/jaeger/api/v3/traces/{trace}"]
    text = ""
    for path in paths:
        status, _, answer = backend.exchange("GET", path)
        assert status == 200 or (status == 404 and "jaeger" in path), (path, answer)
        assert not [needle for needle in NEEDLES if needle in answer], path
        text += answer.decode()
    assert "an-unguessable-value" not in text
    assert "my key is [redacted:openai-key]" in text
    assert read(backend, f"/api/v1/search?q={quote(PLAIN.secret)}", lines=True)["hits"] == 0


def read(backend: BackendProcess, path: str, *, lines: bool = False) -> Any:
    """Read JSON; of a search its count of hits."""
    status, _, answer = backend.exchange("GET", path)
    assert status == 200, answer
    return {"hits": answer.count(b'"snippet"')} if lines else json.loads(answer)


def test_sessions_whose_ids_are_tokens_stay_as_many_as_they_were(start_backend: Start) -> None:
    """One that goes on after a restart is still the same one."""
    backend = start_backend()
    tokens = [one.text for one in SECRETS if one.kind == "openai-key"]
    for token in tokens:
        by_http(backend, traces([span(token, "work")]))
    assert backend.stop() == 0
    backend.start()
    by_json(backend, span(tokens[0], "more"))
    listed = read(backend, "/api/v1/sessions")["sessions"]
    assert sorted(one["spans"] for one in listed) == [1] * (len(tokens) - 1) + [2]
    assert files_that_bear(backend.data, [token.encode() for token in tokens]) == []


def test_what_was_replaced_is_counted_by_kind(start_backend: Start) -> None:
    """In the status and for Prometheus; once for each time it was stored."""
    backend = start_backend("--redact-pattern", "badge=BADGE-[0-9]{6}")
    one = span("s", "work", a=PLAIN.text, b=f"BADGE-123456 {PLAIN.text}")
    for _ in range(2):
        by_http(backend, traces([one]))
    counted = read(backend, "/api/v1/status")["redacted"]
    assert {kind: count for kind, count in counted.items() if count} == {"openai-key": 4, "badge": 2}
    text = backend.exchange("GET", "/metrics")[2].decode()
    assert 'otel_sessions_redacted_total{kind="openai-key"} 4.0' in text
    assert 'otel_sessions_redacted_total{kind="badge"} 2.0' in text
    assert 'otel_sessions_redacted_total{kind="jwt"} 0.0' in text
    [session] = read(backend, "/api/v1/sessions")["sessions"]
    assert session["spans"] == 1


def test_an_answer_that_refuses_quotes_no_secret(backend: BackendProcess) -> None:
    """Nor does the log, whatever is wrong with the request."""
    wrong = (
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": {PLAIN.text: 1}}]}]}]},
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": PLAIN.text}]}]}]},
        {"resourceSpans": PLAIN.text},
        [PLAIN.text],
    )
    for body in (*map(json.dumps, wrong), PLAIN.text, '{"' + PLAIN.text):
        status, _, answer = backend.exchange("POST", "/v1/traces", body, JSON)
        assert status == 400
        assert PLAIN.secret.encode() not in answer
    assert backend.exchange("POST", "/v1/traces", PLAIN.text, PROTOBUF)[0] == 400
    backend.stop()
    assert PLAIN.secret not in backend.stderr


def test_large_requests_are_redacted_beside_the_loop(backend: BackendProcess) -> None:
    """Where decoding happens in a thread, redaction does."""
    spans = [span("large", f"s{n}", pad="x" * 4000, key=PLAIN.text) for n in range(500)]
    by_http(backend, traces(spans))
    assert read(backend, "/api/v1/status")["redacted"]["openai-key"] == 500
    assert files_that_bear(backend.data, [PLAIN.secret.encode()]) == []


def test_without_redaction_everything_is_stored_as_it_came(start_backend: Start) -> None:
    """By option or variable; and the test above could fail."""
    for arguments, env in ((["--no-redact"], {}), ([], {"OTEL_SESSIONS_REDACT": "off"})):
        backend = start_backend(*arguments, env=env)
        by_http(backend, traces([span("s", a=PLAIN.text)]))
        assert read(backend, "/api/v1/status")["redacted"] == {}
        backend.stop()
        assert files_that_bear(backend.data, [PLAIN.secret.encode()])


def test_own_patterns_come_from_options_variable_and_file(start_backend: Start, tmp_path: Path) -> None:
    """All of them together, beside ours."""
    file = tmp_path / "patterns"
    file.write_text("# of the house\n\nfile=FILE-[0-9]+\n")
    backend = start_backend(
        "--redact-pattern", "one=ONE-[0-9]+", "--redact-pattern", "two=TWO-[0-9]+", "--redact-file", str(file)
    )
    by_http(backend, traces([span("s", f"ONE-1 TWO-2 FILE-3 {PLAIN.text}")]))
    [row] = read(backend, f"/api/v1/search?q={quote('redacted')}", lines=True).items()
    assert row[1] > 0
    backend.stop()
    store = SqliteStore(backend.data)
    detail = store.session("s")
    assert detail is not None
    [stored] = store.spans(detail.session.id)
    store.close()
    assert stored.row.name == "[redacted:one] [redacted:two] [redacted:file] [redacted:openai-key]"
    other = start_backend(env={"OTEL_SESSIONS_REDACT_PATTERN": "a=AAA\nb=BBB"})
    assert {"a", "b", "jwt"} <= read(other, "/api/v1/status")["redacted"].keys()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--redact-pattern", "bad=[a-"], "--redact-pattern: the pattern bad=[a- can't be read by RE2"),
        (["--redact-pattern", "bad"], "--redact-pattern: 'bad' is no NAME=REGEX"),
        (["--redact-file", "no-such-file"], "--redact-file=no-such-file can't be read"),
        (["--no-redact", "--redact-pattern", "a=b"], "--redact-pattern asks for redaction, and --redact"),
    ],
)
def test_a_pattern_that_can_not_work_ends_the_start(arguments: list[str], told: str, tmp_path: Path) -> None:
    """With one line that names it, before anything is listened to."""
    command = [sys.executable, "-m", "otel_sessions.cli.main", "serve", "--http", "127.0.0.1:0"]
    command += ["--grpc", "127.0.0.1:0", "--data", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_many_threads_redact_at_once(backend: BackendProcess) -> None:
    """The automaton is shared; nothing of one request gets into another."""

    def send(number: int) -> None:
        for n in range(10):
            by_http(backend, traces([span(f"s-{number}", f"{number}-{n} {PLAIN.text}", pad="y" * 300_000)]))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(backend, "/api/v1/status")["redacted"]["openai-key"] == 40
    backend.stop()
    store = SqliteStore(backend.data)
    for number in range(4):
        detail = store.session(f"s-{number}")
        assert detail is not None
        names = {one.row.name for one in store.spans(detail.session.id)}
        assert names == {f"{number}-{n} {PLAIN.redacted}" for n in range(10)}
    store.close()


def test_messages_are_what_protobuf_says(backend: BackendProcess) -> None:
    """A span that bears a secret is still one span, the same when it comes again over another protocol."""
    one = tell_tale("twice")
    assert isinstance(one, Message)
    by_http(backend, traces([one]))
    by_grpc(backend, traces([one]))
    by_json(backend, one)
    [session] = read(backend, "/api/v1/sessions")["sessions"]
    assert (session["spans"], session["errors"]) == (1, 1)
