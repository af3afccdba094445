"""Session: open the root, make it current, end it once.

The handle that users hold. What belongs to the run itself is in `_root.py`, what is current in
`_context.py`; a Session joins the two. Nobody but user code and contexts holds one strongly.
"""

from __future__ import annotations

import sys
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

from opentelemetry import context as otel
from opentelemetry import trace

from otel_sessions import semconv
from otel_sessions.errors import ConfigurationError, SessionReuseError, UsageError
from otel_sessions.lifecycle import ENDINGS, Ending, EndReason, Outcome, ending_for
from otel_sessions.sdk import _context, _process, _provider
from otel_sessions.sdk._calls import decorated
from otel_sessions.sdk._context import Place, Scope
from otel_sessions.sdk._guard import guard, say_once
from otel_sessions.sdk._root import Options, Root
from otel_sessions.sdk._values import attribute_values

if TYPE_CHECKING:
    from types import TracebackType

    from otel_sessions.sdk._task import Task

__all__ = [
    "Session",
    "current_session",
    "end_session",
    "place_of",
    "session",
    "start",
    "start_session",
    "start_solo",
    "taken_up",
]

F = TypeVar("F", bound=Callable[..., Any])
Nested = Literal["root", "child"]
OutcomeName = Literal["ok", "error", "cancelled"]

_REMEMBERED_IDS: Final = 10_000
"""Ids of this process's sessions that are remembered, to tell a later run of one as resumed (1 MB)."""

_NESTED: Final = ("root", "child")


class _Ids:
    """The ids that sessions of this process had lately; and the session that only a new start ends."""

    __slots__ = ("known", "solo")

    def __init__(self) -> None:
        self.known: OrderedDict[str, None] = OrderedDict()
        self.solo: Session | None = None

    def seen(self, session_id: str) -> bool:
        """Tell whether there was such a session before, and remember it."""
        seen = session_id in self.known
        self.known[session_id] = None
        if len(self.known) > _REMEMBERED_IDS:
            with guard("ids"):
                self.known.popitem(last=False)
        return seen


_ids: Final = _Ids()


class Session:
    """One coherent run or conversation of an agent application. Made by `session()` and `start_session()`.

    Use it as a block (`with`, `async with`), as a decorator, or started and ended by hand. A Session starts
    once; as a decorator it makes a new one for each call. While it is current, every span of the tracer
    provider bears its id, those of other libraries included.
    """

    __slots__ = ("__weakref__", "_options", "_root", "_scope", "_session_id")

    def __init__(self, options: Options) -> None:
        self._options = options
        self._session_id = options.id or options.resume or str(uuid.uuid4())
        self._root: Root | None = None
        self._scope: Scope | None = None

    # --- What is known of it -----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """`session.id`."""
        return self._session_id

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
        """Why it ended, a value of the table "How a run ends"; None before the end."""
        ending = self._root.ending if self._root is not None else None
        return ending.reason.value if ending is not None else None

    def __repr__(self) -> str:
        return f"<Session {self.name!r} id={self.id!r} {self.state}>"

    # --- Start and end --------------------------------------------------------------------------------------

    def __enter__(self) -> Session:
        self._start(block=True)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._leave(exc)

    async def __aenter__(self) -> Session:
        self._start(block=True)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._leave(exc)

    def __call__(self, function: F) -> F:
        """Decorate a function, coroutine function, generator function or async generator function.

        Each call runs in a new session with these options.
        """
        if self._root is not None:
            raise SessionReuseError("a started session can't decorate: write @session(...) with a new one")
        return decorated(function, lambda _arguments: Session(self._options))

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
        ending = _ending(outcome, reason)
        if self._root is None:
            raise UsageError("the session has not started: enter it with `with`, or use start_session()")
        ended = self._root.end(ending, message=message)
        if self._scope is not None and self._scope.free:
            _context.leave(self._scope)
        return ended

    def _start(self, *, block: bool) -> None:
        if self._root is not None:
            raise SessionReuseError(
                f"session {self.name!r} was started before: make a new one with session(...); to go on under "
                f"the same id pass resume={self.id!r}"
            )
        options = self._options
        root = Root(self.id, options, resumed=_ids.seen(self.id) or options.resume is not None)
        self._root = root
        runtime = _provider.for_session()
        scope = self._scope = Scope(self, Place(root, _stamp(self.id, options)), block=block)
        if runtime is not None:
            root.liveness = runtime.liveness_for(options)
            with guard("session start"):
                scope.span = _root_span(runtime.tracer, scope.place, options)
        with guard("session start"):
            root.bind(scope.span, self, runtime.collected if runtime is not None else None)
        _context.enter(scope)

    def _leave(self, exc: BaseException | None) -> None:
        root, scope = self._root, self._scope
        if root is None or scope is None:
            return
        root.end(ending_for(exc), error=exc)
        _context.leave(scope)

    # --- Inside -------------------------------------------------------------------------------------------------

    def task(self, name: str, *, id: str | None = None, attributes: Mapping[str, Any] | None = None) -> Task:  # noqa: A002
        """Return a task of this session: a block or a decorator. See `otel_sessions.task`."""
        from otel_sessions.sdk._task import Task  # noqa: PLC0415 - a task knows its session

        return Task(name, task_id=id, attributes=attributes or {}, session=self)

    def waiting(self, reason: str = "approval") -> Waiting:
        """Return a block in which the session waits (for a person, a queue): it is shown so, not as hung."""
        return Waiting(self, reason)

    def activate(self) -> Activation:
        """Return a block in which this session is current, in another thread, executor or greenlet.

        It neither starts nor ends the session.
        """
        return Activation(self)

    def carry(self) -> dict[str, str]:
        """Return headers that take the session to another process: `traceparent`, `baggage`."""
        from otel_sessions.sdk._carry import headers  # noqa: PLC0415 - a carrier knows sessions

        return headers(self)


