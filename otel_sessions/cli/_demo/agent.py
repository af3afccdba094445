"""A travel agent as you would write one: tasks at once, tools, a model, a person who approves.

    python -m otel_sessions.cli._demo.agent trip "To Lisbon in May, 2 adults, 4 nights"

All tracing is in the lines that say `otel_sessions`; the rest would be there without them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp

import otel_sessions

__all__ = ["Model", "ModelError", "plan_trip"]

Message = dict[str, Any]
Tool = Callable[..., Awaitable[str]]

SYSTEM: Final = "You are a careful travel agent. Use your tools; never guess a price."


class ModelError(Exception):
    """The model refused to answer."""


class Model:
    """An OpenAI-like model behind HTTP."""

    def __init__(self, http: aiohttp.ClientSession, name: str = "stub-large") -> None:
        self.http = http
        self.name = name

    async def complete(self, messages: list[Message], tools: list[Message]) -> Message:
        """Return the model's next message."""
        with otel_sessions.model_call(self.name, provider="stub", messages=messages, tools=tools) as call:
            request = {"model": self.name, "messages": messages, "tools": tools}
            async with self.http.post("/v1/chat/completions", json=request) as response:
                answer = await response.json()
            if "error" in answer:
                raise ModelError(answer["error"]["message"])
            choice, usage = answer["choices"][0], answer["usage"]
            call.record(
                messages=choice["message"],
                finish_reasons=[choice["finish_reason"]],
                model=answer["model"],
                response_id=answer["id"],
                input_tokens=usage["prompt_tokens"],
                output_tokens=usage["completion_tokens"],
                cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
            )
            return choice["message"]


# --- Tools ---------------------------------------------------------------------------------------

_hotel_searches = itertools.count(1)


async def search_flights(city: str, people: int) -> str:
    """Find flights for so many people."""
    await asyncio.sleep(1.2)
    return f"Flights to {city} for {people}: out Friday 09:40, back Tuesday 18:15, 186 EUR each."


async def search_hotels(city: str, nights: int) -> str:
    """Find a hotel for so many nights; the hotels' server is down at first."""
    await asyncio.sleep(0.9)
    if next(_hotel_searches) == 1:
        raise ConnectionError("the hotels' server did not answer")
    return f"Hotel in {city}: Casa do Rio, {nights} nights, 94 EUR a night."


async def forecast(city: str) -> str:
    """Tell the weather."""
    await asyncio.sleep(0.5)
    return f"Weather in {city}: 22 degrees, no rain."


async def book(city: str) -> str:
    """Book what was found."""
    await asyncio.sleep(0.8)
    return f"Booked: {city}, confirmation 7QX2LM."


async def compare_prices(city: str, people: int) -> str:
    """Ask a great many shops, which takes minutes."""
    await asyncio.sleep(120)
    return f"The best price for {people} to {city} is 149 EUR."


def _schema(tool: Tool) -> Message:
    """Describe a tool to the model by its name, docstring and annotations."""
    kinds = {"str": "string", "int": "integer"}
    hints = {name: hint for name, hint in tool.__annotations__.items() if name != "return"}
    properties = {name: {"type": kinds[hint]} for name, hint in hints.items()}
    function = {
        "name": tool.__name__,
        "description": tool.__doc__,
        "parameters": {"type": "object", "properties": properties, "required": list(properties)},
    }
    return {"type": "function", "function": function}


async def use(tools: dict[str, Tool], call: Message) -> Message:
    """Run the tool that the model asked for, and tell it the result, or the error."""
    name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
    try:
        with otel_sessions.tool(name, call_id=call["id"], arguments=arguments) as span:
            content = span.result = await tools[name](**arguments)
    except ConnectionError as error:
        content = f"error: {error}"
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


# --- Agents --------------------------------------------------------------------------------------


async def work(model: Model, name: str, prompt: str, *tools: Tool) -> str:
    """Let an agent work on a prompt until the model calls no more tools."""
    known = {tool.__name__: tool for tool in tools}
    schemas = [_schema(tool) for tool in tools]
    messages: list[Message] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
    with otel_sessions.agent(name):
        while True:
            answer = await model.complete(messages, schemas)
            messages.append(answer)
            if not answer.get("tool_calls"):
                return answer["content"]
            messages += [await use(known, call) for call in answer["tool_calls"]]


async def plan_trip(model: Model, prompt: str) -> None:
    """Look for flights, a hotel and the weather at once; book when a person has said yes."""
    async with otel_sessions.session("plan trip", title=prompt, user_id="maria") as trip:

        @trip.task("find flights")
        async def flights() -> str:
            return await work(model, "flight scout", prompt, search_flights)

        @trip.task("find hotel")
        async def hotel() -> str:
            return await work(model, "hotel scout", prompt, search_hotels)

        @trip.task("check weather")
        async def weather() -> str:
            return await work(model, "weather scout", prompt, forecast)

        found = await asyncio.gather(flights(), hotel(), weather())
        with trip.waiting("approval"):
            approved = await approval(model.http, "Shall I book this? " + " ".join(found))
        if approved:
            async with trip.task("book"):
                await work(model, "booker", prompt, book)


async def approval(http: aiohttp.ClientSession, question: str) -> bool:
    """Ask a person, who takes a while."""
    async with http.post("/v1/approvals", json={"question": question}) as response:
        return (await response.json())["approved"]


async def book_table(model: Model, prompt: str) -> None:
    """Try to book a table with a model that is overloaded; two tries, then give up."""
    model = Model(model.http, "stub-overloaded")
    async with otel_sessions.session("book table", title=prompt, user_id="maria"):
        try:
            await work(model, "waiter", prompt, book)
        except ModelError:
            await asyncio.sleep(0.5)
            await work(model, "waiter", prompt, book)


async def find_bargain(model: Model, prompt: str) -> None:
    """Compare prices until the user loses patience."""

    async def search() -> None:
        async with otel_sessions.session("find bargain", title=prompt, user_id="joao"):
            await work(model, "bargain hunter", prompt, compare_prices)

    job = asyncio.create_task(search())
    await asyncio.sleep(4)
    job.cancel()
    await asyncio.wait({job})


JOBS: Final = {"trip": plan_trip, "table": book_table, "bargain": find_bargain}


async def main(job: str, prompt: str) -> None:
    """Do one job."""
    async with aiohttp.ClientSession(os.environ["DEMO_MODEL_URL"]) as http:
        await JOBS[job](Model(http), prompt)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("prompt")
    arguments = parser.parse_args()
    otel_sessions.init()
    asyncio.run(main(arguments.job, arguments.prompt))
