"""Tracing without a line of code: real programs below `opentelemetry-instrument`, told of by a real backend."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from backend_process import BackendProcess, clean_environment

import otel_sessions
from otel_sessions.cli._api import Api

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(sys.executable).with_name("opentelemetry-instrument").exists(),
        reason="opentelemetry-instrumentation is not installed here",
    ),
]

LAUNCHER = (str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable)

SPANS = """
import threading
from opentelemetry import trace
tracer = trace.get_tracer("program")
def work(name):
    with tracer.start_as_current_span(name):
        pass
work("in the main thread")
thread = threading.Thread(target=work, args=("in a thread",))
thread.start()
thread.join()
"""


class Stage:
    """A backend, and programs that are launched with it as their endpoint."""

    def __init__(self, backend: BackendProcess, folder: Path) -> None:
        self.backend = backend
        self.folder = folder
        self.path: list[Path] = []
        self.before = {session["id"] for session in self._all()}

    def environment(self, **more: str) -> dict[str, str]:
        path = {"PYTHONPATH": os.pathsep.join(map(str, self.path))} if self.path else {}
        return clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": self.backend.url, **path, **more})

    def start(
        self, source: str, name: str = "agent.py", launcher: tuple[str, ...] = LAUNCHER, **more: str
    ) -> subprocess.Popen[str]:
        """Start a program of this source below the launcher."""
        program = self.folder / name
        program.write_text(textwrap.dedent(source))
        return subprocess.Popen(
            [*launcher, str(program)],
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, source: str, code: int = 0, launcher: tuple[str, ...] = LAUNCHER, **more: str
    ) -> tuple[str, str]:
        """Run one to its end; return what it printed and what it complained of."""
        process = self.start(source, launcher=launcher, **more)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        return out, err

    def sessions(self) -> list[Any]:
        """Return the sessions that are new since this stage was set."""
        return [session for session in self._all() if session["id"] not in self.before]

    def _all(self) -> list[Any]:
        return Api(self.backend.url).sessions(limit=500)["sessions"]

    def told(self, wanted: Callable[[Mapping[str, Any]], bool] = lambda s: s["state"] == "ended") -> Any:
        """Wait for the one session to be as wanted."""
        deadline = time.monotonic() + 30
        while True:
            found = self.sessions()
            if len(found) == 1 and wanted(found[0]):
                return Api(self.backend.url).session(found[0]["id"])
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def names(self, session: Mapping[str, Any]) -> list[str]:
        """Return the names of a session's spans."""
        rows = Api(self.backend.url).rows(session["id"])
        return sorted(rows["names"][name] for name in rows["columns"]["name"])

    def install(self, name: str, module: str, entry_points: str) -> None:
        """Put a distribution on the path of programs: a module of that name, and its entry points."""
        site = self.folder / f"site-{name}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        (site / f"{name}.py").write_text(textwrap.dedent(module))
        self.path.append(site)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    """Run one backend for all programs here."""
    process = BackendProcess(tmp_path_factory.mktemp("data")).start()
    yield process
    process.stop()


@pytest.fixture
def stage(backend: BackendProcess, tmp_path: Path) -> Stage:
    """Return the backend, and a folder for programs of its own."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return Stage(backend, folder)


INSTRUMENTOR = """
    from opentelemetry import trace
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

    class Instrumentor(BaseInstrumentor):
        def instrumentation_dependencies(self):
            return ()

        def _instrument(self, **kwargs):
            provider = kwargs.get("tracer_provider")
            tracer = trace.get_tracer("fake", tracer_provider=provider)
            import json
            original = json.dumps
            def dumps(*args, **more):
                with tracer.start_as_current_span("traced call"):
                    return original(*args, **more)
            json.dumps = dumps

        def _uninstrument(self, **kwargs):
            pass
"""
INSTRUMENTORS = """
    [opentelemetry_instrumentor]
    fake = fake_instrumentor:Instrumentor
