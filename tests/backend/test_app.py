"""The backend as a real process: what survives, what is refused, what is told of silence."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backend_process import BackendProcess
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_requests import SECOND, LifeCycle, logs, span, traces

from otel_sessions import semconv
from otel_sessions.backend.app import Listening, serve
from otel_sessions.backend.receiver.answers import MAX_BODY_BYTES
from otel_sessions.backend.settings import Address, Settings
from otel_sessions.backend.store.sqlite import SqliteStore
from otel_sessions.errors import BackendError

PROTOBUF = {"Content-Type": "application/x-protobuf"}
TOKEN = "a-token-of-tests"

Start = Callable[..., BackendProcess]


def post(backend: BackendProcess, path: str, body: bytes) -> None:
    """Send telemetry that has to be taken."""
    status, _, answer = backend.exchange("POST", path, body, PROTOBUF)
    assert status == 200, answer


def read(backend: BackendProcess, path: str) -> Any:
    """Read JSON from the API."""
    status, _, answer = backend.exchange("GET", path)
    assert status == 200, answer
    return json.loads(answer)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def spans_in(folder: Path, session: str) -> Counter[bytes]:
    """Count the stored spans of a session by id, in a folder that no backend holds."""
    store = SqliteStore(folder)
    try:
        detail = store.session(session)
        return Counter() if detail is None else Counter(s.row.span_id for s in store.spans(detail.session.id))
    finally:
        store.close()


# --- nothing that was acknowledged is lost ----------------------------------------------------------


class Load:
    """Threads that send spans until they are told to stop, and note which were acknowledged."""

    def __init__(self, backend: BackendProcess, session: str, threads: int = 4) -> None:
        self.acknowledged: list[bytes] = []
        self._backend = backend
        self._session = session
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(threads)]

    def start(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, seed: int) -> None:
        numbers = random.Random(seed)  # noqa: S311 - sizes of spans
        connection = http.client.HTTPConnection(self._backend.http, timeout=30)
        while not self._stop.is_set():
            spans = [
                span(self._session, f"step {n}", text="x" * numbers.randrange(3000))
                for n in range(numbers.randrange(1, 40))
            ]
            body = traces(spans)
            for _ in range(2):  # as after an acknowledgement that got lost: the same again
                try:
                    connection.request("POST", "/v1/traces", body, PROTOBUF)
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException):
                    connection.close()
                    break
                assert answer.status == 200
            else:
                self.acknowledged += [one.span_id for one in spans]
        connection.close()


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_every_acknowledged_span_is_there_once_after_the_end_of_the_backend(
    backend: BackendProcess, end: str
) -> None:
    """Killed or stopped under load, three times: what was acknowledged is there, and nothing twice."""
    for _ in range(3):
        load = Load(backend, "s-1").start()
        until(lambda load=load: len(load.acknowledged) > 300)
        if end == "kill":
            backend.kill()
        else:
            assert backend.stop() == 0
        load.stop()
        stored = spans_in(backend.data, "s-1")
        assert set(load.acknowledged) <= set(stored)
        assert set(stored.values()) == {1}
        backend.start()


def test_a_restarted_backend_serves_what_it_had(backend: BackendProcess) -> None:
    """The session is in the list after a crash, with what it had before."""
    post(backend, "/v1/traces", traces([span("s-1", "a"), span("s-1", "b")]))
    before = read(backend, "/api/v1/sessions")["sessions"]
    backend.kill()
    backend.start()
    assert read(backend, "/api/v1/sessions")["sessions"] == before
    assert before[0]["spans"] == 2


def test_sigterm_ends_streams_and_the_process_with_code_0(backend: BackendProcess) -> None:
    """A page that listens does not hold the backend up, and its last events are not cut in the middle."""
    connection = http.client.HTTPConnection(backend.http, timeout=30)
    connection.request("GET", "/api/v1/stream")
    stream = connection.getresponse()
    assert stream.readline().startswith(b":")
    started = time.monotonic()
    assert backend.stop() == 0
    assert time.monotonic() - started < 4, "it waited for the stream"
    assert stream.read().endswith(b"\n")
    connection.close()
    assert backend.stderr == ""


def test_a_backend_whose_writer_failed_ends_instead_of_pretending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours that nobody foresaw ends the process: its senders will find the next one."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("otel_sessions.backend.live.Live.commit", fail)
    settings = Settings(Address("127.0.0.1", 0), Address("127.0.0.1", 0), tmp_path / "data", 300 * SECOND)
    answers: list[int] = []

    def send(listening: Listening) -> None:
        connection = http.client.HTTPConnection(str(listening.http), timeout=30)
        connection.request("POST", "/v1/traces", traces([span("s-1")]), PROTOBUF)
        with contextlib.suppress(http.client.HTTPException, OSError):
            answers.append(connection.getresponse().status)
        connection.close()

    senders: list[threading.Thread] = []

    def announce(listening: Listening) -> None:
        senders.append(threading.Thread(target=send, args=(listening,)))
        senders[0].start()

    with pytest.raises(BackendError, match="please report"):
        asyncio.run(serve(settings, announce))
    senders[0].join()
    assert answers == [503]


# --- what is told of silence --------------------------------------------------------------------------


SHORT = {"HEARTBEAT_INTERVAL": 1.0, "LEASE": 6.0}


def announce(backend: BackendProcess, life: LifeCycle, **lease: float) -> None:
    """Start a run, with a first heartbeat."""
    lease = lease or SHORT
    post(backend, "/v1/logs", logs([life.event(semconv.EVENT_SESSION_START, **lease), life.beat(**lease)]))


def state(backend: BackendProcess, session: str) -> str:
    """Return the state that the API tells of a session."""
    return read(backend, f"/api/v1/sessions/{session}")["state"]


def test_a_session_whose_heartbeats_stop_is_stale_then_lost_and_its_end_is_believed(
    backend: BackendProcess,
) -> None:
    """Nobody says goodbye, and the page tells it all the same; a late end puts it right."""
    life = LifeCycle("s-1")
    announce(backend, life)
    assert state(backend, "s-1") == "running"
    until(lambda: state(backend, "s-1") == "stale")
    until(lambda: state(backend, "s-1") == "lost")
    post(backend, "/v1/logs", logs([life.end("ok")]))
    assert state(backend, "s-1") == "ended"
    told = [entry["state"] for entry in read(backend, "/api/v1/sessions/s-1")["timeline"]]
    assert told == ["running", "stale", "lost", "ended"]


def test_a_lost_session_that_speaks_again_is_revived(backend: BackendProcess) -> None:
    """Heartbeats bring it back, and the gap stays in its timeline."""
    life = LifeCycle("s-1")
    announce(backend, life, HEARTBEAT_INTERVAL=0.2, LEASE=1.0)
    until(lambda: state(backend, "s-1") == "lost")
    post(backend, "/v1/logs", logs([life.beat(HEARTBEAT_INTERVAL=5.0, LEASE=120.0)]))
    assert state(backend, "s-1") == "running"
    told = [entry["state"] for entry in read(backend, "/api/v1/sessions/s-1")["timeline"]]
    assert told[-2:] == ["lost", "revived"]


def test_the_time_a_backend_was_down_counts_against_nobody(backend: BackendProcess) -> None:
    """Down for longer than the lease, it comes back and still believes the run, for one lease."""
    life = LifeCycle("s-1")
    announce(backend, life)
    backend.kill()
    time.sleep(7)
    backend.start()
    assert state(backend, "s-1") in ("running", "stale")
    until(lambda: state(backend, "s-1") == "lost")


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
def test_the_time_a_backend_was_stopped_counts_against_nobody(backend: BackendProcess) -> None:
    """A laptop that sleeps for longer than the lease wakes up with its sessions alive."""
    life = LifeCycle("s-1")
    announce(backend, life)
    backend.pause()
    time.sleep(7)
    backend.resume()
    assert state(backend, "s-1") in ("running", "stale")
    post(backend, "/v1/logs", logs([life.beat(**SHORT)]))
    assert state(backend, "s-1") == "running"
    told = [entry["state"] for entry in read(backend, "/api/v1/sessions/s-1")["timeline"]]
    assert "lost" not in told
    assert "leases are extended" in backend.stderr


def test_a_heartbeat_that_was_queued_past_its_lease_revives_nobody(backend: BackendProcess) -> None:
    """A relay that empties its queue rewrites history, never the present: not even after a restart."""
    life = LifeCycle("s-1")
    short = {"HEARTBEAT_INTERVAL": 0.2, "LEASE": 1.0}
    started = logs([life.event(semconv.EVENT_SESSION_START, **short), life.beat(**short)])
    queued = logs([life.beat(**short)])
    post(backend, "/v1/logs", started)
    until(lambda: state(backend, "s-1") == "lost")
    post(backend, "/v1/logs", queued)
    assert state(backend, "s-1") == "lost"
    backend.kill()
    backend.start()
    post(backend, "/v1/logs", queued)
    assert state(backend, "s-1") == "lost"


def test_an_event_that_does_not_tell_its_lease_is_taken_at_its_word(backend: BackendProcess) -> None:
    """Whoever writes the events by hand may leave out what has a default."""
    life = LifeCycle("s-1")
    beat = life.beat()
    kept = [a for a in beat.attributes if a.key not in (semconv.LEASE, semconv.HEARTBEAT_INTERVAL)]
    del beat.attributes[:]
    beat.attributes.extend(kept)
    post(backend, "/v1/logs", logs([beat]))
    assert state(backend, "s-1") == "running"


def test_a_plain_trace_goes_idle_and_the_stream_tells_it(start_backend: Start) -> None:
    """A session without any life cycle event is never called ended: silence is told as silence."""
    backend = start_backend("--idle-after", "1s")
    connection = http.client.HTTPConnection(backend.http, timeout=30)
    connection.request("GET", "/api/v1/stream")
    stream = connection.getresponse()
    ahead = time.time_ns() + 60 * 10**9  # so its silence counts from its arrival, however late that is
    post(backend, "/v1/traces", traces([span("s-1", start=ahead, duration=1)]))
    seen: list[str] = []
    while "idle" not in seen:
        line = stream.readline()
        assert line, seen
        if line.startswith(b"data: ") and b'"state"' in line:
            seen.append(json.loads(line[6:])["state"])
    connection.close()
    assert seen[0] == "running"
    assert state(backend, "s-1") == "idle"


# --- what is refused ------------------------------------------------------------------------------------


def resident(pid: int) -> int:
    """Return the peak of resident memory of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("coding", ["gzip", "chunked gzip"])
