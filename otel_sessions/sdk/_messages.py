"""Messages to and from a model, as the conventions' parts, whoever wrote them down. Pure.

`gen_ai.input.messages` is a JSON list of `{"role", "parts": [...], "finish_reason"?}`; parts are text,
tool_call, tool_call_response. Messages of OpenAI's and Anthropic's APIs are put into that form; what is
not understood is kept as it came. Each is looked at when it is written, so that of a long conversation
only the part that is recorded is ever looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._values import to_json

__all__ = ["messages_json"]

Part = Mapping[str, Any]

_LONGEST_JSON: Final = 64 * 1024
"""Characters of a tool call's arguments that are parsed; longer ones are recorded, and cut, as a text."""


def messages_json(messages: Any, *, role: str | None) -> str:
    """Return messages as JSON of the conventions' form; a bare text is one message of `role`.

    With role None return the parts alone, as `gen_ai.system_instructions` has them.
    """
    if role is None:
        with guard("content"):
            return to_json(_parts(messages))
        return to_json(messages)
    many = messages if isinstance(messages, (list, tuple)) else [messages]
    return to_json(_Rewritten(many, lambda message: _message(message, role)))


class _Rewritten(Sequence[Any]):
    """A list whose items are put into another form when they are looked at; at worst they stay as they are.

    `before` are in that form already.
    """

    __slots__ = ("_before", "_form", "_items")

    def __init__(self, items: Sequence[Any], form: Callable[[Any], Any], before: Sequence[Any] = ()) -> None:
        self._items = items
        self._form = form
        self._before = before

    def __len__(self) -> int:
        return len(self._before) + len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __iter__(self) -> Iterator[Any]:
        return chain(self._before, map(self._rewritten, self._items))

    def _rewritten(self, item: Any) -> Any:
        with guard("content"):
            return self._form(item)
        return item


def _message(message: Any, role: str) -> Any:
    if isinstance(message, str):
        return {"role": role, "parts": [_text(message)]}
    plain = _plain(message)
    if not isinstance(plain, Mapping) or "parts" in plain:
        return plain
    if plain.get("tool_call_id") is not None:
        parts: Sequence[Part] = [_response(plain["tool_call_id"], plain.get("content"))]
    else:
        parts = _parts(plain.get("content"))
        if plain.get("tool_calls"):
            parts = _Rewritten(plain["tool_calls"], _call, before=parts)
    known: dict[str, Any] = {"role": plain.get("role", role), "parts": parts}
    if plain.get("finish_reason") is not None:
        known["finish_reason"] = plain["finish_reason"]
    return known


def _parts(content: Any) -> Sequence[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [_text(content)]
    if isinstance(content, Sequence):
        return _Rewritten(content, _part)
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
            return _response(plain.get("tool_use_id"), plain.get("content"))
        case _:
            return plain


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
    if isinstance(arguments, str) and len(arguments) <= _LONGEST_JSON:
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


def _response(call_id: Any, content: Any) -> Part:
    return {"type": "tool_call_response", "id": call_id, "response": content}


def _text(text: str) -> Part:
    return {"type": "text", "content": text}
