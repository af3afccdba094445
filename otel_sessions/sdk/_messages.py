"""Messages to and from a model, as the conventions' parts, whoever wrote them down. Pure.

`gen_ai.input.messages` is a JSON list of `{"role", "parts": [...], "finish_reason"?}`; parts are text,
tool_call, tool_call_response. Messages of OpenAI's and Anthropic's APIs are put into that form; what is
not understood is kept as it came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._values import to_json

__all__ = ["messages_json"]

Part = dict[str, Any]


def messages_json(messages: Any, *, role: str | None) -> str:
    """Return messages as JSON of the conventions' form; a bare text is one message of `role`.

    With role None return the parts alone, as `gen_ai.system_instructions` has them.
    """
    with guard("content"):
        if role is None:
            return to_json(_parts(messages))
        many = messages if isinstance(messages, (list, tuple)) else [messages]
        return to_json([_message(message, role) for message in many])
    return to_json(messages)


def _message(message: Any, role: str) -> Any:
    if isinstance(message, str):
        return {"role": role, "parts": [_text(message)]}
    plain = _plain(message)
    if not isinstance(plain, Mapping) or "parts" in plain:
        return plain
    parts = _parts(plain.get("content"))
    parts += [_call(call) for call in plain.get("tool_calls") or ()]
    if plain.get("tool_call_id") is not None:
        parts = [
            {"type": "tool_call_response", "id": plain["tool_call_id"], "response": plain.get("content")}
        ]
    known: Part = {"role": plain.get("role", role), "parts": parts}
    if plain.get("finish_reason") is not None:
        known["finish_reason"] = plain["finish_reason"]
    return known


def _parts(content: Any) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [_text(content)]
    if isinstance(content, Sequence):
        return [_part(part) for part in content]
    return [_part(content)]


def _part(part: Any) -> Part:
    if isinstance(part, str):
        return _text(part)
    plain = _plain(part)
    if not isinstance(plain, Mapping):
        return _text(to_json(plain))
    match plain.get("type"):
        case "text" if "text" in plain:
            return _text(plain["text"])
        case "tool_use":
            known = {"type": "tool_call", "id": plain.get("id"), "name": plain.get("name")}
            return {**known, "arguments": plain.get("input")}
        case "tool_result":
            return {
                "type": "tool_call_response",
                "id": plain.get("tool_use_id"),
                "response": plain.get("content"),
            }
        case _:
            return dict(plain)


def _call(call: Any) -> Part:
    plain = _plain(call)
    function = _plain(plain.get("function", plain))
    return {
        "type": "tool_call",
        "id": plain.get("id"),
        "name": function.get("name"),
        "arguments": _parsed(function.get("arguments")),
    }


def _parsed(arguments: Any) -> Any:
    if isinstance(arguments, str):
        try:
            return json.loads(arguments)
        except ValueError:
            return arguments
    return arguments


def _plain(value: Any) -> Any:
    """Return a client library's object as the mapping that it stands for."""
    # Of its class: an object that answers to every name (a proxy, a mock) would go to work here.
    dump = getattr(type(value), "model_dump", None)
    return dump(value) if callable(dump) and not isinstance(value, type) else value


def _text(text: str) -> Part:
    return {"type": "text", "content": text}
