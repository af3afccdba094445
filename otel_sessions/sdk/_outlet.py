"""Which way spans leave: our own to an OTLP endpoint, the caller's exporter, or the console."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from otel_sessions.sdk._export import Outlet
from otel_sessions.sdk._foreign import ForeignWay

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_sessions.sdk._endpoint import Endpoint
    from otel_sessions.sdk._settings import Settings
    from otel_sessions.sdk._way import Way

__all__ = ["outlet"]


def outlet(settings: Settings, exporter: SpanExporter | None, *, wanted: bool) -> Outlet:
    """Return the way out, if one is wanted: the caller's exporter, or the one that the environment names."""
    make_way: Callable[[], Way] | None = None
    target: str | None = None
    endpoint = settings.endpoint
    if wanted and exporter is not None:
        given, target = exporter, type(exporter).__name__
        make_way = lambda: ForeignWay(lambda: given, type(given).__name__)  # noqa: E731 - one of three
    elif wanted and settings.exporter == "console":
        make_way, target = (lambda: ForeignWay(_console, "the console")), "the console"
    elif wanted and endpoint is not None:
        return _to(endpoint, settings)
    return Outlet(make_way, target, None, settings.delay, settings.queue, settings.batch)


def _to(endpoint: Endpoint, settings: Settings) -> Outlet:
    def make_way() -> Way:
        from otel_sessions.sdk._durable import DurableWay  # noqa: PLC0415 - not for exporters of others

        return DurableWay(endpoint, settings.spool)

    return Outlet(
        make_way,
        endpoint.address,
        endpoint.doubt,
        settings.delay,
        settings.queue,
        settings.batch,
        folder=None if settings.spool is None else str(settings.spool),
        load=_load_grpc if endpoint.protocol == "grpc" else None,
    )


def _load_grpc() -> None:
    # A program that ends at once has no time to import it in a thread.
    importlib.import_module("otel_sessions.sdk._grpc")


def _console() -> SpanExporter:
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

    return ConsoleSpanExporter()