"""
CONFIGURATOR = """
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    class Configurator:
        def configure(self, **kwargs):
            provider = TracerProvider(resource=Resource.create({"service.name": "of-others"}))
            trace.set_tracer_provider(provider)
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
"""


@pytest.mark.parametrize(
    ("end", "code", "outcome", "reason"),
    [
        ("", 0, None, "process_exit"),
        ("raise ValueError('no more')", 1, "error", "error"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, "cancelled", "signal"),
    ],
)
def test_a_program_that_knows_nothing_of_us_is_a_session_and_ends_as_it_did(
    stage: Stage, end: str, code: int, outcome: str | None, reason: str
):
    """Its spans are all in it, those of bare threads too; its name is the script's."""
    stage.run(SPANS + end, code)
    session = stage.told()
    assert (session["name"], session["service"]) == ("agent.py", "agent.py")
    assert (session["outcome"], session["end_reason"]) == (outcome, reason)
    assert stage.names(session) == ["in a thread", "in the main thread", "session agent.py"]
    assert (session["inferred"], session["missing_spans"]) == (False, 0)


def test_a_program_is_live_while_it_runs_and_lost_where_it_is_killed(stage: Stage):
    """Nothing of it says so: the launcher's session has heartbeats like any."""
    process = stage.start(
        "import time\nprint('up', flush=True)\ntime.sleep(60)",
        OTEL_SESSIONS_HEARTBEAT="0.2",
        OTEL_SESSIONS_LEASE="1",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    stage.told(lambda s: s["state"] == "running")
    process.kill()
    process.communicate(timeout=30)
    stage.told(lambda s: s["state"] == "lost")


def test_a_program_that_uses_our_sdk_runs_as_without_the_launcher(stage: Stage):
    """What it asks for that can't be changed any more is said, never raised."""
    _, err = stage.run(
        """
        import otel_sessions
        from opentelemetry.sdk.trace import TracerProvider
        handle = otel_sessions.init(service_name="planner", tracer_provider=TracerProvider())
        assert handle.session is not None
        assert otel_sessions.current_session() is handle.session
        with otel_sessions.tool("look up"):
            pass
        """
    )
    assert "service_name='planner' has no effect" in err
    assert "tracer_provider has no effect" in err
    assert stage.names(stage.told()) == ["execute_tool look up", "session agent.py"]


def test_a_program_that_starts_its_own_session_for_itself_ends_the_launchers(stage: Stage):
    """Both are there, and what comes later belongs to the program's."""
    stage.run(
        "import otel_sessions\n"
        "otel_sessions.init(auto_session=True, service_name='mine')\n"
        "with otel_sessions.tool('look up'): pass"
    )
    deadline = time.monotonic() + 30
    while True:
        found = {s["name"]: (s["end_reason"], s["spans"]) for s in stage.sessions()}
        if found == {"agent.py": ("superseded", 1), "mine": ("process_exit", 2)}:
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_the_provider_of_another_distribution_is_joined_and_sends_each_span_once(stage: Stage):
    """We never displace it: its resource, its exporter; the session and its life cycle are ours."""
    stage.install(
        "other_distro", CONFIGURATOR, "[opentelemetry_configurator]\nother = other_distro:Configurator"
    )
    repeated = came_again(stage.backend)
    stage.run(SPANS)
    session = stage.told(lambda s: s["state"] == "ended" and s["spans"] == 3)
    assert session["service"] == "of-others"
    assert session["end_reason"] == "process_exit"
    assert came_again(stage.backend) == repeated


def test_our_name_as_exporter_delivers_durably_below_another_configurator(stage: Stage, tmp_path: Path):
    """Nobody listens: what the program recorded is on disk afterwards, once, and not lost as with a batch."""
    own = CONFIGURATOR.replace("OTLPSpanExporter()", "named()").replace(
        "class Configurator", NAMED_BY_ENTRY_POINT + "    class Configurator"
    )
    stage.install("other_distro", own, "[opentelemetry_configurator]\nother = other_distro:Configurator")
    spool = tmp_path / "spool"
    address = stage.backend.url
    stage.backend.stop()
    _, err = stage.run(SPANS, OTEL_TRACES_EXPORTER="otel_sessions", OTEL_SESSIONS_SPOOL=str(spool))
    assert "3 are kept" in err
    stage.backend.start()
    assert stage.backend.url == address
    sent = subprocess.run(
        [sys.executable, "-m", "otel_sessions.cli.main", "spool", "send"],
        env=stage.environment(OTEL_SESSIONS_SPOOL=str(spool)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert sent.returncode == 0, sent.stderr
    assert stage.told(lambda s: s["spans"] == 3)["service"] == "of-others"


NAMED_BY_ENTRY_POINT = """
    import os
    from importlib.metadata import entry_points
    def named():
        found = entry_points(group="opentelemetry_traces_exporter", name=os.environ["OTEL_TRACES_EXPORTER"])
        return next(iter(found)).load()()

"""


@pytest.mark.parametrize(
    "off",
    [
        {"OTEL_SESSIONS_INSTRUMENT": "false"},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_SESSIONS_INSTRUMENT": "perhaps"},
        {"OTEL_BSP_SCHEDULE_DELAY": "soon"},
    ],
)
def test_a_program_runs_untraced_where_that_is_wanted_or_the_environment_makes_no_sense(
    stage: Stage, off: dict[str, str]
):
    """It prints, ends and exits as ever; what makes no sense is one line."""
    out, err = stage.run("print('done')", **off)
    assert out == "done\n"
    made_no_sense = "perhaps" in off.values() or "soon" in off.values()
    assert len(err.splitlines()) == made_no_sense, err
    assert stage.sessions() == []


def test_without_an_exporter_nothing_is_sent_and_with_console_it_is_printed(stage: Stage):
    """OTEL_TRACES_EXPORTER and OTEL_LOGS_EXPORTER are honoured as by `init()`."""
    out, _ = stage.run(SPANS, OTEL_TRACES_EXPORTER="none", OTEL_LOGS_EXPORTER="none")
    assert out == ""
    out, _ = stage.run(SPANS, OTEL_TRACES_EXPORTER="console", OTEL_LOGS_EXPORTER="none")
    assert out.count('"session.id"') == 3
    assert stage.sessions() == []


def test_instrumentors_trace_below_the_session_and_one_that_is_switched_off_does_not(stage: Stage):
    """OpenTelemetry's launcher loads them behind us, so that they find the provider."""
    stage.install("fake_instrumentor", INSTRUMENTOR, INSTRUMENTORS)
    stage.run("import json\njson.dumps(1)")
    session = stage.told()
    assert stage.names(session) == ["session agent.py", "traced call"]


def test_a_switched_off_instrumentor_traces_nothing(stage: Stage):
    """The rest is there."""
    stage.install("fake_instrumentor", INSTRUMENTOR, INSTRUMENTORS)
    stage.run("import json\njson.dumps(1)", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="other, fake")
    assert stage.names(stage.told()) == ["session agent.py"]


@pytest.mark.parametrize(
    ("argument", "variable", "traced"),
    [("", "", False), ("instrument=True", "", True), ("", "true", True), ("instrument=False", "true", False)],
)
def test_init_switches_instrumentors_on_where_it_is_asked_to(
    stage: Stage, argument: str, variable: str, traced: bool
):
    """Without a launcher; the argument wins over OTEL_SESSIONS_INSTRUMENT, and twice is once."""
    stage.install("fake_instrumentor", INSTRUMENTOR, INSTRUMENTORS)
    _, err = stage.run(
        f"""
        import json, otel_sessions
        for _ in range(2):
            otel_sessions.init({argument})
        with otel_sessions.session("mine"):
            json.dumps(1)
        """,
        launcher=(sys.executable,),
        OTEL_SESSIONS_INSTRUMENT=variable,
    )
    assert err == ""
    assert stage.names(stage.told()) == ["session mine"] + ["traced call"] * traced


def test_our_name_as_configurator_leaves_the_others_out(stage: Stage):
    """OTEL_PYTHON_CONFIGURATOR says which one, and ours needs none to be loaded."""
    stage.install(
        "other_distro", CONFIGURATOR, "[opentelemetry_configurator]\nother = other_distro:Configurator"
    )
    stage.run(SPANS, OTEL_PYTHON_CONFIGURATOR="otel_sessions")
    session = stage.told()
    assert (session["service"], session["spans"]) == ("agent.py", 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_workers_belong_to_the_session_of_their_master(stage: Stage):
    """As gunicorn's do; the master's end is the session's."""
    stage.run(
        f"""
import os
{textwrap.dedent(SPANS)}
children = [os.fork() for _ in range(2) if True]
if 0 in children:
    work("in a worker")
    raise SystemExit(0)
for pid in children:
    os.waitpid(pid, 0)
"""
    )
    session = stage.told(lambda s: s["state"] == "ended" and s["spans"] == 6)
    assert stage.names(session).count("in a worker") == 3
    assert session["end_reason"] == "process_exit"


def test_what_the_program_starts_belongs_to_its_session_in_any_language(stage: Stage):
    """By TRACEPARENT and BAGGAGE; a Python child takes it up by itself, and opens no session of its own."""
    out, _ = stage.run(
        """
        import subprocess, sys
        subprocess.run(["sh", "-c", "echo $TRACEPARENT $BAGGAGE"], check=True)
        subprocess.run([sys.executable, "-c", "from opentelemetry import trace;"
            "trace.get_tracer('x').start_span('in the child').end()"], check=True)
        """
    )
    session = stage.told(lambda s: s["state"] == "ended" and s["spans"] == 2)
    traceparent, baggage = out.split()
    assert traceparent.split("-")[1] == session["traces"][0]
    assert f"session.id={session['session_id']}" in baggage.split(",")
    assert stage.names(session) == ["in the child", "session agent.py"]


SERVER = """
import asyncio, secrets
from opentelemetry import trace
from opentelemetry.instrumentation.utils import _start_internal_or_server_span
from opentelemetry.propagators.textmap import default_getter
tracer = trace.get_tracer("asgi")
async def request():
    trace_id, parent_id = secrets.randbits(128), secrets.randbits(64)
    caller = {"traceparent": f"00-{trace_id:032x}-{parent_id:016x}-01"}
    span, _ = _start_internal_or_server_span(tracer, "GET /", None, caller, default_getter)
    own = span.get_span_context()
    print(span.kind.name, own.trace_id == trace_id, span.parent.span_id == parent_id)
    with trace.use_span(span, end_on_exit=True), tracer.start_as_current_span("query") as query:
        assert query.parent == own
async def main():
    await asyncio.gather(*(asyncio.create_task(request()) for _ in range(2)))
asyncio.run(main())
"""


@pytest.mark.parametrize("below_a_run", [False, True])
def test_a_server_goes_on_with_the_traces_of_its_callers(stage: Stage, below_a_run: bool):
    """As without us: each request in the trace of its caller. That all bear the session's id is what we add."""
    runner = (sys.executable, "-m", "otel_sessions.cli.main", "run", "--") if below_a_run else ()
    out, _ = stage.run(SERVER, launcher=(*runner, *LAUNCHER))
    assert sorted(out.splitlines()) == 2 * ["SERVER True True"]
    session = stage.told(lambda s: s["state"] == "ended" and s["spans"] == 5)
    here = [name for name in stage.names(session) if name and not name.startswith("session")]
    assert here == 2 * ["GET /"] + 2 * ["query"]
    assert len(session["traces"]) == 3


def test_sessions_and_tasks_of_the_program_are_tied_to_its_own(stage: Stage):
    """A session links to it, or is its child where asked for; a task is below the span that it is in."""
    out, _ = stage.run(
        """
        import otel_sessions
        from opentelemetry import trace
        whole = otel_sessions.current_session()
        with otel_sessions.session("linked"):
            (link,) = trace.get_current_span().links
            print(f"{link.context.trace_id:032x}" == whole.trace_id)
        with otel_sessions.session("child", nested="child") as child:
            print(child.trace_id == whole.trace_id)
        with otel_sessions.task("alone") as task:
            print(f"{trace.get_current_span().get_span_context().trace_id:032x}" == whole.trace_id)
        with trace.get_tracer("theirs").start_as_current_span("around") as around:
            with otel_sessions.task("inside"):
                print(trace.get_current_span().parent == around.get_span_context())
            span_id = f"{around.get_span_context().span_id:016x}"
            print(otel_sessions.child_env()["TRACEPARENT"].split("-")[2] == span_id)
        """
    )
    assert out.split() == ["True"] * 5


def test_what_the_user_put_into_the_environment_reaches_children_and_no_state_of_other_traces(stage: Stage):
    """Baggage is merged, of one name ours wins; a TRACESTATE belongs to the trace that it came with."""
    out, _ = stage.run(
        """
        import otel_sessions, subprocess, sys
        shown = [sys.executable, "-S", "-c", "import os; print(os.environ.get('TRACESTATE'), os.environ['BAGGAGE'])"]
        subprocess.run(shown, check=True)
        subprocess.run(shown, check=True, env=otel_sessions.child_env())
        print(otel_sessions.current_session().id)
        """,
        TRACEPARENT=f"00-{7:032x}-{7:016x}-01",
        TRACESTATE="theirs=1",
        BAGGAGE="tenant=42;hop=1, otel_sessions.run=ffff, color=red",
    )
    *printed, session_id = out.splitlines()
    for line in printed:
        state, baggage = line.split(" ")
        assert state == "None"
        mine, run, *theirs = baggage.split(",")
        assert mine == f"session.id={session_id}"
        assert run.startswith("otel_sessions.run=")
        assert run != "otel_sessions.run=ffff"
        assert theirs == ["tenant=42;hop=1", "color=red"]


def test_children_belong_to_the_session_that_the_program_started_in_place_of_the_launchers(stage: Stage):
    """`init(auto_session=True)` ends the launcher's session, and so the environment names the new one."""
    out, _ = stage.run(
        """
        import otel_sessions, subprocess, sys
        print(otel_sessions.init(auto_session=True).session.id, flush=True)
        child = "import otel_sessions; print(otel_sessions.init().session.id)"
        subprocess.run([sys.executable, "-c", child], check=True)
        """
    )
    started, taken_up = out.split()
    assert taken_up == started


RUNNER = (sys.executable, "-m", "otel_sessions.cli.main", "run", "--", sys.executable)


@pytest.mark.parametrize("launcher", [LAUNCHER, RUNNER], ids=["instrument", "run"])
def test_pytest_runs_below_a_launcher_where_warnings_are_errors(stage: Stage, launcher: tuple[str, ...]):
    """In an installation that is no editable one: pytest knows its files, and finds us imported already."""
    site = stage.folder / "site"
    package = Path(otel_sessions.__file__).parent
    shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "otel_sessions-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otel-sessions\nVersion: 0\n")
    (info / "entry_points.txt").write_text(distribution("otel-sessions").read_text("entry_points.txt") or "")
    files = [path.relative_to(site) for path in site.rglob("*.py")]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    stage.path.append(site)
    (stage.folder / "test_own.py").write_text("def test_own(): pass\n")
    (stage.folder / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\naddopts = -p no:cacheprovider\n"
    )
    program = "import os, pytest, sys; os.chdir(sys.path[0]); sys.exit(pytest.main())"
    # They import frameworks with plugins of their own, of which pytest would warn as well.
    out, _ = stage.run(program, 0, launcher, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="*")
    assert "1 passed" in out


def came_again(backend: BackendProcess) -> int:
    """Return how many spans came that were stored before."""
    status, _, body = backend.exchange("GET", "/metrics")
    assert status == 200
    found = [
        line for line in body.decode().splitlines() if line.startswith("otel_sessions_spans_duplicate_total")
    ]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in found)
