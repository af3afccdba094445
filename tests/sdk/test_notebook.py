"""Claims about notebooks, each in a real kernel: cells are run again, fail, are interrupted; no session is orphaned."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endings import Ending, ending
from span_collector import Collector

pytestmark = pytest.mark.slow

INIT = "import os, otel_sessions\nhandle = otel_sessions.init(service_name='notebook', auto_session=True)"
START = "import otel_sessions\nsession = otel_sessions.start_session('s')"
STATE = "print(getattr(otel_sessions.current_session(), 'name', None))"


class Notebook:
    """A kernel of its own that runs cells."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager = manager
        self._client = client

    def run(self, source: str) -> str:
        """Run a cell, and return what it printed or the error that it ended with."""
        import nbformat

        cell = nbformat.v4.new_code_cell(source)
        self._client.nb.cells.append(cell)
        self._client.execute_cell(cell, len(self._client.nb.cells) - 1)
        return "".join(out.get("text", out.get("ename", "")) for out in cell.outputs).strip()


@pytest.fixture
def notebook(collector: Collector, tmp_path: Path) -> Iterator[Notebook]:
    """Start a kernel whose sessions go to the collector."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from jupyter_client.manager import KernelManager

    env = {**os.environ, **collector.env, "OTEL_SESSIONS_SPOOL": "off", "IPYTHONDIR": str(tmp_path)}
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=str(tmp_path / "kernel"))
    client = nbclient.NotebookClient(
        nbformat.v4.new_notebook(), km=manager, allow_errors=True, timeout=60, interrupt_on_timeout=False
    )
    try:
        with client.setup_kernel(env=env, cwd=str(tmp_path)):
            yield Notebook(manager, client)
    finally:
        manager.shutdown_kernel(now=True)
        client.kc.stop_channels()
        manager.context.destroy(linger=0)


def roots(collector: Collector, number: int) -> list[Any]:
    """Wait for so many roots, and return them in the order of their starts."""

    def arrived(seen: Collector) -> list[Any]:
        found = [span for span in seen.spans() if span.name.startswith("session ")]
        return sorted(found, key=lambda span: span.start) if len(found) >= number else []

    found = collector.wait_for(arrived)
    assert len(found) == number
    return found


def no_orphans(collector: Collector) -> None:
    """Each span of a session is below a root that arrived."""
    spans = collector.spans()
    ids = {span.span_id for span in spans}
    assert [span.name for span in spans if span.parent_id and span.parent_id not in ids] == []
    sessions = {span.session_id for span in spans if span.name.startswith("session ")}
    assert [span.name for span in spans if span.session_id not in sessions] == []


@pytest.mark.parametrize(
    ("first", "name"),
    [(INIT, "session notebook"), (START, "session s")],
    ids=["init cell", "start cell"],
)
@ending("Notebooks", "the cell that starts it is run again", "superseded", None)
def test_a_cell_that_is_run_three_times_gives_three_whole_sessions(
    notebook: Notebook, collector: Collector, documented: Ending, first: str, name: str
):
    """The first two are superseded by the next; each has its own spans, and none is left without a root."""
    for number in range(3):
        notebook.run(first)
        notebook.run(f"with otel_sessions.tool('t{number}'):\n    pass")
    notebook.manager.shutdown_kernel()
    found = roots(collector, 3)
    ends = [(root.name, root.end_reason, root.outcome) for root in found]
    assert ends == [(name, "superseded", None)] * 2 + [(name, "process_exit", None)]
    assert len({root.trace_id for root in found}) == 3
    for number, root in enumerate(found):
        tool = collector.span(f"execute_tool t{number}")
        assert (tool.session_id, tool.trace_id) == (root.session_id, root.trace_id)
        assert root.links == []
    no_orphans(collector)
    documented.holds([s for s in collector.spans() if s.session_id == found[0].session_id], name)


@ending("Notebooks", "the kernel is shut down", "process_exit", None)
def test_a_session_survives_from_cell_to_cell(notebook: Notebook, collector: Collector, documented: Ending):
    """Whether it was started in a plain cell or in one that awaits, which runs in a context of its own."""
    notebook.run("import asyncio\n" + INIT)
    assert notebook.run(STATE) == "notebook"
    notebook.run("await asyncio.sleep(0)\nwith otel_sessions.tool('awaits'):\n    await asyncio.sleep(0)")
    notebook.run("await asyncio.sleep(0)\nsession = otel_sessions.start_session('s')\nawait asyncio.sleep(0)")
    assert notebook.run(STATE) == "s"
    notebook.run("with otel_sessions.tool('plain'):\n    pass")
    assert notebook.run("await asyncio.sleep(0)\n" + STATE) == "s"
    notebook.run("with otel_sessions.session('block'):\n    pass")
    assert notebook.run(STATE) == "s"
    notebook.manager.shutdown_kernel()
    first, second, _ = roots(collector, 3)
    assert collector.span("execute_tool awaits").session_id == first.session_id
    assert collector.span("execute_tool plain").parent_id == second.span_id
    no_orphans(collector)
    documented.holds(collector.spans())


@ending("Notebooks", "a cell calls `end_session()`", "completed", "ok")
def test_a_session_ended_in_a_cell_is_not_current_in_the_next(
    notebook: Notebook, collector: Collector, documented: Ending
):
    """Wherever it was ended; what comes then is in no session, and the next start begins a new one."""
    notebook.run("otel = __import__('asyncio')\n" + START)
    notebook.run("await otel.sleep(0)\notel_sessions.end_session()")
    assert notebook.run(STATE) == "None"
    notebook.run("with otel_sessions.tool('outside'):\n    pass")
    notebook.manager.shutdown_kernel()
    (root,) = roots(collector, 1)
    assert collector.span("execute_tool outside").session_id is None
    assert collector.span("execute_tool outside").trace_id != root.trace_id
    documented.holds(collector.spans())


@ending("Notebooks", "a cell fails; the session goes on until it is ended", "completed", "ok")
def test_an_exception_in_a_cell_ends_no_session(notebook: Notebook, collector: Collector, documented: Ending):
    """The span that it left is an error; the next cell goes on in the same session."""
    notebook.run(START)
    assert notebook.run("with otel_sessions.tool('fails'):\n    1 / 0") == "ZeroDivisionError"
    assert notebook.run(STATE) == "s"
    notebook.run("session.end()")
    (root,) = roots(collector, 1)
    notebook.manager.shutdown_kernel()
    assert (collector.span("execute_tool fails").status, root.status) == ("ERROR", "UNSET")
    documented.holds(collector.spans())


@ending(
    "Notebooks", "the kernel is interrupted; the session goes on until the kernel ends", "process_exit", None
)
def test_an_interrupt_of_the_kernel_ends_no_session(
    notebook: Notebook, collector: Collector, documented: Ending
):
    """The cell's own block is interrupted, with that as its reason; what the notebook began goes on."""
    notebook.run(START)
    notebook.run("import os, signal, threading, time")
    assert (
        notebook.run(
            "with otel_sessions.session('block'), otel_sessions.tool('t'):\n"
            "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
            "    time.sleep(60)"
        )
        == "KeyboardInterrupt"
    )
    assert notebook.run(STATE) == "s"
    notebook.manager.shutdown_kernel()
    first, second = roots(collector, 2)
    assert (first.end_reason, second.end_reason, second.outcome) == (
        "process_exit",
        "interrupted",
        "cancelled",
    )
    assert collector.span("execute_tool t").status == "UNSET"
    no_orphans(collector)
    documented.holds(collector.spans())


