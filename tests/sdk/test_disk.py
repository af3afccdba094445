"""What a disk can do to an agent: it goes on, what can be kept is kept, what is lost is counted and shown."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from outcomes import Ended
from span_collector import collector as run_collector

from otel_sessions.sdk._spool import Limits, Spool, parcel_now

pytestmark = pytest.mark.slow

Run = Callable[..., Ended]

AGENT = """
import json, os, sys, time
import otel_sessions
otel_sessions.init(service_name="agent")
session = otel_sessions.start_session("work", id="s1")
def work(count):
    for _ in range(count):
        with otel_sessions.step("s", attributes={"text": "x" * 500}):
            pass
    end = time.monotonic() + 20
    from otel_sessions.sdk import _provider
    while _provider.current().worker._waiting + _provider.current().worker._in_hand:
        assert time.monotonic() < end
        time.sleep(0.01)
def turned_away():  # what is being sent is in memory: after the first try it is on disk alone
    end = time.monotonic() + 20
    while otel_sessions.stats().answering is None:
        assert time.monotonic() < end
        time.sleep(0.01)
def tell(what):
    print(what, flush=True)
    sys.stdin.readline()
def show():
    stats = otel_sessions.stats()
    print(json.dumps({"sent": stats.sent, "dropped": dict(stats.dropped), "faults": dict(stats.faults)}), flush=True)
"""


SMALL = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "50"}
"""Batches of which some have room on a small disk."""


@pytest.fixture
def nobody(silent_port: int, tmp_path: Path) -> Mapping[str, str]:
    """Return the environment of an agent whose collector is down, yet."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent_port}",
        "OTEL_SESSIONS_SPOOL": str(tmp_path / "spool"),
        "OTEL_LOGS_EXPORTER": "none",
    }


@pytest.fixture
def silent_port() -> int:
    """Return a port that somebody may listen on later."""
    with run_collector() as probe:
        return probe.port


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = sys.platform == "linux" and shutil.which("mount")
    if not mounted or _mount("-t", "tmpfs", "-o", "size=256k", "none", str(folder)):
        pytest.skip("only who may mount can make a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode


def _port(env: Mapping[str, str]) -> int:
    return int(env["OTEL_EXPORTER_OTLP_ENDPOINT"].rpartition(":")[2])


def _finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]), err


def _says(process: subprocess.Popen[str], line: str) -> None:
    said = process.stdout.readline()
    assert said == f"{line}\n", said + process.stderr.read()


def _deliver(
    process: subprocess.Popen[str], env: Mapping[str, str], spans: int
) -> tuple[dict[str, Any], str]:
    """Let the collector come, and the program end; each span has to be there once."""
    with run_collector(port=_port(env)) as collector:
        told, err = _finish(process)
        found = [span.span_id for span in collector.spans()]
        assert len(found) == len(set(found)) == spans
    return told, err


def test_a_disk_that_is_full_costs_no_span(start_program, nobody: Mapping[str, str], small_disk: Path):
    """What has no room waits in memory, one line says so, and all of it arrives, in this very program."""
    env = {**nobody, **SMALL, "OTEL_SESSIONS_SPOOL": str(small_disk / "spool")}
    process = start_program(
        AGENT + "work(1500); tell('full'); session.end(); otel_sessions.flush(30); show()", env
    )
    _says(process, "full")
    assert shutil.disk_usage(small_disk).free < 128 * 1024
    told, err = _deliver(process, env, 1501)
    assert told == {"sent": 1501, "dropped": {}, "faults": {}}
    assert err.count("can't be kept on disk") == 1, err


def test_what_a_full_disk_kept_out_is_told_as_lost_at_the_end(
    run_program: Run, nobody: Mapping[str, str], small_disk: Path
):
    """Nobody listens and the program ends: what was written is kept, the rest is counted, and the line adds up."""
    env = {**nobody, **SMALL, "OTEL_SESSIONS_SPOOL": str(small_disk / "spool")}
    ended = run_program(AGENT + "work(1500); otel_sessions.shutdown(1); show()", env)
    assert ended.code == 0
    told = json.loads(ended.out)
    (lost,) = told["dropped"].values()
    assert 0 < lost < 1501
    assert f"{1501 - lost} are kept in" in ended.err


def test_a_limit_on_the_size_of_files_costs_no_span(start_program, nobody: Mapping[str, str]):
    """A quota-like refusal of every larger write: no half file is left, and what waits arrives."""
    program = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
