"""Set-up: join the tracer provider that exists, or build one.

One `Runtime` a process. It is set up by `init()`, or by the first session where a provider exists or the
environment names a target. A provider is never replaced and our processor is added to it once; what
changes later is the runtime behind the processor.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opentelemetry import trace

from otel_sessions import semconv
from otel_sessions._version import __version__
from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk import _context, _exit, _process
from otel_sessions.sdk._guard import guard, say_once
from otel_sessions.sdk._runtime import Arguments, Plan, ResourceView, Runtime
from otel_sessions.sdk._settings import Content, Settings, asks_for_export, names_endpoint, sdk_disabled
from otel_sessions.sdk._threads import carry_into_threads

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from otel_sessions.sdk._processor import SessionProcessor
    from otel_sessions.sdk._root import Root
    from otel_sessions.sdk._session import Session

__all__ = [
    "Arguments",
    "Confinement",
    "Runtime",
    "configure",
    "confined",
    "content",
    "current",
    "environ",
    "for_session",
    "fresh_id",
    "here",
    "task_traces",
    "tracer",
]

_HOST_NAME: Final = "host.name"
_ALONE: Final = {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "OTEL_SESSIONS_SPOOL": "off"}


@dataclass(frozen=True, slots=True)
class Confinement:
    """How tracing is set up while it is confined; `fresh_id` makes an id up for a kind of thing."""

    arguments: Arguments
    fresh_id: Callable[[str], str]


class _State:
    """The one runtime of this process, and the processors that were ever added to a provider."""

    __slots__ = ("built", "confinement", "lock", "processors", "runtime", "unjoined")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.confinement: Confinement | None = None
        self.runtime: Runtime | None = None
        self.built: TracerProvider | None = None
        self.processors: list[tuple[trace.TracerProvider, SessionProcessor]] = []
        self.unjoined: trace.Tracer = trace.get_tracer(semconv.SCOPE_NAME, __version__)


_state: Final = _State()


def current() -> Runtime | None:
    """Return the runtime, if there is one."""
    return _state.runtime


def tracer() -> trace.Tracer:
    """Return the tracer of our own spans; without a runtime the global provider's."""
    runtime = _state.runtime
    return _state.unjoined if runtime is None else runtime.tracer


def here() -> tuple[Session | None, Root | None]:
    """Return the session of this context and its run; else those of the whole process."""
    scope = _context.current_scope()
    if scope is not None and scope.session is not None:
        return scope.session, scope.place.root
    runtime = _state.runtime
    place = None if runtime is None else runtime.carried_place
    if runtime is None or place is None:
        return None, None
    return runtime.carried, place.root


def below_carried(context: Context) -> Context:
    """Return a context for a span that has no parent: in the run, if any, that all belongs to here."""
    place = _state.runtime.carried_place if _state.runtime is not None else None
    if place is None or place.root is None or trace.get_current_span(context).get_span_context().is_valid:
        return context
    return trace.set_span_in_context(place.root.as_parent(), context)


def content() -> Content:
    """Tell what of messages, arguments and results is recorded; without a runtime, as the environment says.

    There a value without sense counts as NO_CONTENT, which it may have meant, and is warned of once.
    """
    runtime = _state.runtime
    if runtime is not None:
        return runtime.settings.content
    variable = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    try:
        # This variable alone: another one without sense is no reason to lose content.
        return Settings.read({variable: os.environ.get(variable, "")}).content
    except ConfigurationError as error:
        say_once("content", "otel_sessions: messages, arguments and results are not recorded: %s", error)
        return Content.NEVER


def task_traces() -> bool:
    """Tell whether each task of a session is a trace of its own."""
    runtime = _state.runtime
    return runtime is not None and runtime.settings.task_traces


def environ() -> Mapping[str, str]:
    """Return the environment that governs: the process's, but while confined one that lets nothing out."""
    return os.environ if _state.confinement is None else _ALONE


def fresh_id(kind: str) -> str:
    """Make up the id of a session or task."""
    confinement = _state.confinement
    return str(uuid.uuid4()) if confinement is None else confinement.fresh_id(kind)


