"""Set-up: join the tracer provider that exists, or build one, and keep the way out of its spans.

One `Runtime` a process. It is set up by `init()`, or by the first session where a provider exists or the
environment names a target. A provider is never replaced and our processor is added to it once; what
changes later is the runtime behind the processor.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import trace

from otel_sessions import semconv
from otel_sessions._version import __version__
from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk import _exit, _process
from otel_sessions.sdk._guard import guard, say_once
from otel_sessions.sdk._liveness import EventSettings, Liveness
from otel_sessions.sdk._settings import EXIT_DEADLINE, Content, Settings, asks_for_export, sdk_disabled

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_sessions.sdk._context import Place
    from otel_sessions.sdk._export import Outlet, SpanWorker
    from otel_sessions.sdk._processor import SessionProcessor
    from otel_sessions.sdk._root import Options, Root
    from otel_sessions.sdk._session import Session

__all__ = ["Arguments", "Runtime", "configure", "content", "current", "for_session", "tracer"]

_PROCESS_PID: Final = "process.pid"
_HOST_NAME: Final = "host.name"


@dataclass(frozen=True, slots=True)
class Arguments:
    """What callers of `init()` have asked for so far; None is: nothing."""

    service_name: str | None = None
    tracer_provider: trace.TracerProvider | None = None
    exporter: SpanExporter | None = None
    export: bool | None = None
    span_processors: tuple[SpanProcessor, ...] | None = None
    capture: bool | None = None
    signals: bool | None = None
    trust_baggage: bool | None = None

    def updated(self, later: Arguments) -> Arguments:
        """Return these arguments with what a later call asks for."""
        asked = {f.name: getattr(later, f.name) for f in fields(later) if getattr(later, f.name) is not None}
        return replace(self, **asked)


class Runtime:
    """A provider with our processor on it, and the way out behind it. Implements `_processor.Pipeline`."""

    __slots__ = (
        "arguments",
        "carried",
        "carried_session",
        "closed",
        "events",
        "explicit",
        "liveness",
        "own",
        "processors",
        "provider",
        "settings",
        "tracer",
        "worker",
    )

    def __init__(self, provider: trace.TracerProvider, plan: _Plan, *, own: bool, explicit: bool) -> None:
        from otel_sessions.sdk._export import SpanWorker  # noqa: PLC0415 - loads the OpenTelemetry SDK

        self.provider = provider
        self.tracer = provider.get_tracer(semconv.SCOPE_NAME, __version__)
        self.own = own
        self.explicit = explicit
        self.arguments = plan.arguments
        self.settings = plan.settings
        self.events = plan.events
        self.processors: Sequence[SpanProcessor] = plan.arguments.span_processors or ()
        self.carried: Place | None = None
        self.carried_session: Session | None = None
        self.worker: SpanWorker = SpanWorker(_outlet(plan, own=own))
        self.liveness = Liveness(settings=plan.events, resource_attributes=_ResourceView(provider))
        self.closed = False

    @property
    def trust_baggage(self) -> bool:
        """Whether a remote parent's baggage is believed."""
        return self.settings.trust_baggage

    def liveness_for(self, options: Options) -> Liveness | None:
        """Return who reports on a run with these options; where events are off only its time limits need one."""
        limited = options.timeout is not None or options.idle_timeout is not None
        return self.liveness if limited or self.events.exporter != "none" else None

    def ready(self) -> None:
        """Start the thread in a forked child."""
        self.worker.start()

    def take(self, span: ReadableSpan, place: Place | None, *, late: bool) -> None:
        """Take an ended span; one that is recorded but not sampled goes no further."""
        if cast("trace.SpanContext", span.get_span_context()).trace_flags.sampled:
            self.worker.take(span, place, late=late)

    def flush(self, timeout: float) -> bool:
        """Wait until spans and events are out, at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self.worker.hurry(deadline)
        events = self.liveness.flush(deadline) if self.events.exporter != "none" else True
        return self.worker.flush(deadline) and events

    def close(self) -> None:
        """Send what is left within the deadline of process exit, and stop."""
        self.finish(time.monotonic() + EXIT_DEADLINE)

    def finish(self, deadline: float) -> None:
        """Send what is left until `deadline` (monotonic s), stop, and say what was not delivered."""
        if self.closed:
            return
        self.closed = True
        _state.tracer = trace.NoOpTracer()
        # Both threads work at once while we wait for one after the other.
        self.worker.hurry(deadline)
        with guard("liveness"):
            self.liveness.close(deadline)
        self.worker.stop(deadline)
        self.worker.complain()

    @property
    def busy(self) -> bool:
        """Whether the thread can't begin a job now."""
        return self.worker.busy

    def do(self, job: Callable[[], None]) -> None:
        """Run a job in the thread."""
        self.worker.do(job)

    def collected(self, root: Root) -> None:
        """Let the thread end a run that nobody holds any more; runs in finalisers, so it only enqueues."""
        self.worker.do(lambda: _exit.end_collected(root))

    def change(self, plan: _Plan) -> None:
        """Go on under another plan."""
        outlet = _outlet(plan, own=self.own)
        if (plan.settings, plan.arguments) != (self.settings, self.arguments):
            self.worker.change(outlet)
        if plan.events != self.events:
            former, self.liveness = (
                self.liveness,
                Liveness(settings=plan.events, resource_attributes=_ResourceView(self.provider)),
            )
            former.close(time.monotonic() + EXIT_DEADLINE)
        self.arguments, self.settings, self.events = plan.arguments, plan.settings, plan.events
        self.processors = plan.arguments.span_processors or ()
        self.explicit = True


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a set-up is going to do; made completely before anything is done."""

    arguments: Arguments
    settings: Settings
    events: EventSettings

    @classmethod
    def make(cls, arguments: Arguments, *, events: bool = True) -> _Plan:
        """Read the environment; raise ConfigurationError for what makes no sense."""
        settings = Settings.read(
            os.environ,
            capture=arguments.capture,
            signals=arguments.signals,
            trust_baggage=arguments.trust_baggage,
            service_name=arguments.service_name,
        )
        return cls(
            arguments,
            settings,
            EventSettings.from_environ(os.environ) if events else EventSettings(exporter="none"),
        )


class _State:
    """The one runtime of this process, and the processors that were ever added to a provider."""

    __slots__ = ("built", "lock", "processors", "runtime", "tracer")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runtime: Runtime | None = None
        self.built: TracerProvider | None = None
        self.processors: list[tuple[trace.TracerProvider, SessionProcessor]] = []
        self.tracer: trace.Tracer = trace.get_tracer(semconv.SCOPE_NAME, __version__)


_state: Final = _State()


def current() -> Runtime | None:
    """Return the runtime, if there is one."""
    return _state.runtime


def tracer() -> trace.Tracer:
    """Return the tracer of our own spans; without a runtime the global provider's."""
    return _state.tracer


