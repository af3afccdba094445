"""Session: open the root, make it current, end it once.

The handle that users hold. What belongs to the run itself is in `_root.py`, what is current in
`_context.py`; a Session joins the two. Nobody but user code and contexts holds one strongly.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from opentelemetry import context as otel
from opentelemetry import trace

from otel_sessions import semconv
from otel_sessions.errors import ConfigurationError, SessionReuseError, UsageError
from otel_sessions.lifecycle import ending_for
from otel_sessions.sdk import _context, _process, _provider
from otel_sessions.sdk._calls import decorated
from otel_sessions.sdk._context import Place, Scope
from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._headers import headers
from otel_sessions.sdk._options import Options, OutcomeName, ending_of, seconds, text
from otel_sessions.sdk._root import Root
from otel_sessions.sdk._stand_in import StandIn
from otel_sessions.sdk._task import Task

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Activation", "Session", "Waiting", "begin", "continued", "root_of", "scope_of"]

F = TypeVar("F", bound=Callable[..., Any])


class Session:
    """One coherent run or conversation of an agent application. Made by `session()` and `start_session()`.

    Use it as a block (`with`, `async with`), as a decorator, or started and ended by hand. A Session starts
    once; as a decorator it makes a new one for each call. While it is current, every span of the tracer
    provider bears its id, those of other libraries included.
    """

    __slots__ = ("__weakref__", "_id", "_options", "_root", "_scope")

    def __init__(self, options: Options) -> None:
        if not isinstance(options, Options):  # pyright: ignore[reportUnnecessaryIsInstance] - users may
            raise UsageError("a Session is made by otel_sessions.session(...)")
        self._options = options
        self._id = options.id or options.resume or _provider.fresh_id("session")
        self._root: Root | None = None
        self._scope: Scope | None = None

    # --- What is known of it -------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """`session.id`; once started, as the spans bear it where a limit of the tracer provider cuts it."""
        return self._id if self._root is None else self._root.session_id

    @property
    def name(self) -> str:
        """The name, of low cardinality."""
        return self._options.name

    @property
    def trace_id(self) -> str | None:
        """The trace id of the root span in hex; None before the start and where nothing is recorded."""
        return f"{self._root.trace_id:032x}" if self._root is not None and self._root.trace_id else None

    @property
    def state(self) -> Literal["new", "running", "waiting", "ended"]:
        """What the session is doing: new before it starts, then running or waiting, at last ended."""
        return "new" if self._root is None else self._root.phase.value

    @property
    def outcome(self) -> OutcomeName | None:
        """How it turned out: ok, error, cancelled; None before the end, and where nobody knows."""
        ending = self._root.ending if self._root is not None else None
        return ending.outcome.value if ending is not None and ending.outcome is not None else None

    @property
    def end_reason(self) -> str | None:
        """Why it ended, a value of `lifecycle.EndReason`; None before the end."""
        ending = self._root.ending if self._root is not None else None
        return ending.reason.value if ending is not None else None

    def __repr__(self) -> str:
        return f"<Session {self.name!r} id={self.id!r} {self.state}>"

    # --- Start and end -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._start(block=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._root is not None and self._scope is not None:
            try:
                self._root.end(ending_for(exc), error=exc)
            finally:
                _context.leave(self._scope)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, tb)

    def __call__(self, function: F) -> F:
        """Decorate a function, coroutine function, generator function or async generator function.

        Each call runs in a new session with these options.
        """
        if self._root is not None:
            raise SessionReuseError("a started session can't decorate: write @session(...) with a new one")
        return decorated(function, lambda _call: Session(self._options))

    def end(
        self,
        outcome: OutcomeName | None = None,
        *,
        reason: str | None = None,
        message: str | None = None,
    ) -> bool:
        """End the session; may be called again, and from any thread. Return False if it had ended.

        Only the root span is closed. What is open below it stays open and is marked as late when it ends,
        so that what it still learns is kept. `outcome` is ok unless said otherwise; error gives the root
        status ERROR with `message` as its description. `reason` is one of `lifecycle.EndReason`. Raises
        ConfigurationError for an unknown outcome or reason, and UsageError before the start.
        """
        ending = ending_of(outcome, reason)
        if self._root is None or self._scope is None:
            raise UsageError("the session has not started: enter it with `with`, or use start_session()")
        ended = self._root.end(ending, message=message)
        if self._scope.free:
            _context.leave(self._scope)
        return ended

    def _start(self, *, block: bool, current: bool = True) -> None:
        options = self._options
        if self._root is not None:
            raise SessionReuseError(
                f"session {self.name!r} was started before: make a new one with session(...); to go on under "
                f"the same id pass resume={self.id!r}"
            )
        runtime = _provider.for_session()
        root = self._root = Root(self.id, options, resumed=options.resume is not None)
        scope = self._scope = Scope(self, Place(root, options.stamp(self.id)), block=block)
        collected, exported = None, False
        with guard("session start"):
            if runtime is not None:
                root.liveness, collected = runtime.liveness_for(options), runtime.collected
                exported = runtime.exports
                root.enter_ledger()
                scope.span = _root_span(runtime.tracer, scope, options)
        with guard("session start"):
            root.bind(scope.span, self, collected, exported=exported)
        if not block and root.sampled:
            scope.span = StandIn(root, scope.before)
        if current:
            _context.enter(scope)
        else:
            scope.left = True

    # --- Inside --------------------------------------------------------------------------------------

    def task(
        self,
        name: str,
        *,
        id: str | None = None,  # noqa: A002 - as in session()
        attributes: Mapping[str, Any] | None = None,
    ) -> Task:
        """Return a task of this session: a block or a decorator; see `otel_sessions.task`."""
        return Task(name, task_id=id, attributes=attributes, find=lambda: (self, self._root))

    def waiting(self, reason: str = "approval") -> Waiting:
        """Return a block in which the session waits (for a person, a queue): it is shown so, not as hung.

        `reason` is of low cardinality. Raises ConfigurationError where it is no string or empty.
        """
        return Waiting(self._started(), text("reason", reason))

    def activate(self) -> Activation:
        """Return a block in which this session is current, in another thread, executor or greenlet.

        It neither starts nor ends the session.
        """
        return Activation(self, self._started())

    def carry(self) -> dict[str, str]:
        """Return headers that take the session to another process: `traceparent`, `baggage`."""
        return headers(self._started())

    def resume_token(self, *, expires_in: float = 30 * 86_400.0) -> str:
        """Return a token by which `session(resume=...)` goes on with this session, elsewhere or later.

        The later run links to this one's root. The token carries the session's id and that root, signed, and
        nothing else; it fits an environment variable or a header, and is void after `expires_in` seconds.
        Signed is it under OTEL_SESSIONS_RESUME_SECRET, which another machine has to share, else under a key
        that this user has on this machine.

        Raises ConfigurationError where there can be no key or `expires_in` is no time, and UsageError before
        the start.
        """
        from otel_sessions.sdk import _resume  # noqa: PLC0415 - few programs need it

        root, lifetime = self._started(), seconds("expires_in", expires_in)
        if lifetime is None:
            raise ConfigurationError("expires_in=None: a token that is good for ever can't be taken back")
        said = _resume.Resumed(self.id, root.trace_id, root.span_id)
        return _resume.token(said, _resume.key_for_making(os.environ), math.ceil(time.time() + lifetime))

    def _started(self) -> Root:
        if self._root is None:
            raise UsageError("the session has not started: enter it with `with`, or use start_session()")
        return self._root


class Waiting:
    """A block in which a session waits. Made by `Session.waiting`."""

    __slots__ = ("_reason", "_root")

    def __init__(self, root: Root, reason: str) -> None:
        self._root = root
        self._reason = reason

    def __enter__(self) -> None:
        self._root.wait(self._reason)

    def __exit__(self, *_exc: object) -> None:
        self._root.go_on(self._reason)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *_exc: object) -> None:
        self.__exit__()


class Activation:
    """A block in which a session is current. Made by `Session.activate`."""

    __slots__ = ("_root", "_scopes", "_session")

    def __init__(self, session: Session, root: Root) -> None:
        self._session = session
        self._root = root
        self._scopes: list[Scope] = []

    def __enter__(self) -> Session:
        root = self._root
        scope = Scope(self._session, Place(root, root.options.stamp(root.session_id)), block=True)
        scope.span = root.as_parent()
        self._scopes.append(scope)
        _context.enter(scope)
        return self._session

    def __exit__(self, *_exc: object) -> None:
        _context.leave(self._scopes.pop())

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(self, *_exc: object) -> None:
        self.__exit__()


# --- For our other modules -------------------------------------------------------------------------------


def begin(session: Session, *, current: bool = True) -> None:
    """Start a session that no block will end; `current` in this context, or in none."""
    session._start(block=False, current=current)  # noqa: SLF001 - no business of users


def root_of(session: Session) -> Root | None:
    """Return the run of a session; None before it starts."""
    return session._root  # noqa: SLF001 - no business of users


def scope_of(session: Session) -> Scope | None:
    """Return the scope that a session entered when it started; None before."""
    return session._scope  # noqa: SLF001 - no business of users


def continued(root: Root, parent: trace.Span, *, current: bool) -> Session:
    """Return a handle to a parent process's run; `current` in this context with `parent` as current span."""
    session = Session(root.options)
    session._root = root  # noqa: SLF001 - it never starts here
    session._scope = scope = Scope(session, Place(root, root.options.stamp(root.session_id)), block=True)  # noqa: SLF001
    scope.span = parent
    if current:
        _context.enter(scope)
    else:
        scope.left = True
    return session


def _root_span(tracer: trace.Tracer, scope: Scope, options: Options) -> trace.Span:
    context = _provider.below_carried(scope.before)
    links = [trace.Link(options.resumed_root)] if options.resumed_root is not None else []
    if options.nested == "root":
        around = trace.get_current_span(context).get_span_context()
        links += [trace.Link(around)] if around.is_valid else []
        context = trace.set_span_in_context(trace.INVALID_SPAN, context)
    return tracer.start_span(
        f"session {options.name}",
        otel.set_value(_context.PLACE_KEY, scope.place, context),
        attributes={
            **options.root_attributes(),
            semconv.PROCESS_ID: _process.process_id(),
            **scope.place.stamp,
        },
        links=links,
    )
