"""What tests of every part may use: a real backend of their own, and Node's exporters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from backend_process import BackendProcess
from endings import Ending
from hypothesis import settings

# How long an example takes says something of the machine, not of the claim; a hang ends by pytest's timeout.
settings.register_profile("claims", deadline=None)
settings.load_profile("claims")

NODE_PACKAGES = (
    "@opentelemetry/sdk-trace-node@2.12.0",
    "@opentelemetry/exporter-trace-otlp-http@0.223.1",
    "@opentelemetry/exporter-trace-otlp-proto@0.223.1",
    "@opentelemetry/exporter-trace-otlp-grpc@0.223.1",
)


class Documented(Ending):
    """A row of docs/endings.md, and whether the test has compared anything with it."""

    compared = False

    def holds(self, spans: Iterable[object], name: str = "session s") -> None:
        """Compare, and note that this was done."""
        super().holds(spans, name)
        object.__setattr__(self, "compared", True)


@pytest.fixture
def documented(request: pytest.FixtureRequest) -> Documented:
    """Return the row that this test proves."""
    (row,) = request.node.get_closest_marker("ending").args
    return Documented(**vars(row))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a test that bears a row and compares nothing with it."""
    result = yield
    if pyfuncitem.get_closest_marker("ending") is not None:
        assert pyfuncitem.funcargs["documented"].compared, "a row that nobody compared with anything"
    return result


@pytest.fixture
def start_backend(tmp_path: Path) -> Iterator[Callable[..., BackendProcess]]:
    """Start backends with further arguments and environment, each with a folder of its own unless told."""
    started: list[BackendProcess] = []

    def start(
        *arguments: str, data: Path | None = None, env: Mapping[str, str] | None = None
    ) -> BackendProcess:
        folder = data or tmp_path / f"data-{len(started)}"
        started.append(BackendProcess(folder, arguments, env))
        return started[-1].start()

    yield start
    for backend in started:
        backend.kill()


@pytest.fixture
def backend(start_backend: Callable[..., BackendProcess]) -> BackendProcess:
    """Start a backend on free ports of the loopback address."""
    return start_backend()


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """Install Node's exporters once into the cache folder of this user."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm is not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "otel-sessions-tests" / "node"
    stamp = folder / "installed.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != list(NODE_PACKAGES):
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), *NODE_PACKAGES],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"npm can't install Node's exporters: {done.stderr.strip().splitlines()[-1:]}")
        stamp.write_text(json.dumps(NODE_PACKAGES))
    return folder
