"""What is SQLite's own: files that are damaged, new, foreign, locked, full or cut off by a kill."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from otel_sessions.backend.filter_text import parse
from otel_sessions.backend.records import Encoding, LogRecord, Request, SessionHint, Signal, SpanRecord
from otel_sessions.backend.resolve import global_key, session_id
from otel_sessions.backend.store import _sessions
from otel_sessions.backend.store._list import list_sessions
from otel_sessions.backend.store._schema import SCHEMA_VERSION
from otel_sessions.backend.store._search import search
from otel_sessions.backend.store.base import SearchQuery, SessionQuery
from otel_sessions.backend.store.sqlite import SqliteStore
from otel_sessions.errors import BackendError, CorruptStoreError, DataFolderError, NewerSchemaError

S1 = session_id(global_key("s-1"))


def request(
    first: int, count: int = 1, *, session: str | None = None, size: int = 10, at: int = 1
) -> Request:
    """Make a request of spans with numbers from `first`; without a session each has one of its own."""
    spans = tuple(
        SpanRecord(
            trace_id=no.to_bytes(16, "big"), span_id=no.to_bytes(8, "big"), parent_id=b"", name="step", kind=1,
            start=no, end=no + 1, status=0, category="step", ordinal=no - first, size=size,
            hint=SessionHint(session or f"n-{no}"),
        )
        for no in range(first, first + count)
    )  # fmt: skip
    return Request(Signal.TRACES, Encoding.PROTOBUF, b"\n\x00" * size, at, spans)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Open an empty store."""
    store = SqliteStore(tmp_path)
    yield store
    store.close()


# --- files that can't be used -------------------------------------------------------------------------


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    """The error names the file and both versions."""
    SqliteStore(tmp_path).close()
    file = tmp_path / "sessions.db"
    with sqlite3.connect(file) as conn:
        conn.execute("PRAGMA user_version = 99")
    conn.close()
    before = file.read_bytes()
    with pytest.raises(
        NewerSchemaError, match=rf"sessions\.db has schema version 99.* up to {SCHEMA_VERSION}\b"
    ):
        SqliteStore(tmp_path)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"no database at all, but long enough to be one" * 40, b"SQLite format 3\x00" + b"\xff" * 5000],
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is never overwritten; the error says to move it away."""
    file = tmp_path / "sessions.db"
    file.write_bytes(content)
    with pytest.raises(CorruptStoreError, match="Move it"):
        SqliteStore(tmp_path)
    assert file.read_bytes() == content
    file.unlink()
    SqliteStore(tmp_path).close()  # and the folder is free again


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """Nothing is created in it."""
    with sqlite3.connect(tmp_path / "sessions.db") as conn:
        conn.execute("CREATE TABLE notes (text)")
    conn.close()
    with pytest.raises(CorruptStoreError, match="no database of otel-sessions"):
        SqliteStore(tmp_path)
    with sqlite3.connect(tmp_path / "sessions.db") as conn:
        assert conn.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]
    conn.close()


def test_damage_inside_the_file_is_named(tmp_path: Path) -> None:
    """Whichever call meets it says that the file is damaged, and what to do."""
    store = SqliteStore(tmp_path)
    store.append([request(1, 2000)])
    store.close()
    file = tmp_path / "sessions.db"
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(CorruptStoreError, match="backup"):  # noqa: PT012 - opening may pass
        store = SqliteStore(tmp_path)
        try:
            store.sessions(SessionQuery())
        finally:
            store.close()


# --- the folder -----------------------------------------------------------------------------------------


def test_a_folder_is_used_by_one_backend_at_a_time(tmp_path: Path, store: SqliteStore) -> None:
    """The error names the process; once that let go, the folder is free."""
    with pytest.raises(DataFolderError, match=rf"in use by another backend .process {os.getpid()}"):
        SqliteStore(tmp_path)
    store.close()
    SqliteStore(tmp_path).close()


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    """Nothing needs to be cleaned up after kill -9."""
    with _writer(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(DataFolderError, match=str(process.pid)):
            SqliteStore(tmp_path)
    SqliteStore(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match=r"file.* can't be written"):
        SqliteStore(tmp_path / "file")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    """As whoever may not write there."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(DataFolderError, match=r"Permission denied.*--data"):
            SqliteStore(folder)
    finally:
        os.seteuid(user)