def content() -> Content:
    """Tell what of messages, arguments and results is recorded."""
    runtime = _state.runtime
    return Content.EXPLICIT if runtime is None else runtime.settings.content


def for_session() -> Runtime | None:
    """Return the runtime for a session that starts; without `init()` join or build only what is allowed."""
    runtime = _state.runtime
    if runtime is None:
        with _state.lock, guard("set-up"):
            runtime = _state.runtime or _set_up_implicitly()
    if runtime is not None and runtime.closed:
        say_once("closed", "otel_sessions: sessions are not recorded after shutdown(); call init() again")
        return None
    return runtime


def configure(asked: Arguments) -> Runtime | None:
    """Set up, or change what was set up; raise ConfigurationError and change nothing where that can't be.

    Returns None where OTEL_SDK_DISABLED switches tracing off.
    """
    with _state.lock:
        runtime = _state.runtime
        if runtime is None or runtime.closed:
            return _set_up_explicitly(asked)
        plan = _Plan.make(runtime.arguments.updated(asked))
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
        plan = _Plan.make(Arguments(), events=asked)
    except ConfigurationError as error:
        say_once("environment", "otel_sessions: sessions are not recorded: %s", error)
        return None
    return _install(provider, plan, explicit=False)


def _set_up_explicitly(asked: Arguments) -> Runtime | None:
    plan = _Plan.make(asked)
    if sdk_disabled(os.environ):
        return None
    provider = asked.tracer_provider or _existing()
    runtime = _install(provider, plan, explicit=True)
    service = _ResourceView(runtime.provider).get(semconv.SERVICE_NAME)
    if asked.service_name is not None and service != asked.service_name:
        say_once(
            "service name",
            "otel_sessions: service_name=%r has no effect: the tracer provider that exists was joined, "
            "and its resource says %r",
            asked.service_name,
            service,
        )
    return runtime


