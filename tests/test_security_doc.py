"""docs/security.md is true: its commands are executed, in its order, in one folder."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_process import BackendProcess, clean_environment

from otel_sessions.backend.redact_patterns import is_secret_name

TEXT = (Path(__file__).parent.parent / "docs/security.md").read_text()
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]  # fmt: skip


class Terminal:
    """Executes lines as a user would: a backend runs until the next one is started."""

    def __init__(self, folder: Path) -> None:
        self.backend: BackendProcess | None = None
        self._folder = folder

    def execute(self, line: str) -> str:
        if line.startswith("otel-sessions serve"):
            self.stop()
            words = [
                f"{word[0]}{self._folder / word[1:]}" if word.startswith("@")
                else str(self._folder / word) if word.endswith(".txt")
                else word
                for word in shlex.split(line)[2:]
            ]  # fmt: skip
            at = words.index("--data")
            arguments = [*words[:at], *words[at + 2 :]]
            self.backend = BackendProcess(self._folder / words[at + 1], arguments).start()
            return ""
        if self.backend is not None:
            line = line.replace("127.0.0.1:4318", self.backend.http)
        done = subprocess.run(
            ["bash", "-c", line], cwd=self._folder, env=clean_environment(), capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def stop(self) -> None:
        if self.backend is not None:
            assert self.backend.stop() == 0
            self.backend = None


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """Open a terminal in an empty folder."""
    opened = Terminal(tmp_path)
    yield opened
    opened.stop()


def test_every_command_does_what_it_says(terminal: Terminal, tmp_path: Path) -> None:
    """In the order of the document; the tokens that it makes are asked for."""
    said = {line: terminal.execute(line) for line in COMMANDS}
    [read] = [answer for line, answer in said.items() if line.startswith("curl")]
    assert '"sessions"' in read
    assert terminal.backend is not None
    headers = {"Host": "traces.example"}
    assert terminal.backend.exchange("GET", "/sessions", headers=headers)[0] == 401
    headers["Authorization"] = f"Bearer {(tmp_path / 'full.token').read_text().strip()}"
    assert terminal.backend.exchange("GET", "/sessions", headers=headers)[0] == 200
    assert (tmp_path / "full.token").stat().st_mode & 0o077 == 0


def test_the_patterns_of_the_document_find_what_they_are_for(terminal: Terminal) -> None:
    """Both ways to give them."""
    with_patterns = [line for line in COMMANDS if "--redact-pattern" in line]
    assert len(with_patterns) == 1
    terminal.execute(with_patterns[0])
    assert terminal.backend is not None
    status = terminal.backend.exchange("GET", "/api/v1/status")[2]
    assert b'"badge":0' in status.replace(b" ", b"")
    assert b'"pin":0' in status.replace(b" ", b"")


def test_attributes_that_the_document_names_are_redacted() -> None:
    """The row of the table that lists them."""
    [row] = re.findall(r"^\| the whole value of an attribute named (.*) \| by its name", TEXT, re.MULTILINE)
    names = [name.replace("*", "http.request.header") for name in re.findall(r"`([^`]+)`", row)]
    assert len(names) > 5
    assert all(map(is_secret_name, names))
