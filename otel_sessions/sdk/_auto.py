"""Tracing without a line of code: what the launchers call before the program runs.

`opentelemetry-instrument` calls `begin` through the entry point group `opentelemetry_pre_instrument`: behind
every configurator and before the first instrumentor. So whatever distribution sets a provider up is joined,
ours is built only where none did, and no distribution of others is ever displaced. `otel-sessions run` calls
`begin_below_a_runner` in a Python child, which waits for the first span of an instrumentor: until then the
program may set up its own tracing as if we were not there.

Nothing here ever raises.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry import context as otel
from opentelemetry import trace

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk import _carry, _instrument, _provider
from otel_sessions.sdk._calls import decorated
from otel_sessions.sdk._context import Place
from otel_sessions.sdk._guard import guard, say_once
from otel_sessions.sdk._program import names_gevent, program_name
from otel_sessions.sdk._session import root_of
from otel_sessions.sdk._settings import names_service
from otel_sessions.sdk._start import session, start_solo

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from opentelemetry.context import Context

    from otel_sessions.sdk._provider import Runtime

__all__ = ["EXPORTER", "begin", "begin_below_a_runner"]

EXPORTER: Final = "otel_sessions"
"""Our name in OTEL_TRACES_EXPORTER, where a configurator of others sets the provider up."""

F = TypeVar("F", bound=Callable[..., Any])

_ASKED_FOR: Final = (trace.SpanKind.SERVER, trace.SpanKind.CONSUMER)
"""Kinds of what others asked for: without a parent of theirs a trace of its own, as everywhere."""


def begin() -> None:
    """Set tracing up and start a session for the whole process, or take up the one that was carried here."""
    with guard("automatic set-up"):
        if not _wanted():
            return
        runtime = _set_up()
        if runtime is None:
            return
        runtime.load()  # before the program begins, which may exchange what is imported (gevent's patch_all)
        if runtime.carried is not None:
            return
        _start_for_the_process(runtime, program_name(sys.orig_argv))


def begin_below_a_runner() -> None:
    """Switch the instrumentors on; set tracing up at their first span, in the session carried here."""
    with guard("automatic set-up"):
        if not _wanted():
            return
        if _instrument.asked(os.environ) is None and names_gevent(sys.orig_argv):
            say_once(
                "gevent",
                "otel_sessions: no instrumentor is switched on, for gevent has to patch this program before "
                "it imports anything: %s=true (`run --instrument`) does so all the same",
                _instrument.VARIABLE,
            )
            return
        _instrument.switch_on(os.environ, _LateProvider())


def _wanted() -> bool:
    try:
        return _instrument.asked(os.environ) is not False
    except ConfigurationError as error:
        say_once("environment", "otel_sessions: nothing is traced by itself: %s", error)
        return False


def _set_up() -> Runtime | None:
    """Join the provider that exists, or build one; None where tracing is switched off, or makes no sense."""
    built_by_others = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    name = None if built_by_others or names_service(os.environ) else program_name(sys.orig_argv)
    asked = _provider.Arguments(
        service_name=name,
        export=True if built_by_others and _named_by(os.environ) else None,
        automatic=True,
    )
    try:
        runtime = _provider.configure(asked)
    except ConfigurationError as error:
        say_once("environment", "otel_sessions: nothing is traced by itself: %s", error)
        return None
    if runtime is not None:
        _carry.take_up(runtime, os.environ)
    return runtime


def _named_by(environ: Mapping[str, str]) -> bool:
    return EXPORTER in (name.strip().lower() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(","))


def _start_for_the_process(runtime: Runtime, name: str) -> None:
    """Start a session to which all belongs that has no other: of every thread, and of child processes.

    It is current in no context: every task of asyncio would inherit its root, as the parent of what a server
    is asked for by others.
    """
    started = start_solo(session(name), current=False)
    root = root_of(started)
    if root is None or not root.span_id:
        return
    runtime.carry(started, Place(root, root.options.stamp(started.id)))
    _carry.announce(started)


class _LateProvider(trace.TracerProvider):
    """A provider whose tracers find out at their first span where spans go."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> trace.Tracer:
        """Return a tracer of the provider that there will be."""
        return _LateTracer(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)


class _LateTracer(trace.ProxyTracer):
    """A tracer that sets tracing up before its first span, unless the program has done so."""

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        *args: Any,
        **kwargs: Any,
    ) -> trace.Span:
        """Start a span of the provider that is in use by now."""
        _first.happened()
        return super().start_span(name, _parent(context, kind), kind, *args, **kwargs)

    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Start a span and make it current; a context manager or decorator."""

        def block() -> AbstractContextManager[trace.Span]:
            _first.happened()
            start = super(_LateTracer, self).start_as_current_span
            return start(name, _parent(context, kind), kind, *args, **kwargs)

        return _Block(block)


def _parent(context: Context | None, kind: trace.SpanKind) -> Context:
    """Return the context of a span: what has no parent here is in the run carried here, but others' calls."""
    context = otel.get_current() if context is None else context
    return context if kind in _ASKED_FOR else _provider.below_carried(context)


class _Block:
    """What starts a span when it is entered, or at each call of what it decorates."""

    __slots__ = ("_entered", "_make")

    def __init__(self, make: Callable[[], AbstractContextManager[trace.Span]]) -> None:
        self._make = make
        self._entered: AbstractContextManager[trace.Span] | None = None

    def __enter__(self) -> trace.Span:
        self._entered = self._make()
        return self._entered.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._entered is not None:
            self._entered.__exit__(kind, exc, tb)

    def __call__(self, function: F) -> F:
        return decorated(function, lambda _call: _Block(self._make))


class _First:
    """The first span of all late tracers; one instance."""

    __slots__ = ("_lock", "_over")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._over = False

    def happened(self) -> None:
        """Set tracing up, once; whoever comes meanwhile waits for it."""
        if self._over:
            return
        with self._lock:
            if not self._over:
                with guard("automatic set-up"):
                    _set_up()
                self._over = True

    def renew(self) -> None:
        """Free the lock, which the parent may have held at the fork."""
        self._lock = threading.RLock()


_first: Final = _First()
