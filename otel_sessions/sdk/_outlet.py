"""Which exporter spans leave by: the official ones, by their public constructors, opened in the thread."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from otel_sessions.sdk._export import Outlet

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_sessions.sdk._endpoint import Endpoint
    from otel_sessions.sdk._settings import Settings

__all__ = ["outlet"]


def outlet(settings: Settings, exporter: SpanExporter | None, *, wanted: bool) -> Outlet:
    """Return the way out, if one is wanted: the caller's exporter, or the one that the environment names."""
    open_exporter: Callable[[], SpanExporter] | None = None
    target: str | None = None
    hint = None
    load: Callable[[], object] | None = None
    endpoint = settings.endpoint
    if not wanted:
        pass
    elif exporter is not None:
        given = exporter
        open_exporter, target = lambda: given, type(exporter).__name__
    elif settings.exporter == "console":
        open_exporter, target = _console, "the console"
    elif endpoint is not None:
        there = endpoint
        open_exporter, target, hint = lambda: _otlp(there), endpoint.address, endpoint.doubt
        load = _load_grpc if there.protocol == "grpc" else None
    return Outlet(open_exporter, target, hint, settings.delay, settings.queue, settings.batch, load)


def _otlp(endpoint: Endpoint) -> SpanExporter:
    if endpoint.protocol == "grpc":
        from otel_sessions.sdk import _grpc  # noqa: PLC0415 - the only way to grpc

        return _grpc.open_span_exporter(endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(endpoint=endpoint.url)


def _load_grpc() -> None:
    # It makes a Resource when it is imported, hence a thread pool: refused once the interpreter shuts down.
    importlib.import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")


def _console() -> SpanExporter:
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

    return ConsoleSpanExporter()
