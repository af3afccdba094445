"""What tracing runs on once it is set up: a provider with our processor, and the way out behind it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from otel_sessions import semconv
from otel_sessions._version import __version__
from otel_sessions.sdk import _exit
from otel_sessions.sdk._guard import guard, say
from otel_sessions.sdk._liveness import EventSettings, Liveness
from otel_sessions.sdk._settings import EXIT_DEADLINE, Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_sessions.sdk._context import Place
    from otel_sessions.sdk._export import Outlet, SpanWorker
    from otel_sessions.sdk._options import Options
    from otel_sessions.sdk._root import Root
    from otel_sessions.sdk._session import Session

__all__ = ["Arguments", "Plan", "ResourceView", "Runtime"]


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
    task_traces: bool | None = None

    def updated(self, later: Arguments) -> Arguments:
        """Return these arguments with what a later call asks for."""
        asked = {f.name: getattr(later, f.name) for f in fields(later) if getattr(later, f.name) is not None}
        return replace(self, **asked)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a set-up is going to do; made completely before anything is done."""

    arguments: Arguments
    settings: Settings
    events: EventSettings

    def way_out(self) -> tuple[object, ...]:
        """Return all that decides how spans leave."""
        said, read = self.arguments, self.settings
        return said.exporter, said.export, read.exporter, read.endpoint, read.delay, read.queue, read.batch

    @classmethod
    def make(cls, arguments: Arguments, *, events: bool = True) -> Plan:
        """Read the environment; raise ConfigurationError for what makes no sense."""
        settings = Settings.read(
            os.environ,
            capture=arguments.capture,
            signals=arguments.signals,
            trust_baggage=arguments.trust_baggage,
            task_traces=arguments.task_traces,
            service_name=arguments.service_name,
        )
        return cls(
            arguments,
            settings,
            EventSettings.from_environ(os.environ) if events else EventSettings(exporter="none"),
        )


class Runtime:
    """A provider with our processor on it, and the way out behind it. Implements `_processor.Pipeline`."""

    __slots__ = (
        "arguments",
        "carried",
        "carried_place",
        "closed",
        "cold",
        "events",
        "explicit",
        "liveness",
        "own",
        "processors",
        "provider",
        "settings",
        "take",
        "tracer",
        "worker",
    )

    def __init__(self, provider: trace.TracerProvider, plan: Plan, *, own: bool, explicit: bool) -> None:
        from otel_sessions.sdk._export import SpanWorker  # noqa: PLC0415 - loads the OpenTelemetry SDK

        self.provider = provider
        self.tracer = provider.get_tracer(semconv.SCOPE_NAME, __version__)
        self.own = own
        self.arguments = plan.arguments
        self.settings = plan.settings
        self.events = plan.events
        self.processors: Sequence[SpanProcessor] = plan.arguments.span_processors or ()
        self.carried: Session | None = None
        self.carried_place: Place | None = None
        outlet = _outlet(plan, own=own)
        if explicit:  # a session that sets tracing up may start in an event loop, which must not stall
            outlet.prepare()
        self.worker: SpanWorker = SpanWorker(outlet)
        self.take = self.worker.take
        self.cold = False
        self.liveness = Liveness(settings=plan.events, resource_attributes=ResourceView(provider))
        self.closed = False

    @property
    def trust_baggage(self) -> bool:
        """Whether a remote parent's baggage is believed."""
        return self.settings.trust_baggage

    @property
    def exports(self) -> bool:
        """Whether spans leave by our exporter, not only by those of others."""
        return self.worker.exports

    def liveness_for(self, options: Options) -> Liveness | None:
        """Return who reports on a run; where events are off, only a run with time limits needs somebody."""
        limited = options.timeout is not None or options.idle_timeout is not None
        return self.liveness if limited or self.events.exporter != "none" else None

    def ready(self) -> None:
        """Start the thread in a forked child."""
        self.cold = False
        self.worker.start()

    def after_fork_in_child(self) -> None:
        """Begin anew; the next span starts the thread."""
        self.worker.after_fork_in_child()
        self.liveness.after_fork_in_child()
        self.cold = True

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
        self.tracer = trace.NoOpTracer()
        # Both threads work at once while we wait for one after the other.
        self.worker.hurry(deadline)
        with guard("liveness"):
            self.liveness.close(deadline)
        self.worker.stop(deadline)
        self._complain()

    def _complain(self) -> None:
        """Say in one line what this process could not deliver."""
        with guard("complaint"):
            events = self.liveness.stats()
            lost = 0 if events.stopped else events.failed + events.dropped + events.queued
            spans = self.worker.sent()
            if spans.pending or spans.dropped:
                self.worker.complain(f" and {lost} life cycle events" if lost else "")
            elif lost:
                say(
                    "otel_sessions: %d of %d life cycle events were not delivered to %s%s",
                    lost,
                    lost + events.sent,
                    events.endpoint,
                    f" ({events.last_error})" if events.last_error else "",
                )

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

    def change(self, plan: Plan) -> None:
        """Go on under another plan."""
        outlet = _outlet(plan, own=self.own)
        if plan.way_out() != Plan(self.arguments, self.settings, self.events).way_out():
            outlet.prepare()
            self.worker.change(outlet)
        if plan.events != self.events:
            self.liveness.change(plan.events, time.monotonic() + EXIT_DEADLINE)
        self.arguments, self.settings, self.events = plan.arguments, plan.settings, plan.events
        self.processors = plan.arguments.span_processors or ()


def _outlet(plan: Plan, *, own: bool) -> Outlet:
    from otel_sessions.sdk._outlet import outlet  # noqa: PLC0415 - loads the OpenTelemetry SDK

    arguments = plan.arguments
    wanted = arguments.export if arguments.export is not None else own or arguments.exporter is not None
    return outlet(plan.settings, arguments.exporter, wanted=wanted)


class ResourceView(Mapping[str, Any]):
    """The provider's resource as it is now, for this process: a provider keeps the pid it was made with."""

    __slots__ = ("_provider",)

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._provider = provider

    def _now(self) -> Mapping[str, Any]:
        resource = getattr(self._provider, "resource", None)
        attributes: Mapping[str, Any] = {} if resource is None else resource.attributes
        return (
            {**attributes, semconv.PROCESS_PID: os.getpid()}
            if semconv.PROCESS_PID in attributes
            else attributes
        )

    def __getitem__(self, name: str) -> Any:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())
