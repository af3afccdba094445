"""A stub model: an OpenAI-like chat completions server without a model behind it.

    POST /v1/chat/completions   {"model", "messages", "tools"} -> a choice with text or tool calls, and usage
    POST /v1/approvals          {"question"} -> {"approved": true}, after as long as a person takes

The stub follows one rule, so that it needs no script: call each offered tool once, call a tool again whose
result was an error, then sum up. The same messages always get the same answer. A model named
`stub-overloaded` answers 503, like the real ones on a bad day.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
from typing import Any, Final

from aiohttp import web

__all__ = ["application", "complete"]

Message = dict[str, Any]

OVERLOADED: Final = "stub-overloaded"
_CHARACTERS_PER_TOKEN: Final = 4
_FACTS: Final = {
    "city": re.compile(r"\b(?:[Ii]n|[Tt]o) ([A-Z]\w+)"),
    "people": re.compile(r"\b(\d+) (?:people|adults)"),
    "nights": re.compile(r"\b(\d+) nights"),
}


def complete(request: dict[str, Any]) -> dict[str, Any]:
    """Answer a chat completions request; pure."""
    messages: list[Message] = request["messages"]
    calls = _wanted_calls(messages, request.get("tools") or [])
    message: Message = {"role": "assistant", "content": None if calls else _summary(messages)}
    if calls:
        message["tool_calls"] = calls
    return {
        "id": f"chatcmpl-{_digest(messages)}",
        "object": "chat.completion",
        "model": request["model"] + "-2026-11",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        "usage": _usage(messages, message),
    }


def application(pace: float = 1.0) -> web.Application:
    """Make the server; `pace` stretches or shrinks how long it thinks."""

    async def chat(request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        if body["model"] == OVERLOADED:
            await asyncio.sleep(0.3 * pace)
            return web.json_response(
                {"error": {"message": "The model is overloaded.", "type": "server_error"}}, status=503
            )
        answer = complete(body)
        await asyncio.sleep(pace * (0.3 + answer["usage"]["completion_tokens"] / 100))
        return web.json_response(answer)

    async def approve(request: web.Request) -> web.Response:
        await request.json()
        await asyncio.sleep(6 * pace)
        return web.json_response({"approved": True})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/approvals", approve)
    return app


def _wanted_calls(messages: list[Message], tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return calls of the first tool that has no good result yet; tools are called one after another."""
    names = {
        call["id"]: call["function"]["name"]
        for message in messages
        for call in message.get("tool_calls") or ()
    }
    good = {
        names[message["tool_call_id"]]
        for message in messages
        if message["role"] == "tool" and not message["content"].startswith("error")
    }
    missing = [tool["function"] for tool in tools if tool["function"]["name"] not in good]
    if not missing:
        return []
    function = missing[0]
    arguments = _arguments(function["parameters"].get("properties", {}), _prompt(messages))
    return [
        {
            "id": f"call_{_digest([function['name'], messages])}",
            "type": "function",
            "function": {"name": function["name"], "arguments": json.dumps(arguments)},
        }
    ]


def _digest(value: object) -> str:
    """Make an id that differs between conversations and is the same for the same one."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def _arguments(properties: dict[str, Any], prompt: str) -> dict[str, Any]:
    """Fill a tool's parameters with what the prompt tells of them."""
    filled: dict[str, Any] = {}
    for name, schema in properties.items():
        found = _FACTS[name].search(prompt) if name in _FACTS else None
        if found:
            filled[name] = int(found[1]) if schema.get("type") == "integer" else found[1]
    return filled


def _prompt(messages: list[Message]) -> str:
    return next((message["content"] for message in messages if message["role"] == "user"), "")


def _summary(messages: list[Message]) -> str:
    results = [m["content"] for m in messages if m["role"] == "tool" and not m["content"].startswith("error")]
    return "Here is what I found. " + " ".join(results) if results else "I have all I need: let us go on."


def _usage(messages: list[Message], answer: Message) -> dict[str, Any]:
    """Count tokens as providers do: what was there at the last call comes from the cache."""
    sizes = [max(1, len(json.dumps(message)) // _CHARACTERS_PER_TOKEN) for message in messages]
    earlier = max((at for at, message in enumerate(messages) if message["role"] == "assistant"), default=0)
    prompt, completion = sum(sizes), max(1, len(json.dumps(answer)) // _CHARACTERS_PER_TOKEN)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(sizes[:earlier])},
    }


async def _serve(pace: float) -> None:
    runner = web.AppRunner(application(pace))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(json.dumps({"url": f"http://{host}:{port}"}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pace", type=float, default=1.0)
    asyncio.run(_serve(parser.parse_args().pace))
