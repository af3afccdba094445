"""docs/operations.md is true: its commands are executed, in its order, in one folder."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from backend_process import BackendProcess, clean_environment

from otel_sessions.backend.records import Encoding, Request, SessionHint, Signal, SpanRecord
from otel_sessions.backend.store.base import SessionQuery
from otel_sessions.backend.store.sqlite import SqliteStore

TEXT = (Path(__file__).parent.parent / "docs/operations.md").read_text()
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]  # fmt: skip
INSTALL = ".venv/bin/pip install --upgrade PATH-OF-THIS-CLONE"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with `data` in it: one session, seen long ago."""
    span = SpanRecord(
        trace_id=b"t" * 16, span_id=b"s" * 8, parent_id=b"", name="step", kind=1, start=1, end=2, status=0,
        category="step", ordinal=0, size=1, hint=SessionHint("s-1"),
    )  # fmt: skip
    store = SqliteStore(tmp_path / "data")
    store.append([Request(Signal.TRACES, Encoding.PROTOBUF, b"", 1, (span,))])
    store.close()
    return tmp_path


def execute(line: str, folder: Path) -> str:
    """Execute one line as a user would; a backend until it says that it is ready."""
    words = shlex.split(line)
    if words[:2] == ["otel-sessions", "serve"]:
        at = words.index("--data")
        backend = BackendProcess(folder / words[at + 1], [*words[2:at], *words[at + 2 :]]).start()
        assert backend.stop() == 0
        return ""
    if words[0] == "otel-sessions":
        words = [sys.executable, "-m", "otel_sessions.cli.main", *words[1:]]
    done = subprocess.run(
        words, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def serving_keeps(data: Path) -> int:
    """Return how many sessions a folder holds."""
    store = SqliteStore(data)
    try:
        return len(store.sessions(SessionQuery()).sessions)
    finally:
        store.close()


def test_every_command_does_what_it_says(folder: Path) -> None:
    """In the order of the document, but for what would replace the program; and the copy is served."""
    first, *rest = [line for line in COMMANDS if line != INSTALL]
    kept = folder / "kept.db"
    shutil.copy(folder / "data/sessions.db", kept)
    execute(first, folder)
    shutil.copy(kept, folder / "data/sessions.db")  # what the first command removes, the others work on
    said = {}
    for line in rest:
        said[line] = execute(line, folder)
        if line.startswith("otel-sessions prune") and "--dry-run" not in line:
            assert serving_keeps(folder / "data") == 0
            shutil.copy(kept, folder / "data/sessions.db")
    assert "1 sessions with 1 spans would be removed" in "".join(said.values())
    assert "backup.db: 1 sessions, 1 spans, 0 logs" in "".join(said.values())
    assert serving_keeps(folder / "restored") == 1


def test_a_pinned_session_stays(folder: Path) -> None:
    """Until it is unpinned, by either of its ids."""
    prune = "otel-sessions prune --data data --retention 30d"
    ours = execute("otel-sessions pin --data data s-1", folder).split()[0]
    execute(prune, folder)
    assert serving_keeps(folder / "data") == 1
    execute(f"otel-sessions unpin --data data {ours}", folder)
    execute(prune, folder)
    assert serving_keeps(folder / "data") == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prune --data data", "write --retention 30d"),
        ("prune --data data --retention 30", "is not a retention"),
        ("prune --data nowhere --retention 30d", "holds no sessions.db"),
        ("pin --data data s-2", "holds no session s-2"),
        ("backup --data data data/sessions.db", "exists; a backup overwrites nothing"),
        ("backup --data nowhere backup.db", "holds no sessions.db"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_why(folder: Path, line: str, said: str) -> None:
    """Nothing is made, nothing is lost."""
    with pytest.raises(AssertionError, match=said):
        execute(f"otel-sessions {line}", folder)
    assert serving_keeps(folder / "data") == 1
    assert not (folder / "nowhere").exists()


def test_pruning_beside_a_backend_is_refused(folder: Path) -> None:
    """It would go on with what it remembers; looking at what would go harms nobody."""
    backend = BackendProcess(folder / "data").start()
    try:
        line = "otel-sessions prune --data data --retention 30d"
        with pytest.raises(AssertionError, match=f"in use by another backend .process {backend.pid}"):
            execute(line, folder)
        assert "1 sessions" in execute(f"{line} --dry-run", folder)
    finally:
        backend.stop()
    assert serving_keeps(folder / "data") == 1
