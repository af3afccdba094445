"""Taking a session elsewhere: into another thread or executor, into a child process and out again."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_sessions import semconv
from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk import _context, _provider
from otel_sessions.sdk._calls import decorated, is_suspended, put_back
from otel_sessions.sdk._context import Place
from otel_sessions.sdk._headers import NAMES, headers, with_headers
from otel_sessions.sdk._ledger import ledgers
from otel_sessions.sdk._options import Options
from otel_sessions.sdk._root import Root
from otel_sessions.sdk._session import continued
from otel_sessions.sdk._values import shown

if TYPE_CHECKING:
    from types import TracebackType

    from otel_sessions.sdk._provider import Runtime
    from otel_sessions.sdk._session import Session

__all__ = ["announce", "child_env", "is_announced", "take_up", "wrap"]

F = TypeVar("F", bound=Callable[..., Any])

_SPAN_ID: Final = 16
_TRACE_ID: Final = 32


def wrap(function: F) -> F:
    """Return `function` so that it runs with what is current now, wherever it is called.

    For threads, timers, executors and greenlets, which start without a session. Context variables of
    others are taken along too, but by generators and coroutines: these are inside of our context while they
    run, wherever each step is made, and what is current there is put back between the steps. Calls may run
    at the same time. Raises ConfigurationError for what can't be called.
    """
    if not callable(function):
        raise ConfigurationError(f"wrap({shown(function)}): write the function itself, without calling it")
    if is_suspended(function):
        state = _context.snapshot()
        return decorated(function, lambda _call: _Within(state))
    context = copy_context()

    def call(*args: Any, **kwargs: Any) -> Any:
        return context.copy().run(function, *args, **kwargs)

    return cast("F", functools.update_wrapper(call, function))


class _Within:
    """A block in which `state` is current."""

    __slots__ = ("_before", "_state")

    def __init__(self, state: _context.State) -> None:
        self._state = state
        self._before = state

    def __enter__(self) -> None:
        self._before = _context.swap(self._state)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:  # closed while it waited, perhaps by the collector in another context
            put_back(self._state, self._before)
        else:
            _context.swap(self._before)


def child_env() -> dict[str, str]:
    """Return this process's environment plus what carries the current session, for a child process.

    As in `subprocess.run(command, env=child_env())`. The child takes the session up by `init()`: its spans
    belong to it, and it opens no run of its own. Entries of others in BAGGAGE are passed on.
    """
    return with_headers(os.environ, headers(_provider.here()[1]))


def announce(session: Session) -> None:
    """Put a started session into this process's own environment, for whatever it starts from now on."""
    environ = with_headers(os.environ, session.carry())
    for name in [name for name in os.environ if name not in environ]:
        del os.environ[name]
    os.environ.update(environ)


def is_announced(session: Session) -> bool:
    """Tell whether this process's environment carries a session."""
    context = W3CBaggagePropagator().extract({"baggage": os.environ.get("BAGGAGE", "")}, Context())
    return baggage.get_baggage(semconv.SESSION_ID, context) == session.id


def take_up(runtime: Runtime, environ: Mapping[str, str]) -> None:
    """Take the session up that a parent process put into the environment, for this whole process.

    Current in this context too, where the program asked for it; a span that is current would be inherited by
    every task of asyncio, and be the parent of what a server is asked for by others.
    """
    carried = {name: environ[name.upper()] for name in NAMES if environ.get(name.upper())}
    if runtime.carried is not None or not carried:
        return
    context = TraceContextTextMapPropagator().extract(carried, _context.parent_context())
    context = W3CBaggagePropagator().extract(carried, context)
    session_id = baggage.get_baggage(semconv.SESSION_ID, context)
    run = _number(baggage.get_baggage(semconv.BAGGAGE_RUN, context), _SPAN_ID)
    run_trace = _number(baggage.get_baggage(semconv.BAGGAGE_TRACE, context), _TRACE_ID)
    parent = trace.get_current_span(context)
    if not isinstance(session_id, str) or not session_id:
        return
    known = ledgers.find(session_id)
    root = None if known is None else next((run for run in known.runs if run.child), None)
    if known is not None and root is None:
        return  # one of our own, put there for child processes
    if root is None:  # else we were forked, in a thread where it was not current
        root = Root(session_id, Options(name="", id=session_id))
        above = parent.get_span_context()
        if run_trace:
            above = trace.SpanContext(run_trace, above.span_id, is_remote=True, trace_flags=above.trace_flags)
        root.attend(runtime.liveness_for(root.options), above, run)
    current = not runtime.arguments.automatic
    runtime.carry(continued(root, parent, current=current), Place(root, root.options.stamp(session_id)))


def _number(value: object, digits: int) -> int:
    """Read an id of so many hex digits; 0 for what is none."""
    text = value if isinstance(value, str) else ""
    return int(text, 16) if len(text) == digits and all(c in "0123456789abcdef" for c in text) else 0
