"""A running backend keeps its store small, and goes on when the disk does: real processes, real disks."""

from __future__ import annotations

import http.client
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from backend_process import BackendProcess
from otlp_requests import PROTOBUF, LifeCycle, logs, span, traces

from otel_sessions.backend.store.base import SessionQuery
from otel_sessions.backend.store.copies import FILE, back_up
from otel_sessions.backend.store.sqlite import SqliteStore
from otel_sessions.errors import BackendError

linux = pytest.mark.skipif(sys.platform != "linux", reason="disks are made small as on Linux")


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until a condition holds; return what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)
    return found


def listed(backend: BackendProcess) -> set[str]:
    """Return the session ids in the list."""
    _, _, body = backend.exchange("GET", "/api/v1/sessions")
    return {session["session_id"] for session in json.loads(body)["sessions"]}


def send(backend: BackendProcess, session: str, size: int = 10) -> tuple[int, str | None]:
    """Export a span of so many incompressible bytes; return the status and when to send it again."""
    body = traces([span(session, text=os.urandom(size // 2).hex())])
    status, headers, _ = backend.exchange("POST", "/v1/traces", body, PROTOBUF)
    return status, headers.get("Retry-After")


def ready(backend: BackendProcess) -> tuple[int, str]:
    """Return what /readyz answers."""
    status, _, body = backend.exchange("GET", "/readyz")
    return status, body.decode()


def test_old_sessions_go_and_readers_are_told(tmp_path: Path) -> None:
    """The one that runs stays; one that comes back is new."""
    backend = BackendProcess(tmp_path, ["--retention", "2s", "--idle-after", "1"]).start()
    told: list[bytes] = []
    stream = http.client.HTTPConnection(backend.http, timeout=60)

    def listen() -> None:
        answer = stream.getresponse()
        while line := answer.readline():
            told.append(line)

    try:
        send(backend, "old")
        backend.exchange("POST", "/v1/logs", logs(LifeCycle("alive").start()), PROTOBUF)
        stream.request("GET", "/api/v1/stream")
        listener = threading.Thread(target=listen)
        listener.start()
        until(lambda: listed(backend) == {"alive"})
        until(lambda: b"event: gone\n" in told)
        assert send(backend, "old") == (200, None)
        assert listed(backend) == {"alive", "old"}
        _, _, body = backend.exchange("GET", "/api/v1/status")
        status = json.loads(body)
        assert (status["ingest"]["pruned_sessions"], status["ingest"]["pruned_spans"]) == (1, 1)
    finally:
        assert backend.stop() == 0
        listener.join()
        stream.close()


def test_a_backup_of_a_busy_backend_is_whole(tmp_path: Path) -> None:
    """Of one moment, though spans arrive all the time: every session of it is there with all its spans."""
    backend = BackendProcess(tmp_path / "data").start()
    going = True
    acknowledged: list[int] = []

    def emit() -> None:
        with closing(http.client.HTTPConnection(backend.http, timeout=30)) as connection:
            while going:
                no = len(acknowledged)
                spans = [span(f"s-{no}", text=os.urandom(5_000).hex()) for _ in range(5)]
                connection.request("POST", "/v1/traces", traces(spans), PROTOBUF)
                assert connection.getresponse().read() == b""
                acknowledged.append(no)

    emitter = threading.Thread(target=emit)
    emitter.start()
    moves: list[tuple[int, int]] = []
    try:
        until(lambda: len(acknowledged) > 100)
        before = len(acknowledged)
        target = tmp_path / "restored" / FILE
        target.parent.mkdir()
        held = back_up(tmp_path / "data", target, lambda done, pages: moves.append((done, pages)))
    finally:
        going = False
        emitter.join()
        backend.stop()
    assert before <= held[0] <= len(acknowledged)
    assert [path.name for path in target.parent.iterdir()] == [FILE]
    assert moves[-1][0] == moves[-1][1] > 0
    store = SqliteStore(target.parent)
    assert {s.spans for s in store.sessions(SessionQuery(limit=10_000)).sessions} == {5}
    assert store.totals().spans == held[1] == held[0] * 5
    store.close()
    with pytest.raises(BackendError, match="overwrites nothing"):
        back_up(tmp_path / "data", target, lambda *_: None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_and_forgotten_when_there_is_room(small_disk: Path) -> None:
    """503 and RESOURCE_EXHAUSTED with when to try again; unready meanwhile; all without a restart."""
    backend = BackendProcess(small_disk / "data").start()
    ballast = small_disk / "ballast"
    try:
        assert ready(backend) == (200, "ready\n")
        assert send(backend, "before")[0] == 200
        ballast.write_bytes(b"\0" * 6_000_000)
        sent = until(lambda: answer if (answer := send(backend, "big", 600_000))[0] != 200 else None)
        assert sent == (503, "5")
        status, why = ready(backend)
        assert status == 503
        assert "disk is full" in why
        assert _grpc_code(backend) is grpc.StatusCode.RESOURCE_EXHAUSTED
        ballast.unlink()
        until(lambda: ready(backend)[0] == 200)  # though nobody sends anything
        assert send(backend, "after", 600_000) == (200, None)
        assert {"before", "after"} <= listed(backend)
    finally:
        assert backend.stop() == 0


def _grpc_code(backend: BackendProcess) -> grpc.StatusCode:
    with grpc.insecure_channel(backend.grpc) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        with pytest.raises(grpc.RpcError) as raised:
            export(traces([span("big", text=os.urandom(300_000).hex())]), timeout=30)
        return raised.value.code()  # pyright: ignore - grpc's errors are calls too


@linux
def test_files_that_may_not_grow_are_told_and_forgotten_when_they_may(tmp_path: Path) -> None:
    """A quota is no full disk to SQLite; who sends is told to try again all the same."""
    backend = BackendProcess(tmp_path).start()
    try:
        assert send(backend, "before")[0] == 200
        _, hard = resource.prlimit(backend.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(backend.pid, resource.RLIMIT_FSIZE, (1_000_000, hard))
        sent = until(lambda: answer if (answer := send(backend, "big", 600_000))[0] != 200 else None)
        assert sent[0] == 503
        assert sent[1] is not None
        assert ready(backend)[0] == 503
        resource.prlimit(backend.pid, resource.RLIMIT_FSIZE, (hard, hard))
        until(lambda: ready(backend)[0] == 200)
        assert send(backend, "after", 600_000) == (200, None)
    finally:
        assert backend.stop() == 0
