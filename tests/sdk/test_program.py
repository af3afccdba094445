"""What a program is called, by the line that started its interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_sessions.sdk._program import names_gevent, program_name


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("python agent.py --fast", "agent.py"),
        ("python /srv/agents/agent.py", "agent.py"),
        ("python -u -X dev agent.py", "agent.py"),
        ("python -Xdev -Werror agent.py -m other", "agent.py"),
        ("python -W error agent.py", "agent.py"),
        ("python -m uvicorn app:app", "uvicorn"),
        ("python -um uvicorn", "uvicorn"),
        ("python -muvicorn", "uvicorn"),
        ("python --check-hash-based-pycs always agent.py", "agent.py"),
        ("/usr/bin/python3.13 -c code", "python3.13"),
        ("python3", "python3"),
        ("python3 -", "python3"),
        ("python3 -m", "python3"),
        ("", "python"),
    ],
)
def test_a_program_is_called_by_its_script_or_module(line: str, name: str):
    """The interpreter's own options are passed over, with their values."""
    assert program_name(line.split()) == name


@pytest.mark.parametrize(
    ("line", "source", "expected"),
    [
        ("python SCRIPT --fast", "from gevent import monkey; monkey.patch_all()", True),
        ("python -X dev SCRIPT", "import asyncio", False),
        ("python -m gunicorn -k gevent app:app", "", True),
        ("python -m uvicorn app:app", "", False),
        ("python -c pass\0", "", False),
        ("", "", False),
    ],
)
def test_a_program_of_gevent_is_known_by_its_line_or_script(
    tmp_path: Path, line: str, source: str, expected: bool
):
    """What is no file, or no path, is passed over."""
    script = tmp_path / "agent.py"
    script.write_text(source)
    assert names_gevent(line.replace("SCRIPT", str(script)).split()) is expected