# --- commits that fail --------------------------------------------------------------------------------


def test_a_full_disk_fails_a_commit_and_leaves_nothing_of_it(store: SqliteStore) -> None:
    """All or nothing; when there is space again the same batch is stored."""
    store.append([request(1, session="s-1")])
    before = (store.columns(S1), store.sessions(SessionQuery()), store.totals().spans)
    (pages,) = store._conn.execute("PRAGMA page_count").fetchone()
    store._conn.execute(f"PRAGMA max_page_count = {pages + 3}")
    batch = [request(2, 500, session="s-1"), request(600, 500)]
    with pytest.raises(BackendError, match="full"):
        store.append(batch)
    assert (store.columns(S1), store.sessions(SessionQuery()), store.totals().spans) == before
    store._conn.execute("PRAGMA max_page_count = 1000000")
    store.append(batch)
    assert (len(store.columns(S1).span_id), store.totals().spans) == (501, 1001)
    assert store.totals().sessions == 501


def test_what_a_failed_commit_learned_is_forgotten(store: SqliteStore) -> None:
    """Words, sessions and homes that were rolled back are made again by the next commit."""
    (pages,) = store._conn.execute("PRAGMA page_count").fetchone()
    store._conn.execute(f"PRAGMA max_page_count = {pages}")
    loose = LogRecord(b"t" * 16, b"", 1, "note", 9, 0, b"digest", service="planner")
    batch = [request(1, 300), Request(Signal.LOGS, Encoding.PROTOBUF, b"", 2, (), (loose,))]
    with pytest.raises(BackendError):
        store.append(batch)
    store._conn.execute("PRAGMA max_page_count = 1000000")
    store.append(batch)
    assert store.totals().sessions == 301
    found = [store.columns(session_id(global_key(f"n-{no}"))) for no in range(1, 301)]
    assert {columns.words[name] for columns in found for name in columns.name} == {"step"}


_WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_sqlite_store import request
from otel_sessions.backend.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
for batch in range(100_000):
    store.append([request(batch * 50 + 1, 25, session="s-1"), request(batch * 50 + 26, 25, session="s-1")])
    print(batch + 1, flush=True)
"""


class _writer:  # noqa: N801 - read as a verb
    """A process that appends 50 spans a commit and prints how many commits returned; killed in the end."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WRITE, str(folder), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.parametrize("commits", [1, 7, 20])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, commits: int) -> None:
    """Every commit that returned is there whole, the one that was cut off is there whole or not at all."""
    with _writer(tmp_path) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < commits:
            pass
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
    acknowledged = int(rest[-1]) if rest else commits
    store = SqliteStore(tmp_path)
    rows = store.columns(S1).span_id
    (record,) = store.sessions(SessionQuery()).sessions
    totals = store.totals()
    store.close()
    assert len(rows) % 50 == 0
    assert len(rows) >= acknowledged * 50
    assert record.spans == totals.spans == len(rows)
    assert totals.chunks == len(rows) // 25


@pytest.mark.parametrize("remembered", [1, 2_000])
def test_roll_ups_go_on_exactly_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    """What the writer had only in memory is counted from the rows, whether or not it was let go before."""
    monkeypatch.setattr(_sessions, "_REMEMBERED", remembered)
    before = [_calls(1, 30, "s-1"), _calls(31, 20, "s-2"), _calls(51, 30, "s-1")]
    after = [_calls(81, 5, "s-1"), _calls(25, 10, "s-2"), _calls(86, 5, "s-2")]  # six of s-1 move
    whole, killed = SqliteStore(tmp_path / "whole"), SqliteStore(tmp_path / "killed")
    for one in before:
        whole.append([one])
        killed.append([one])
    shutil.copytree(tmp_path / "killed", tmp_path / "left")  # with its journal, as a kill leaves it
    left = SqliteStore(tmp_path / "left")
    for one in after:
        whole.append([one])
        left.append([one])
    told = [store.sessions(SessionQuery()).sessions for store in (whole, left)]
    for store in (whole, killed, left):
        store.close()
    assert told[0] == told[1]
    assert {(one.session_id, one.model_calls, one.input_tokens) for one in told[1]} == {
        ("s-1", 59, sum((*range(1, 25), *range(51, 86)))),
        ("s-2", 31, sum((*range(25, 51), *range(86, 91)))),
    }


