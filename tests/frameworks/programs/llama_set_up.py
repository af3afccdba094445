"""LlamaIndex's own OpenTelemetry support and ours, set up in an order that the command line says.

What used to go wrong: LlamaIndexOpenTelemetry sets a global provider of its own and exports from it; given one, it
adds its exporter to that, so that each span was exported twice.
"""

import asyncio
import sys

from llama_index.observability.otel import LlamaIndexOpenTelemetry
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent

import otel_sessions


class Flow(Workflow):
    """One step."""

    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        """Use a tool."""
        with otel_sessions.tool("t"):
            return StopEvent(result="done")


def theirs() -> None:
    """Set up whose turn it is."""
    if vendor == "llama-index":
        LlamaIndexOpenTelemetry(span_exporter=OTLPSpanExporter()).start_registering()
    else:
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            provider = TracerProvider()
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            trace.set_tracer_provider(provider)
        LlamaIndexInstrumentor().instrument()


def ours() -> object:
    """Set us up."""
    return otel_sessions.init(service_name="llama").tracer_provider


async def main() -> None:
    """Run two sessions."""
    for name in ("one", "two"):
        async with otel_sessions.session(name):
            await Flow(timeout=30).run()


vendor, order = sys.argv[1:]
steps = {
    "before": (theirs, ours),
    "after": (ours, theirs),
    "repeatedly": (theirs, ours, ours, theirs, ours)
    if vendor == "openinference"
    else (theirs, ours, ours, ours),
}
providers = {id(result) for result in [one() for one in steps[order]] if result is not None}
assert len(providers) == 1
assert id(trace.get_tracer_provider()) in providers
asyncio.run(main())