@contextmanager
def confined(confinement: Confinement, patience: float) -> Generator[None]:
    """Run on the provider of `confinement` alone in this block; afterwards all is as it was before.

    Whoever calls `init()` inside changes what is recorded, never where it goes. The threads of the block are
    waited for `patience` seconds at most.
    """
    with _state.lock:
        former = _state.runtime, _state.built, _state.confinement
        pipelines = [(provider, processor, processor.pipeline) for provider, processor in _state.processors]
        _state.runtime, _state.confinement = None, confinement
        _set_up_explicitly(confinement.arguments)
    try:
        yield
    finally:
        with _state.lock:
            runtime = _state.runtime
            _state.runtime, _state.built, _state.confinement = former
            for _, processor, pipeline in pipelines:
                processor.pipeline = pipeline
            _state.processors[:] = [(provider, processor) for provider, processor, _ in pipelines]
            outside = _state.runtime
            carry_into_threads(wanted=outside is not None and outside.settings.thread_context)
        if runtime is not None:
            runtime.finish(time.monotonic() + patience, with_provider=False)


def for_session() -> Runtime | None:
    """Return the runtime for a session that starts; without `init()` join or build only what is allowed."""
    runtime = _state.runtime
    if runtime is None:
        with _state.lock, guard("set-up"):
            runtime = _state.runtime or _set_up_implicitly()
    if runtime is not None and runtime.settings.signals and not _exit.watching():
        # The set-up was another thread's; this may be the main one.
        _exit.handle_signals(wanted=True)
    if runtime is not None and runtime.closed:
        say_once("closed", "otel_sessions: sessions are not recorded after shutdown(); call init() again")
        return None
    if runtime is not None and not runtime.spare.ready:
        # The process had too many threads at set-up, or is a forked child.
        runtime.ready()
    return runtime


def configure(asked: Arguments) -> Runtime | None:
    """Set up, or change what was set up; raise ConfigurationError and change nothing where that can't be.

    Returns None where OTEL_SDK_DISABLED switches tracing off.
    """
    with _state.lock:
        runtime, confinement = _state.runtime, _state.confinement
        if confinement is not None:
            asked = confinement.arguments.updated(asked.within())
        if runtime is None or runtime.closed:
            return _set_up_explicitly(asked)
        if runtime.arguments.automatic:
            asked = _beside_a_launcher(runtime, asked)
        plan = Plan.make(runtime.arguments.updated(asked), environ())
        _check_change(runtime, plan.arguments)
        runtime.change(plan)
        _exit.handle_signals(wanted=plan.settings.signals)
        return runtime


def _set_up_implicitly() -> Runtime | None:
    if sdk_disabled(os.environ):
        return None
    provider = _existing()
    asked = asks_for_export(os.environ)
    if provider is None and not asked:
        say_once(
            "unrecorded",
            "otel_sessions: sessions are not recorded: call otel_sessions.init(), "
            "or set OTEL_EXPORTER_OTLP_ENDPOINT",
        )
        return None
    try:
        plan = Plan.make(Arguments(), os.environ, events=names_endpoint(os.environ))
    except ConfigurationError as error:
        say_once("environment", "otel_sessions: sessions are not recorded: %s", error)
        return None
    return _install(provider, plan, explicit=False)


def _set_up_explicitly(asked: Arguments) -> Runtime | None:
    plan = Plan.make(asked, environ())
    if sdk_disabled(environ()):
        return None
    provider = asked.tracer_provider or _existing()
    runtime = _install(provider, plan, explicit=True)
    service = ResourceView(runtime.provider).get(semconv.SERVICE_NAME)
    if asked.service_name is not None and service != asked.service_name:
        say_once(
            "service name",
            "otel_sessions: service_name=%r has no effect: the tracer provider that exists was joined, "
            "and its resource says %r",
            asked.service_name,
            service,
        )
    return runtime


