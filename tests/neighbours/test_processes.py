"""Claims about the harness: neighbours run beside each other, and end with their test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.neighbours

FAILING = """
import pytest
from pathlib import Path

@pytest.mark.neighbours
def test_it(start_jaeger):
    jaeger = start_jaeger()
    Path({pid!r}).write_text(str(jaeger.process.pid))
    assert False, "as planned"
"""


def runs(pid: int) -> bool:
    """Tell whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_of_a_kind_run_beside_each_other_and_survive_a_kill(start_jaeger, start_prometheus, tmp_path):
    """No fixed port of the machine is taken; what was killed starts again at the same address."""
    first, second = start_jaeger(), start_jaeger(tmp_path / "badger")
    start_prometheus({}), start_prometheus({})
    before = first.process.pid
    for jaeger in (first, second):
        jaeger.process.kill()
        jaeger.process.start()
        assert jaeger.spans("nobody") == []
    assert not runs(before)


@pytest.mark.usefixtures("jaeger_program")
def test_a_failed_test_shows_its_processes_logs_and_leaves_none(request, tmp_path):
    """Whatever a test does, its processes end by their own ids, and say what they had to say."""
    pid = tmp_path / "pid"
    test = tmp_path / "inner" / "test_fails.py"
    test.parent.mkdir()
    test.write_text(FAILING.format(pid=str(pid)))
    done = run_pytest(request.config.rootpath, test)
    assert "1 failed" in done, done
    assert "log of jaeger" in done
    assert not runs(int(pid.read_text()))


def run_pytest(root: Path, test: Path) -> str:
    """Run one test file in a pytest of its own, with the fixtures of this folder."""
    here = Path(__file__).parent
    shutil.copy(here / "conftest.py", test.parent)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "neighbours", "-p", "no:randomly"]
    command += ["-p", "no:cacheprovider", f"--rootdir={root}", "-c", root / "pyproject.toml", test]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (here, here.parent)))}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=100)
    return done.stdout
