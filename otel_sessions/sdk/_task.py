"""Task: one unit of work in a session, with its own id and a result that is written once.

Tasks of one session may run at the same time: what marks their spans is part of what is current, never
of the session, so none sees another's id or result (llama_deploy #401 answered one question with the
result of another).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from opentelemetry import context as otel
from opentelemetry import trace

from otel_sessions import semconv
from otel_sessions.errors import TaskResultError, UsageError
from otel_sessions.lifecycle import TaskState, task_state_for
from otel_sessions.sdk import _context, _process, _provider
from otel_sessions.sdk._calls import Call, decorated
from otel_sessions.sdk._context import Place, Scope, TaskMark
from otel_sessions.sdk._guard import guarded, say_once
from otel_sessions.sdk._options import text
from otel_sessions.sdk._registry import registry
from otel_sessions.sdk._settings import Content
from otel_sessions.sdk._spans import end_span, learn, start_span
from otel_sessions.sdk._values import attribute_values, to_json

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.context import Context
    from typing_extensions import Self

    from otel_sessions.sdk._root import Root
    from otel_sessions.sdk._session import Session

__all__ = ["Find", "Task", "task"]

F = TypeVar("F", bound=Callable[..., Any])

Find = Callable[[], "tuple[Session | None, Root | None]"]
"""Tells the session of a task that begins, and its run."""

_NO_RESULT: Final = object()


class Task:
    """One unit of work, made by `task()` and `Session.task()`: a block, or a decorator of functions."""

    __slots__ = (
        "_attributes",
        "_find",
        "_generation",
        "_given_id",
        "_id",
        "_learned",
        "_name",
        "_result",
        "_scope",
        "_span",
        "_state",
    )

    def __init__(
        self, name: str, *, task_id: str | None, attributes: Mapping[str, Any] | None, find: Find
    ) -> None:
        self._name = text("name", name)
        self._given_id = None if task_id is None else text("id", task_id)
        self._id = self._given_id or _provider.fresh_id("task")
        self._attributes = attribute_values({} if attributes is None else attributes)
        self._find = find
        self._state: TaskState | None = None
        self._result: Any = _NO_RESULT
        self._learned: dict[str, Any] | None = None
        self._scope: Scope | None = None
        self._span: trace.Span = trace.INVALID_SPAN
        self._generation = 0

    @property
    def id(self) -> str:
        """The id that every span of the task bears as `otel_sessions.task.id`."""
        return self._id

    @property
    def name(self) -> str:
        """The name, of low cardinality."""
        return self._name

    @property
    def state(self) -> Literal["new", "running", "done", "failed", "cancelled", "refused", "timed_out"]:
        """What the task is doing, or how it ended."""
        return "new" if self._state is None else self._state.value

    @property
    def result(self) -> Any:
        """The result, None until it is assigned; assigning it twice raises TaskResultError."""
        return None if self._result is _NO_RESULT else self._result

    @result.setter
    def result(self, value: Any) -> None:
        if self._result is not _NO_RESULT:
            raise TaskResultError(f"task {self._name!r} has a result already: make a task for each result")
        self._result = value
        if value is not None and _provider.content() is Content.CAPTURED:
            self._learned = learn(self._span, self._learned, {semconv.TASK_RESULT: to_json(value)})

    def __repr__(self) -> str:
        return f"<Task {self._name!r} id={self._id!r} {self.state}>"

    def __call__(self, function: F) -> F:
        """Decorate a function, coroutine function, generator function or async generator function.

        Each call is a task of its own, with an id of its own unless one was given; what it returns is its
        result.
        """
        return decorated(function, self._for_call, _set_result)

    def __enter__(self) -> Self:
        if self._state is not None:
            raise UsageError(f"task {self._name!r} ran before: make a new one for each run")
        self._state = TaskState.RUNNING
        self._generation = _process.generation()
        session, root = self._find()
        outer, context = _around(root)
        self._scope = scope = Scope(session, self._place(root, outer), block=True)
        self._span = scope.span = self._start(scope.place, context, outer)
        _context.enter(scope)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        scope = self._scope
        if scope is None:
            return
        _context.leave(scope)
        self._state = task_state_for(exc)
        learned = {**(self._learned or {}), semconv.TASK_STATE: self._state.value}
        # In a forked child the span is the parent's to end.
        if self._generation == _process.generation():
            end_span(self._span, exc, learned)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def _for_call(self, _call: Call) -> Task:
        return Task(self._name, task_id=self._given_id, attributes=self._attributes, find=self._find)

    def _start(self, place: Place, context: Context, outer: Scope | None) -> trace.Span:
        name = f"task {self._name}"
        attributes = {**self._attributes, semconv.TASK_STATE: TaskState.RUNNING.value}
        context = otel.set_value(_context.PLACE_KEY, place, context)
        if place.root is not None and place.root.sampled and _provider.task_traces():
            around = [place.root.as_parent(), *([outer.span] if outer is not None else [])]
            span = _start_trace(name, context, attributes, around)
            if span is not None:
                return span
        return start_span(name, context, attributes)

    def _place(self, root: Root | None, outer: Scope | None) -> Place:
        outside = outer.place.task if outer is not None else None
        mark = TaskMark(self._id, self._name, outside.id if outside is not None else None)
        if root is None:
            return Place(None, {}, mark)
        if root.ended:
            say_once(
                "late task",
                "otel_sessions: task %r began in session %s, which had ended (%s); it is recorded as late",
                self._name,
                root.session_id,
                root.ending.reason.value if root.ending is not None else "?",
            )
        return Place(root, root.options.stamp(root.session_id), mark)


def task(name: str, *, id: str | None = None, attributes: Mapping[str, Any] | None = None) -> Task:  # noqa: A002
    """Return a task of the current session: a block or a decorator, which looks for the session at each call.

    `name` is of low cardinality; `id` is made up unless given. Without a session the task is recorded all
    the same. Raises ConfigurationError for a value of the wrong kind.
    """
    return Task(name, task_id=id, attributes=attributes, find=_provider.here)


@guarded("span start")
def _start_trace(
    name: str, context: Context, attributes: Mapping[str, Any], around: Iterable[trace.Span]
) -> trace.Span | None:
    """Start a span as the root of a trace of its own, linked to those around it; None if nobody gets it."""
    alone = trace.set_span_in_context(trace.INVALID_SPAN, context)
    contexts = [span.get_span_context() for span in around]
    links = [trace.Link(linked) for linked in contexts if linked.is_valid]
    span = _provider.tracer().start_span(name, alone, attributes=attributes, links=links)
    if span.get_span_context().trace_flags.sampled:
        return span
    span.end()  # the sampler may have it recorded all the same
    return None


def _around(root: Root | None) -> tuple[Scope | None, Context]:
    """Return the scope of the task around a new one, and the context that its span starts in."""
    scope, context = _context.current_scope(), _context.parent_context()
    if root is None or (scope is not None and scope.place.root is root):
        return (scope if scope is not None and scope.place.task is not None else None), context
    if scope is None and registry.is_inside(trace.get_current_span(context), root):
        return None, context
    # Where another session is current, or none: below the root.
    return None, trace.set_span_in_context(root.as_parent(), context)


def _set_result(block: Any, value: Any) -> None:
    block.result = value
