"""An AgentScope agent with its own tracing, set up before us, after us, or both and again; offline.

What used to go wrong: each `init()` of AgentScope added an exporter, so that spans came several times; its tracing
middleware is silently off where no provider was set when the agent ran.
"""

import asyncio
import sys

from agentscope.agent import Agent
from agentscope.credential import CredentialBase
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg, TextBlock, ToolCallBlock
from agentscope.middleware import TracingMiddleware
from agentscope.model import ChatModelBase, ChatResponse
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.state import AgentState
from agentscope.tool import FunctionTool, Toolkit
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic import BaseModel

import otel_sessions


class OfflineModel(ChatModelBase):
    """Calls the tool once, and then answers."""

    class Parameters(BaseModel):
        """None."""

    def __init__(self) -> None:
        super().__init__(
            credential=CredentialBase(), model="offline", parameters=self.Parameters(), stream=False
        )
        self.formatter = OpenAIChatFormatter()
        self.calls = 0

    async def _call_api(self, *_args, **_options):
        self.calls += 1
        block = (
            ToolCallBlock(type="tool_call", id="c1", name="add", input='{"a": 1, "b": 2}')
            if self.calls == 1
            else TextBlock(type="text", text="answer")
        )
        return ChatResponse(content=[block], is_last=True)


async def add(a: int, b: int) -> str:
    """Add."""
    return str(a + b)


def theirs() -> None:
    """Set tracing up as AgentScope's documents say."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


async def main() -> None:
    """Let the agent answer in two sessions at once."""
    allowed = PermissionDecision(behavior=PermissionBehavior.ALLOW, message="ok")

    async def answer(name: str) -> None:
        async with otel_sessions.session(name):
            agent = Agent(
                name="A",
                system_prompt="x",
                model=OfflineModel(),
                toolkit=Toolkit(tools=[FunctionTool(add, permission=allowed)]),
                middlewares=[TracingMiddleware()],
                state=AgentState(session_id=f"state of {name}"),
            )
            await agent.reply(Msg(name="u", role="user", content=[TextBlock(type="text", text="q")]))

    await asyncio.gather(answer("one"), answer("two"))


order = sys.argv[1]
if order == "before":
    theirs()
for _ in range(3 if order == "repeatedly" else 1):
    otel_sessions.init(service_name="agentscope")
asyncio.run(main())
