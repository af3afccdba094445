"""What tracing runs on once it is set up: a provider with our processor, and the way out behind it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from otel_sessions import semconv
from otel_sessions._version import __version__
from otel_sessions.sdk import _exit
from otel_sessions.sdk._guard import guard, say, say_once
from otel_sessions.sdk._importing import importing
from otel_sessions.sdk._liveness import EventSettings, Liveness
from otel_sessions.sdk._others import Others
from otel_sessions.sdk._registry import registry
from otel_sessions.sdk._settings import EXIT_DEADLINE, Settings
from otel_sessions.sdk._spare import Spare
from otel_sessions.sdk._threads import carry_into_threads
from otel_sessions.sdk._tls_files import insist_on_files
from otel_sessions.sdk._transport import load_transport

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_sessions.sdk._context import Place
    from otel_sessions.sdk._export import Outlet, SpanWorker
    from otel_sessions.sdk._options import Options
    from otel_sessions.sdk._root import Root
    from otel_sessions.sdk._session import Session

__all__ = ["Arguments", "Plan", "ResourceView", "Runtime"]

_FOR_ANSWERS: Final = 0.25
"""Share of the time at the end in which the last spans are to be answered before the last events leave."""
_NOT_BY_OTHERS: Final = "a span processor of others did not finish in time, or said so"


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
    automatic: bool | None = None
    """Whether no line of the program asked for it, but how it was launched."""
    thread_context: bool | None = None

    def updated(self, later: Arguments) -> Arguments:
        """Return these arguments with what a later call asks for."""
        asked = {f.name: getattr(later, f.name) for f in fields(later) if getattr(later, f.name) is not None}
        return replace(self, **asked)

    def within(self) -> Arguments:
        """Return what of these arguments decides on what is recorded, and nothing that reaches outside."""
        return Arguments(
            capture=self.capture,
            trust_baggage=self.trust_baggage,
            task_traces=self.task_traces,
            thread_context=self.thread_context,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a set-up is going to do; made completely before anything is done."""

    arguments: Arguments
    settings: Settings
    events: EventSettings

    def way_out(self) -> tuple[object, ...]:
        """Return all that decides how spans leave."""
        said, read = self.arguments, self.settings
        return (
            said.exporter,
            said.export,
            read.exporter,
            read.endpoint,
            read.delay,
            read.queue,
            read.batch,
            read.spool,
        )

    @classmethod
    def make(cls, arguments: Arguments, environ: Mapping[str, str], *, events: bool = True) -> Plan:
        """Read the environment; raise ConfigurationError for what makes no sense."""
        settings = Settings.read(
            environ,
            capture=arguments.capture,
            signals=arguments.signals,
            trust_baggage=arguments.trust_baggage,
            task_traces=arguments.task_traces,
            thread_context=arguments.thread_context,
            service_name=arguments.service_name,
        )
        told = EventSettings.from_environ(environ) if events else EventSettings(exporter="none")
        if arguments.exporter is None and arguments.export is not False:
            insist_on_files("traces", settings.endpoint, environ)
        if told.exporter == "otlp":
            insist_on_files("logs", told.endpoint, environ)
        return cls(arguments, settings, told)


