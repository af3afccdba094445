"""One session, two questions to one workflow: "banana", then "sun"; then both, and a third one, at the same time.

What used to go wrong: LlamaDeploy answered the second question of a session with the answer to the first, for the
state that it kept of the session still held the finished run (llama_deploy #401).
"""

import asyncio
import sys

from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

import otel_sessions


class Question(StartEvent):
    """What is asked."""

    q: str


class Part(Event):
    """A part of the work, for one worker."""

    q: str


class Done(Event):
    """What a worker has found."""

    q: str


class Flow(Workflow):
    """Fans out to two workers, and joins what they found."""

    @step
    async def fan(self, ctx: Context, ev: Question) -> Part | None:
        """Give each worker its part."""
        for _ in range(2):
            ctx.send_event(Part(q=ev.q))

    @step(num_workers=4)
    async def work(self, ctx: Context, ev: Part) -> Done:
        """Look something up."""
        with otel_sessions.tool("look up", attributes={"asked": ev.q}):
            await asyncio.sleep(0.01)
        return Done(q=ev.q)

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        """Answer when both are done."""
        if ctx.collect_events(ev, [Done] * 2) is None:
            return None
        return StopEvent(result=f"answer to {ev.q}")


async def main() -> None:
    """Ask."""
    flow = Flow(timeout=30)
    async with otel_sessions.session("chat") as session:

        async def ask(question: str) -> str:
            with session.task("question", attributes={"question": question}) as task:
                task.result = await flow.run(start_event=Question(q=question))
            return task.result

        print(await ask("banana"), "|", await ask("sun"))
        print(*await asyncio.gather(*map(ask, ("one", "two", "three"))), sep=" | ")


def instrument(how: str) -> None:
    """Let LlamaIndex tell OpenTelemetry of itself, in one of the ways there are."""
    if how == "openinference":
        from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

        LlamaIndexInstrumentor().instrument()
    if how == "llama-index":
        from llama_index.observability.otel import LlamaIndexOpenTelemetry
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        LlamaIndexOpenTelemetry(span_exporter=OTLPSpanExporter()).start_registering()


instrument(sys.argv[1])
otel_sessions.init(service_name="llama", capture=True)
asyncio.run(main())
