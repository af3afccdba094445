"""`otel-sessions spool`: what agents left is seen, sent to whom it was meant for, exported, cleared; by real agents."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from backend_process import BackendProcess, clean_environment
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from span_collector import collector as run_collector
from span_collector import spans_of

from otel_sessions.cli import _delivery, _spooled
from otel_sessions.cli._api import Api
from otel_sessions.cli._spooled import Entry, Recipient, claimed, find_recipients
from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._answer import Answer, Verdict
from otel_sessions.sdk._endpoint import resolve_endpoint
from otel_sessions.sdk._parcel import Parcel, parcel_from_bytes, parcel_to_bytes
from otel_sessions.sdk._spool import Limits, Spool, spool_folder

AGENT = """
import otel_sessions, sys
otel_sessions.init(service_name="agent")
for number in range(int(sys.argv[2])):
    with otel_sessions.session("work", id=f"{sys.argv[1]}-{number}"):
        with otel_sessions.tool("look"):
            pass
if len(sys.argv) > 3:
    import time
    time.sleep(0.5)
    print("ready", flush=True)
    sys.stdin.readline()
    otel_sessions.flush(20)
"""


class Spooled:
    """A spool with agents that use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.running: list[subprocess.Popen[str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of an agent: it sends to a port where nobody answers, one span a request."""
        return clean_environment(
            {
                "OTEL_SESSIONS_SPOOL": str(self.folder),
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
                "OTEL_LOGS_EXPORTER": "none",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",
                **more,
            }
        )

    def leave(self, name: str, sessions: int = 1, **more: str) -> None:
        """Let an agent run to its end; it leaves two spans for each session."""
        command = [sys.executable, "-c", AGENT, name, str(sessions)]
        subprocess.run(command, env=self.environment(**more), capture_output=True, check=True, timeout=60)

    def agent(self, name: str, sessions: int = 1) -> subprocess.Popen[str]:
        """Start an agent that goes on living after it wrote."""
        process = subprocess.Popen(
            [sys.executable, "-c", AGENT, name, str(sessions), "stay"],
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start the command."""
        process = subprocess.Popen(
            [sys.executable, "-m", "otel_sessions.cli.main", "spool", *arguments],
            env=self.environment() if env is None else env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def __call__(
        self, *arguments: str, code: int = 0, env: Mapping[str, str] | None = None
    ) -> tuple[str, str]:
        """Run the command to its end; return what it said on both streams."""
        process = self.start(*arguments, env=env)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        return out, err

    def parcels(self) -> list[Path]:
        return [path for path in self.folder.rglob("0*") if path.is_file() and path.parent.name != "rejected"]

    def listed(self) -> list[dict[str, object]]:
        return json.loads(self("list", "--json")[0])["recipients"]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooled]:
    """Return an empty spool; what was started with it is ended at last."""
    spooled = Spooled(tmp_path / "spool")
    yield spooled
    for process in spooled.running:
        if process.poll() is None:
            process.kill()
        process.communicate()


# --- list ------------------------------------------------------------------------------------------------


def test_a_list_tells_what_waits_for_whom_and_whose_it_is(spool: Spooled):
    """Two agents are gone and one lives: spans, sessions and programs are counted, nothing is changed."""
    spool.agent("c")
    spool.leave("a", 2)
    spool.leave("b")
    (seen,) = spool.listed()
    assert seen["address"] == f"{spool.url}/v1/traces"
    assert (seen["spans"], seen["sessions"], seen["parcels"]) == (8, 4, 8)
    assert seen["programs"] == {"alive": 1, "dead": 2, "unknown": 0}
    assert seen["bytes"] == sum(path.stat().st_size for path in spool.parcels())
    assert 0 < time.time_ns() - int(str(seen["oldest"])) < 120e9
    drawn = spool("list")[0]
    assert f"{spool.url}/v1/traces" in drawn
    assert "1 alive, 2 dead" in drawn
    assert len(spool.parcels()) == 8


def test_an_empty_spool_is_said_to_be_empty(spool: Spooled):
    """A folder that does not exist is no error: nothing was ever left."""
    assert spool("list")[0] == f"Nothing waits in {spool.folder}.\n"
    assert spool("send")[0] == "Nothing waits that a program left.\n"
    assert spool("clear", "--yes")[0] == "There is nothing to clear.\n"


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("list",), {"OTEL_SESSIONS_SPOOL": "off"}, "--folder"),
        (("list", "--folder", "/dev/null"), {}, "/dev/null can't be read (Not a directory)"),
        (("send", "--address", "http://elsewhere"), {}, "holds nothing for http://elsewhere"),
        (("export", "some.jsonl"), {}, "nothing waits"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_line(
    spool: Spooled, arguments: tuple[str, ...], env: Mapping[str, str], said: str
):
    """An error names what is wrong and what to do."""
    out, err = spool(*arguments, code=2, env=spool.environment(**env))
    assert out == ""
    assert err.startswith("otel-sessions: ")
    assert err.count("\n") == 1
    assert said in err


# --- send ------------------------------------------------------------------------------------------------


def test_what_dead_agents_left_is_delivered_and_a_living_ones_is_not(spool: Spooled):
    """Every span of the dead arrives once, the folders are gone, and the agent that lives sends its own."""
    living = spool.agent("c")
    living.send_signal(signal.SIGSTOP)  # else it would take over what the others leave, sooner or later
    spool.leave("a", 2)
    spool.leave("b")
    with run_collector(port=spool.port) as collector:
        out, err = spool("send")
        assert out == f"{spool.url}/v1/traces: 6 spans delivered\n"
        assert "2 requests are of programs that run" in err
        assert {span.session_id for span in collector.spans()} == {"a-0", "a-1", "b-0"}
        assert len(collector.spans()) == 6
        assert len(spool.parcels()) == 2
        living.send_signal(signal.SIGCONT)
        living.communicate("\n", timeout=60)
        assert len(collector.spans()) == 8
    assert spool.parcels() == []


def test_kill_in_the_midst_of_sending_loses_nothing(spool: Spooled):
    """What was not acknowledged is still there for the next one, and at most one request comes twice."""
    spool.leave("a", 5)
    with run_collector(port=spool.port) as collector:
        collector.delay = 0.2
        sender = spool.start("send")
        collector.wait_for(lambda it: len(it.traces) >= 3)
        sender.kill()
        sender.communicate()
        collector.delay = 0.0
        assert 0 < len(spool.parcels()) < 10
        spool("send")
        spans = [span.span_id for span in collector.spans()]
        assert len(set(spans)) == 10
        assert len(spans) <= 11
    assert spool.parcels() == []


def test_where_nobody_answers_all_stays_and_the_exit_code_tells(spool: Spooled):
    """One line says what is still there and why."""
    spool.leave("a")
    _, err = spool("send", code=1)
    assert "2 requests are still here" in err
    assert "Connection refused" in err
    assert len(spool.parcels()) == 2


def test_a_refusal_removes_nothing(spool: Spooled):
    """A receiver that refuses everything (a token is missing) is told after three; nothing is set aside or lost."""
    spool.leave("a", 5)
    with run_collector(port=spool.port) as collector:
        collector.status = 401
        _, err = spool("send", code=1)
    assert "10 requests are still here: HTTP 401" in err
    assert len(spool.parcels()) == 10


def test_what_a_receiver_refused_for_good_is_listed_with_its_reason_and_sent_once_more(spool: Spooled):
    """`--rejected` sends what an agent set aside, when the receiver has been corrected."""
    with run_collector(port=spool.port) as collector:
        collector.status = 400
        spool.leave("a")
        (seen,) = spool.listed()
        assert (seen["parcels"], seen["rejected"]["spans"]) == (0, 2)
        ((reason, number),) = seen["rejected"]["reasons"].items()
        assert ("HTTP 400" in reason, number) == (True, 2)
        assert "rejected: HTTP 400" in spool("list")[0]
        collector.status = 200
        assert spool("send")[0] == "Nothing waits that a program left.\n"
        spool("send", "--rejected")
        assert {span.session_id for span in collector.spans()} == {"a-0"}
    assert spool.listed() == []
    assert list(spool.folder.rglob("*.why")) == []


class Guarded:
    """A receiver that asks for a token, and notes who came with which."""

    def __init__(self) -> None:
        outer, self.tokens = self, list[str | None]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                outer.tokens.append(self.headers["authorization"])
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """Run a receiver that notes tokens."""
    receiver = Guarded()
    yield receiver
    receiver.close()


def test_headers_go_to_nobody_but_those_they_are_meant_for(spool: Spooled, guarded: Guarded):
    """What was left for another address leaves without them, or not at all where it was written with some."""
    ours = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=ours"}
    spool.leave("plain")
    spool.leave("secret", **ours)
    there = {"OTEL_EXPORTER_OTLP_ENDPOINT": guarded.url, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=theirs"}
    with run_collector(port=spool.port) as collector:
        _, err = spool("send", code=1, env=spool.environment(**there))
        assert "2 requests are still here: it was written with headers" in err
        assert {span.session_id for span in collector.spans()} == {"plain-0"}
        _, err = spool("send", code=1)
        assert "or give --renewed if only a token was changed" in err
        spool("send", env=spool.environment(**ours))
        assert {span.session_id for span in collector.spans()} == {"plain-0", "secret-0"}
    assert guarded.tokens == []


def test_a_renewed_token_sends_what_waits_under_the_old_one(spool: Spooled, guarded: Guarded):
    """Only where a person says so: other headers may be another project."""
    spool.port = guarded.server.server_port
    guarded.close()
    spool.leave("a", OTEL_EXPORTER_OTLP_HEADERS="authorization=old")
    with run_collector(port=spool.port) as collector:
        renewed = spool.environment(OTEL_EXPORTER_OTLP_HEADERS="authorization=new")
        spool("send", code=1, env=renewed)
        spool("send", "--renewed", env=renewed)
        assert len(collector.spans()) == 2


def test_what_a_wrong_token_set_aside_is_delivered_with_the_right_one(spool: Spooled):
    """As the agent's line on its log says: --rejected, and --renewed for a token that was changed."""
    with run_collector(port=spool.port) as collector:
        collector.status = 401
        spool.leave("a", OTEL_EXPORTER_OTLP_HEADERS="authorization=wrong")
        collector.status = 200
        right = spool.environment(OTEL_EXPORTER_OTLP_HEADERS="authorization=right")
        _, err = spool("send", "--rejected", code=1, env=right)
        assert "give --renewed" in err
        spool("send", "--rejected", "--renewed", env=right)
        assert {span.session_id for span in collector.spans()} == {"a-0"}
    assert spool.listed() == []


# --- export and clear ------------------------------------------------------------------------------------


def test_an_export_is_otlp_json_that_a_backend_takes(spool: Spooled, backend: BackendProcess, tmp_path: Path):
    """One line a request, for this user's eyes alone; what waits goes on waiting."""
    spool.leave("a", 2)
    path = tmp_path / "left.jsonl"
    assert spool("export", str(path))[0] == f"4 spans in {path}; they wait as before\n"
    assert path.stat().st_mode & 0o777 == 0o600
    for line in path.read_bytes().splitlines():
        status, _, _ = backend.exchange("POST", "/v1/traces", line, {"content-type": "application/json"})
        assert status == 200
    assert _sessions(backend) == {"a-0": 2, "a-1": 2}
    assert len(spool.parcels()) == 4
    _, err = spool("export", str(path), code=2)
    assert "exists: name another" in err


def test_an_export_can_be_replayed(spool: Spooled, backend: BackendProcess, tmp_path: Path):
    """A name without a suffix of JSON becomes a recording."""
    spool.leave("a", 2)
    spool("export", str(tmp_path / "left"))
    command = [sys.executable, "-m", "otel_sessions.cli.main", "replay", "--asap", "--endpoint", backend.url]
    subprocess.run(
        [*command, str(tmp_path / "left")],
        env=clean_environment(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert _sessions(backend) == {"a-0": 2, "a-1": 2}


def _sessions(backend: BackendProcess) -> dict[str, int]:
    deadline = time.monotonic() + 20
    while True:
        found = {it["session_id"]: it["spans"] for it in Api(backend.url).sessions()["sessions"]}
        if sum(found.values()) >= 4 or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


EVENTS = {"OTEL_LOGS_EXPORTER": "otlp"}
"""An agent's environment in which life cycle events wait, too."""


def _log_records(body: bytes) -> int:
    request = ExportLogsServiceRequest.FromString(body)
    return sum(len(scope.log_records) for of in request.resource_logs for scope in of.scope_logs)


def _waiting_events(spool: Spooled) -> int:
    bodies = [parcel_from_bytes(path.read_bytes()).body for path in spool.parcels() if "logs-" in str(path)]
    return sum(map(_log_records, bodies))


def test_life_cycle_events_are_exported_as_what_they_are(
    spool: Spooled, backend: BackendProcess, tmp_path: Path
):
    """Lines of both signals, each taken whole by a backend; spans and events are counted apart."""
    spool.leave("a", **EVENTS)
    events, path = _waiting_events(spool), tmp_path / "left.jsonl"
    assert events >= 2
    assert spool("export", str(path))[0] == f"2 spans, {events} events in {path}; they wait as before\n"
    taken: Counter[str] = Counter()
    for line in path.read_bytes().splitlines():
        signal_path = "/v1/logs" if "resourceLogs" in json.loads(line) else "/v1/traces"
        status, _, answer = backend.exchange("POST", signal_path, line, {"content-type": "application/json"})
        assert (status, json.loads(answer)) == (200, {})
        taken[signal_path] += 1
    assert set(taken) == {"/v1/traces", "/v1/logs"}
    (session,) = Api(backend.url).sessions()["sessions"]
    assert (session["session_id"], session["spans"], session["end_reason"]) == ("a-0", 2, "completed")


def test_exported_events_are_replayed_as_logs(spool: Spooled, backend: BackendProcess, tmp_path: Path):
    """Each request goes to its signal's path, so what was exported and cleared is lost to nobody."""
    spool.leave("a", **EVENTS)
    spool("export", str(tmp_path / "left"))
    spool("clear", "--yes")
    index = json.loads((tmp_path / "left" / "recording.json").read_text())
    assert {request["path"] for request in index["requests"]} == {"/v1/traces", "/v1/logs"}
    offsets = [request["received_at_offset_s"] for request in index["requests"]]
    assert offsets == sorted(offsets)
    command = [sys.executable, "-m", "otel_sessions.cli.main", "replay", "--asap", "--endpoint", backend.url]
    replayed = subprocess.run(
        [*command, str(tmp_path / "left")],
        env=clean_environment(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (replayed.returncode, replayed.stderr) == (0, b"")
    (session,) = Api(backend.url).sessions()["sessions"]
    assert (session["session_id"], session["end_reason"]) == ("a-0", "completed")


@pytest.mark.parametrize("name", ["left.jsonl", "left"])
@pytest.mark.parametrize("harm", [bytes.upper, lambda _: _parcel_of(b"\xff no request")])
def test_what_can_not_be_read_is_named_and_left_out_of_an_export(
    spool: Spooled, tmp_path: Path, name: str, harm: Callable[[bytes], bytes]
):
    """The others are exported, the bad one stays where it is, and the exit code tells."""
    spool.leave("a", 2)
    bad = spool.parcels()[0]
    bad.write_bytes(harm(bad.read_bytes()))
    out, err = spool("export", str(tmp_path / name), code=1)
    assert out.startswith("3 spans in ")
    assert str(bad) in err
    assert err.count("\n") == 1
    assert len(spool.parcels()) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "spool"]


def _parcel_of(body: bytes) -> bytes:
    return parcel_to_bytes(Parcel(body, 1, {"s": 1}, 1))


@pytest.mark.parametrize("name", ["left.jsonl", "left"])
def test_an_export_of_nothing_that_can_be_read_leaves_no_file(spool: Spooled, tmp_path: Path, name: str):
    """Neither an empty one, nor one that was begun."""
    spool.leave("a")
    for path in spool.parcels():
        path.write_bytes(b"damaged")
    out, err = spool("export", str(tmp_path / name), code=1)
    assert out == f"Nothing could be read, so {tmp_path / name} was not written.\n"
    assert err.count("\n") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]


def test_spans_and_events_are_counted_apart(spool: Spooled):
    """In a list, on their way, and before they are removed."""
    spool.leave("a", **EVENTS)
    events = _waiting_events(spool)
    seen = {str(it["address"]).rpartition("/")[2]: it for it in spool.listed()}
    assert (seen["traces"]["spans"], seen["traces"]["events"]) == (2, 0)
    assert (seen["logs"]["spans"], seen["logs"]["events"]) == (0, events)
    out, _ = spool("clear", "--rejected", "--yes")
    assert out == "There is nothing to clear.\n"
    with run_collector(port=spool.port) as collector:
        out, _ = spool("send")
        assert f"{spool.url}/v1/traces: 2 spans delivered\n" in out
        assert f"{spool.url}/v1/logs: {events} events delivered\n" in out
        assert sum(map(_log_records, collector.logs)) == events
    spool.leave("b", **EVENTS)
    events = _waiting_events(spool)
    out, _ = spool("clear", "--yes")
    assert out.startswith(f"2 spans, {events} events in ")
    assert f"  b-0: 2 spans, {events} events\n" in out
    assert out.endswith(f"2 spans, {events} events are removed.\n")


def test_clear_says_what_is_lost_and_leaves_a_living_agent_alone(spool: Spooled):
    """By session, before it removes anything; what a running program owns is no one else's."""
    living = spool.agent("c")
    living.send_signal(signal.SIGSTOP)
    spool.leave("a", 2)
    _, err = spool("clear", code=2)
    assert "give --yes" in err
    assert len(spool.parcels()) == 6
    out, _ = spool("clear", "--yes")
    assert "4 spans in 4 requests would be lost" in out
    assert "  a-0: 2 spans\n  a-1: 2 spans\n" in out
    assert "c-0" not in out
    assert len(spool.parcels()) == 2
    with run_collector(port=spool.port) as collector:
        living.send_signal(signal.SIGCONT)
        living.communicate("\n", timeout=60)
        assert {span.session_id for span in collector.spans()} == {"c-0"}
        assert len(collector.spans()) == 2


@pytest.mark.parametrize(("answer", "left", "code"), [(b"y\n", 0, 0), (b"\n", 2, 1)])
def test_clear_asks_a_person(spool: Spooled, answer: bytes, left: int, code: int):
    """Nothing is removed but for a yes."""
    spool.leave("a")
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "otel_sessions.cli.main", "spool", "clear"],
        env=spool.environment(),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.write(screen, answer)
    out, _ = process.communicate(timeout=60)
    os.close(terminal)
    os.close(screen)
    assert b"Remove them for good?" in out
    assert (process.returncode, len(spool.parcels())) == (code, left)


def test_what_was_set_aside_is_cleared_alone_where_asked(spool: Spooled):
    """`clear --rejected` leaves what still can be sent."""
    with run_collector(port=spool.port) as collector:
        collector.status = 400
        spool.leave("refused")
    spool.leave("waits")
    out, _ = spool("clear", "--rejected", "--yes")
    assert "refused-0" in out
    assert "waits-0" not in out
    assert list(spool.folder.rglob("rejected/*")) == []
    assert len(spool.parcels()) == 2


# --- What is decided -------------------------------------------------------------------------------------


class Answers:
    """A transport that answers as told, then takes everything."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.bodies = list(answers), list[bytes]()

    def send(self, body: bytes, timeout: float) -> Answer:
        self.bodies.append(body)
        return self.answers.pop(0) if self.answers else Answer(Verdict.ACCEPTED)

    def close(self) -> None:
        """Nothing is open."""


def _entries(folder: Path, bodies: list[bytes], items: int = 1) -> list[Entry]:
    found = []
    for number, body in enumerate(bodies):
        path = folder / f"{number:012}"
        path.write_bytes(body)
        found.append(Entry(path, len(body), Parcel(body, items, {"s": items}, 1)))
    return found


def _deliver(entries: list[Entry], transport: Answers, pauses: list[float] | None = None):
    sleep = (pauses if pauses is not None else list[float]()).append
    return _delivery.deliver(entries, transport, 10.0, lambda: None, sleep)


def test_a_receiver_that_asks_for_time_gets_it(tmp_path: Path):
    """Retry-After is kept to, up to ten seconds."""
    pauses: list[float] = []
    busy = Answer(Verdict.AGAIN, "HTTP 429", retry_after=3.0)
    done = _deliver(_entries(tmp_path, [b"a", b"b"]), Answers(busy, busy), pauses)
    assert (done.sent, done.complete, pauses) == (2, True, [3.0, 3.0])


def test_one_request_that_is_refused_holds_up_no_other(tmp_path: Path):
    """It stays, the others leave, and the exit code will tell."""
    refused = Answer(Verdict.REFUSED, "HTTP 400")
    done = _deliver(_entries(tmp_path, [b"bad", b"good", b"fine"]), Answers(refused))
    assert (done.sent, done.left, done.complete) == (2, 1, False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"bad"]


def test_what_a_receiver_drops_of_a_request_is_told(tmp_path: Path):
    """A partial success is no full one."""
    partial = Answer(Verdict.ACCEPTED, "no such tenant", rejected=2)
    done = _deliver(_entries(tmp_path, [b"a"], items=5), Answers(partial))
    assert (done.sent, done.rejected, done.complete, done.trouble) == (3, 2, False, "no such tenant")


def test_events_that_are_too_large_are_told_and_stay(tmp_path: Path):
    """Only spans can be cut."""
    (entry,) = _entries(tmp_path, [b"no request of spans"], items=4)
    transport = Answers(Answer(Verdict.REFUSED, "HTTP 413", too_large=True))
    done = _deliver([replace(entry, signal="logs")], transport)
    assert (done.sent, done.left, done.trouble) == (0, 1, "HTTP 413")
    assert entry.path.exists()


def test_what_is_too_large_is_cut(tmp_path: Path):
    """Its parts hold all of its spans."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(4):
        scope.spans.add(name=f"s{number}", trace_id=b"t" * 16, span_id=number.to_bytes(8, "big"))
    transport = Answers(Answer(Verdict.REFUSED, "HTTP 413", too_large=True))
    done = _deliver(_entries(tmp_path, [request.SerializeToString()], items=4), transport)
    assert (done.sent, done.complete) == (4, True)
    parts = [[span.name for span in spans_of(body)] for body in transport.bodies[1:]]
    assert parts == [["s0", "s1"], ["s2", "s3"]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "https://one.example:4317",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            "grpc",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://one.example"}, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://one.example/otlp"}, "http/protobuf"),
    ],
)
def test_an_address_without_secrets_is_reached_from_any_environment(
    tmp_path: Path, environ: dict[str, str], protocol: str
):
    """Its protocol is told by its path; the headers of this environment are for another."""
    meant = resolve_endpoint("traces", environ)
    recipient = Recipient(spool_folder(tmp_path, "traces", meant.recipient), "traces", meant.address)
    here = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://two.example",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "authorization=secret",
    }
    found = _delivery.endpoint_of(recipient, here)
    assert (found.url, found.protocol, found.headers) == (meant.url, protocol, ())
    with pytest.raises(ConfigurationError, match="written with headers"):
        _delivery.endpoint_of(Recipient(tmp_path / "traces-0", "traces", meant.address), here)


def test_without_locks_the_dead_are_told_by_a_minute_of_silence(tmp_path: Path):
    """A folder that is touched meanwhile is left alone."""
    left, lives = (Spool(tmp_path, "traces", "http://a/v1/traces", Limits(), locks=False) for _ in range(2))
    left.put(Parcel(b"left", 1, {"s": 1}, 1))
    alive = lives.put(Parcel(b"lives", 1, {"s": 1}, 1)).path.with_name("alive")
    now, told = [100.0], list[str]()

    def sleep(seconds: float) -> None:
        now[0] += seconds
        os.utime(alive, (5, 5))

    with claimed(find_recipients(tmp_path), told.append, lambda: now[0], sleep) as taken:
        ((owned,),) = taken.values()
        assert [entry.parcel.body for entry in _spooled.read_entries(owned.folder)] == [b"left"]
    assert len(told) == 1
