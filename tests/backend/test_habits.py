"""What emitters show of a turn that failed or was broken off, where its root says nothing."""

from __future__ import annotations

from typing import Any

import pytest
from telemetry import decoded_log, decoded_span, log, span

from otel_sessions.backend.habits import HABITS
from otel_sessions.backend.vocabulary import EMITTERS

CLAUDE = "com.anthropic.claude_code.tracing"
PYDANTIC = "pydantic-ai"
OPENAI = "opentelemetry.instrumentation.openai_agents"
OPENINFERENCE = "openinference.instrumentation.openai_agents"
THREAD = "01a1fc3a-7c47-7323-b512-3ce1ed758cfa"
CHAT = {"gen_ai.operation.name": "chat"}
LLM = {"openinference.span.kind": "LLM"}
ERROR = 2


def test_every_emitter_has_its_habits() -> None:
    """Also those that do as the conventions say."""
    assert set(HABITS) == {"", *(emitter for emitter, _ in EMITTERS)}


@pytest.mark.parametrize(
    ("scope", "attributes", "status", "sign"),
    [
        # a call that was answered takes back what was said before it
        (CLAUDE, {"span.type": "llm_request", "stop_reason": "end_turn"}, 0, ""),
        (CLAUDE, {"span.type": "llm_request", "gen_ai.response.finish_reasons": ["end_turn"]}, 0, ""),
        (CLAUDE, {"span.type": "tool"}, 0, ""),
        ("agentscope", {**CHAT, "gen_ai.response.finish_reasons": '["stop"]'}, 1, ""),
        (PYDANTIC, {**CHAT, "gen_ai.response.model": "m"}, 0, ""),
        (OPENAI, {**CHAT, "gen_ai.input.messages": "[1]", "gen_ai.usage.output_tokens": 0}, 1, ""),
        (OPENINFERENCE, {**LLM, "input.value": "[1]", "output.value": "[2]"}, 1, ""),
        # a call that was broken off
        (CLAUDE, {"span.type": "llm_request", "gen_ai.response.finish_reasons": ["tool_use"]}, 0, "cancelled"),
        ("agentscope", {**CHAT, "gen_ai.response.finish_reasons": '["interrupted"]'}, 1, "cancelled"),
        (PYDANTIC, CHAT, 0, "cancelled"),
        (OPENAI, {**CHAT, "gen_ai.input.messages": "[1]"}, 1, "cancelled"),
        (OPENINFERENCE, {**LLM, "input.value": "[1]"}, 1, "cancelled"),
        # a failure that no root tells
        (CLAUDE, {"span.type": "llm_request"}, ERROR, "error"),
        (OPENAI, {"gen_ai.operation.name": "invoke_agent"}, ERROR, "error"),
        (OPENINFERENCE, {"openinference.span.kind": "AGENT"}, ERROR, "error"),
        # nothing that tells
        (CLAUDE, {"span.type": "tool.execution"}, ERROR, None),
        (PYDANTIC, CHAT, ERROR, None),
        (OPENAI, CHAT, 1, None),
        ("gcp.vertex.agent", {"gen_ai.operation.name": "generate_content"}, 0, None),
        ("agent_framework", CHAT, 0, None),
        ("my.app", {**CHAT, "gen_ai.response.finish_reasons": ["interrupted"]}, 0, None),
    ],
)  # fmt: skip
def test_a_call_shows_how_its_turn_went_by_its_emitters_habit(
    scope: str, attributes: dict[str, Any], status: int, sign: str | None
) -> None:
    """What another reading allows is no sign: a model that reports nothing looks like one that was cancelled."""
    assert decoded_span(span(2, 1, attributes=attributes, status=status), scope).outcome == sign


def test_a_root_says_it_for_itself() -> None:
    """ERROR, an event or an end state count; a failed call below does not make a root an error."""
    assert decoded_span(span(1, status=ERROR)).outcome == "error"
    assert decoded_span(span(1, status=1)).outcome is None
    assert decoded_span(span(1, events=[("span.cancelled", {})])).outcome == "cancelled"
    assert decoded_span(span(1, attributes={"agentops.session.end_state": "Success"})).outcome == "ok"
    assert decoded_span(span(1, attributes=CHAT), PYDANTIC).outcome == "cancelled"
    assert decoded_span(span(1, attributes={**CHAT, "gen_ai.response.model": "m"}), PYDANTIC).outcome is None


def test_a_turn_that_asks_a_person_waits() -> None:
    """AgentScope names the tools that wait for a word, on a span that is OK."""
    asking = {"gen_ai.operation.name": "invoke_agent", "agentscope.agent.hitl_pending_tools": '["ls"]'}
    assert decoded_span(span(1, attributes=asking, status=1), "agentscope").outcome == "waiting"
    assert decoded_span(span(2, 1, attributes=asking, status=1), "agentscope").outcome is None


def test_thoughts_and_caches_beside_the_totals_are_added() -> None:
    """By the emitter's habit, and wherever the part is greater than the whole."""
    given = {**CHAT, "gen_ai.usage.output_tokens": 5, "gen_ai.usage.reasoning_tokens": 90}
    assert decoded_span(span(1, attributes=given)).output_tokens == 95
    assert decoded_span(span(1, attributes={**given, "gen_ai.usage.output_tokens": 100})).output_tokens == 100


def test_codex_names_its_thread_where_others_number_theirs() -> None:
    """Under one key, the second time as a text; and inside the name of a queue."""
    numbered = span(1, attributes={"thread.id": 3})
    assert decoded_span(numbered, "codex_exec").hint is None
    numbered.attributes.extend(span(2, attributes={"thread.id": THREAD}).attributes)
    named = decoded_span(numbered, "codex_exec").hint
    assert named is not None
    assert (named.value, named.scope) == (THREAD, "/agent")
    assert decoded_span(numbered, "my.app").hint is None
    queued = {"key": f'Thread {{ thread_id: "{THREAD}" }}'}
    assert decoded_span(span(1, attributes=queued), "codex_exec").hint == named
    assert decoded_span(span(1, attributes={"key": THREAD}), "codex_exec").hint is None
    assert decoded_log(log(attributes={"thread.id": "3"}), "codex_exec").hint is None
