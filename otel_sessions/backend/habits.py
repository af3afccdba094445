"""How emitters differ in what they mean by the same words, as data; pure.

`vocabulary` says where a value lies; this table says how one emitter counts tokens, and how it shows that a
turn of its agent failed or was broken off where the turn's root span does not say so. Many write OK or
nothing on a root whatever happened below it.

A habit is listed only where the emitter's own code leaves no other reading. Where a cancelled call looks
like a call of a model that reports nothing (Google ADK, Microsoft Agent Framework), nobody knows, and nothing
is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["ANSWERED", "HABITS", "WAITING", "Habit"]

ANSWERED: Final = ""
"""Sign of a call that was answered: whatever went wrong before it began, the turn went on."""

WAITING: Final = "waiting"
"""Outcome of a turn that stopped to ask a person."""


@dataclass(frozen=True, slots=True)
class Habit:
    """What one emitter does otherwise than the conventions say."""

    cache_beside_input: bool = False
    """Input leaves out what was read from the cache and written to it."""

    thoughts_beside_output: bool = False
    """Output leaves out what the model thought."""

    answers: tuple[str, ...] = ()
    """Attributes of which every finished model call bears one: a call that ended without was cut off."""

    questions: tuple[str, ...] = ()
    """Attributes that are recorded under the same switch as those; without any, silence tells nothing."""

    broken_off: frozenset[str] = field(default_factory=frozenset[str])
    """Finish reasons after which a turn goes on, unless it was broken off."""

    failing: str = ""
    """Category of the spans whose failure is the turn's: their status is ERROR and no root's ever is."""


_NOBODY: Final = Habit()

HABITS: Final[Mapping[str, Habit]] = {
    "": _NOBODY,
    # Claude Code 2.1: input excludes cache. The interaction's span never bears a status. A model call whose
    # last word is a tool, of which no tool ended and which no other call followed, was interrupted.
    "CC": Habit(cache_beside_input=True, broken_off=frozenset({"tool_use"}), failing="model"),
    "CX": _NOBODY,
    # Gemini CLI 0.61: total 1460 = 1400 + 50 + 10 thoughts.
    "GC": Habit(thoughts_beside_output=True),
    # AgentScope 2.0 answers a cancelled call itself, and calls that OK.
    "AS": Habit(broken_off=frozenset({"interrupted"})),
    # Pydantic AI 2.68, models/instrumented.py: the model's name, or the name asked for, is set on every
    # answer, ERROR on every Exception. What bears neither was left by a CancelledError.
    "PY": Habit(answers=("gen_ai.response.model",)),
    # OpenAI Agents 0.24 sets a span's output and usage when it has them; an error of the run is set on the
    # agent's span alone, and everything around it is OK.
    "OA": Habit(
        answers=("gen_ai.output.messages", "gen_ai.usage.output_tokens", "gen_ai.response.id"),
        questions=("gen_ai.input.messages",),
        failing="agent",
    ),
    "OI": Habit(
        answers=("output.value", "llm.token_count.completion", "llm.output_messages.0.message.role"),
        questions=("input.value",),
        failing="agent",
    ),
}
"""By emitter of `vocabulary.EMITTERS`; "" is any other."""
