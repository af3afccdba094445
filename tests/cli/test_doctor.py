"""`otel-sessions doctor` against real servers: open and closed ports, wrong protocols, TLS, tokens, relays that lose."""

from __future__ import annotations

import http.client
import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from backend_process import BackendProcess, clean_environment
from log_receivers import Reply, http_receiver
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tls import make_certificates, server_side

DOCTOR = [sys.executable, "-m", "otel_sessions.cli.main", "doctor"]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Said:
    """What the doctor said, by check: verdicts, and the first that is not ok."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stderr == ""
        self.code = done.returncode
        self.document: dict[str, Any] = json.loads(done.stdout)
        self.findings: list[dict[str, Any]] = self.document["findings"]

    def __getitem__(self, check: str) -> dict[str, Any]:
        found = [finding for finding in self.findings if finding["check"] == check]
        return next((finding for finding in found if finding["verdict"] != "ok"), found[0])

    def problems(self) -> set[str]:
        return {finding["check"] for finding in self.findings if finding["verdict"] == "problem"}


@pytest.fixture
def doctor(tmp_path: Path) -> Callable[..., Said]:
    """Run the doctor with some environment and options."""

    def run(*options: str, **environ: str) -> Said:
        command = [*DOCTOR, "--json", *options]
        env = _environment(tmp_path, environ)
        return Said(subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False))

    return run


def _environment(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    spool = {"OTEL_SESSIONS_SPOOL": str(folder / "spool")}
    clean = clean_environment({**spool, **environ})
    return {name: value for name, value in clean.items() if name.lower() not in PROXIES or name in environ}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    """Run one backend for all tests here."""
    backend = BackendProcess(tmp_path_factory.mktemp("data")).start()
    yield backend
    backend.kill()


@contextmanager
def relay(backend: BackendProcess, change: Callable[[str, bytes], bytes | None]) -> Iterator[str]:
    """Run what lies in between: `change` makes another body of one for a path, None is taken and dropped."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = change(self.path, self.rfile.read(int(self.headers["content-length"])))
            if body is not None:
                connection = http.client.HTTPConnection(backend.http, timeout=30)
                connection.request("POST", self.path, body, {"Content-Type": "application/x-protobuf"})
                connection.getresponse().read()
                connection.close()
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_where_all_is_well_the_probe_comes_back_as_an_ended_session_that_a_filter_leaves_out(doctor, serving):
    """Exit code 0, and what is left behind is known and says what it is."""
    said = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=serving.url)
    assert (said.code, said.problems()) == (0, set()), said.findings
    for check in ("spans", "events", "backend", "arrival", "attributes", "liveness", "clock", "spool"):
        assert said[check]["verdict"] == "ok", said[check]
    probe = said.document["probe"]
    assert probe["arrived_after"] < 10
    session = json.loads(serving.exchange("GET", f"/api/v1/sessions/{probe['session_id']}")[2])
    assert (session["name"], session["state"], session["outcome"]) == ("doctor probe", "ended", "ok")
    assert not session["inferred"]
    assert session["missing_spans"] == 0
    assert probe["page"].endswith(session["id"])
    listed = json.loads(serving.exchange("GET", "/api/v1/sessions?q=-name:%22doctor+probe%22")[2])
    assert session["id"] not in [one["id"] for one in listed["sessions"]]


@pytest.mark.slow
def test_over_grpc_the_backend_is_the_one_that_is_named(doctor, serving):
    """A gRPC endpoint does not tell where the page is."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{serving.grpc}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    said = doctor("--backend", serving.url, **environ)
    assert (said.code, said["arrival"]["verdict"], said["protocol"]["verdict"]) == (0, "ok", "ok"), (
        said.findings
    )


@pytest.mark.slow
def test_the_endpoint_of_the_command_line_wins_over_the_environments(doctor, serving):
    """To try another place without changing anything."""
    said = doctor(
        "--endpoint", serving.url, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:9/v1/traces"
    )
    assert (said.code, said["arrival"]["verdict"]) == (0, "ok"), said.findings


@pytest.mark.slow
def test_nothing_is_sent_where_that_is_asked_for(doctor, serving):
    """The list of sessions stays as it is."""
    before = json.loads(serving.exchange("GET", "/api/v1/status")[2])["store"]["sessions"]
    said = doctor("--no-probe", OTEL_EXPORTER_OTLP_ENDPOINT=serving.url)
    assert said.document["probe"] is None
    assert "--no-probe" in said["spans"]["seen"]
    assert json.loads(serving.exchange("GET", "/api/v1/status")[2])["store"]["sessions"] == before


def test_a_closed_port_is_one_problem_with_the_command_that_opens_it(doctor):
    """What could not be looked at for that is unknown, not wrong."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")
    assert (said.code, said.problems()) == (1, {"connection"})
    assert said["connection"]["fix"] == f"otel-sessions serve --http 127.0.0.1:{port}"
    assert said["spans"]["verdict"] == "unknown"