class Runtime:
    """A provider with our processor on it, and the way out behind it.

    Implements `_processor.Pipeline` and `_exit.Ender`.
    """

    __slots__ = (
        "_carried_place",
        "_finished",
        "_finishing",
        "arguments",
        "carried",
        "closed",
        "cold",
        "events",
        "explicit",
        "hearsay",
        "liveness",
        "missed",
        "others",
        "own",
        "processors",
        "provider",
        "settings",
        "spare",
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
        self._carried_place: Place | None = None
        outlet = _outlet(plan, own=own)
        if explicit:  # a session that sets tracing up may start in an event loop, which must not stall
            outlet.prepare()
        self.worker: SpanWorker = SpanWorker(outlet)
        self.take = self.worker.take
        self.cold = False
        self.hearsay = self._is_hearsay()
        self.liveness = Liveness(settings=plan.events, resource_attributes=ResourceView(provider))
        self.spare = Spare()
        self.others = Others(None if own else provider, self.spare)
        self.closed = False
        self.missed: str | None = "the end was not reached in time"
        self._renew_end()

    def _is_hearsay(self) -> bool:
        """Tell whether spans leave by exporters of others alone: nobody can tell what arrived."""
        return not self.worker.exports and (not self.own or bool(self.processors))

    @property
    def carried_place(self) -> Place | None:
        """Where spans belong that have no session: a run of the parent process, or of this whole process."""
        place = self._carried_place
        return None if place is None or place.root is None or place.root.ended else place

    def carry(self, session: Session, place: Place) -> None:
        """Let all that has no session belong to this one, for this whole process."""
        self.carried, self._carried_place = session, place

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

    def load(self) -> None:
        """Import at once what our threads will need, for a caller who may take 0.3 s."""
        endpoint = self.settings.endpoint if self.worker.exports else None
        with guard("imports"), importing():
            if endpoint is not None:
                load_transport(endpoint)
            if self.events.exporter == "otlp":
                load_transport(self.events.endpoint)

    def ready(self) -> None:
        """Start the threads in a forked child."""
        self.cold = False
        self.spare.start()
        self.worker.start()

    def after_fork_in_child(self) -> None:
        """Begin anew; the next span starts the thread."""
        self.worker.after_fork_in_child()
        self.spare.renew()
        self.others.renew()
        self._renew_end()
        self.liveness.after_fork_in_child()
        self.cold = True

    def _renew_end(self) -> None:
        self._finishing = threading.Lock()
        self._finished = threading.Event()
        if self.closed:
            self._finishing.acquire(blocking=False)
            self._finished.set()

    def flush(self, timeout: float) -> bool:
        """Wait until spans and events are out, at most `timeout` seconds; our processor is asked for it."""
        if self.others.asking:  # by ourselves: what is ours is flushed already
            return True
        return self.unsent(time.monotonic() + timeout, with_provider=False) is None

    def unsent(self, deadline: float, *, with_provider: bool = True) -> str | None:
        """Send everything until `deadline` (monotonic s), have others send; return what kept us from it."""
        self.worker.hurry(deadline)
        others = self.others.flush(self.processors, deadline, with_provider=with_provider)
        events = self.liveness.flush(deadline) if self.events.exporter != "none" else True
        if not self.worker.flush(deadline):
            return "not all spans were sent in time"
        if not events:
            return "not all life cycle events were taken, or not in time"
        return None if others else _NOT_BY_OTHERS

    def first(self) -> AbstractContextManager[None]:
        """Let what ends in this block leave before all that waits."""
        return self._first()

    @contextmanager
    def _first(self) -> Generator[None]:
        self.take = self.worker.take_first
        try:
            yield
        finally:
            self.take = self.worker.take

    def hurry(self, deadline: float) -> None:
        """Send what waits until `deadline` (monotonic s); takes no lock and returns at once."""
        self.worker.hurry(deadline)

    def close(self) -> None:
        """Send what is left within the deadline of process exit, and stop."""
        deadline = _exit.latest(time.monotonic() + EXIT_DEADLINE)
        if not self.closed and registry.roots:  # at exit we have ended them before
            say_once(
                "provider shut down",
                "otel_sessions: the tracer provider was shut down with %d open sessions: what ends from now "
                "on is lost, and counted in stats().dropped where it would have left by us",
                len(registry.roots),
            )
        if self.closed:
            self._finished.wait(max(0.0, deadline - time.monotonic()))
        else:
            # The provider shuts its own processors down itself, and is at it just now.
            self.within(deadline, lambda: self.finish(deadline, with_provider=False))

    def within(self, deadline: float, job: Callable[[], None]) -> None:
        """Do `job` in a thread of its own, and wait for it until `deadline` (monotonic s).

        A process at its limit of threads has none, and does it here.
        """
        if self.spare.within(deadline, job) is None:
            job()

    def finish(self, deadline: float, *, with_provider: bool = True) -> None:
        """Send what is left until `deadline` (monotonic s), stop, and say what was not delivered.

        What is called of others may take longer: who waits for this does so with a deadline.
        """
        if not self._finishing.acquire(blocking=False):
            self._finished.wait(max(0.0, deadline - time.monotonic()))
            return
        self.closed = True
        self.tracer = trace.NoOpTracer()
        # Both threads work at once while we wait for one after the other.
        self.worker.hurry(deadline)
        others = self.others.flush(self.processors, deadline, with_provider=with_provider)
        known = self.liveness.stats()
        now = time.monotonic()
        # A receiver that answers may refuse spans, which is one more event to tell.
        self.worker.flush(now + _FOR_ANSWERS * max(0.0, deadline - now))
        with guard("liveness"):
            self.liveness.close(deadline)
        self.worker.stop(deadline)
        if (lost := self._lost_events() - known.failed - known.dropped) > 0:
            self.missed = f"{lost} life cycle events were lost"
        else:
            self.missed = None if others else _NOT_BY_OTHERS
        self._complain()
        self._finished.set()
        self.spare.stop(deadline)
        self._dismiss()

    def _dismiss(self) -> None:
        """Shut down what was given to us."""
        self.worker.abandon()
        given, self.processors = self.processors, ()
        for processor in given:
            with guard("span processor"):
                processor.shutdown()

    def _complain(self) -> None:
        """Say in one line what this process could not deliver."""
        with guard("complaint"):
            events, lost = self.liveness.stats(), self._lost_events()
            spans = self.worker.sent()
            if spans.pending or spans.kept or spans.dropped:
                self.worker.complain(f" and {lost} life cycle events" if lost else "")
            elif lost:
                say(
                    "otel_sessions: %d of %d life cycle events were not delivered to %s%s",
                    lost,
                    lost + events.sent,
                    events.endpoint,
                    f" ({events.last_error})" if events.last_error else "",
                )

    def _lost_events(self) -> int:
        events = self.liveness.stats()
        return 0 if events.stopped else events.failed + events.dropped + events.queued

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
        carry_into_threads(wanted=plan.settings.thread_context)
        self.processors = plan.arguments.span_processors or ()
        self.hearsay = self._is_hearsay()


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