def _install(provider: trace.TracerProvider | None, plan: _Plan, *, explicit: bool) -> Runtime:
    if provider is None:
        provider = _state.built = _build(plan.settings.service_name)
        trace.set_tracer_provider(provider)
    runtime = Runtime(provider, plan, own=provider is _state.built, explicit=explicit)
    _put_processor(runtime)
    _state.runtime = runtime
    _state.tracer = runtime.tracer
    runtime.worker.start()
    if plan.events.exporter != "none":
        runtime.liveness.start()
    _exit.install(runtime)
    _exit.handle_signals(wanted=plan.settings.signals)
    return runtime


def _existing() -> trace.TracerProvider | None:
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


def _build(service_name: str | None) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - not before it is needed
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    from otel_sessions.sdk._ids import PrivateIds  # noqa: PLC0415

    ours = Resource({_PROCESS_PID: os.getpid(), _HOST_NAME: socket.gethostname()})
    named = {} if service_name is None else {semconv.SERVICE_NAME: service_name}
    return TracerProvider(resource=ours.merge(Resource.create(named)), id_generator=PrivateIds())


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


def _check_change(runtime: Runtime, arguments: Arguments) -> None:
    wanted = arguments.tracer_provider
    if wanted is not None and wanted is not runtime.provider:
        raise ConfigurationError(
            "tracer_provider: another provider is in use since the first init() or session, and can't be "
            "exchanged; pass tracer_provider to the first call"
        )
    service = _ResourceView(runtime.provider).get(semconv.SERVICE_NAME)
    if runtime.own and arguments.service_name not in (None, service):
        raise ConfigurationError(
            f"service_name={arguments.service_name!r}: tracing runs as {service!r} since the first init() or "
            "session, and a resource can't be changed; pass service_name to the first call, or set "
            "OTEL_SERVICE_NAME"
        )


def _outlet(plan: _Plan, *, own: bool) -> Outlet:
    from otel_sessions.sdk._outlet import outlet  # noqa: PLC0415 - loads the OpenTelemetry SDK

    arguments = plan.arguments
    wanted = arguments.export if arguments.export is not None else own or arguments.exporter is not None
    return outlet(plan.settings, arguments.exporter, wanted=wanted)


class _ResourceView(Mapping[str, Any]):
    """The provider's resource as it is now, for this process: a provider keeps the pid it was made with."""

    __slots__ = ("_provider",)

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._provider = provider

    def _now(self) -> Mapping[str, Any]:
        resource = getattr(self._provider, "resource", None)
        attributes: Mapping[str, Any] = {} if resource is None else resource.attributes
        return {**attributes, _PROCESS_PID: os.getpid()} if _PROCESS_PID in attributes else attributes

    def __getitem__(self, name: str) -> Any:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


def _before_fork() -> None:
    if _state.runtime is not None:
        _state.runtime.worker.before_fork()


def _after_fork_in_parent() -> None:
    if _state.runtime is not None:
        _state.runtime.worker.after_fork_in_parent()


def _after_fork_in_child() -> None:
    _state.lock = threading.RLock()
    if _state.runtime is not None:
        _state.runtime.worker.after_fork_in_child()
        _state.runtime.liveness.after_fork_in_child()


_process.around_fork(before=_before_fork, in_parent=_after_fork_in_parent, in_child=_after_fork_in_child)
