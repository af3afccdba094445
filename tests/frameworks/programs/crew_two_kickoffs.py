"""Two kickoffs of a crew in one session, one of a second crew at the same time as a third, all offline.

What used to go wrong: CrewAI's integration ended AgentOps' session at the end of the first kickoff, so that the
second ran in none (AgentOps #198); a kickoff in a thread of the user's began a trace of its own.
"""

import asyncio
import sys
import threading

import otel_sessions

if "before" in sys.argv:
    otel_sessions.init(service_name="crew", thread_context=True)

from crewai import Agent, Crew, Task
from crewai.llms.base_llm import BaseLLM
from crewai.tools import tool


@tool("adder")
def adder(a: int, b: int) -> int:
    """Add."""
    with otel_sessions.tool("adder"):
        return a + b


class OfflineModel(BaseLLM):
    """Calls the tool once, and then answers."""

    def call(self, messages, *_args, **_options):
        """Answer as a model would."""
        with otel_sessions.model_call("offline") as call:
            call.record(input_tokens=10, output_tokens=5)
        if "Action: adder" in str(messages):
            return "Thought: done\nFinal Answer: 5"
        return 'Thought: need tool\nAction: adder\nAction Input: {"a": 2, "b": 3}\n'

    async def acall(self, *arguments, **options):
        """Answer from a thread."""
        return await asyncio.to_thread(self.call, *arguments, **options)

    def supports_function_calling(self):
        """Tools are asked for in words."""
        return False


def crew() -> Crew:
    """Make a crew of one."""
    one = Agent(
        role="adds",
        goal="g",
        backstory="b",
        llm=OfflineModel(model="offline"),
        tools=[adder],
        max_retry_limit=0,
    )
    return Crew(agents=[one], tasks=[Task(description="do {topic}", expected_output="x", agent=one)])


if "instrument" in sys.argv:
    from openinference.instrumentation.crewai import CrewAIInstrumentor

    CrewAIInstrumentor().instrument(skip_dep_check=True)
otel_sessions.init(service_name="crew", thread_context=True)

with otel_sessions.session("crew") as session:
    for topic in ("first", "second"):
        with session.task(topic):
            crew().kickoff(inputs={"topic": topic})
        assert session.state == "running"
        assert otel_sessions.current_session() is session
    with session.task("in a thread"):
        thread = threading.Thread(target=crew().kickoff, kwargs={"inputs": {"topic": "third"}})
        thread.start()
        thread.join()