class Waiting:
    """A block in which a session waits. Made by `Session.waiting`."""

    __slots__ = ("_reason", "_session")

    def __init__(self, session: Session, reason: str) -> None:
        self._session = session
        self._reason = reason

    def __enter__(self) -> None:
        if self._session._root is not None:
            self._session._root.wait(self._reason)

    def __exit__(self, *_exc: object) -> None:
        if self._session._root is not None:
            self._session._root.resume(self._reason)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *_exc: object) -> None:
        self.__exit__()


class Activation:
    """A block in which a session is current. Made by `Session.activate`."""

    __slots__ = ("_scopes", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._scopes: list[Scope] = []

    def __enter__(self) -> Session:
        place = place_of(self._session)
        if place is None or place.root is None:
            raise UsageError("the session has not started: there is nothing to activate")
        scope = Scope(self._session, place, block=True)
        scope.span = place.root.as_parent()
        self._scopes.append(scope)
        _context.enter(scope)
        return self._session

    def __exit__(self, *_exc: object) -> None:
        _context.leave(self._scopes.pop())

    async def __aenter__(self) -> Session:
        return self.__enter__()

    async def __aexit__(self, *_exc: object) -> None:
        self.__exit__()


# --- The functions that users call ------------------------------------------------------------------------------


def session(
    name: str = "session",
    *,
    id: str | None = None,  # noqa: A002 - the word of the convention, session.id
    title: str | None = None,
    user_id: str | None = None,
    conversation_id: str | None = None,
    tags: Iterable[str] = (),
    attributes: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    resume: str | None = None,
    nested: Nested = "root",
) -> Session:
    """Return a session that has not started: a block (`with`, `async with`) or a decorator.

    `name` is of low cardinality ("plan trip"), `title` the human text of this one session. `id` is made
    up unless given; `resume` is the id of a session to go on with. `user_id` and `conversation_id` are put
    on every span as `user.id` and `gen_ai.conversation.id`, `attributes` and `tags` on the root span.
    `timeout` and `idle_timeout`, in seconds, end the session but never interrupt code; idle is a session
    without open model or tool call, without any span starting or ending, that does not wait.
    A session starts a trace of its own that links to the span that is current; `nested="child"` makes it a
    child of that span instead.

    Raises ConfigurationError for a value of the wrong kind, and SessionReuseError when it starts twice.
    """
    return Session(
        Options(
            name=_text("name", name) or "session",
            id=_optional_text("id", id),
            title=_optional_text("title", title),
            user_id=_optional_text("user_id", user_id),
            conversation_id=_optional_text("conversation_id", conversation_id),
            tags=_texts("tags", tags),
            attributes=attribute_values(attributes or {}),
            timeout=_seconds("timeout", timeout),
            idle_timeout=_seconds("idle_timeout", idle_timeout),
            resume=_optional_text("resume", resume),
            nested=_one_of("nested", nested, _NESTED),
        )
    )


def start_session(
    name: str = "session",
    *,
    id: str | None = None,  # noqa: A002 - as in session()
    title: str | None = None,
    user_id: str | None = None,
    conversation_id: str | None = None,
    tags: Iterable[str] = (),
    attributes: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    resume: str | None = None,
    nested: Nested = "root",
) -> Session:
    """Start a session and return it, for code without a block (notebooks, servers); see `session`.

    It is current in this context until `end()`. A session started inside another nests. In IPython a new
    start ends the one that an earlier start began (`superseded`): there is no block to leave there.
    """
    made = session(
        name,
        id=id,
        title=title,
        user_id=user_id,
        conversation_id=conversation_id,
        tags=tags,
        attributes=attributes,
        timeout=timeout,
        idle_timeout=idle_timeout,
        resume=resume,
        nested=nested,
    )
    return start_solo(made) if _in_ipython() else start(made)


def start(made: Session) -> Session:
    """Start a session that no block will end."""
    made._start(block=False)
    return made


def start_solo(made: Session) -> Session:
    """Start a session that ends the one which was started so before."""
    former, _ids.solo = _ids.solo, made
    if former is not None and former._root is not None:
        former._root.end(ENDINGS["superseded"])
        if former._scope is not None:
            _context.leave(former._scope)
    return start(made)


def current_session() -> Session | None:
    """Return the session of this context, or None. There is no other: sessions of other contexts are theirs."""
    scope = _context.current_scope()
    if scope is not None:
        return scope.session
    runtime = _provider.current()
    return runtime.carried_session if runtime is not None else None


def end_session(
    outcome: OutcomeName | None = None, *, reason: str | None = None, message: str | None = None
) -> bool:
    """End the session of this context; see `Session.end`. Without one return False, and log that once."""
    ending = current_session()
    if ending is None:
        _ending(outcome, reason)
        say_once(
            "no session", "otel_sessions: end_session() was called where no session is current; nothing ended"
        )
        return False
    return ending.end(outcome, reason=reason, message=message)


def place_of(made: Session) -> Place | None:
    """Return where spans of a session belong, its tasks aside; None before it starts."""
    return made._scope.place if made._scope is not None else None


def taken_up(place: Place, parent: trace.Span) -> Session:
    """Return a handle to the run that a parent process carried here, current in this context."""
    root = place.root
    if root is None:
        raise UsageError("a session that is taken up has a run")
    handle = Session(root.options)
    handle._root = root
    handle._scope = scope = Scope(handle, place, block=True)
    scope.span = parent
    _context.enter(scope)
    return handle


# --- Details ----------------------------------------------------------------------------------------------------


def _root_span(tracer: trace.Tracer, place: Place, options: Options) -> trace.Span:
    context = _context.parent_context()
    links: list[trace.Link] = []
    if options.nested == "root":
        around = trace.get_current_span(context).get_span_context()
        if around.is_valid:
            links.append(trace.Link(around))
        context = trace.set_span_in_context(trace.INVALID_SPAN, context)
    return tracer.start_span(
        f"session {options.name}",
        context=otel.set_value(_context.PLACE_KEY, place, context),
        attributes={**options.attributes, **_root_attributes(options), **place.stamp},
        links=links,
    )


def _root_attributes(options: Options) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        semconv.SESSION_NAME: options.name,
        semconv.PROCESS_ID: _process.process_id(),
    }
    if options.title is not None:
        attributes[semconv.SESSION_TITLE] = options.title
    if options.tags:
        attributes[semconv.SESSION_TAGS] = options.tags
    return attributes