@pytest.mark.slow
def test_the_protocol_of_the_other_port_is_seen_by_what_is_spoken(doctor, serving):
    """HTTP to gRPC, and gRPC to HTTP; the fix is the variable."""
    http_to_grpc = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{serving.grpc}")
    assert http_to_grpc["protocol"]["fix"] == "export OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
    grpc_to_http = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=serving.url, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert grpc_to_http["protocol"]["fix"] == "export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
    assert http_to_grpc.code == grpc_to_http.code == 1


@pytest.mark.slow
def test_an_endpoint_with_the_path_of_a_signal_is_mended_by_its_root(doctor, serving):
    """The path is appended to it once more, so nothing arrives; the backend is found nevertheless."""
    said = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=f"{serving.url}/v1/traces")
    assert said.problems() == {"effect", "spans", "events"}
    mended = f"export OTEL_EXPORTER_OTLP_ENDPOINT={serving.url}"
    assert (said["spans"]["fix"], said["events"]["fix"]) == (mended, mended)
    assert said["backend"]["seen"].startswith(f"{serving.url}, version ")
    assert "the probe was not taken" in said["arrival"]["seen"]


@pytest.mark.slow
def test_tls_to_a_port_that_speaks_none_and_none_to_one_that_wants_it(doctor, serving, tmp_path):
    """Each is told apart from a certificate that is not believed, which has another fix."""
    plain = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=f"https://{serving.http}")
    assert plain["tls"]["fix"] == f"export OTEL_EXPORTER_OTLP_ENDPOINT={serving.url}"
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = make_certificates(tmp_path)
    with http_receiver(tls=server_side(folder)) as receiver:
        clear = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{receiver.port}")
        assert clear["tls"]["fix"] == f"export OTEL_EXPORTER_OTLP_ENDPOINT=https://127.0.0.1:{receiver.port}"
        url = f"https://127.0.0.1:{receiver.port}"
        unknown = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=url)
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in unknown["tls"]["fix"], unknown.findings
        absent = doctor(
            OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_CERTIFICATE=str(folder / "none.pem")
        )
        assert absent.code == 1
        assert "none.pem" in absent["spans"]["seen"]
        assert absent["spans"]["fix"] == "unset OTEL_EXPORTER_OTLP_CERTIFICATE"
        known = str(folder / "authority.pem")
        believed = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_CERTIFICATE=known)
        assert (believed["tls"]["verdict"], believed["spans"]["verdict"]) == ("ok", "ok"), believed.findings


@pytest.mark.slow
def test_a_token_that_is_missing_is_asked_for_and_one_that_is_sent_reads_the_answer_too(
    doctor, start_backend
):
    """The endpoint's own header opens the API behind it; no other variable is needed."""
    backend = start_backend("--token", "token-one")
    without = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=backend.url)
    assert without["spans"]["fix"] == 'export OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20TOKEN"'
    assert without["backend"]["seen"] == f"{backend.url}: it asks for a token"
    wrong = doctor("--backend", backend.url, "--token", "token-two", OTEL_EXPORTER_OTLP_ENDPOINT=backend.url)
    assert wrong["backend"]["seen"] == f"{backend.url}: it does not know this token"
    reader = start_backend("--send-token", "send-only-token", "--token", "token-one")
    headers = "authorization=Bearer%20send-only-token"
    sends = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=reader.url, OTEL_EXPORTER_OTLP_HEADERS=headers)
    assert sends["spans"]["verdict"] == "ok"
    assert sends["backend"]["seen"] == f"{reader.url}: it lets this token send, but not read"
    reads = doctor(
        "--token", "token-one", OTEL_EXPORTER_OTLP_ENDPOINT=reader.url, OTEL_EXPORTER_OTLP_HEADERS=headers
    )
    assert (reads.code, reads["arrival"]["verdict"]) == (0, "ok"), reads.findings
    with_it = doctor(
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.url, OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20token-one"
    )
    assert (with_it.code, with_it["arrival"]["verdict"]) == (0, "ok"), with_it.findings
    assert "token-one" not in json.dumps(with_it.document)