work(800); tell('limited'); session.end(); otel_sessions.flush(30); show()
"""
    process = start_program(AGENT + program, nobody)
    _says(process, "limited")
    told, err = _deliver(process, nobody, 801)
    assert told == {"sent": 801, "dropped": {}, "faults": {}}
    assert err.count("can't be kept on disk") == 1, err
    assert not list(Path(nobody["OTEL_SESSIONS_SPOOL"]).rglob("*.tmp"))


def test_a_disk_that_is_read_only_costs_no_span(start_program, nobody: Mapping[str, str], small_disk: Path):
    """Spans wait in memory, one line says so, and they arrive; what lies there of others is left alone."""
    (small_disk / "spool").mkdir()
    assert _mount("-o", "remount,ro", str(small_disk)) == 0
    env = {**nobody, "OTEL_SESSIONS_SPOOL": str(small_disk / "spool")}
    process = start_program(
        AGENT + "work(200); tell('not written'); session.end(); otel_sessions.flush(30); show()", env
    )
    _says(process, "not written")
    told, err = _deliver(process, env, 201)
    assert told == {"sent": 201, "dropped": {}, "faults": {}}
    assert err.count("can't be kept on disk") == 1, err


def test_a_folder_that_is_removed_in_the_run_costs_what_was_in_it(start_program, nobody: Mapping[str, str]):
    """That is counted and told; what ends later is kept in a new one, and arrives."""
    process = start_program(
        AGENT
        + "work(100); turned_away(); tell('written'); work(50); tell('again'); session.end(); otel_sessions.flush(30); show()",
        nobody,
    )
    _says(process, "written")
    shutil.rmtree(nobody["OTEL_SESSIONS_SPOOL"])
    process.stdin.write("\n")
    process.stdin.flush()
    _says(process, "again")
    told, _ = _deliver(process, nobody, 51)
    assert told == {"sent": 51, "dropped": {"gone from the spool": 100}, "faults": {}}


def test_files_that_are_removed_in_the_run_are_counted(start_program, nobody: Mapping[str, str]):
    """A cleaner of temporary files comes by: the folder stays, what was in it is gone."""
    process = start_program(
        AGENT + "work(100); turned_away(); tell('written'); session.end(); otel_sessions.flush(30); show()",
        nobody,
    )
    _says(process, "written")
    for path in Path(nobody["OTEL_SESSIONS_SPOOL"]).rglob("0*"):
        path.unlink()
    told, _ = _deliver(process, nobody, 1)
    assert told["dropped"] == {"gone from the spool": 100}


def test_files_of_whatever_kind_hold_nothing_up(run_program: Run, nobody: Mapping[str, str]):
    """Cut, changed, foreign, folders, links, pipes: what is whole arrives, the rest is set aside, one line tells."""
    address = f"{nobody['OTEL_EXPORTER_OTLP_ENDPOINT']}/v1/traces"
    first = run_program(AGENT + "work(3); session.end()", nobody)
    assert "4 are kept in" in first.err
    (folder,) = {path.parent for path in Path(nobody["OTEL_SESSIONS_SPOOL"]).rglob("0*") if path.is_file()}
    whole = max(path for path in folder.iterdir() if path.name.isdigit())
    content = whole.read_bytes()
    number = int(whole.name)

    def name() -> Path:
        nonlocal number
        number += 1
        return folder / f"{number:012d}"

    name().write_bytes(content[: len(content) // 2])
    name().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    name().write_bytes(b"")
    name().write_bytes(os.urandom(5000))
    name().mkdir()
    name().symlink_to("/nowhere")
    name().symlink_to("/etc/passwd")
    with (large := name()).open("wb") as file:
        file.truncate(2**40)  # with holes: it takes no room
    os.mkfifo(name())
    (folder / "notes.txt").write_text("somebody's")
    (folder / "000000000099.tmp").write_bytes(content[:10])
    (folder.parent / "a file").write_text("beside the folders")
    (folder.parent.parent / "another").mkdir()
    with run_collector(port=_port(nobody)) as collector:
        second = run_program(
            AGENT + "session.end(); otel_sessions.flush(10); time.sleep(1.5); show()", nobody
        )
        assert second.code == 0
        assert len(collector.spans()) == 5, second.err
    assert json.loads(second.out) == {"sent": 1, "dropped": {}, "faults": {}}
    (line,) = second.err.splitlines()
    assert "left for" in line
    assert address in line
    reasons = [path.read_text() for path in folder.parent.glob("rejected/*.why")]
    assert len(reasons) == 5, reasons
    assert large.exists()
    assert (folder / "notes.txt").exists()
    assert Path("/etc/passwd").exists()


def test_an_agent_whose_clock_jumps_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A year ahead and back between writing and sending: of the same boot, age is told by a clock that nobody sets."""
    real = time.time_ns
    for jump in (366 * 86_400 * 10**9, -366 * 86_400 * 10**9):
        with closing(Spool(tmp_path / str(jump), "traces", "x", Limits())) as spool:
            spool.put(parcel_now(b"", {"s1": 1}))
            monkeypatch.setattr(time, "time_ns", lambda jump=jump: real() + jump)
            assert spool.first() is not None
            spool.put(parcel_now(b"", {"s1": 1}))
            monkeypatch.setattr(time, "time_ns", real)
            assert len(spool) == 2
            assert spool.first() is not None
            assert not spool.lost


@pytest.mark.parametrize("end", ["exit", "SIGTERM"])
def test_a_program_with_a_dead_collector_ends_within_two_seconds(
    start_program, nobody: Mapping[str, str], end: str
):
    """With a full queue, by exit or by SIGTERM: nothing is lost, and nobody waits."""
    process = start_program(
        AGENT
        + """
for _ in range(3000):
    with otel_sessions.step("s"):
        pass
tell("ready")
""",
        nobody,
    )
    _says(process, "ready")
    began = time.monotonic()
    if end == "exit":
        process.communicate("\n", timeout=20)
    else:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert time.monotonic() - began < 2 + 1  # a second for a machine that is busy
    with run_collector(port=_port(nobody)) as collector:
        start_program(AGENT + "time.sleep(60)", nobody)
        collector.wait_for(lambda it: len(it.spans()) >= 3001)
        assert len({span.span_id for span in collector.spans()}) == 3001


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("end", ["exit", "SIGTERM"])
def test_without_a_spool_a_collector_that_hangs_holds_up_no_end(start_program, end: str, protocol: str):
    """It takes connections and never answers: the program ends in time, and says what is lost."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as hanging:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{hanging.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_SESSIONS_SPOOL": "off",
            "OTEL_LOGS_EXPORTER": "none",
        }
        process = start_program(AGENT + "work(1000); session.end(); tell('ready')", env)
        _says(process, "ready")
        began = time.monotonic()
        if end == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate("\n" if end == "exit" else None, timeout=20)
        assert time.monotonic() - began < 2 + 1  # a second for a machine that is busy
        assert "1001 of 1001 spans were not delivered" in err
