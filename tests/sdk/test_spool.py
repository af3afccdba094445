"""The spool: what was written is there after any death, is sent by one process, and is counted when it is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sessions.sdk._ownership import WATCHED, Claims
from otel_sessions.sdk._parcel import DamagedParcelError, Parcel, parcel_from_bytes, parcel_to_bytes
from otel_sessions.sdk._spool import Limits, Spool, boot_and_uptime

ADDRESS = "http://127.0.0.1:4318/v1/traces"

_WRITER = """
import sys, time
from otel_sessions.sdk._parcel import Parcel
from otel_sessions.sdk._spool import Limits, Spool
from pathlib import Path
root, locks, count = Path(sys.argv[1]), sys.argv[2] == "locks", int(sys.argv[3])
spool = Spool(root, "traces", "http://127.0.0.1:4318/v1/traces", Limits(), locks=locks)
for number in range(count):
    spool.put(Parcel(b"request %d of %d" % (number, __import__("os").getpid()), 2, {"s1": 2}, time.time_ns()))
print("written", flush=True)
time.sleep(600)
"""

_DRAINER = """
import json, sys, time
from otel_sessions.sdk._spool import Limits, Spool
from pathlib import Path
spool = Spool(Path(sys.argv[1]), "traces", "http://127.0.0.1:4318/v1/traces", Limits())
print("ready", flush=True)
sys.stdin.readline()
spool.take_over(time.monotonic())
found = []
while (first := spool.first()) is not None:
    found.append(first[1].body.decode())
    spool.remove(first[0])
