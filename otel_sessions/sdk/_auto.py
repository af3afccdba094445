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
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk import _carry, _instrument, _provider
from otel_sessions.sdk._context import Place
from otel_sessions.sdk._guard import guard, say_once
from otel_sessions.sdk._program import program_name
from otel_sessions.sdk._session import root_of
from otel_sessions.sdk._settings import names_service
from otel_sessions.sdk._start import session, start_solo

if TYPE_CHECKING:
    from otel_sessions.sdk._provider import Runtime

__all__ = ["EXPORTER", "begin", "begin_below_a_runner"]

EXPORTER: Final = "otel_sessions"
"""Our name in OTEL_TRACES_EXPORTER, where a configurator of others sets the provider up."""


def begin() -> None:
    """Set tracing up and start a session for the whole process, or take up the one that was carried here."""
    with guard("automatic set-up"):
        if not _wanted():
            return
        runtime = _set_up()
        if runtime is None or runtime.carried is not None:
            return
        _start_for_the_process(runtime, program_name(sys.orig_argv))


def begin_below_a_runner() -> None:
    """Switch the instrumentors on; set tracing up at their first span, in the session carried here."""
    with guard("automatic set-up"):
        if _wanted():
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
    """Start a session to which all belongs that has no other: of every thread, and of child processes."""
    started = start_solo(session(name))
    root = root_of(started)
    if root is None or not root.span_id:
        return
    runtime.carry(started, Place(root, root.options.stamp(started.id)))
    os.environ.update({header.upper(): value for header, value in started.carry().items()})


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

    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        """Start a span of the provider that is in use by now."""
        _first.happened()
        return super().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        """Start a span and make it current; a context manager or decorator."""
        _first.happened()
        return super().start_as_current_span(*args, **kwargs)


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
