"""What `OTEL_TRACES_EXPORTER=otel_sessions` stands for where a configurator of others reads it.

It looks the name up among entry points, and puts what it finds behind a batch processor. That one forgets
what waits when the process dies, and what does not fit; our own processor on the same provider takes each
span at once. So this exporter only says whether that is so.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_sessions.sdk import _provider
from otel_sessions.sdk._guard import say_once

__all__ = ["NamedExporter"]


class NamedExporter(SpanExporter):
    """Stands for our delivery, which begins at our processor."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - taken already
        """Tell whether spans leave by our delivery."""
        runtime = _provider.current()
        if runtime is not None and runtime.exports:
            return SpanExportResult.SUCCESS
        say_once(
            "named exporter",
            "otel_sessions: OTEL_TRACES_EXPORTER=otel_sessions sends nothing here: it works below "
            "opentelemetry-instrument; else call otel_sessions.init(export=True)",
        )
        return SpanExportResult.FAILURE