spool.close()
print(json.dumps(found))
"""


def _parcel(body=b"request", **changes):
    given = {"items": 2, "sessions": {"s1": 2}, "at": time.time_ns(), **changes}
    return Parcel(body, **given)


def _spool(root, limits=None, **options):
    return Spool(root, "traces", ADDRESS, limits or Limits(), **options)


def _drain(spool, now=None):
    spool.take_over(time.monotonic() if now is None else now)
    found = []
    while (first := spool.first()) is not None:
        found.append(first[1].body)
        spool.remove(first[0])
    return found


@pytest.fixture
def dead_writer(tmp_path):
    """Start processes that write into a spool and are killed (-9)."""

    def run(count=3, locks=True):
        process = _started_writer(tmp_path, count, locks=locks)
        process.kill()
        process.wait()
        process.stdout.close()
        return tmp_path

    return run


def _started_writer(root, count, *, locks=True):
    command = [sys.executable, "-c", _WRITER, str(root), "locks" if locks else "no locks", str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    return process


# --- A parcel as a file --------------------------------------------------------------------------------


@given(
    st.binary(max_size=200),
    st.integers(0, 1000),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 10**6), max_size=3),
    st.integers(0, 2**63),
)
def test_a_parcel_is_read_as_it_was_written(body, items, sessions, at):
    """Bytes, counts by session in any script, and times come back."""
    parcel = Parcel(body, items, sessions, at, "boot", 1.5)
    assert parcel_from_bytes(parcel_to_bytes(parcel)) == parcel


@given(st.data())
def test_a_parcel_that_was_cut_off_or_changed_is_never_taken_for_one(data):
    """Any shorter file, and any changed byte, is told from a parcel."""
    content = parcel_to_bytes(_parcel(b"some request", at=1))
    if data.draw(st.booleans()):
        damaged = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        damaged = content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
    with pytest.raises(DamagedParcelError):
        parcel_from_bytes(damaged)


# --- One process ------------------------------------------------------------------------------------------


def test_what_was_written_leaves_in_order_and_leaves_nothing_behind(tmp_path):
    """Parcels come back oldest first; when all are acknowledged no folder of the process is left."""
    spool = _spool(tmp_path)
    for number in range(5):
        spool.put(_parcel(b"%d" % number))
    assert _drain(spool) == [b"0", b"1", b"2", b"3", b"4"]
    spool.close()
    assert [path.name for path in spool.folder.iterdir()] == ["address"]


def test_nobody_else_may_read_what_agents_said(tmp_path):
    """Folders have mode 0700 and files 0600, for they hold prompts."""
    spool = _spool(tmp_path / "spool")
    kept = spool.put(_parcel())
    assert {kept.path.stat().st_mode & 0o777} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (spool.folder, kept.path.parent)} == {0o700}
    spool.close()


def test_a_full_spool_loses_its_oldest_and_counts_it_by_session(tmp_path):
    """Beyond its bytes the oldest parcels go, and whose spans they were is known."""
    one = len(parcel_to_bytes(_parcel(b"x" * 1000)))
    spool = _spool(tmp_path, Limits(size=3 * one + 500))
    for number in range(5):
        spool.put(_parcel(b"x" * 999 + b"%d" % number, sessions={f"s{number}": 2}))
    assert [body[-1:] for body in _drain(spool)] == [b"2", b"3", b"4"]
    assert dict(spool.lost) == {("spool full", "s0"): 2, ("spool full", "s1"): 2}
    spool.close()


def test_what_is_new_leaves_before_what_others_left(dead_writer):
    """A backlog of hours holds up no live session, and goes first where there is no room."""
    root = dead_writer(count=2)
    spool = _spool(root)
    spool.take_over(time.monotonic())
    spool.put(_parcel(b"new"))
    assert _drain(spool)[0] == b"new"
    spool.close()


def test_what_is_too_old_is_lost_and_counted(tmp_path):
    """Age is told by a clock that nobody sets, where the parcel is of this boot."""
    boot, uptime = boot_and_uptime()
    if not boot:
        pytest.skip("this system doesn't tell its boots apart")
    spool = _spool(tmp_path, Limits(age=3600))
    spool.put(_parcel(b"old", boot=boot, uptime=uptime - 3601))
    spool.put(_parcel(b"wrong clock", at=1, boot=boot, uptime=uptime - 5))
    spool.put(_parcel(b"before the last boot", at=time.time_ns() - 3_602 * 10**9, boot="another"))
    assert _drain(spool) == [b"wrong clock"]
    assert dict(spool.lost) == {("too old", "s1"): 4}
    spool.close()


def test_a_damaged_file_is_set_aside_and_the_others_leave(tmp_path):
    """Bad bytes in the folder are counted, kept for a look with the reason, and hold nothing up."""
    spool = _spool(tmp_path)
    bad = spool.put(_parcel(b"bad"))
    spool.put(_parcel(b"good"))
    bad.path.write_bytes(bad.path.read_bytes()[:-1])
    assert _drain(spool) == [b"good"]
    assert dict(spool.lost) == {("damaged in the spool", "s1"): 2}
    assert "cut off" in next((spool.folder / "rejected").glob("*.why")).read_text()
    spool.close()


def test_what_somebody_removed_is_counted_and_the_spool_goes_on(tmp_path):
    """A file or the whole folder gone in the midst of it: the loss is counted, the next parcel is written."""
    spool = _spool(tmp_path)
    gone = spool.put(_parcel(b"gone"))
    gone.path.unlink()
    assert _drain(spool) == []
    assert dict(spool.lost) == {("gone from the spool", "s1"): 2}
    kept = spool.put(_parcel(b"next"))
    for path in kept.path.parent.iterdir():
        path.unlink()
    kept.path.parent.rmdir()
    with pytest.raises(OSError, match="No such file"):
        spool.put(_parcel(b"not written"))
    spool.put(_parcel(b"written"))
    assert _drain(spool) == [b"written"]
    assert spool.lost["gone from the spool", "s1"] == 4
    spool.close()


def test_a_disk_that_takes_no_more_leaves_no_half_file(tmp_path):
    """Where a write fails it raises OSError, and what was there before still leaves."""
    program = """
import resource, signal, sys, time
from pathlib import Path
from otel_sessions.sdk._parcel import Parcel
from otel_sessions.sdk._spool import Limits, Spool
spool = Spool(Path(sys.argv[1]), "traces", "http://a", Limits())
spool.put(Parcel(b"small", 1, {"s": 1}, time.time_ns()))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    spool.put(Parcel(b"x" * 20_000, 1, {"s": 1}, time.time_ns()))
except OSError as error:
    print(error.strerror)
print(spool.first()[1].body, sorted(path.name for path in spool._own.folder.iterdir()))
"""
    pytest.importorskip("resource")
    told = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == ["File too large", "b'small' ['000000000001', 'lock']"]


def test_what_goes_to_one_address_is_never_sent_to_another(tmp_path):
    """A later program with another endpoint finds nothing of the first one's."""
    first = _spool(tmp_path)
    first.put(_parcel(b"secret"))
    first.close()
    other = Spool(tmp_path, "traces", "http://elsewhere:4318/v1/traces", Limits())
    logs = Spool(tmp_path, "logs", ADDRESS, Limits())
    assert (_drain(other), _drain(logs)) == ([], [])
    assert _drain(_spool(tmp_path)) == [b"secret"]


# --- Many processes --------------------------------------------------------------------------------------


