"""`otel-sessions run` of Python programs: instrumentors are on, and nothing of the program is changed by it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from backend_process import BackendProcess, clean_environment

from otel_sessions.cli._api import Api
from otel_sessions.cli._python import is_python, with_tracing

RUN = [sys.executable, "-m", "otel_sessions.cli.main", "run"]

INSTRUMENTOR = """
from opentelemetry import trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

class Bare(BaseInstrumentor):
    def instrumentation_dependencies(self):
        return ()

    def _uninstrument(self, **kwargs):
        pass

class Instrumentor(Bare):
    def _instrument(self, **kwargs):
        import json
        tracer = trace.get_tracer("fake", tracer_provider=kwargs.get("tracer_provider"))
        original = json.dumps
        def dumps(*args, **more):
            with tracer.start_as_current_span("traced call"):
                return original(*args, **more)
        json.dumps = dumps

class Broken(Bare):
    def _instrument(self, **kwargs):
        raise RuntimeError("of another age")

class Outdated(Bare):
    def instrumentation_dependencies(self):
        return ("opentelemetry-api > 99",)
"""
ENTRY_POINTS = """
[opentelemetry_instrumentor]
broken = fake_instrumentor:Broken
fake = fake_instrumentor:Instrumentor
outdated = fake_instrumentor:Outdated
of_nothing = not_installed_here:Instrumentor
"""


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    """Run one backend for all programs here."""
    process = BackendProcess(tmp_path_factory.mktemp("data")).start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a distribution of instrumentors: a good one, and those that happen."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "fake_instrumentor-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-instrumentor\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "fake_instrumentor.py").write_text(INSTRUMENTOR)
    return folder


class Ran:
    """A program that ran below the runner, and what the backend tells of its session."""

    def __init__(
        self, backend: BackendProcess, command: list[str], env: Mapping[str, str], options: tuple[str, ...]
    ) -> None:
        known = {one["id"] for one in Api(backend.url).sessions(limit=500)["sessions"]}
        self.process = subprocess.run(
            [*RUN, *options, "--", *command],
            env=clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url, **env}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        (self.id,) = {one["id"] for one in Api(backend.url).sessions(limit=500)["sessions"]} - known
        self._api = Api(backend.url)

    def names(self, number: int) -> list[str]:
        """Wait for that many spans; return their names."""
        deadline = time.monotonic() + 30
        while True:
            rows = self._api.rows(self.id)
            names = sorted(rows["names"][name] for name in rows["columns"]["name"])
            if len(names) >= number:
                return [name.split(" ")[0] if name.startswith("session") else name for name in names]
            assert time.monotonic() < deadline, (names, self.process.stderr)
            time.sleep(0.05)


@pytest.fixture
def run(backend: BackendProcess, site: Path) -> Any:
    """Run some Python below the runner."""

    def run(source: str, *options: str, command: tuple[str, ...] = (), **env: str) -> Ran:
        line = [*(command or (sys.executable,)), "-c", dedent(source)]
        return Ran(backend, line, {"PYTHONPATH": str(site), **env}, options)

    return run


@pytest.mark.slow
def test_installed_instrumentors_are_on_in_a_python_command(run, backend: BackendProcess):
    """One that is broken or outdated costs a line, one without its framework nothing; the good one traces."""
    ran = run("import json, sys; json.dumps(1); sys.exit(3)")
    assert ran.process.returncode == 3
    assert ran.names(2) == ["session", "traced call"]
    assert len(Api(backend.url).session(ran.id)["traces"]) == 1
    complaints = ran.process.stderr.splitlines()
    assert [("of another age" in line) + 2 * ("> 99" in line) for line in complaints] == [1, 2], complaints


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "env", "command", "traced"),
    [
        (("--no-instrument",), {}, (), False),
        ((), {"OTEL_SESSIONS_INSTRUMENT": "false"}, (), False),
        ((), {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}, (), False),
        ((), {}, ("sh", "-c", 'exec "$@"', "sh", sys.executable), False),
        (("--instrument",), {}, ("sh", "-c", 'exec "$@"', "sh", sys.executable), True),
        ((), {"OTEL_SESSIONS_INSTRUMENT": "true"}, ("sh", "-c", 'exec "$@"', "sh", sys.executable), True),
        ((), {}, (sys.executable, "-I"), False),
    ],
)
def test_instrumentors_are_on_where_that_is_wanted(run, options, env, command, traced: bool):
    """By the command, the option and the variables, as docs/zero-code.md says."""
    ran = run("import json; print(json.dumps.__name__, json.dumps(1))", *options, command=command, **env)
    assert ran.process.returncode == 0, ran.process.stderr
    names = ran.names(1 + traced)
    assert ("traced call" in names) is traced


@pytest.mark.slow
@pytest.mark.parametrize(("options", "traced"), [((), False), (("--instrument",), True)])
def test_a_program_of_gevent_is_not_imported_into_before_it_patches(run, options, traced: bool):
    """Frameworks that were imported before would hang in what is patched; one line says what to do."""
    ran = run("'gevent'; import json; json.dumps(1)", *options)
    assert ran.process.returncode == 0, ran.process.stderr
    assert ("traced call" in ran.names(1 + traced)) is traced
    assert ("run --instrument" in ran.process.stderr) is not traced


@pytest.mark.slow
def test_that_no_instrumentor_is_installed_is_said_once_by_the_runner(
    backend: BackendProcess, tmp_path: Path
):
    """Not by each Python below it."""
    hidden = """