def test_a_bomb_is_refused_with_flat_memory(backend: BackendProcess, coding: str) -> None:
    """Two gigabytes of zeros in two megabytes cost no more than one honest body may."""
    bomb = gzip.compress(bytes(32 << 20), 9) * 64
    before = resident(backend.pid)
    for media in ("application/x-protobuf", "application/json"):
        pieces = (bomb[i : i + 65536] for i in range(0, len(bomb), 65536))
        body: Any = pieces if "chunked" in coding else bomb
        headers = {"Content-Type": media, "Content-Encoding": "gzip"}
        assert backend.exchange("POST", "/v1/traces", body, headers)[0] == 413
    assert resident(backend.pid) - before < 2.5 * MAX_BODY_BYTES
    post(backend, "/v1/traces", traces([span("s-1")]))


def test_times_beyond_what_a_store_can_hold_do_not_stop_it(backend: BackendProcess) -> None:
    """A request of nonsense numbers harms nobody else, and is no reason to send it for ever."""
    message = ExportTraceServiceRequest.FromString(traces([span("s-1", "nonsense")]))
    odd = message.resource_spans[0].scope_spans[0].spans[0]
    odd.start_time_unix_nano, odd.end_time_unix_nano = 2**64 - 1, 2**64 - 1
    odd.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = 2**63 - 1
    status, _, _ = backend.exchange("POST", "/v1/traces", message.SerializeToString(), PROTOBUF)
    assert status in (200, 400)
    post(backend, "/v1/traces", traces([span("s-2", "sense")]))