def test_what_a_killed_process_wrote_leaves_with_a_later_one(dead_writer):
    """Kill -9 after the write: the next process sends all of it, and the folder is clean."""
    spool = _spool(dead_writer(count=3))
    assert len(_drain(spool)) == 3
    spool.let_go_of_empty()
    spool.close()
    assert [path.name for path in spool.folder.iterdir()] == ["address"]


def test_a_living_process_keeps_what_it_wrote(tmp_path):
    """Nobody takes over the folder of a process that lives, stopped ones included."""
    writer = _started_writer(tmp_path, 2)
    try:
        os.kill(writer.pid, signal.SIGSTOP)
        spool = _spool(tmp_path)
        assert _drain(spool) == []
        assert spool.size > 0  # what others wait with counts for the limit
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        assert len(_drain(spool)) == 2
        spool.close()
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()


def test_of_many_who_come_at_once_each_parcel_leaves_with_one(dead_writer):
    """Eight processes drain what five dead ones left: everything once."""
    for _ in range(5):
        root = dead_writer(count=10)
    drainers = [
        subprocess.Popen(
            [sys.executable, "-c", _DRAINER, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for drainer in drainers:
        assert drainer.stdout.readline() == "ready\n"
    for drainer in drainers:
        drainer.stdin.write("go\n")
        drainer.stdin.flush()
    found = [body for drainer in drainers for body in json.loads(drainer.communicate()[0])]
    assert len(found) == len(set(found)) == 50


def test_what_was_taken_over_outlives_the_death_of_who_took_it(dead_writer):
    """A process that took over a folder and is killed before it sent leaves it to the next one."""
    root = dead_writer(count=3)
    program = _DRAINER.replace("found = []", "print('taken', flush=True); time.sleep(600)")
    taker = subprocess.Popen(
        [sys.executable, "-c", program, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert taker.stdout.readline() == "ready\n"
    taker.stdin.write("go\n")
    taker.stdin.flush()
    assert taker.stdout.readline() == "taken\n"
    later = _spool(root)
    assert _drain(later) == []
    taker.kill()
    taker.communicate()
    assert len(_drain(later)) == 3
    later.close()


def test_without_locks_a_folder_is_taken_after_it_was_watched_unchanged(dead_writer):
    """No clock but the watcher's own decides: a minute without a touch, however wrong file times are."""
    root = dead_writer(count=2, locks=False)
    (alive,) = root.glob("traces-*/*/alive")
    os.utime(alive, (0, 0))  # as another machine's clock, or a jump, may have it
    spool = _spool(root, locks=False)
    assert _drain(spool, now=1000.0) == []
    assert _drain(spool, now=1000.0 + WATCHED - 1) == []
    assert len(_drain(spool, now=1000.0 + WATCHED)) == 2
    spool.close()


def test_without_locks_a_folder_that_is_touched_is_never_taken(dead_writer):
    """Each touch begins the watch anew."""
    root = dead_writer(count=2, locks=False)
    (alive,) = root.glob("traces-*/*/alive")
    spool = _spool(root, locks=False)
    for number in range(5):
        os.utime(alive, (number, number))
        assert _drain(spool, now=1000.0 + number * (WATCHED + 1)) == []
    spool.close()


def test_a_forked_child_leaves_its_parents_parcels_alone(tmp_path):
    """After a fork the child writes into a folder of its own, and its death lets go of nothing of its parent's."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    program = """
import os, sys, time
from pathlib import Path
from otel_sessions.sdk._parcel import Parcel
from otel_sessions.sdk._spool import Limits, Spool
spool = Spool(Path(sys.argv[1]), "traces", "http://a", Limits())
spool.put(Parcel(b"parent", 1, {"s": 1}, time.time_ns()))
pid = os.fork()
if pid == 0:
    spool.after_fork_in_child()
    spool.put(Parcel(b"child", 1, {"s": 1}, time.time_ns()))
    os._exit(0)
os.waitpid(pid, 0)
stranger = Spool(Path(sys.argv[1]), "traces", "http://a", Limits())
stranger.take_over(time.monotonic())
print([stranger.first()[1].body, len(stranger), spool.first()[1].body, len(spool)])
"""
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "[b'child', 1, b'parent', 1]\n"


def test_a_file_that_can_not_be_read_just_now_is_kept(tmp_path):
    """The process has no file handle left: the parcel waits, and is there when there is one again."""
    resource = pytest.importorskip("resource")
    spool = _spool(tmp_path)
    spool.put(_parcel(b"a"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[0]), limits[1]))
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            spool.first()
    finally:
        for handle in opened:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert _drain(spool) == [b"a"]
    assert dict(spool.lost) == {}
    spool.close()


_FILES = Path("/proc/self/fd")


def _open_files():
    return len(list(_FILES.iterdir()))


def _many_dead(root, count):
    """Leave what as many short programs leave that found nobody listening."""
    (one,) = [folder for folder in root.glob("traces-*/*") if folder.is_dir()]
    for number in range(1, count):
        shutil.copytree(one, one.with_name(f"{one.name}{number:04d}"))


@pytest.mark.skipif(not _FILES.is_dir(), reason="counts open files")
def test_what_many_programs_left_takes_few_of_this_ones_files(dead_writer):
    """A few folders are held at once, and nevertheless all of it leaves, and the spool knows how much waits."""
    root = dead_writer(2)
    _many_dead(root, 60)
    before = _open_files()
    spool = _spool(root)
    spool.take_over(0.0)
    size, found, most = spool.size, 0, 0
    parcels = [path.stat().st_size for path in root.glob("traces-*/*/0*")]
    assert (len(parcels), size) == (120, sum(parcels))
    while (first := spool.first()) is not None:
        most = max(most, _open_files() - before)
        spool.remove(first[0])
        found += 1
        size -= first[0].size
        assert spool.size == size
    assert (found, size, most) == (120, 0, 16)
    assert _open_files() == before
    assert [path.name for path in root.rglob("*") if path.name == "lock"] == []


def test_in_a_full_spool_all_that_others_left_gives_way_first(dead_writer):
    """Even what is not held yet: what this program writes is worth more."""
    root = dead_writer(1)
    _many_dead(root, 40)
    size = sum(path.stat().st_size for path in root.glob("traces-*/*/0*"))
    spool = _spool(root, Limits(size=size))
    spool.take_over(0.0)
    for number in range(20):
        spool.put(_parcel(b"own %d" % number))
    assert spool.lost == {}
    assert spool.size <= size
    assert sum(spool.lost_of_others.values()) > 2 * 16
    assert [body for body in _drain(spool) if body.startswith(b"own")] == [b"own %d" % n for n in range(20)]


def test_what_is_not_held_yet_leaves_with_another_who_comes(dead_writer):
    """Whoever has enough to send leaves the rest to others, and neither sends what the other has."""
    root = dead_writer(1)
    _many_dead(root, 40)
    one, other = _spool(root), _spool(root)
    assert (one.take_over(0.0), other.take_over(0.0)) == (16, 16)
    assert (len(_drain(one)), len(_drain(other))) == (24, 16)


def test_half_a_file_of_a_killed_process_does_not_stay_for_ever(dead_writer):
    """What was being written at a kill -9 is no parcel: it goes with the folder."""
    root = dead_writer(count=1)
    (folder,) = root.glob("traces-*/[0-9]*")
    (folder / "000000000009.tmp").write_bytes(b"half")
    spool = _spool(root)
    spool.take_over(time.monotonic())
    assert len(_drain(spool)) == 1
    spool.let_go_of_empty()
    assert not folder.exists()
    spool.close()


def test_what_nobody_comes_for_any_more_is_removed_when_it_is_too_old(tmp_path):
    """An address that changed, a token that was replaced: what was left for it does not stay for ever."""
    others = [Spool(tmp_path, "traces", f"http://127.0.0.1:{port}/v1/traces", Limits()) for port in (1, 2)]
    for other in others:
        other.put(_parcel(b"old", at=1))
        other.put(_parcel(b"new"))
    others[0].close()
    spool = _spool(tmp_path)
    assert spool.sweep(time.monotonic()) == 2
    spool.close()
    others[1].close()
    left = [Spool(tmp_path, "traces", f"http://127.0.0.1:{port}/v1/traces", Limits()) for port in (1, 2)]
    for other in left:
        other.take_over(time.monotonic())
    assert [_drain(other) for other in left] == [[b"new"], [b"new"]]
    assert [sum(other.lost_of_others.values()) for other in left] == [0, 2]
    for other in left:
        other.close()


def test_looking_for_what_is_too_old_holds_nothing_that_is_young(dead_writer, monkeypatch):
    """Another program, or another signal's courier of the same one, looks at the same time and comes for it."""
    root = dead_writer(count=2)
    held = []
    monkeypatch.setattr(Claims, "claim", lambda _self, folder, _now: held.append(folder))
    other = Spool(root, "logs", ADDRESS, Limits())
    assert other.sweep(time.monotonic()) == 0
    assert held == []
