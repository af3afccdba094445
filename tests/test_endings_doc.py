"""docs/endings.md is what tests prove: no row is missing, none is invented."""

import subprocess
import sys
from pathlib import Path

import pytest
from endings import Ending, documented_table

ROOT = Path(__file__).parent.parent


def test_the_table_of_endings_is_that_of_the_tests():
    """After a change: `python tests/endings.py --update`."""
    done = subprocess.run(
        [sys.executable, "tests/endings.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert documented_table() == done.stdout.strip()


PROOF = """
from endings import ending
import pytest

class Root:
    name = "session s"
    attributes = {"session.id": "1", "otel_sessions.session.end_reason": "REASON",
                  "otel_sessions.session.outcome": "ok", "otel_sessions.session.spans.ended": ENDED}

@ending("A block", "it is left", "completed", "ok")
def test_a(documented):
    LOOK
"""


@pytest.mark.slow
def test_a_row_that_is_not_true_or_not_looked_at_fails(tmp_path: Path):
    """The mark alone proves nothing; nor does a row pass that says something else than what was seen."""
    looks = "documented.holds([Root()])"
    cases = {
        "passed": ("completed", "1", looks),
        "a row that nobody compared": ("completed", "1", "pass"),
        "it ended as ('timeout', 'ok')": ("timeout", "1", looks),
        "1 spans are missing": ("completed", "2", looks),
    }
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    for said, (reason, ended, look) in cases.items():
        program = PROOF.replace("REASON", reason).replace("ENDED", ended).replace("LOOK", look)
        (tmp_path / "test_row.py").write_text(program)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:randomly",
                "-p",
                "no:cacheprovider",
                "test_row.py",
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT / "tests")},
            timeout=100,
        )
        assert said in done.stdout, done.stdout + done.stderr
        assert (done.returncode == 0) is (said == "passed")


def test_without_a_reason_there_is_no_root():
    """A session that could tell nothing of its end has no root that tells of one."""
    Ending("Processes", "kill", None, None, "all").holds([])
