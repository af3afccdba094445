"""Claims about messages on their way into a span: any dialect, any length, nothing looked at in vain."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otel_sessions.sdk import _guard
from otel_sessions.sdk._messages import messages_json

_MANY = 100_000


class Watched(dict[str, Any]):
    """A part that notes when it is looked at."""

    looked_at: int = 0

    def get(self, *args: Any) -> Any:
        Watched.looked_at += 1
        return super().get(*args)


def _watched(**members: Any) -> list[Watched]:
    Watched.looked_at = 0
    part = Watched(members)
    return [part] * _MANY


@pytest.mark.parametrize(
    "conversation",
    [
        lambda: _watched(role="user", content="hello"),
        lambda: [{"role": "user", "content": _watched(type="text", text="hello")}],
        lambda: {"role": "assistant", "content": "x", "tool_calls": _watched(id="1", function={"name": "t"})},
        lambda: [{"role": "user", "content": [{"type": "tool_result", "content": _watched(a=1)}]}],
    ],
    ids=["messages", "parts", "tool calls", "results"],
)
def test_of_a_long_conversation_only_what_is_recorded_is_looked_at(conversation: Any):
    """A hundred thousand parts would hold the agent up; 64 Ki characters hold some three thousand."""
    recorded = messages_json(conversation(), role="user")
    assert recorded.endswith("…[cut]")
    assert Watched.looked_at < _MANY / 2
    assert _guard.faults() == {}


def test_the_arguments_of_a_call_are_parsed_while_they_are_short():
    """Ten megabytes would be parsed to be cut."""

    def recorded(arguments: str) -> Any:
        call = {"id": "1", "function": {"name": "t", "arguments": arguments}}
        return messages_json({"role": "assistant", "tool_calls": [call]}, role="assistant")

    (message,) = json.loads(recorded('{"a": 1}'))
    assert message["parts"][0]["arguments"] == {"a": 1}
    assert '"arguments": "[1, 1' in recorded("[" + "1, " * 5_000_000 + "1]")


def test_what_is_not_understood_is_kept_beside_what_is():
    """One odd call costs its own form alone, and is counted."""
    calls = [{"id": "1", "function": {"name": "a"}}, 7, {"id": "2", "function": {"name": "b"}}]
    (message,) = json.loads(messages_json({"role": "assistant", "tool_calls": calls}, role="assistant"))
    first, odd, last = message["parts"]
    assert (first["name"], odd, last["name"]) == ("a", 7, "b")
    assert _guard.faults() == {"content": 1}
