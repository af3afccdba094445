"""What is current: the session and task of this context, and how a context gets back to what was before.

A scope is current in two ways: in a ContextVar of ours, which survives code that replaces the whole
OpenTelemetry Context (LlamaIndex does), and under a key of the OpenTelemetry Context, which survives
code that carries only that one to a thread. The ContextVar is asked first.

`attach(previous)`, done only where the current Context is still ours, replaces `detach(token)`: a token
belongs to one context, and generators are resumed, closed and collected in others (otel-python #2606).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, cast

from opentelemetry import context as otel
from opentelemetry import trace

from otel_sessions import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

    from otel_sessions.sdk._ledger import Ledger
    from otel_sessions.sdk._root import Root
    from otel_sessions.sdk._session import Session

__all__ = [
    "PLACE_KEY",
    "Place",
    "Scope",
    "State",
    "TaskMark",
    "attach_span",
    "current_scope",
    "enter",
    "innermost",
    "leave",
    "living",
    "parent_context",
    "restore",
    "scope_of",
    "snapshot",
    "swap",
]

PLACE_KEY: Final = otel.create_key("otel_sessions-place")
"""Under this key the context that a root or task is started with tells our processor where it belongs."""

_SCOPE_KEY: Final = otel.create_key("otel_sessions-scope")
_scope: Final[ContextVar[Scope | None]] = ContextVar("otel_sessions-scope", default=None)


class TaskMark:
    """What marks the spans of one task."""

    __slots__ = ("id", "name", "parent_id")

    def __init__(self, task_id: str, name: str, parent_id: str | None) -> None:
        self.id = task_id
        self.name = name
        self.parent_id = parent_id


class Place:
    """Where a span belongs: its run, its task, and the attributes that say so.

    Without a run it is a remote session's, or that of a session here that has no open run; then `ledger`
    counts it.
    """

    __slots__ = ("ledger", "root", "session_id", "stamp", "task")

    def __init__(
        self,
        root: Root | None,
        stamp: Mapping[str, AttributeValue],
        task: TaskMark | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.root = root
        self.task = task
        self.ledger = ledger
        self.stamp = dict(stamp)
        self.session_id = stamp.get(semconv.SESSION_ID)
        if task is not None:
            self.stamp[semconv.TASK_ID] = task.id
            self.stamp[semconv.TASK_NAME] = task.name
            if task.parent_id is None:
                self.stamp.pop(semconv.TASK_PARENT_ID, None)
            else:
                self.stamp[semconv.TASK_PARENT_ID] = task.parent_id

    def lost(self, why: str) -> None:
        """Count a span that belongs here and will never arrive, by a reason of `losses.REASONS`."""
        counting = self.root or self.ledger
        if counting is not None:
            counting.lost(why)


class Scope:
    """A session or task while it is current.

    It holds the Session strongly: what is current is not garbage. `block` tells whether a `with` ends it;
    until that is left, an ended session stays current and later spans are its late children. `left` is
    set when the block is left.
    """

    __slots__ = ("attached", "before", "block", "left", "outer", "place", "session", "span")

    def __init__(self, session: Session | None, place: Place, *, block: bool) -> None:
        self.session = session
        self.place = place
        self.span: trace.Span = trace.INVALID_SPAN
        self.block = block
        self.left = False
        self.outer = living(_scope.get())  # what ended elsewhere would be kept alive for ever
        self.before: Context = parent_context()
        self.attached: Context = self.before

    @property
    def free(self) -> bool:
        """Whether what still has this scope counts as having none: it ended, and no block holds it."""
        root = self.place.root
        return not self.block and root is not None and root.ended


def enter(scope: Scope) -> None:
    """Make `scope` current."""
    scope.attached = trace.set_span_in_context(scope.span, otel.set_value(_SCOPE_KEY, scope, scope.before))
    otel.attach(scope.attached)
    _scope.set(scope)


def attach_span(span: trace.Span, context: Context) -> Context:
    """Make `span` current on top of `context`, and return the Context that is current now."""
    attached = trace.set_span_in_context(span, context)
    otel.attach(attached)
    return attached


def leave(scope: Scope) -> None:
    """Make current again what was before `scope`, unless this context has moved on or is another one."""
    scope.left = True
    if _scope.get() is scope:
        _scope.set(living(scope.outer))
    now = otel.get_current()
    if now is scope.attached or (scope_of(now) is scope and trace.get_current_span(now) is scope.span):
        otel.attach(_unwound(scope.before))


def restore(attached: Context, before: Context) -> None:
    """Attach `before` where `attached` is still current."""
    if otel.get_current() is attached:
        otel.attach(_unwound(before))


State = tuple["Scope | None", "Context"]
"""All that we make current: our scope and the OpenTelemetry Context."""


def snapshot() -> State:
    """Return what is current."""
    return _scope.get(), otel.get_current()


def swap(state: State) -> State:
    """Make `state` current and return what was."""
    before = snapshot()
    _scope.set(state[0])
    otel.attach(state[1])
    return before


def current_scope() -> Scope | None:
    """Return the innermost scope of this context that was neither left nor freed."""
    return living(_scope.get()) or living(scope_of(otel.get_current()))


def innermost() -> Scope | None:
    """Return the scope of our ContextVar, whatever became of it."""
    return _scope.get()


def scope_of(context: Context) -> Scope | None:
    """Return the scope that an OpenTelemetry Context bears, whatever became of it."""
    return cast("Scope | None", context.get(_SCOPE_KEY))


def parent_context() -> Context:
    """Return the current OpenTelemetry Context, without the dead root of a session that no block holds."""
    context = otel.get_current()
    scope = scope_of(context)
    while scope is not None and scope.free and trace.get_current_span(context) is scope.span:
        context = scope.before
        scope = scope_of(context)
    return context


def living(scope: Scope | None) -> Scope | None:
    """Return `scope`, or the next around it that was neither left nor freed."""
    while scope is not None and (scope.left or scope.free):
        scope = scope.outer
    return scope


def _unwound(context: Context) -> Context:
    scope = scope_of(context)
    while scope is not None and (scope.left or scope.free) and trace.get_current_span(context) is scope.span:
        context = scope.before
        scope = scope_of(context)
    return context