def _calls(first: int, count: int, session: str) -> Request:
    made = request(first, count, session=session)
    spans = (
        one._replace(category="model", model=f"m-{no % 3}", agent=f"a-{no % 4}", input_tokens=no)
        for no, one in enumerate(made.spans, first)
    )
    return replace(made, spans=tuple(spans))


# --- what a list costs ------------------------------------------------------------------------------------


QUERIES = [
    SessionQuery(),
    SessionQuery(idle_before=2**62),
    SessionQuery(states=("idle",), idle_before=2**62),
    SessionQuery(states=("running",), idle_before=2**62),
    SessionQuery(states=("running", "waiting", "stale", "lost", "ended"), idle_before=2**62),
    SessionQuery(sort="started_at"),
    SessionQuery(since=100, until=250),
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_page_of_the_list_costs_the_same_at_any_size(store: SqliteStore, query: SessionQuery) -> None:
    """In steps of SQLite's machine, which no load of this machine changes."""
    few = _steps(store, 300, lambda: store.sessions(query))
    many = _steps(store, 6_000, lambda: store.sessions(query))
    assert many <= few * 1.2 + 20


@pytest.mark.slow
def test_a_page_of_the_list_costs_the_same_from_a_thousand_to_a_hundred_thousand(store: SqliteStore) -> None:
    """The list of the newest fifty, of each kind, is as flat as an index is."""

    def steps() -> list[int]:
        return [_steps(store, 1, lambda query=query: store.sessions(query)) for query in QUERIES]

    store.append([request(1, 1_000)])
    few = steps()
    store.append([request(1, 100_000)])
    many = steps()
    assert store.totals().sessions == 100_000
    assert all(after <= before * 1.2 + 20 for before, after in zip(few, many, strict=True)), (few, many)


@pytest.mark.parametrize(
    "text", ["user:nobody", "-state:lost nowhere", "tokens>1", "since:1d until:2d tool:x", "state:lost"]
)
def test_a_filter_that_fits_nothing_costs_a_page_no_more_than_a_stretch(
    store: SqliteStore, text: str
) -> None:
    """Where its time is over, the answer is how far it came; the cost is that of what was looked at."""
    query = SessionQuery(filter=parse(text).at(10**12), idle_before=2**62)

    def read() -> None:
        clock = iter([0.0, 9.0])
        with store._readers.snapshot() as conn:
            list_sessions(conn, query, lambda: next(clock))

    few = _steps(store, 1_000, read)
    many = _steps(store, 6_000, read)
    assert many <= few * 1.2 + 20


def test_counters_cost_the_same_at_any_size(store: SqliteStore) -> None:
    """Nothing is counted by reading it."""
    few = _steps(store, 300, lambda: store.totals(idle_before=2**62))
    many = _steps(store, 6_000, lambda: store.totals(idle_before=2**62))
    assert many <= few + 20


def _steps(store: SqliteStore, sessions: int, read: Callable[[], object]) -> int:
    """Return how many steps of ten instructions a read takes with that many sessions."""
    store.append([request(1, sessions)])
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with store._readers.snapshot() as conn:
        conn.set_progress_handler(count, 10)
    read()
    with store._readers.snapshot() as conn:
        conn.set_progress_handler(None, 0)
    assert steps > 0
    return steps


def test_a_page_of_a_search_is_bounded_in_time(store: SqliteStore) -> None:
    """When the time is over the page ends with a cursor, and the next goes on where it ended."""
    for no in range(1, 6):
        store.append([request(no)])
    ticks = iter(range(100))
    cursor: str | None = None
    pages = 0
    with store._readers.snapshot() as conn:
        while pages == 0 or cursor is not None:
            query = SearchQuery(("absent",), before=cursor)
            page = search(conn, query, now=lambda: float(next(ticks)), stopped=lambda: False)
            cursor = page.next
            pages += 1
            assert (page.hits, page.chunks, page.share) == ((), 1, pages / 5)
    assert pages == 5


def test_a_search_that_is_told_to_stop_ends_at_the_next_chunk(store: SqliteStore) -> None:
    """Nobody reads on for a reader who went away."""
    for no in range(1, 6):
        store.append([request(no)])
    asked = iter([False, True])
    page = store.search(SearchQuery(("absent",)), stopped=lambda: next(asked))
    assert page.chunks == 2
    assert page.next is not None


def test_a_search_gives_way_to_a_commit(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each chunk while one is under way, and only then: who sends telemetry waits for nobody who reads."""
    for no in range(1, 6):
        store.append([request(no)])
    pauses: list[float] = []
    monkeypatch.setattr("otel_sessions.backend.store.sqlite.time.sleep", pauses.append)
    store.search(SearchQuery(("absent",)))
    assert pauses == []
    with store._writing:
        page = store.search(SearchQuery(("absent",)))
    assert page.share == 1.0
    assert len(pauses) == 5


def test_a_filter_spares_a_search_what_cannot_concern_it(store: SqliteStore) -> None:
    """Bodies that hold nothing of the sessions that are left are not even inflated."""
    for no in range(1, 6):
        store.append([request(no)])
    page = store.search(SearchQuery(("absent",), filter=parse("id:nobody")))
    assert (page.chunks, page.bytes, page.next) == (5, 0, None)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors as Linux shows them")
def test_reading_opens_no_more_connections_than_threads(store: SqliteStore, tmp_path: Path) -> None:
    """Connections are lent and given back, and closed with the store."""
    for _ in range(20):
        store.sessions(SessionQuery())
        list(store.spans(S1))
    opened = [link for link in Path("/proc/self/fd").iterdir() if _points_at(link, tmp_path / "sessions.db")]
    assert len(opened) <= 3
    store.close()
    assert not [
        link for link in Path("/proc/self/fd").iterdir() if _points_at(link, tmp_path / "sessions.db")
    ]


def _points_at(link: Path, file: Path) -> bool:
    try:
        return link.readlink() == file
    except OSError:  # the descriptor that listed the folder
        return False


def test_a_copy_of_a_closed_store_is_a_backup(tmp_path: Path) -> None:
    """After close() all is in the one file."""
    store = SqliteStore(tmp_path / "a")
    store.append([request(1, session="s-1")])
    store.close()
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a" / "sessions.db", tmp_path / "b" / "sessions.db")
    copy = SqliteStore(tmp_path / "b")
    assert len(copy.columns(S1).span_id) == 1
    copy.close()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_nothing_is_acknowledged_into_a_file_that_is_gone(
    store: SqliteStore, tmp_path: Path, how: str
) -> None:
    """A deleted file takes writes on POSIX, and nobody could ever read them again."""
    store.append([request(1)])
    (tmp_path / "sessions.db").rename(tmp_path / "gone.db")
    if how == "replaced":
        (tmp_path / "sessions.db").touch()
    with pytest.raises(BackendError, match="was removed or replaced"):
        store.append([request(2)])


def test_no_statement_numbers_its_values():
    """Python 3.12.0 to 3.12.3 warn of `?1` with a tuple of values, and tests turn warnings into errors."""
    folder = Path(inspect.getfile(SqliteStore)).parent
    numbered = [path.name for path in folder.rglob("*.py") if re.search(r"[=<(,] *\?[0-9]", path.read_text())]
    assert numbered == []