def test_with_a_token_everything_but_the_probes_asks_for_it(start_backend: Start) -> None:
    """Telemetry, API, stream and page: the token, as header or by the cookie that ?token= sets."""
    backend = start_backend("--token", TOKEN)
    body = traces([span("s-1")])
    assert backend.exchange("POST", "/v1/traces", body, PROTOBUF)[0] == 401
    assert (
        backend.exchange("POST", "/v1/traces", body, {**PROTOBUF, "x-otel-sessions-token": "wrong-one"})[0]
        == 401
    )
    for headers in ({"Authorization": f"Bearer {TOKEN}"}, {"x-otel-sessions-token": TOKEN}):
        assert backend.exchange("POST", "/v1/traces", body, {**PROTOBUF, **headers})[0] == 200
    for path in ("/api/v1/sessions", "/api/v1/stream", "/sessions", "/metrics", "/static/x/y.js"):
        assert backend.exchange("GET", path)[0] == 401, path
    assert backend.exchange("GET", "/healthz")[0] == 200
    assert backend.exchange("GET", "/sessions?token=wrong")[0] == 401


def test_the_page_is_opened_once_with_the_token_and_then_by_its_cookie(start_backend: Start) -> None:
    """The token leaves the address bar at once; the cookie is not the token, and no script can read it."""
    backend = start_backend("--token", TOKEN)
    status, headers, _ = backend.exchange("GET", f"/sessions?q=a&token={TOKEN}&state=lost")
    assert (status, headers["Location"]) == (303, "/sessions?q=a&state=lost")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    pair = cookie.split(";")[0]
    assert backend.exchange("GET", "/sessions", headers={"Cookie": pair})[0] == 200
    assert backend.exchange("GET", "/api/v1/sessions", headers={"Cookie": pair})[0] == 200
    assert backend.exchange("GET", "/sessions", headers={"Cookie": pair[:-1] + "x"})[0] == 401
    status, headers, _ = backend.exchange("GET", f"//elsewhere.example/?token={TOKEN}")
    assert not headers.get("Location", "/").startswith("//")
