"""What of a model call's input is new, and what repeats a conversation that was seen before; pure.

Each call repeats all that was said before it, and three things blur the repetition: a window that drops the
oldest messages, an answer that its sender words otherwise the next time, and a second call with the very
same words, which is a retry within its trace and a new turn in another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from otel_sessions.backend.messages import Part

__all__ = ["History", "Key", "key_of"]

Key = tuple[str, str]
"""What makes two parts the same: kind, and text or the id of the tool's call."""

_ANSWERS: Final = frozenset({"assistant", "tool_call"})
_TOOLS: Final = frozenset({"tool_call", "tool_result"})


def key_of(part: Part) -> Key:
    """Return what tells a part from others; two tool calls with one id are the same whatever they hold."""
    if part.kind in _TOOLS:
        given = part.arguments if part.kind == "tool_call" else part.result
        return part.kind, part.call_id or json.dumps([part.name, given], sort_keys=True, default=repr)
    return part.kind, f"{part.name or ''}\n{part.text or ''}"


@dataclass(slots=True)
class _Node:
    """A place in the tree of all conversations: everything said up to here."""

    after: dict[Key, _Node] = field(default_factory=dict[Key, "_Node"])
    traces: set[bytes] = field(default_factory=set[bytes])  # with a call that was told exactly this
    answered: bool = False  # such a call was answered


class History:
    """The conversations of one session, as a tree in which they share what they have in common."""

    def __init__(self) -> None:
        self._root = _Node()
        self._here = self._root
        self._last: dict[str | None, list[Key]] = {}

    def news(self, inputs: Sequence[Part], trace_id: bytes, agent: str | None) -> list[Part]:
        """Return what of a call's input was not said before, and remember it."""
        keys = [key_of(part) for part in inputs]
        node, depth = self._root, 0
        while depth < len(keys) and (known := node.after.get(keys[depth])) is not None:
            node, depth = known, depth + 1
        if depth == len(keys):
            is_new_turn = bool(node.traces) and trace_id not in node.traces
            new = _last_turn(inputs) if is_new_turn else []
        elif node.answered:
            new = _without_answer(inputs[depth:])
        else:
            new = list(inputs[depth + self._slid(keys[depth:], agent) :])
        for key in keys[depth:]:
            node = node.after.setdefault(key, _Node())
        node.traces.add(trace_id)
        self._here = node
        self._last[agent] = keys
        return new

    def answer(self, outputs: Sequence[Part], agent: str | None) -> None:
        """Remember how the call that was asked for last was answered."""
        keys = [key_of(part) for part in outputs]
        self._here.answered = self._here.answered or bool(keys)
        for key in keys:
            self._here = self._here.after.setdefault(key, _Node())
        self._last.setdefault(agent, []).extend(keys)

    def _slid(self, keys: Sequence[Key], agent: str | None) -> int:
        """Return how many of these the agent's last conversation ended with: its window has moved on."""
        last = self._last.get(agent, [])
        for length in range(min(len(keys), len(last)), 0, -1):
            if list(keys[:length]) == last[-length:]:
                return length
        return 0


def _without_answer(parts: Sequence[Part]) -> list[Part]:
    """Leave out what the model said: its call has told that, maybe in other words."""
    asked = next((index for index, part in enumerate(parts) if part.kind == "user"), len(parts))
    return [part for part in parts[:asked] if part.kind not in _ANSWERS] + list(parts[asked:])


def _last_turn(parts: Sequence[Part]) -> list[Part]:
    """Return what came after the model's last words, without instructions."""
    spoken = [index for index, part in enumerate(parts) if part.kind in _ANSWERS]
    begin = spoken[-1] + 1 if spoken else 0
    return [part for part in parts[begin:] if part.kind == "user"]