def test_a_notebook_in_the_manner_of_agentops_has_no_orphan(notebook: Notebook, collector: Collector):
    """Init, work, end, start, start again, end, init again, decorators, await: 12 of 13 spans had no root there."""
    for cell in (
        INIT + "\n@otel_sessions.step\ndef op():\n    pass",
        "op()",
        "assert otel_sessions.end_session('ok')",
        "op()",
        "otel_sessions.start_session('first', tags=['a'])",
        "op()",
        "otel_sessions.start_session('second', tags=['b'])\nop()",
        "assert otel_sessions.end_session('error')",
        "otel_sessions.init(auto_session=True)\nop()",
        "@otel_sessions.session('decorated')\ndef run():\n    op()\nrun()\nrun()",
        "import asyncio\nawait asyncio.sleep(0)\nop()",
    ):
        assert "Error" not in notebook.run(cell)
    notebook.manager.shutdown_kernel()
    found = roots(collector, 6)
    assert [(root.name.removeprefix("session "), root.end_reason, root.outcome) for root in found] == [
        ("notebook", "completed", "ok"),
        ("first", "superseded", None),
        ("second", "completed", "error"),
        ("session", "process_exit", None),
        ("decorated", "completed", "ok"),
        ("decorated", "completed", "ok"),
    ]
    steps = collector.spans("op")
    outside = [span for span in steps if span.session_id is None]
    assert (len(steps), len(outside)) == (8, 1)
    ids = {span.span_id for span in collector.spans()}
    assert [span for span in steps if span not in outside and span.parent_id not in ids] == []


@ending("Notebooks", "the kernel is restarted", "process_exit", None)
def test_a_restart_of_the_kernel_ends_what_was_open(
    notebook: Notebook, collector: Collector, documented: Ending
):
    """With its open spans; the new kernel's session is another one, of another process."""
    notebook.run(
        INIT + "\nsession = otel_sessions.start_session('s')\ntool = otel_sessions.tool('open').__enter__()"
    )
    notebook.manager.restart_kernel()
    roots(collector, 2)
    documented.holds(collector.spans())
    assert collector.span("execute_tool open").attributes["otel_sessions.forced_end"] is True
    no_orphans(collector)
