"""Plain OpenTelemetry, without our SDK: spans that bear `session.id` are one session on the page.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 python examples/any_otlp_emitter.py

Such a session is shown as running and then as idle, never as ended: no span says that it was the last.
"""

import uuid

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "plain-agent"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("plain-agent")

session = {"session.id": f"chat-{uuid.uuid4().hex[:8]}"}
for question in ("What is the capital of Portugal?", "And how do I get there?"):
    with tracer.start_as_current_span("invoke_agent guide", attributes=session) as agent:
        agent.set_attribute("gen_ai.operation.name", "invoke_agent")
        agent.set_attribute("gen_ai.agent.name", "guide")
        with tracer.start_as_current_span(
            "chat gpt-5", kind=trace.SpanKind.CLIENT, attributes=session
        ) as call:
            call.set_attribute("gen_ai.operation.name", "chat")
            call.set_attribute("gen_ai.request.model", "gpt-5")
            call.set_attribute("gen_ai.usage.input_tokens", len(question))
            call.set_attribute("gen_ai.usage.output_tokens", 12)

provider.shutdown()
