"""docs/zero-code.md, executed: its program, below both launchers, with a real instrumentor and a stub model."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_process import BackendProcess, clean_environment

from otel_sessions.cli._api import Api

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/zero-code.md").read_text()
FRAMEWORK = ["openai", "openinference-instrumentation-openai"]

DONE = "made"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def block(name: str) -> str:
    """Return what the document has in the block that is marked so."""
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)\n```", TEXT, re.DOTALL)
    assert found is not None, name
    return found[1]


@pytest.fixture(scope="module")
def environment() -> Path:
    """Return an environment with this package, a client of models and its instrumentor; made once."""
    assert f'"PATH-OF-THIS-CLONE[instrument]" {" ".join(FRAMEWORK)}' in TEXT
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    recipe = f"{sys.version_info[:2]} {ROOT} {(ROOT / 'pyproject.toml').read_text()}"
    found = cache / "otel-sessions-tests/zero-code" / hashlib.sha256(recipe.encode()).hexdigest()[:12]
    if not (found / DONE).exists():
        _make(found)
    return found


def _make(folder: Path) -> None:
    """Make it; what was interrupted is no environment, for its mark is missing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once
        if (folder / DONE).exists():
            return
        subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True
        )
        install = [str(folder / "bin/pip"), "install", "-q", "-e", f"{ROOT}[instrument]", *FRAMEWORK]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"{' '.join(FRAMEWORK)} can't be installed here: {done.stderr.strip()[-300:]}")
        (folder / DONE).touch()


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """Run the stub model; return its address."""
    command = [sys.executable, "-m", "otel_sessions.cli._demo.model_server", "--pace", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["url"]
    process.terminate()
    process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("launcher", "ending"), [("launcher", (None, "process_exit")), ("runner", ("ok", "completed"))]
)
def test_the_documents_program_is_a_session_with_its_model_call(  # noqa: PLR0917 - fixtures
    environment: Path,
    model: str,
    tmp_path: Path,
    start_backend,
    launcher: str,
    ending: tuple[str | None, str],
):
    """The command as it stands there: the call is in the session, and its tokens are counted."""
    backend: BackendProcess = start_backend()
    (tmp_path / "agent.py").write_text(block("program"))
    (tmp_path / "agent").symlink_to(environment)
    done = subprocess.run(
        shlex.split(block(launcher)),
        cwd=tmp_path,
        env=clean_environment(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": backend.url,
                "OPENAI_BASE_URL": f"{model}/v1",
                "OPENAI_API_KEY": "none",
            }
        ),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    session = _told(backend)
    assert session["name"] == "agent.py"
    assert (session["outcome"], session["end_reason"]) == ending
    assert (session["model_calls"], session["missing_spans"], session["errors"]) == (1, 0, 0)
    assert session["input_tokens"] > 0
    assert session["output_tokens"] > 0
    rows = Api(backend.url).rows(session["id"])
    # OpenTelemetry's launcher makes a span without a parent a trace of its own, as its servers need it.
    assert rows["columns"]["depth"] == ([0, 0] if launcher == "launcher" else [0, 1])


def _told(backend: BackendProcess) -> dict[str, object]:
    deadline = time.monotonic() + 30
    while True:
        found = Api(backend.url).sessions()["sessions"]
        if found and found[0]["state"] == "ended" and found[0]["spans"] >= 2:
            return found[0]
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