def _install(provider: trace.TracerProvider | None, plan: Plan, *, explicit: bool) -> Runtime:
    if provider is None:
        built = _build(plan.settings.service_name)
        trace.set_tracer_provider(built)
        # Another thread may have been faster; then its provider is the one.
        provider = _existing() or built
        _state.built = built if provider is built else None
    runtime = Runtime(provider, plan, own=provider is _state.built, explicit=explicit)
    _put_processor(runtime)
    _state.runtime = runtime
    carry_into_threads(wanted=plan.settings.thread_context)
    runtime.worker.start()
    if plan.events.exporter != "none":
        runtime.liveness.start()
    if _state.confinement is not None:
        return runtime  # the end of the process is not its business
    _exit.install(runtime)
    _exit.handle_signals(wanted=plan.settings.signals)
    return runtime


def _existing() -> trace.TracerProvider | None:
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


def _build(service_name: str | None) -> TracerProvider:
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - not before it is needed

    from otel_sessions.sdk._ids import PrivateIds  # noqa: PLC0415

    return TracerProvider(resource=_resource(service_name), id_generator=PrivateIds())


def _resource(service_name: str | None) -> Resource:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

    ours = Resource({semconv.PROCESS_PID: os.getpid(), _HOST_NAME: socket.gethostname()})
    named = {} if service_name is None else {semconv.SERVICE_NAME: service_name}
    try:
        return ours.merge(Resource.create(named))
    except RuntimeError:
        # It detects in threads, which a process at its limit, or at its end, can't start.
        bare = ours.merge(Resource(_without_detection())).merge(OTELResourceDetector().detect())
        return bare.merge(Resource(named))


def _without_detection() -> dict[str, str]:
    """Return what `Resource.create` knows without any detector."""
    return {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": version("opentelemetry-sdk"),
        semconv.SERVICE_INSTANCE_ID: str(uuid.uuid4()),
        semconv.SERVICE_NAME: f"unknown_service:{Path(sys.executable or 'python').name}",
    }


def _put_processor(runtime: Runtime) -> None:
    """Add our processor to the provider, once; a later runtime goes behind the one that is there."""
    from otel_sessions.sdk._processor import SessionProcessor  # noqa: PLC0415 - loads the OpenTelemetry SDK

    for provider, processor in _state.processors:
        if provider is runtime.provider:
            processor.pipeline = runtime
            return
    add = getattr(runtime.provider, "add_span_processor", None)
    if add is None:
        say_once(
            "foreign provider",
            "otel_sessions: the tracer provider %s takes no span processor: spans of others are not "
            "marked with their session, and nothing is counted",
            type(runtime.provider).__name__,
        )
        return
    processor = SessionProcessor(runtime)
    add(processor)
    _state.processors.append((runtime.provider, processor))


def _beside_a_launcher(runtime: Runtime, asked: Arguments) -> Arguments:
    """Return what of a program's wishes can be met where a launcher has set tracing up before it.

    Without the launcher the program runs, so with it nothing may be raised.
    """
    service = ResourceView(runtime.provider).get(semconv.SERVICE_NAME)
    if asked.service_name not in (None, service):
        say_once(
            "service name",
            "otel_sessions: service_name=%r has no effect: tracing was set up before the program, as %r; "
            "set OTEL_SERVICE_NAME",
            asked.service_name,
            service,
        )
        asked = replace(asked, service_name=None)
    if asked.tracer_provider not in (None, runtime.provider):
        say_once(
            "tracer provider",
            "otel_sessions: tracer_provider has no effect: another one was set up before the program, by how "
            "it was launched",
        )
        asked = replace(asked, tracer_provider=None)
    return asked


def _check_change(runtime: Runtime, arguments: Arguments) -> None:
    wanted = arguments.tracer_provider
    if wanted is not None and wanted is not runtime.provider:
        raise ConfigurationError(
            "tracer_provider: another provider is in use since the first init() or session, and can't be "
            "exchanged; pass tracer_provider to the first call"
        )
    service = ResourceView(runtime.provider).get(semconv.SERVICE_NAME)
    if runtime.own and arguments.service_name not in (None, service):
        raise ConfigurationError(
            f"service_name={arguments.service_name!r}: tracing runs as {service!r} since the first init() or "
            "session, and a resource can't be changed; pass service_name to the first call, or set "
            "OTEL_SERVICE_NAME"
        )


def _after_fork_in_child() -> None:
    _state.lock = threading.RLock()
    if _state.runtime is not None:
        _state.runtime.after_fork_in_child()


_process.around_fork(in_child=_after_fork_in_child)
