"""Claims about tasks: own ids, results written once, work at the same time."""

from __future__ import annotations

import asyncio
import threading

import pytest
from opentelemetry.trace import StatusCode
from outcomes import Recorded

import otel_sessions
from otel_sessions import semconv


def test_what_is_inside_of_a_task_bears_its_id(recorded: Recorded):
    """The task's own span, spans below it, third parties' too; and the task around an inner one."""
    tracer = recorded.provider.get_tracer("other")
    with otel_sessions.session("s") as session:
        with (
            session.task("outer", id="t-1", attributes={"a": 1}) as outer,
            tracer.start_as_current_span("x"),
            otel_sessions.task("inner") as inner,
            otel_sessions.step("y"),
        ):
            pass
        with otel_sessions.step("z"):
            pass
    assert outer.id == "t-1"
    own, x, below, y, z = (recorded.one(n).attributes for n in ("task outer", "x", "task inner", "y", "z"))
    assert own["a"] == 1
    for attributes in (own, x):
        assert (attributes[semconv.TASK_ID], attributes[semconv.TASK_NAME]) == ("t-1", "outer")
        assert semconv.TASK_PARENT_ID not in attributes
    for attributes in (below, y):
        assert (attributes[semconv.TASK_ID], attributes[semconv.TASK_PARENT_ID]) == (inner.id, "t-1")
    assert semconv.TASK_ID not in z
    assert recorded.ids() == {session.id}
    assert recorded.one("task inner").parent.span_id == recorded.one("x").context.span_id


def test_a_result_is_written_once(recorded: Recorded):
    """A second result is a mistake, whatever the first was."""
    with otel_sessions.session() as session, session.task("t") as task:
        assert task.result is None
        task.result = None
        with pytest.raises(otel_sessions.TaskResultError, match="make a task for each result"):
            task.result = 2
    assert task.result is None


def test_tasks_at_the_same_time_never_share_a_result(recorded: Recorded):
    """Each answer belongs to its own question."""

    async def one(session: otel_sessions.Session, number: int) -> otel_sessions.Task:
        async with session.task("answer", id=f"q-{number}") as task:
            await asyncio.sleep(0)
            with otel_sessions.tool("t", attributes={"expected": task.id}):
                await asyncio.sleep(0)
            task.result = number
        return task

    async def main() -> list[otel_sessions.Task]:
        async with otel_sessions.session() as session:
            return list(await asyncio.gather(*(one(session, number) for number in range(100))))

    tasks = asyncio.run(main())
    assert [(task.id, task.result) for task in tasks] == [(f"q-{n}", n) for n in range(100)]
    tools = [s.attributes for s in recorded.all() if s.name == "execute_tool t"]
    assert [a for a in tools if a[semconv.TASK_ID] != a["expected"]] == []


@pytest.mark.parametrize(
    ("exc", "state", "status"),
    [
        (None, "done", StatusCode.UNSET),
        (ValueError("no"), "failed", StatusCode.ERROR),
        (TimeoutError("slow"), "timed_out", StatusCode.ERROR),
        (asyncio.CancelledError(), "cancelled", StatusCode.UNSET),
    ],
)
def test_a_task_ends_as_it_was_left(
    recorded: Recorded, exc: BaseException | None, state: str, status: StatusCode
):
    """The state on the span is the task's own."""
    task = otel_sessions.task("t")
    assert task.state == "new"

    def leave() -> None:
        with task:
            assert task.state == "running"
            if exc is not None:
                raise exc

    if exc is None:
        leave()
    else:
        with pytest.raises(type(exc)):
            leave()
    span = recorded.one("task t")
    assert task.state == span.attributes[semconv.TASK_STATE] == state
    assert span.status.status_code is status


def test_a_task_runs_once(recorded: Recorded):
    """Another run is another task."""
    task = otel_sessions.task("t")
    with task:
        pass
    with pytest.raises(otel_sessions.UsageError, match="make a new one"), task:
        pass


def test_a_task_takes_its_session_into_another_thread(recorded: Recorded):
    """`session.task()` names its session; nothing need be carried."""
    with otel_sessions.session("s") as session:

        def work() -> None:
            with session.task("t"), otel_sessions.step("x"):
                assert otel_sessions.current_session() is session
            assert otel_sessions.current_session() is None

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    root = recorded.one("session s")
    assert recorded.one("task t").parent.span_id == root.context.span_id
    assert recorded.ids() == {session.id}


def test_a_task_on_an_ended_session_is_late_and_said_once(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
):
    """Who ended the session is a matter of timing, so nothing raises."""
    with otel_sessions.session("s") as session:
        session.end()
        for _ in range(2):
            with session.task("t"):
                pass
    late = [span for span in recorded.all() if span.name == "task t"]
    assert [span.attributes[semconv.LATE] for span in late] == [True, True]
    assert {span.attributes["session.id"] for span in late} == {session.id}
    assert sum("recorded as late" in message for message in caplog.messages) == 1


def test_a_task_without_a_session_is_recorded_all_the_same(recorded: Recorded):
    """A library may mark its tasks, and need not know whether there is a session."""
    with otel_sessions.task("t") as task, otel_sessions.step("x"):
        assert otel_sessions.current_session() is None
    attributes = recorded.one("x").attributes
    assert attributes[semconv.TASK_ID] == task.id
    assert "session.id" not in attributes


def test_a_result_is_recorded_only_where_content_is_captured(recorded: Recorded):
    """It may be a secret."""

    @otel_sessions.task("t")
    def answer() -> dict[str, int]:
        return {"a": 1}

    assert answer() == {"a": 1}
    otel_sessions.init(capture=True)
    answer()
    first, second = (span.attributes for span in recorded.all())
    assert semconv.TASK_RESULT not in first
    assert second[semconv.TASK_RESULT] == '{"a": 1}'


@pytest.mark.parametrize(("name", "task_id"), [("", None), (7, None), ("t", ""), ("t", 7)])
def test_an_option_of_the_wrong_kind_is_named(name: object, task_id: object):
    """The error is ours."""
    with pytest.raises(otel_sessions.ConfigurationError, match="has to be a string"):
        otel_sessions.task(name, id=task_id)
