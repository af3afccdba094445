"""Claims about whoever sends: behind a Collector a session is what it is when it is sent directly."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from agents import sessions
from backend_process import BackendProcess, clean_environment
from configs import FOLDER
from processes import Collector, until

pytestmark = pytest.mark.neighbours

SAMPLES = Path(__file__).parents[1] / "samples"
RECORDINGS = Path(
    os.environ.get("OTEL_SESSIONS_RECORDINGS", Path(__file__).parents[3] / "shared/data/otlp-recordings")
)
NODE_SCRIPT = Path(__file__).parents[1] / "backend" / "export_spans.mjs"

ARRIVAL = {"revision", "last_seen_at", "last_alive_at"}
"""Fields of S that tell when and in how many requests it arrived."""
TIMES = {"started_at", "ended_at", "last_ended_at", "duration"}
"""Fields that differ where an emitter runs twice."""

ARRIVAL_SECONDS = 60

MERGED = ("twice-1",)
"""Sessions of the samples with logs that are sent twice.

A Collector may put both times into one request, where equal logs are as many logs: nobody can tell then.
"""

Chain = Callable[[BackendProcess], Collector]


@pytest.fixture(params=["one Collector", "agent and two gateways"])
def chain(request: pytest.FixtureRequest, start_collector: Callable[..., Collector]) -> Chain:
    """Put one or three Collectors before a backend; return the one to send to."""

    def one(backend: BackendProcess) -> Collector:
        return start_collector(FOLDER / "local.yaml", {"BACKEND_URL": backend.url})

    def three(backend: BackendProcess) -> Collector:
        gateways = [
            start_collector(FOLDER / "scaled/gateway.yaml", {"BACKEND_URL": backend.url}) for _ in range(2)
        ]
        addresses = {f"GATEWAY_{number}": gateway.grpc for number, gateway in enumerate(gateways, 1)}
        return start_collector(FOLDER / "scaled/agent.yaml", addresses)

    return one if request.param == "one Collector" else three


def differences(direct: BackendProcess, behind: BackendProcess, but: Iterable[str]) -> list[str]:
    """Compare what the API says of each session, field by field."""
    ours, theirs = ({one["id"]: one for one in sessions(backend)} for backend in (direct, behind))
    assert ours
    found = [f"only one knows {ours.get(one) or theirs[one]}" for one in ours.keys() ^ theirs.keys()]
    return found + [
        f"{ours[one]['session_id']}: {name} is {value} directly, {theirs[one][name]} behind a Collector"
        for one in ours.keys() & theirs.keys()
        for name, value in ours[one].items()
        if theirs[one][name] != value and name not in but
    ]


def assert_same(direct: BackendProcess, behind: BackendProcess, but: Iterable[str]) -> None:
    """Wait until both tell the same, but for some fields; else show where they differ."""
    end = time.monotonic() + ARRIVAL_SECONDS
    while (found := differences(direct, behind, but)) and time.monotonic() < end:
        time.sleep(0.1)
    assert found == []


def records(backend: BackendProcess, session: str) -> Counter[str]:
    """Return every span and log of a session as it is stored, with its resource and scope, in no order."""
    status, _, body = backend.exchange("GET", f"/api/v1/sessions/{session}/otlp")
    assert status == 200, body
    document = json.loads(body)
    whole = (
        [group.get("resource"), group.get("schemaUrl"), scope.get("scope"), scope.get("schemaUrl"), one]
        for kind, scopes, ones in (("Spans", "scopeSpans", "spans"), ("Logs", "scopeLogs", "logRecords"))
        for group in document.get(f"resource{kind}", ())
        for scope in group[scopes]
        for one in scope[ones]
    )
    # The Collector writes an empty body where there was none, which says the same.
    return Counter(json.dumps(one, sort_keys=True).replace('"body": {}, ', "") for one in whole)


def wait_for_records(backend: BackendProcess, session: str, expected: Counter[str]) -> None:
    """Wait until a session has exactly these records; else show which are missing, and which are too many."""
    end = time.monotonic() + ARRIVAL_SECONDS
    while (found := records(backend, session)) != expected and time.monotonic() < end:
        time.sleep(0.1)
    assert (list(expected - found), list(found - expected)) == ([], [])


def replay(folder: Path, address: str) -> None:
    """Send the requests of a recording as they were recorded."""
    host = http.client.HTTPConnection(address, timeout=30)
    for request in json.loads((folder / "recording.json").read_text())["requests"]:
        name = request["path"].lower()
        signal = next(one for one in ("trace", "log", "metric") if one in name)
        media = "application/json" if request["file"].endswith(".json") else "application/x-protobuf"
        body = (folder / request["file"]).read_bytes()
        host.request("POST", f"/v1/{signal.rstrip('s')}s", body, {"Content-Type": media})
        answer = host.getresponse()
        assert answer.status == 200, (folder.name, request["file"], answer.read())
        answer.read()
    host.close()


@pytest.mark.parametrize("source", [SAMPLES, RECORDINGS], ids=["samples", "recordings"])
def test_recorded_emitters_arrive_behind_a_collector_as_directly(start_backend, chain, source):
    """Every field of every session, for every emitter that was recorded."""
    folders = sorted(index.parent for index in source.glob("*/recording.json"))
    if not folders:
        pytest.skip("no recordings: OTEL_SESSIONS_RECORDINGS names their folder")
    direct, behind = start_backend(), start_backend()
    collector = chain(behind)
    for folder in folders:
        replay(folder, direct.http)
        replay(folder, collector.http)
    assert_same(direct, behind, ARRIVAL)
    for session in sessions(direct):
        if session["session_id"] not in MERGED:
            wait_for_records(behind, session["id"], records(direct, session["id"]))


def test_telemetrygen_arrives_behind_a_collector_as_directly(start_backend, chain, telemetrygen):
    """The OpenTelemetry project's own generator, by gRPC, with an id on every span."""
    direct, behind = start_backend(), start_backend()
    for address in (direct.grpc, chain(behind).grpc):
        command = [
            telemetrygen,
            "traces",
            "--otlp-insecure",
            "--otlp-endpoint",
            address,
            "--traces",
            "20",
            "--rate",
            "0",
        ]
        command += ["--child-spans", "4", "--telemetry-attributes", 'session.id="generated"']
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    until(lambda: [one["spans"] for one in sessions(direct)] == [100], "all is stored")
    assert_same(direct, behind, ARRIVAL | TIMES)


def test_a_program_of_node_arrives_behind_a_collector_as_directly(start_backend, chain, node_folder):
    """JSON, protobuf and gRPC by the official exporters of Node, compressed or not."""
    direct, behind = start_backend(), start_backend()
    for target in (direct, chain(behind)):
        for kind, compression in (("json", "gzip"), ("proto", "none"), ("grpc", "gzip")):
            url = f"http://{target.grpc}" if kind == "grpc" else f"{target.url}/v1/traces"
            command = [shutil.which("node") or "node", NODE_SCRIPT, kind, url, compression]
            subprocess.run(
                command, cwd=node_folder, env=clean_environment(), check=True, capture_output=True, timeout=60
            )
    until(lambda: [one["spans"] for one in sessions(direct)] == [3], "all is stored")
    assert_same(direct, behind, ARRIVAL | TIMES)
