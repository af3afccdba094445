"""The table of docs/endings.md: each row is a mark on the test that proves it.

    @ending("Signals", "SIGTERM", "signal", "cancelled")
    def test_…(documented, …):
        …
        documented.holds(collector.spans())

The fixture `documented` (conftest.py) compares what the test saw with the row, and fails a test that bears a row
and compares nothing. `python tests/endings.py --update` writes the table; without it, it is printed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["NOTHING", "SECTIONS", "Ending", "documented_table", "ending", "table"]

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs/endings.md"

NOTHING = "nothing"
"""Lost: all that had ended has arrived."""

SECTIONS = ("A block", "Nobody ended it", "Signals", "Servers", "Processes", "Notebooks", "Generators")
_AROUND = re.compile(r"(<!-- endings -->\n).*?(<!-- end of endings -->)", re.DOTALL)


@dataclass(frozen=True)
class Ending:
    """A row: how a session ends in a situation, and what is lost then. No reason: no end was ever told."""

    section: str
    situation: str
    reason: str | None
    outcome: str | None
    lost: str = NOTHING

    def holds(self, spans: Iterable[Any], name: str = "session s") -> None:
        """Compare the row with the spans that arrived of a session whose root has that name."""
        spans = list(spans)
        roots = [span for span in spans if span.name == name]
        if self.reason is None:
            assert roots == [], "a root arrived, so the session told its end"
            return
        (root,) = roots
        said = {key.removeprefix("otel_sessions."): value for key, value in root.attributes.items()}
        told = (said["session.end_reason"], said.get("session.outcome"))
        assert told == (self.reason, self.outcome), f"it ended as {told}"
        own = [span for span in spans if span.attributes.get("session.id") == root.attributes["session.id"]]
        arrived = [span for span in own if not span.attributes.get("otel_sessions.late")]
        missing = said["session.spans.ended"] - len(arrived)
        assert (missing == 0) is (self.lost == NOTHING), f"{missing} spans are missing"


def ending(
    section: str, situation: str, reason: str | None, outcome: str | None, lost: str = NOTHING
) -> pytest.MarkDecorator:
    """Mark a test, or a parameter of one, as the proof of a row."""
    assert section in SECTIONS, section
    return pytest.mark.ending(Ending(section, situation, reason, outcome, lost))


class _Rows:
    """Gathers the rows while pytest collects."""

    def __init__(self) -> None:
        self.rows: dict[Ending, list[str]] = {}
        self.without: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("ending"):
                self.rows.setdefault(mark.args[0], []).append(item.nodeid)
                if "documented" not in getattr(item, "fixturenames", ()):
                    self.without.append(item.nodeid)


def table() -> str:
    """Return the table of all rows that tests prove."""
    files = [str(path) for path in TESTS.rglob("test_*.py") if "ending(" in path.read_text()]
    gathered = _Rows()
    shown, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115, PTH123 - closed below
    try:
        options = ["--collect-only", "-q", "-m", "", "-p", "no:cacheprovider", "-p", "no:randomly"]
        code = pytest.main([f"--rootdir={TESTS.parent}", *options, *sorted(files)], plugins=[gathered])
    finally:
        sys.stdout.close()
        sys.stdout = shown
    assert code == 0, f"pytest can't collect {files}"
    assert gathered.without == [], f"no fixture `documented`: {gathered.without}"
    lines: list[str] = []
    for section in SECTIONS:
        rows = [row for row in gathered.rows if row.section == section]
        if rows:
            lines += [
                "",
                f"## {section}",
                "",
                "| what happens | reason | outcome | lost |",
                "| --- | --- | --- | --- |",
            ]
            lines += [_line(row) for row in rows]
    return "\n".join(lines).strip()


def documented_table() -> str:
    """Return the table as the document has it."""
    found = _AROUND.search(DOCUMENT.read_text())
    assert found is not None, f"{DOCUMENT} has no <!-- endings -->"
    return found.group(0).split("\n", 1)[1].rsplit("\n", 1)[0]


def _line(row: Ending) -> str:
    return f"| {row.situation} | {row.reason or 'none'} | {row.outcome or 'unknown'} | {row.lost} |"


def _update() -> None:
    new = table()
    DOCUMENT.write_text(_AROUND.sub(lambda found: f"{found[1]}{new}\n{found[2]}", DOCUMENT.read_text()))


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        _update()
    else:
        print(table())