import importlib.metadata as found
entry_points = found.entry_points
found.entry_points = lambda **which: () if "instrumentor" in which.get("group", "") else entry_points(**which)
"""
    (tmp_path / "sitecustomize.py").write_text(hidden)
    source = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    ran = Ran(backend, [sys.executable, "-c", source], {"PYTHONPATH": str(tmp_path)}, ())
    (line,) = ran.process.stderr.splitlines()
    assert "no instrumentor is installed" in line


@pytest.mark.slow
def test_a_program_that_sets_its_own_provider_keeps_it(run):
    """Its exporter gets what is traced, instrumentors' spans as well; OpenTelemetry refuses nothing."""
    ran = run(
        """
        import json
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, ConsoleSpanExporter
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda s: s.name + "\\n")))
        trace.set_tracer_provider(provider)
        json.dumps(1)
        """,
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="broken,outdated",
    )
    assert (ran.process.stdout, ran.process.stderr) == ("traced call\n", "")


@pytest.mark.slow
def test_a_program_that_uses_our_sdk_decides_on_its_set_up(run, backend: BackendProcess):
    """Its service name holds, for nothing was set up before its first span."""
    ran = run(
        """
        import json, otel_sessions
        otel_sessions.init(service_name="planner")
        json.dumps(1)
        """,
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="broken,outdated",
    )
    assert ran.process.stderr == ""
    ran.names(2)
    rows = Api(backend.url).rows(ran.id)
    assert "planner" in rows["services"]


@pytest.mark.slow
def test_a_sitecustomize_of_the_users_runs_as_ever(run, tmp_path: Path, site: Path):
    """Ours is found first, and imports theirs; one that fails is told of as without us.

    The runner is a Python too, and finds it as well.
    """
    (tmp_path / "sitecustomize.py").write_text("print('customised', __name__, __file__)\n")
    source = "import sitecustomize; print(sitecustomize.__file__)"
    path = os.pathsep.join([str(tmp_path), str(site)])
    ran = run(source, PYTHONPATH=path, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="*")
    theirs = tmp_path / "sitecustomize.py"
    told = sorted(
        ran.process.stdout.splitlines()
    )  # what the runner printed may leave with it, after the command
    assert told == sorted([*2 * [f"customised sitecustomize {theirs}"], str(theirs)])

    theirs.write_text("raise RuntimeError('no')\n")
    direct = subprocess.run(
        [sys.executable, "-c", "print(1)"],
        env=clean_environment({"PYTHONPATH": path}),
        capture_output=True,
        text=True,
        check=True,
    )
    ran = run("print(1)", PYTHONPATH=path, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="*")
    assert "RuntimeError: no" in direct.stderr
    assert (ran.process.stdout, ran.process.stderr) == (direct.stdout, 2 * direct.stderr)


@pytest.mark.slow
def test_a_python_that_does_not_have_us_runs_as_ever(backend: BackendProcess, tmp_path: Path):
    """The runner may live in another environment than the program."""
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare/bin/python"
    elsewhere = (
        "import os, sys, importlib.util as u; sys.path.remove(''); print(u.find_spec('otel_sessions'))"
    )
    ran = Ran(backend, [str(python), "-c", elsewhere], {}, ())
    assert (ran.process.returncode, ran.process.stdout) == (0, "None\n")
    assert all(line.startswith("otel-sessions: ") for line in ran.process.stderr.splitlines())


@pytest.mark.parametrize(
    ("path", "expected"), [(None, []), ("", []), ("/a", ["/a"]), ("/a:", ["/a", ""]), (":/a", ["", "/a"])]
)
def test_entries_of_the_path_stay_the_empty_one_too(path: str | None, expected: list[str]):
    """An empty entry means the working directory, an empty variable nothing; twice below us is once."""
    environ = {} if path is None else {"PYTHONPATH": path.replace(":", os.pathsep)}
    once = with_tracing(environ)
    assert once["PYTHONPATH"].split(os.pathsep)[1:] == expected
    assert with_tracing(once) == once


def script(folder: Path, text: bytes) -> str:
    """Write an executable file; return its path."""
    path = folder / "program"
    path.write_bytes(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"#!/usr/bin/env python3\n", True),
        (b"#!/opt/agent/bin/python3.13 -u\n", True),
        (b"#!/usr/bin/env -S python3 -X dev\n", True),
        (b'#!/bin/sh\n\'\'\'exec\' "/a very long path/bin/python3" "$0" "$@"\n', True),
        (b"#!/bin/sh\npython3 agent.py\n", False),
        (b"#!/usr/bin/env node\n", False),
        (b"\x7fELF\x02\x01\x01", False),
        (b"", False),
    ],
)
def test_a_script_is_python_by_its_first_line(tmp_path: Path, text: bytes, expected: bool):
    """As pip writes them, for long paths as well; a shell script that calls Python is a shell script."""
    assert is_python([script(tmp_path, text)], {}) is expected


def test_an_interpreter_is_python_by_its_name_and_what_is_not_there_is_nothing(tmp_path: Path):
    """Found by the PATH that the command will have."""
    for name, expected in [("python", True), ("python3.13t", True), ("pypy3", True), ("python2", False)]:
        (tmp_path / name).symlink_to(sys.executable)
        assert is_python([name], {"PATH": str(tmp_path)}) is expected
    assert not is_python(["python-that-is-not-there"], {"PATH": str(tmp_path)})
    assert not is_python(["opentelemetry-instrument"], {"PATH": str(Path(sys.executable).parent)})
