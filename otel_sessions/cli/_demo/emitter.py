"""A program that knows nothing of otel_sessions: plain OpenTelemetry, one attribute for the session.

It sends no life cycle event, so nobody can tell whether it still lives: its session is shown as
running while spans come, then as idle, and never as ended.
"""

from __future__ import annotations

import time
import uuid

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

__all__ = ["answer"]


def answer(tracer: trace.Tracer, session_id: str, question: str) -> None:
    """Answer one question, with a span for the agent and one for its model."""
    agent = {
        "session.id": session_id,
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "newsreader",
    }
    model = {
        "session.id": session_id,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "stub",
        "gen_ai.request.model": "stub-small",
    }
    with (
        tracer.start_as_current_span("invoke_agent newsreader", attributes=agent),
        tracer.start_as_current_span("chat stub-small", kind=trace.SpanKind.CLIENT, attributes=model) as call,
    ):
        time.sleep(0.4)
        call.set_attribute("gen_ai.usage.input_tokens", 40 + len(question))
        call.set_attribute("gen_ai.usage.output_tokens", 24)


def main() -> None:
    """Have a short conversation, then fall silent."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    session_id = f"news-{uuid.uuid4().hex[:8]}"
    for question in ("What happened today?", "And what of it matters to Lisbon?"):
        answer(provider.get_tracer("newsreader"), session_id, question)
    provider.shutdown()


if __name__ == "__main__":
    main()
