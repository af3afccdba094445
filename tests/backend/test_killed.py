"""kill -9 at any moment, under load over HTTP and gRPC: what was acknowledged is there, once, and adds up.

OTEL_SESSIONS_TEST_KILLS says how often (default 15). Its moments follow from OTEL_SESSIONS_TEST_SEED.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import secrets
import shutil
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from backend_process import BackendProcess, clean_environment
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp_requests import PROTOBUF, LifeCycle, key_values, logs, new_span_id, new_trace_id, span, traces
from store_recount import assert_counted_right

from otel_sessions import semconv
from otel_sessions.backend.store.base import SessionQuery
from otel_sessions.backend.store.sqlite import SqliteStore

KILLS = int(os.environ.get("OTEL_SESSIONS_TEST_KILLS", "15"))
SEED = int(os.environ.get("OTEL_SESSIONS_TEST_SEED", "0")) or secrets.randbits(32)
LIVES = 10
"""Lives of one folder; then its content is compared with one that was never killed."""
SESSIONS = 6
SENDERS = ("http", "http", "grpc")
PATHS = {"traces": "/v1/traces", "logs": "/v1/logs"}
METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
CLOCKS = {"revision", "last_seen_at", "last_alive_at", "now"}
"""What differs between two backends that were sent the same at different times."""

Start = Callable[..., BackendProcess]


@dataclass(frozen=True)
class Sent:
    """One request, which is sent again until it is acknowledged."""

    signal: str
    body: bytes


@dataclass
class World:
    """The sessions that all senders tell of, each with a trace that not every span tells the session of."""

    names: list[str]
    lives: dict[str, LifeCycle] = field(default_factory=dict[str, LifeCycle])
    spans: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self, numbers: random.Random) -> Sent:
        """Draw what is told next."""
        with self.lock:
            session = numbers.choice(self.names)
            run = self.lives.setdefault(session, LifeCycle(session))
            if numbers.random() < 0.2:
                return Sent("logs", logs(self._told(numbers, session, run)))
            return Sent("traces", traces([self._span(numbers) for _ in range(numbers.randrange(1, 20))]))

    def ends(self) -> list[Sent]:
        """End all runs."""
        return [Sent("logs", logs([run.end()])) for run in self.lives.values()]

    def _told(self, numbers: random.Random, session: str, run: LifeCycle) -> list[LogRecord]:
        note = LogRecord(
            time_unix_nano=time.time_ns(),
            attributes=key_values({semconv.SESSION_ID: session, "note": secrets.token_hex(8)}),
        )
        return numbers.choice([run.start(), [run.beat()], [note], [note, run.waiting("approval")]])

    def _span(self, numbers: random.Random) -> Span:
        session = numbers.choice(self.names)
        run = self.lives.setdefault(session, LifeCycle(session))
        known = self.spans.setdefault(session, [])
        known.append(new_span_id())
        call = numbers.random() < 0.3
        tells = numbers.random() < 0.8
        attributes: dict[str, Any] = {"text": "x" * numbers.randrange(1500)}
        if call:
            attributes |= {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": numbers.choice(["big", "small"]),
                "gen_ai.usage.input_tokens": numbers.randrange(900),
            }
        return span(
            session if tells else None,
            "chat big" if call else f"step {numbers.randrange(9)}",
            trace=run.trace if tells or numbers.random() < 0.98 else new_trace_id(),
            id=known[-1],
            parent=numbers.choice(known[:-1]) if known[:-1] else run.root,
            duration=numbers.randrange(1, 10**10),
            error=numbers.random() < 0.1,
            **attributes,
        )


class Sender:
    """One exporter: a request at a time, the same again until it is acknowledged, sometimes once more."""

    def __init__(self, way: str, seed: int, world: World) -> None:
        self.acknowledged: list[Sent] = []
        self.pending: Sent | None = None
        self._way = way
        self._numbers = random.Random(seed)  # noqa: S311 - what is sent
        self._world = world

    def send_on(self, backend: BackendProcess, stop: threading.Event) -> None:
        """Send until the backend does not answer any more, or for as long as nobody stops it."""
        with self._connection(backend) as export:
            while not stop.is_set():
                again = bool(self.acknowledged) and self._numbers.random() < 0.1
                sent = self.pending or (
                    self._numbers.choice(self.acknowledged) if again else self._world.request(self._numbers)
                )
                self.pending = sent
                try:
                    export(sent)
                except (OSError, http.client.HTTPException, grpc.RpcError):
                    return
                self.acknowledged.append(sent)
                self.pending = None

    @contextlib.contextmanager
    def _connection(self, backend: BackendProcess):
        if self._way == "http":
            connection = http.client.HTTPConnection(backend.http, timeout=30)
            with contextlib.closing(connection):
                yield lambda sent: _post(connection, sent)
            return
        with grpc.insecure_channel(backend.grpc) as channel:
            calls = {signal: channel.unary_unary(method) for signal, method in METHODS.items()}
            yield lambda sent: calls[sent.signal](sent.body, timeout=30)


def _post(connection: http.client.HTTPConnection, sent: Sent) -> None:
    connection.request("POST", PATHS[sent.signal], sent.body, PROTOBUF)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200


class Told:
    """What requests tell: spans and logs that are kept, and sessions whose end was told."""

    def __init__(self, requests: Sequence[Sent]) -> None:
        self.spans: set[tuple[bytes, bytes]] = set()
        self.notes: set[int] = set()
        self.ended: set[str] = set()
        for sent in requests:
            if sent.signal == "traces":
                self._take_spans(ExportTraceServiceRequest.FromString(sent.body))
            else:
                self._take_logs(ExportLogsServiceRequest.FromString(sent.body))

    def _take_spans(self, message: ExportTraceServiceRequest) -> None:
        for one in message.resource_spans[0].scope_spans[0].spans:
            self.spans.add((one.trace_id, one.span_id))

    def _take_logs(self, message: ExportLogsServiceRequest) -> None:
        for record in message.resource_logs[0].scope_logs[0].log_records:
            if not record.event_name:
                self.notes.add(record.time_unix_nano)
            elif record.event_name == semconv.EVENT_SESSION_START:
                self.spans.add((record.trace_id, record.span_id))  # the run's root, which is open
            elif record.event_name == semconv.EVENT_SESSION_END:
                self.ended |= {
                    pair.value.string_value for pair in record.attributes if pair.key == semconv.SESSION_ID
                }


def check_file(folder: Path, acknowledged: Told, sent: Told) -> dict[str, int]:
    """Check a copy of the file as the kill left it; return the spans of each session."""
    with contextlib.closing(sqlite3.connect(folder / "sessions.db")) as conn:
        stored = Counter(conn.execute("SELECT trace_id, span_id FROM spans"))
        notes = Counter(time for (time,) in conn.execute("SELECT time FROM logs"))
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert acknowledged.spans <= stored.keys() <= sent.spans
    assert acknowledged.notes <= notes.keys()
    assert {*stored.values(), *(notes[at] for at in sent.notes if at in notes)} <= {1}
    assert_counted_right(folder)
    store = SqliteStore(folder)
    try:
        for key in list(acknowledged.spans)[:5]:
            assert store.span(*key) is not None
        for session in acknowledged.ended:
            detail = store.session(session)
            assert detail is not None
            assert detail.session.state == "ended"
        records = store.sessions(SessionQuery(limit=1000)).sessions
    finally:
        store.close()
    return {record.id: record.spans for record in records}


def listed(backend: BackendProcess) -> list[dict[str, Any]]:
    """Return what the list shows of all sessions."""
    status, _, answer = backend.exchange("GET", "/api/v1/sessions?limit=500")
    assert status == 200, answer
    return json.loads(answer)["sessions"]


def shown(backend: BackendProcess) -> dict[str, dict[str, Any]]:
    """Return what the list and the rows show of all sessions, without the clocks of the listener."""
    seen: dict[str, dict[str, Any]] = {}
    for record in listed(backend):
        _, _, answer = backend.exchange("GET", f"/api/v1/sessions/{record['id']}/rows")
        rows = json.loads(answer)
        names, columns = rows["names"], rows["columns"]
        seen[record["id"]] = {name: value for name, value in record.items() if name not in CLOCKS}
        seen[record["id"]]["rows"] = sorted(
            (columns["id"][at], names[columns["name"][at]], columns["depth"][at], columns["duration"][at])
            for at in range(rows["total"])
        )
    return seen


def kill_while_it_starts(backend: BackendProcess, delay: float) -> None:
    """Start it and kill it, ready or not."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        process = subprocess.Popen(backend.command(), stdout=nowhere, stderr=nowhere, env=clean_environment())
    time.sleep(delay)  # the moment is the claim
    process.kill()
    process.wait()


