"""Claims about child processes of every kind: the parent's session is the parent's, each span leaves once."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable

import pytest
from endings import Ending, ending
from outcomes import Ended
from span_collector import Collector

from otel_sessions import semconv

pytestmark = pytest.mark.slow  # together; the most usual children are in test_exit.py and test_carry.py too
Run = Callable[..., Ended]
Start = Callable[..., subprocess.Popen[str]]

UNSAID = "what was open, what ended in the last 0.2 s"
"""What a process takes along that ends without a word."""

PRELUDE = """
import concurrent.futures, multiprocessing, os, random, signal, subprocess, sys, threading, time
import otel_sessions

def work(number=0, sent=False):
    if otel_sessions.current_session() is None:
        otel_sessions.init()
        otel_sessions.flush(30)  # the exporter is imported: on a busy machine that alone can outlast an exit
    random.seed(42)
    with otel_sessions.step('in child'), otel_sessions.tool('t'):
        pass
    if sent:
        assert otel_sessions.flush(30).complete
    return otel_sessions.current_session().end()

def begin(**options):
    otel_sessions.init(**options)
    otel_sessions.flush(30)
    random.seed(42)
    return otel_sessions.session('s')
"""


def _family(collector: Collector, children: int) -> None:
    """Check that so many children have worked in the session of their parent, and that each span came once."""
    spans = collector.spans()
    assert max(Counter(span.span_id for span in spans).values()) == 1
    root, around = collector.span("session s"), collector.span("execute_tool around")
    steps = collector.spans("in child")
    assert len(steps) == len(collector.spans("execute_tool t")) == children
    assert {span.parent_id for span in steps} == {around.span_id}
    assert {span.trace_id for span in spans} == {root.trace_id}
    assert {span.session_id for span in spans} == {root.session_id}
    assert {span.resource["process.pid"] for span in steps}.isdisjoint({root.resource["process.pid"]})
    assert root.attributes[semconv.SPANS_STARTED] == 2
    (end,) = collector.events("session.end")
    assert end.attributes[semconv.PROCESS_ID] == root.attributes[semconv.PROCESS_ID]


FORKS = {
    "a forked child ends normally": "work(); sys.exit(0)",
    "a forked child is ended by an exception": "work(); raise ValueError('no')",
    "a forked child calls `os._exit()`": "work(sent=True); os._exit(0)",
    "a forked child becomes another program, which calls `init()`": (
        "os.execve(sys.executable, [sys.executable, __file__, 'again'], otel_sessions.child_env())"
    ),
    "a forked child is killed": "work(sent=True); os.kill(os.getpid(), signal.SIGKILL)",
    "a forked child is told to stop by SIGTERM": "work(); os.kill(os.getpid(), signal.SIGTERM)",
}


@pytest.mark.parametrize(
    "child",
    [
        pytest.param(
            child, marks=ending("Processes", f"{name}; the parent's session", "completed", "ok"), id=name
        )
        for name, child in FORKS.items()
    ],
)
def test_a_forked_child_never_ends_its_parents_session(
    run_program: Run, collector: Collector, documented: Ending, child: str
):
    """Whatever becomes of the child; its own spans are in the parent's trace, and none comes twice."""
    ended = run_program(
        PRELUDE
        + f"""
if sys.argv[1:] == ['again']:
    assert work() is False
    sys.exit(0)
with begin() as session:
    with otel_sessions.tool('around'):
        pid = os.fork()
        if pid == 0:
            {child}
        os.waitpid(pid, 0)
    assert session.state == 'running'
""",
        collector.env,
    )
    assert ended.code == 0, ended.err
    _family(collector, 1)
    documented.holds([span for span in collector.spans() if span.name not in ("in child", "execute_tool t")])


LEAVES = {
    "it is started in a forked child, which ends normally": ("sys.exit(0)", "process_exit"),
    "it is started in a forked child, which calls `os._exit()`": ("os._exit(0)", None),
    "its process becomes another program (exec)": ("os.execv('/bin/true', ['true'])", None),
}


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(
            leave,
            marks=ending("Processes", name, reason, None, "nothing" if reason else UNSAID),
            id=name,
        )
        for name, (leave, reason) in LEAVES.items()
    ],
)
def test_a_session_of_a_child_ends_as_that_of_any_program(
    run_program: Run, collector: Collector, documented: Ending, leave: str
):
    """What it had sent is there, and its start has told of it, also where it can say nothing at its end."""
    ended = run_program(
        PRELUDE
        + f"""
otel_sessions.init()
pid = os.fork()
if pid == 0:
    session = otel_sessions.start_session('s')
    with otel_sessions.tool('sent'):
        pass
    assert otel_sessions.flush(30).complete
    {leave}
os.waitpid(pid, 0)
""",
        collector.env,
    )
    assert ended.code == 0, ended.err
    assert collector.span("execute_tool sent")
    assert collector.events("session.start")
    documented.holds(collector.spans())


