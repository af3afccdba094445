"""What a test of the SDK has in hand afterwards: the spans recorded here, a program that has ended."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_sessions

__all__ = ["Ended", "Recorded"]


@dataclass
class Recorded:
    """Spans that were recorded in this process."""

    provider: TracerProvider
    exporter: InMemorySpanExporter

    def all(self) -> list[ReadableSpan]:
        """Return all ended spans, in the order of their ends."""
        assert otel_sessions.flush(10).pending == 0
        return list(self.exporter.get_finished_spans())

    def one(self, name: str) -> ReadableSpan:
        """Return the one span of that name."""
        (found,) = [span for span in self.all() if span.name == name]
        return found

    def ids(self) -> set[object]:
        """Return the session ids of all ended spans."""
        return {span.attributes.get("session.id") for span in self.all()}


@dataclass
class Ended:
    """A program that has ended."""

    code: int
    out: str
    err: str