@pytest.mark.slow
def test_a_proxy_variable_that_takes_the_telemetry_elsewhere_is_seen(doctor, serving):
    """HTTP_PROXY holds for this machine too, unless NO_PROXY names it."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": serving.url, "http_proxy": "http://ann:secret@127.0.0.1:9"}
    said = doctor(**environ)
    assert said.problems() == {"proxy", "connection"}
    assert "127.0.0.1" in said["proxy"]["fix"]
    assert "secret" not in json.dumps(said.document)
    assert doctor(**environ, no_proxy="127.0.0.1").code == 0


@pytest.mark.slow
def test_a_relay_that_takes_no_logs_is_a_pipeline_of_traces_alone(doctor, serving):
    """Told by its answer where it says so, and by the probe where it says nothing."""
    with http_receiver(refuse={"/v1/logs": Reply(404)}) as receiver:
        refused = doctor(
            "--backend",
            serving.url,
            "--wait",
            "0",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{receiver.port}",
        )
        assert refused["events"]["verdict"] == "warning"
        assert refused["arrival"]["verdict"] == "problem"  # this one keeps what it takes
    with relay(serving, lambda path, body: None if path == "/v1/logs" else body) as url:
        silent = doctor("--backend", serving.url, "--wait", "1", OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert silent.problems() == {"liveness"}
    assert "traces-only" in silent["liveness"]["seen"]


def test_a_relay_that_takes_the_session_id_off_is_found_by_the_probe(doctor, serving):
    """An `attributes` processor of a Collector does it, and every answer on the way is 200."""

    def without_id(path: str, body: bytes) -> bytes:
        if path != "/v1/traces":
            return body
        request = ExportTraceServiceRequest.FromString(body)
        for span in (s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans):
            kept = [pair for pair in span.attributes if pair.key != "session.id"]
            del span.attributes[:]
            span.attributes.extend(kept)
        return request.SerializeToString()

    with relay(serving, without_id) as url:
        said = doctor("--backend", serving.url, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert (said.code, said.problems()) == (1, {"attributes"}), said.findings
    assert "session.id is taken off" in said["attributes"]["seen"]
    assert "sent elsewhere and may come through" in said["backend"]["seen"]


@pytest.mark.slow
def test_what_waits_in_the_spool_is_told_and_the_probe_adds_nothing_to_it(doctor, tmp_path):
    """An agent left a span for a port where nobody listens; the doctor leaves none."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    agent = "import otel_sessions\notel_sessions.init()\nwith otel_sessions.session('left'):\n    pass\n"
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_LOGS_EXPORTER": "none"}
    command = [sys.executable, "-c", agent]
    subprocess.run(command, env=_environment(tmp_path, environ), capture_output=True, timeout=60, check=True)
    files = sorted(path for path in (tmp_path / "spool").rglob("*") if path.is_file())
    said = doctor(**environ)
    assert said["waiting"]["seen"].startswith(f"1 span waiting for {endpoint}/v1/traces, the oldest for "), (
        said.findings
    )
    assert said["waiting"]["fix"] == f"otel-sessions spool send --address {endpoint}/v1/traces"
    assert sorted(path for path in (tmp_path / "spool").rglob("*") if path.is_file()) == files


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_spool_that_can_not_be_written_is_a_problem(doctor, tmp_path, serving):
    """Before something has to wait there."""
    (tmp_path / "spool").mkdir(mode=0o500)
    said = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=serving.url)
    assert said["spool"]["verdict"] == "problem"


def test_a_spool_that_is_a_file_is_a_problem(doctor, tmp_path, serving):
    """Whatever keeps it from being written, one write shows it."""
    (tmp_path / "spool").write_text("not a folder")
    said = doctor("--no-probe", OTEL_EXPORTER_OTLP_ENDPOINT=serving.url)
    assert said["spool"]["verdict"] == "problem", said.findings


def test_into_a_pipe_it_writes_a_line_a_finding_and_a_line_a_fix(tmp_path):
    """For grep, for an issue; no colour, no progress, nothing on standard error."""
    environ = _environment(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    done = subprocess.run([*DOCTOR], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if " connection " in line)
    assert lines[at].startswith("✕ problem connection")
    assert lines[at + 1].strip() == "$ otel-sessions serve --http 127.0.0.1:9"
    assert lines[-1].startswith("1 problem")


def test_on_a_terminal_it_shows_what_it_looks_at_while_it_waits(tmp_path, serving):
    """A probe that does not come keeps a person waiting; they see for what."""
    with relay(serving, lambda _path, _body: None) as url:
        environ = _environment(tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "TERM": "xterm"})
        ours, theirs = pty.openpty()
        command = [*DOCTOR, "--backend", serving.url, "--wait", "0.5"]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # the other side is gone
            pass
        os.close(ours)
        assert process.wait(timeout=60) == 1
    assert "looking at the probe" in shown.decode()


@pytest.mark.parametrize("wait", ["-1", "nan", "1e9"])
def test_a_patience_without_sense_is_refused(wait, tmp_path):
    """One line says what to give."""
    command = [*DOCTOR, f"--wait={wait}"]
    done = subprocess.run(
        command, env=_environment(tmp_path, {}), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "give seconds" in done.stderr