POOLS = {
    "Process": """
        children = [context.Process(target=work) for _ in range(3)]
        for child in children: child.start()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0, 0, 0]
    """,
    "Pool": """
        with context.Pool(2) as pool:
            assert pool.map(work, range(3), chunksize=1) == [False] * 3
            pool.close()
            pool.join()
    """,
    "recycled": """
        with context.Pool(1, maxtasksperchild=1) as pool:
            assert pool.map(work, range(3), chunksize=1) == [False] * 3
            pool.close()
            pool.join()
    """,
    "ProcessPoolExecutor": """
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(work, range(3))) == [False] * 3
    """,
    "terminated": """
        pool = context.Pool(1)
        assert pool.map(work, range(3), chunksize=1) == [False] * 3
        pool.terminate()
        pool.join()
    """,
}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("pool", POOLS)
def test_children_of_multiprocessing_lose_nothing(
    run_program: Run, collector: Collector, method: str, pool: str
):
    """However they are made, pooled, recycled (as celery does) and ended.

    The environment carries the session to programs that begin anew. A pool forks its later workers in a thread
    of its own, which has the session by `thread_context`.
    """
    ended = run_program(
        PRELUDE
        + f"""
if __name__ == '__main__':
    context = multiprocessing.get_context('{method}')
    with begin(thread_context=True) as session:
        with otel_sessions.tool('around'):
            os.environ.update(otel_sessions.child_env())
{POOLS[pool].replace(chr(10) + "        ", chr(10) + "            ")}
        assert session.state == 'running'
""",
        {**collector.env, "PYTHONWARNINGS": "ignore"},
    )
    assert (ended.code, ended.err) == (0, "")
    _family(collector, 3)


def test_a_child_forked_in_a_thread_without_session_takes_it_from_the_environment(
    run_program: Run, collector: Collector
):
    """As pools fork their later workers; the program itself never takes up what it carries to others."""
    ended = run_program(
        PRELUDE
        + """
def fork():
    pid = os.fork()
    if pid == 0:
        try:
            assert otel_sessions.current_session() is None
            work(sent=True)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
with begin() as session, otel_sessions.tool('around'):
    os.environ.update(otel_sessions.child_env())
    assert otel_sessions.init().session is None
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
""",
        collector.env,
    )
    assert (ended.code, ended.err) == (0, "")
    _family(collector, 1)


def test_workers_that_are_recycled_by_fork_tell_of_each_session_once(run_program: Run, collector: Collector):
    """As celery's: forked before any session, they do some tasks, leave by os._exit, and others take over."""
    ended = run_program(
        PRELUDE
        + """
otel_sessions.init()
for generation in range(3):
    pid = os.fork()
    if pid == 0:
        random.seed(42)
        for task in range(2):
            with otel_sessions.session('s'), otel_sessions.tool('t'):
                pass
        assert otel_sessions.flush(30).complete
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
""",
        collector.env,
    )
    assert ended.code == 0, ended.err
    spans = collector.spans()
    assert max(Counter(span.span_id for span in spans).values()) == 1
    roots = collector.spans("session s")
    assert len({root.trace_id for root in roots}) == len({root.session_id for root in roots}) == 6
    assert {(root.end_reason, root.outcome) for root in roots} == {("completed", "ok")}
    assert len(collector.spans("execute_tool t")) == len(collector.events("session.end")) == 6


def test_without_a_flush_only_the_last_moment_is_lost_at_an_exit_without_a_word(
    run_program: Run, collector: Collector
):
    """What had been ended for longer than OTEL_BSP_SCHEDULE_DELAY, 0.2 s by default, was written by then."""
    ended = run_program(
        PRELUDE
        + """
otel_sessions.init()
otel_sessions.flush(30)
for number in range(100):
    with otel_sessions.session('s', id=f'early {number}'):
        pass
end = time.monotonic() + 30
while otel_sessions.stats().sent < 100 and time.monotonic() < end:
    time.sleep(0.01)
with otel_sessions.tool('last'):
    pass
os._exit(0)
""",
        collector.env,
    )
    assert ended.code == 0, ended.err
    assert len(collector.spans("session s")) == 100
    assert collector.spans("execute_tool last") == []


CALLS = {
    "run": "subprocess.run",
    "Popen": "(lambda *arguments, **options: subprocess.Popen(*arguments, **options).wait())",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_child_program_works_in_the_session_by_its_environment(
    run_program: Run, collector: Collector, call: str
):
    """With `child_env()`; a program between the two that knows nothing of us passes it on."""
    ended = run_program(
        PRELUDE
        + f"""
if sys.argv[1:] == ['child']:
    assert otel_sessions.init().session is otel_sessions.current_session()
    otel_sessions.flush(30)
    assert work() is False
else:
    with begin(), otel_sessions.tool('around'):
        command = [sys.executable, __file__, 'child']
        {CALLS[call]}(['/bin/sh', '-c', '"$@"', 'sh', *command], env=otel_sessions.child_env())
""",
        collector.env,
    )
    assert (ended.code, ended.err) == (0, "")
    _family(collector, 1)