def live_once(backend: BackendProcess, senders: Sequence[Sender], moment: float) -> None:
    """Send from all sides, and kill the backend some seconds after the first request went out."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(senders)) as threads:
        sending = [threads.submit(sender.send_on, backend, stop) for sender in senders]
        time.sleep(moment)
        backend.kill()
        stop.set()
        for one in sending:
            one.result()


def outlive(start_backend: Start, folder: Path, kills: int, numbers: random.Random) -> None:
    """Kill one folder's backends so often; then compare with one that was never killed."""
    world = World([f"{folder.name}-{no}" for no in range(SESSIONS)])
    senders = [Sender(way, numbers.getrandbits(32), world) for way in SENDERS]
    backend = BackendProcess(folder / "data")
    kill_while_it_starts(backend, numbers.random())
    before: dict[str, int] = {}
    for life in range(kills):
        backend.start()
        assert {record["id"]: record["spans"] for record in listed(backend)} == before
        live_once(backend, senders, 0.6 * numbers.random() ** 2)
        acknowledged = Told([sent for sender in senders for sent in sender.acknowledged])
        in_doubt = [sender.pending for sender in senders if sender.pending is not None]
        sent = Told([*(sent for sender in senders for sent in sender.acknowledged), *in_doubt])
        copy = folder / f"copy-{life}"
        shutil.copytree(backend.data, copy)
        before = check_file(copy, acknowledged, sent)
        shutil.rmtree(copy)
    assert acknowledged.spans
    ends = world.ends()
    sent_ever = [sent for sender in senders for sent in (*sender.acknowledged, sender.pending) if sent]
    unbroken = start_backend(data=folder / "unbroken")
    numbers.shuffle(sent_ever)
    backend.start()
    try:
        for one, requests in ((backend, in_doubt), (unbroken, sent_ever)):
            with contextlib.closing(http.client.HTTPConnection(one.http, timeout=30)) as connection:
                for request in (*requests, *ends):
                    _post(connection, request)
        assert shown(backend) == shown(unbroken)
    finally:
        backend.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whenever_a_backend_is_killed_nothing_acknowledged_is_lost_or_counted_twice(
    start_backend: Start, tmp_path: Path
) -> None:
    """After each kill the file holds each acknowledged span once, its sums are right, the list shows it."""
    print(f"OTEL_SESSIONS_TEST_SEED={SEED}")
    numbers = random.Random(SEED)  # noqa: S311 - moments of kills
    for first in range(0, KILLS, LIVES):
        folder = tmp_path / f"folder-{first}"
        folder.mkdir()
        outlive(start_backend, folder, min(LIVES, KILLS - first), numbers)