def _stamp(session_id: str, options: Options) -> dict[str, str]:
    stamp = {semconv.SESSION_ID: session_id}
    if options.user_id is not None:
        stamp[semconv.USER_ID] = options.user_id
    if options.conversation_id is not None:
        stamp[semconv.GEN_AI_CONVERSATION_ID] = options.conversation_id
    return stamp


def _ending(outcome: str | None, reason: str | None) -> Ending:
    known_outcomes = [known.value for known in Outcome]
    known_reasons = [known.value for known in EndReason]
    if outcome is not None and outcome not in known_outcomes:
        raise ConfigurationError(
            f"outcome={outcome!r} is not known: write one of {', '.join(known_outcomes)}"
        )
    if reason is not None and reason not in known_reasons:
        raise ConfigurationError(f"reason={reason!r} is not known: write one of {', '.join(known_reasons)}")
    ending = ENDINGS["left"] if reason is None else _by_reason(EndReason(reason))
    if outcome is not None:
        ending = ending._replace(outcome=Outcome(outcome), error=outcome == Outcome.ERROR.value)
    return ending


def _by_reason(reason: EndReason) -> Ending:
    return next(ending for ending in ENDINGS.values() if ending.reason is reason)


def _in_ipython() -> bool:
    ipython = sys.modules.get("IPython")
    with guard("IPython"):
        return ipython is not None and ipython.get_ipython() is not None
    return False


def _text(option: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{option} has to be a string, not {type(value).__name__}")
    return value


def _optional_text(option: str, value: object) -> str | None:
    if value is None:
        return None
    if not _text(option, value):
        raise ConfigurationError(f"{option} has to be None or a string that is not empty")
    return cast("str", value)


def _texts(option: str, values: Iterable[object]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ConfigurationError(f"{option} has to be a list of strings: write [{values!r}]")
    return tuple(_text(option, value) for value in values)


def _seconds(option: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{option}={value!r} has to be a number of seconds above 0, or None")
    return float(value)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ConfigurationError(f"{option}={value!r} is not known: write one of {', '.join(known)}")
    return value
