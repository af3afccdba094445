"""`init()`: set up tracing once, take a carried session up, start one where that is wanted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import trace

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk import _carry, _instrument, _provider
from otel_sessions.sdk._options import switch, text
from otel_sessions.sdk._start import session, start_solo
from otel_sessions.sdk._values import shown

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_sessions.sdk._session import Session

__all__ = ["Handle", "init"]


@dataclass(frozen=True, slots=True)
class Handle:
    """What `init()` set up.

    `tracer_provider` is the one in use, ours or the one that was joined; None where OTEL_SDK_DISABLED
    switches tracing off. `joined` tells whether it was there before. `session` is the one that
    `auto_session=True` started, or the one carried here from a parent process.
    """

    tracer_provider: trace.TracerProvider | None
    joined: bool
    session: Session | None = None


def init(
    *,
    service_name: str | None = None,
    auto_session: bool = False,
    tracer_provider: trace.TracerProvider | None = None,
    exporter: SpanExporter | None = None,
    export: bool | None = None,
    span_processors: Sequence[SpanProcessor] | None = None,
    capture: bool | None = None,
    signals: bool | None = None,
    trust_baggage: bool | None = None,
    task_traces: bool | None = None,
    instrument: bool | None = None,
    thread_context: bool | None = None,
) -> Handle:
    """Set up tracing. May be called any number of times: one provider, one processor, one thread are left.

    A tracer provider that exists (or `tracer_provider`) is joined, never replaced, and gets no exporter
    unless `exporter` or `export=True` is given, for two exporters to one endpoint show each span twice.
    Else a provider is made: with `service_name`, the OTEL_* variables, and `exporter` or the one that
    OTEL_TRACES_EXPORTER names (OTLP over HTTP to http://localhost:4318 by default). `export=False` exports
    nothing. `span_processors` run behind ours.

    `capture` lets decorators record arguments and results. `signals` (default) handles SIGTERM and SIGHUP
    where nobody else does. `trust_baggage` believes the `session.id` in the baggage of remote callers.
    `auto_session` starts a session for the whole program, and ends the one that an earlier such call began.
    `task_traces` makes each task of a session a trace of its own, linked to the session's root: for long
    sessions in tools that show a trace only when its root has ended. Where the sampler would drop such a
    trace, the task stays in the trace of its session.
    `instrument=True` (or OTEL_SESSIONS_INSTRUMENT=true) switches on the instrumentors that are installed, but
    those that OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names; import what they trace before or after it.
    `thread_context` lets threads, timers, thread pools and gevent's greenlets begin in the session that is
    current where they are started, as `wrap()` does for one function.

    Arguments win over the environment. What is left out stays as it is, at first as the environment says.
    Raises ConfigurationError, and changes nothing, for a value without sense and for what can't be changed
    any more.
    """
    switch("auto_session", auto_session)
    switch("instrument", instrument)
    instrument = _instrument.asked(os.environ) if instrument is None else instrument
    asked = _provider.Arguments(
        service_name=service_name,
        tracer_provider=tracer_provider,
        exporter=exporter,
        export=export,
        span_processors=_processors(span_processors),
        capture=capture,
        signals=signals,
        trust_baggage=trust_baggage,
        task_traces=task_traces,
        thread_context=thread_context,
    )
    _check(asked)
    runtime = _provider.configure(asked)
    if runtime is None:
        return Handle(None, joined=False, session=_start_solo(service_name) if auto_session else None)
    _carry.take_up(runtime, _provider.environ())
    if instrument:
        _instrument.switch_on(os.environ)
    started = _start_solo(service_name) if auto_session else runtime.carried
    return Handle(runtime.provider, joined=not runtime.own, session=started)


def _start_solo(service_name: str | None) -> Session:
    return start_solo(session(service_name or "session"))


def _processors(given: Any) -> tuple[SpanProcessor, ...] | None:
    if given is None:
        return None
    if not isinstance(given, Iterable):
        raise ConfigurationError(f"span_processors has to be a list: write [{shown(given)}]")
    processors = tuple(cast("Iterable[SpanProcessor]", given))
    for processor in processors:
        _has("span_processors", processor, "on_start", "SpanProcessor")
    return processors


def _check(asked: _provider.Arguments) -> None:
    if asked.service_name is not None:
        text("service_name", asked.service_name)
    for option in ("capture", "export", "signals", "trust_baggage", "task_traces", "thread_context"):
        switch(option, getattr(asked, option))
    if asked.exporter is not None:
        _has("exporter", asked.exporter, "export", "SpanExporter")
        if asked.export is False:
            raise ConfigurationError("exporter and export=False contradict each other: leave one of them out")
    if asked.tracer_provider is not None:
        _has("tracer_provider", asked.tracer_provider, "get_tracer", "TracerProvider")


def _has(option: str, value: object, method: str, kind: str) -> None:
    """Raise ConfigurationError where something is no instance of what has this method."""
    if isinstance(value, type):
        raise ConfigurationError(f"{option}: {value.__name__} is a class: write {value.__name__}(…)")
    if not callable(getattr(value, method, None)):
        raise ConfigurationError(f"{option}: {shown(value)} is no {kind}: it has no method {method}()")
