"""Real frameworks, each in an environment of its own that is made once into the cache of this user.

They can't be installed together (AgentScope asks for an `mcp` that CrewAI refuses), nor into the environment of
the tests. What can't be installed because something is missing here, network for one, is `Unavailable`: the tests
skip with that reason.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["AGENTSCOPE", "CREWAI", "LLAMA_INDEX", "ROOT", "Environment", "Unavailable", "python_of"]

ROOT = Path(__file__).parents[2]
INSTALL_SECONDS = 900


class Unavailable(Exception):  # noqa: N818 -- it is a reason to skip, not an error
    """An environment that can't be made on this machine."""


@dataclass(frozen=True)
class Environment:
    """What is installed; of `loose` packages those dependencies are left out that `without` names."""

    name: str
    packages: tuple[str, ...]
    loose: str | None = None
    without: str = ""


LLAMA_INDEX = Environment(
    "llama-index",
    (
        "llama-index-workflows==2.26.1",
        "llama-index-core==0.14.25",
        "llama-index-observability-otel==0.7.0",
        "openinference-instrumentation-llama-index==4.6.1",
    ),
)
CREWAI = Environment("crewai", ("crewai==1.15.30", "openinference-instrumentation-crewai==1.1.21"))
# It asks for a certifi that not every index has.
AGENTSCOPE = Environment("agentscope", (), loose="agentscope==2.0.11", without="certifi")


def python_of(environment: Environment) -> Path:
    """Return the Python of an environment; make it first where it is not there. Raises Unavailable."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "otel-sessions-tests/frameworks" / environment.name
    folder.mkdir(parents=True, exist_ok=True)
    stamp, theirs = folder / "made", repr((sys.version_info[:2], environment))
    wanted = f"{theirs}\n{_our_dependencies()}"
    with (folder / "lock").open("w") as lock:  # several test processes come at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = stamp.read_text() if stamp.exists() else ""
        if made.partition("\n")[0] != theirs:
            stamp.unlink(missing_ok=True)
            _make(folder / "venv", environment)
        elif made != wanted:
            _install(str(folder / "venv/bin/python"), "-e", str(ROOT))
        stamp.write_text(wanted)
    return folder / "venv/bin/python"


def _make(folder: Path, environment: Environment) -> None:
    _run(sys.executable, "-m", "venv", "--clear", str(folder))
    python = str(folder / "bin/python")
    ours = ["-e", str(ROOT)]
    if environment.loose is not None:
        _install(python, "--no-deps", environment.loose)
        _install(python, *ours, *environment.packages, *_requirements(python, environment))
    else:
        _install(python, *ours, *environment.packages)


def _requirements(python: str, environment: Environment) -> list[str]:
    name = str(environment.loose).partition("==")[0]
    said = _run(
        python,
        "-c",
        f"import importlib.metadata, json; print(json.dumps(importlib.metadata.requires({name!r})))",
    )
    requirements: list[str] = json.loads(said) or []
    return [one for one in requirements if "extra ==" not in one and not one.startswith(environment.without)]


def _our_dependencies() -> str:
    text = (ROOT / "pyproject.toml").read_text()
    return text[text.index("\ndependencies = [") : text.index("\n]", text.index("\ndependencies = ["))]


def _install(python: str, *what: str) -> None:
    _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *what)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(str(error)) from error
    if done.returncode:
        raise Unavailable("; ".join(done.stderr.strip().splitlines()[-2:]))
    return done.stdout


def _report(environment: Environment) -> str:
    try:
        return f"{environment.name}: {python_of(environment)}"
    except Unavailable as reason:
        return f"{environment.name}: skipped, {reason}"


if __name__ == "__main__":
    for one in (LLAMA_INDEX, CREWAI, AGENTSCOPE):
        print(_report(one))
