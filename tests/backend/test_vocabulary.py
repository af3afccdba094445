"""The names of the field: which attributes mean the same, and which mean nothing outside their emitter."""

from __future__ import annotations

import re
from typing import Any

import pytest
from telemetry import decoded_log, decoded_span, log, span

from otel_sessions.backend import vocabulary
from otel_sessions.backend.records import CATEGORIES
from otel_sessions.backend.vocabulary import category_of_name, emitter_of, named, plain_model

CLAUDE = "com.anthropic.claude_code.tracing"
CLAUDE_LOGS = "com.anthropic.claude_code.events"
CODEX = "codex_exec"
GEMINI = "gemini-cli"
MODEL = {"gen_ai.operation.name": "chat"}


def usage(attributes: dict[str, Any], scope: str = "test") -> tuple[int | None, int | None, int | None]:
    """Decode the usage of a model span."""
    record = decoded_span(span(1, attributes={**MODEL, **attributes}), scope)
    return record.input_tokens, record.output_tokens, record.cached_tokens


def test_the_canonical_name_comes_first_and_no_key_stands_twice() -> None:
    """Each list is in order of precedence, without repetition; marks name emitters that exist."""
    emitters = {emitter for emitter, _ in vocabulary.EMITTERS}
    for slots in (vocabulary.IDS, vocabulary.TEXTS, vocabulary.COUNTS, vocabulary.COSTS, vocabulary.SWITCHES):
        for slot, keys in slots.items():
            assert len(set(keys)) == len(keys), slot
            assert {key.partition(":")[0] for key in keys if ":" in key} <= emitters, slot
    assert vocabulary.IDS["session"][0] == "session.id"


def test_every_kind_of_work_is_a_category() -> None:
    """Or a chain, which is a workflow at the top of a trace and a step elsewhere."""
    kinds = {kind for values in vocabulary.KINDS.values() for kind in values.values()}
    assert kinds - {"chain"} <= set(CATEGORIES)
    assert set(vocabulary.NAMED_SPANS.values()) <= set(CATEGORIES)


@pytest.mark.parametrize(
    ("attributes", "scope", "category"),
    [
        ({"gen_ai.operation.name": "generate_content"}, "x", "model"),
        ({"gen_ai.operation.name": "embeddings"}, "x", "embedding"),
        ({"gen_ai.operation.name": "unknown", "openinference.span.kind": "TOOL"}, "x", "tool"),
        ({"openinference.span.kind": "LLM"}, "x", "model"),
        ({"openinference.span.kind": "RERANKER"}, "x", "retrieval"),
        ({"openinference.span.kind": "CHAIN"}, "x", "step"),
        ({"traceloop.span.kind": "task"}, "x", "step"),
        ({"traceloop.span.kind": "workflow"}, "x", "workflow"),
        ({"agentops.span.kind": "llm"}, "x", "model"),
        ({"langfuse.observation.type": "generation"}, "x", "model"),
        ({"langsmith.span.kind": "llm"}, "x", "model"),
        ({"lmnr.span.type": "LLM"}, "x", "model"),
        ({"llm.request.type": "rerank"}, "x", "retrieval"),
        ({"span.type": "llm_request"}, CLAUDE, "model"),
        ({"span.type": "tool.execution"}, CLAUDE, "step"),
        ({"span.type": "llm_request"}, "x", "step"),
        ({"codex.tool.phase": "dispatch"}, CODEX, "tool"),
        ({"gen_ai.tool.name": "search"}, "x", "tool"),
        ({"tool_name": "search"}, CODEX, "step"),
    ],
)
def test_each_dialect_says_what_kind_of_work_a_span_is(
    attributes: dict[str, Any], scope: str, category: str
) -> None:
    """What says nothing ("unknown") leaves the word to the next."""
    assert decoded_span(span(1, 9, attributes=attributes), scope).category == category


def test_a_chain_at_the_top_is_a_workflow_and_one_turn() -> None:
    """So is an agent; below another span neither is a turn."""
    for kind, top, below in (("CHAIN", "workflow", "step"), ("AGENT", "agent", "agent")):
        given = {"openinference.span.kind": kind}
        root, child = decoded_span(span(1, attributes=given)), decoded_span(span(2, 1, attributes=given))
        assert (root.category, root.turn, child.category, child.turn) == (top, True, below, False)


@pytest.mark.parametrize(
    ("attributes", "scope", "expected"),
    [
        ({"gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.completion_tokens": 7}, "x", (5, 7, None)),
        ({"llm.token_count.prompt": 5, "llm.token_count.prompt_details.cache_read": 2}, "x", (5, None, 2)),
        ({"langfuse.observation.usage_details": '{"input": 5, "output": 7}'}, "x", (5, 7, None)),
        ({"langfuse.observation.usage_details": '{"input": 5, '}, "x", (None, None, None)),
        ({"gen_ai.usage.input_tokens": 5, "langsmith.metadata.usage_metadata": '{"input_token_details":{"cache_read":3}}'}, "x", (5, None, 3)),
        ({"gen_ai.usage.input_tokens": "1500", "gen_ai.usage.output_tokens": 60.0}, "x", (1500, 60, None)),
        ({"input_tokens": 5}, "x", (None, None, None)),
        ({"input_tokens": 1200, "output_tokens": 45, "cache_read_tokens": 800, "cache_creation_tokens": 300}, CLAUDE, (2300, 45, 800)),
        ({"input_token_count": "5", "cached_token_count": 3}, CODEX, (5, None, 3)),
        ({"gen_ai.usage.input_tokens": 4, "gen_ai.usage.cache_read.input_tokens": 900}, "x", (904, None, 900)),
        ({"gen_ai.usage.input_tokens": 0, "gen_ai.usage.output_tokens": 0}, "x", (None, None, None)),
        ({"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 0}, "x", (5, 0, None)),
        ({"llm.token_count.total": 0}, "x", (None, None, None)),
        ({"gen_ai.usage.input_tokens": -5}, "x", (None, None, None)),
        ({"gen_ai.usage.input_tokens": True}, "x", (None, None, None)),
        ({"gen_ai.aggregated_usage.input_tokens": 5}, "x", (None, None, None)),
    ],
)  # fmt: skip
def test_usage_is_counted_as_the_conventions_count(
    attributes: dict[str, Any], scope: str, expected: tuple[Any, ...]
) -> None:
    """Input holds what was cached; 0 asked and 0 answered is unknown; a sum over others is no call."""
    assert usage(attributes, scope) == expected


def test_the_best_name_wins_whatever_the_order_of_attributes() -> None:
    """An unusable value leaves the word to the next name."""
    both = {"llm.model_name": "b", "gen_ai.request.model": "a"}
    for attributes in (both, dict(reversed(both.items()))):
        assert decoded_span(span(1, attributes={**MODEL, **attributes})).model == "a"
    assert (
        decoded_span(span(1, attributes={**MODEL, "gen_ai.request.model": "", "llm.model_name": "b"})).model
        == "b"
    )


@pytest.mark.parametrize(
    ("model", "plain"),
    [("claude-opus-4-8[1m]", "claude-opus-4-8"), ("gpt-4o", "gpt-4o"), ("[x]", "[x]"), ("a[1m]b", "a[1m]b")],
)
def test_a_variant_in_brackets_is_the_same_model(model: str, plain: str) -> None:
    """Claude Code writes it on some spans and not in logs."""
    assert plain_model(model) == plain


def test_names_of_agents_and_tools_come_from_each_dialect() -> None:
    """A traceloop entity is the agent or the tool that its kind says; a placeholder is nobody's name."""
    assert (
        decoded_span(span(1, attributes={"traceloop.span.kind": "agent", "traceloop.entity.name": "a"})).agent
        == "a"
    )
    assert (
        decoded_span(span(1, attributes={"traceloop.span.kind": "tool", "traceloop.entity.name": "t"})).tool
        == "t"
    )
    assert (
        decoded_span(span(1, attributes={"traceloop.span.kind": "task", "traceloop.entity.name": "t"})).tool
        is None
    )
    assert (
        decoded_span(
            span(1, attributes={"openinference.span.kind": "AGENT", "graph.node.id": "writer"})
        ).agent
        == "writer"
    )
    agent = {"gen_ai.agent.name": "OpenAI Agent"}
    assert (
        decoded_span(span(1, attributes=agent), "opentelemetry.instrumentation.openai_agents").agent is None
    )
    assert decoded_span(span(1, attributes=agent)).agent == "OpenAI Agent"


def test_tasks_of_emitters_are_tasks() -> None:
    """Their unit of work in a session, under their own names."""
    assert decoded_span(span(1, attributes={"agentscope.agent.reply_id": "r1"}), "agentscope").task_id == "r1"
    assert decoded_span(span(1, attributes={"turn.id": "t1"}), CODEX).task_id == "t1"
    assert decoded_span(span(1, attributes={"turn.id": "t1"})).task_id is None


# --- Logs that count ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "name", "attributes", "expected"),
    [
        (CLAUDE_LOGS, "api_request", {"model": "m", "input_tokens": 1, "output_tokens": 2, "cost_usd": 0.5}, ("model", "m", 1, 0.5)),
        (CLAUDE_LOGS, "assistant_response", {"model": "m"}, ("", None, None, None)),
        (CLAUDE_LOGS, "tool_decision", {"decision": "accept", "tool_name": "Bash"}, ("tool", None, None, None)),
        (CLAUDE_LOGS, "tool_decision", {"decision": "reject", "tool_name": "Bash"}, ("", None, None, None)),
        ("codex_otel.log_only", "codex.sse_event", {"event.kind": "response.completed", "model": "m"}, ("", None, None, None)),
        ("codex_otel.log_only", "codex.sse_event", {"model": "m", "input_token_count": "5"}, ("model", "m", 5, None)),
        (GEMINI, "gemini_cli.api_response", {"model": "m", "input_token_count": 5}, ("model", "m", 5, None)),
        (GEMINI, "gen_ai.client.inference.operation.details", {"gen_ai.usage.input_tokens": 5}, ("", None, None, None)),
        ("gcp.vertex.agent", "gen_ai.client.inference.operation.details", {"gen_ai.usage.input_tokens": 5}, ("model", None, 5, None)),
        ("anything", "api_request", {"model": "m", "input_tokens": 1}, ("", None, None, None)),
    ],
)  # fmt: skip
def test_exactly_one_log_counts_a_call(
    scope: str, name: str, attributes: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    """The others that tell of the same call bear no model, no usage, no cost."""
    record = decoded_log(log(attributes={"event.name": name, **attributes}), scope)
    assert (record.category, record.model, record.input_tokens, record.cost) == expected


def test_thoughts_are_output_too() -> None:
    """Gemini CLI leaves them out of its output."""
    given = {"event.name": "gemini_cli.api_response", "input_token_count": 1400, "output_token_count": 50,
             "thoughts_token_count": 10, "cached_content_token_count": 700}  # fmt: skip
    record = decoded_log(log(attributes=given), GEMINI)
    assert (record.input_tokens, record.output_tokens, record.cached_tokens) == (1400, 60, 700)


def test_a_prompt_is_a_turn() -> None:
    """For command line agents whose spans may not tell."""
    assert decoded_log(log(attributes={"event.name": "user_prompt"}), CLAUDE_LOGS).turn
    assert not decoded_log(log(attributes={"event.name": "user_prompt"})).turn


# --- Names alone ------------------------------------------------------------------------------------------


def test_an_announced_span_is_what_its_name_says() -> None:
    """By the conventions' patterns; any other name is a step."""
    assert category_of_name("execute_tool get weather") == ("tool", "tool", "get weather")
    assert category_of_name("chat gpt-4o") == ("model", "model", "gpt-4o")
    assert category_of_name("task ask") == ("task", "", "ask")
    assert category_of_name("chatting") == ("step", "", "")


def test_scopes_belong_to_their_emitter() -> None:
    """By the prefix of the scope's name; bare keys hold for it alone."""
    assert [emitter_of(scope) for scope in (CLAUDE, CODEX, "codex_otel.log_only", GEMINI, "my.app")] == [
        "CC",
        "CX",
        "CX",
        "GC",
        "",
    ]
    assert named(("a", "CC:b", "CX:c"), "CX") == ["a", "c"]
    assert all(re.fullmatch(r"[A-Z]{2}", emitter) for emitter, _ in vocabulary.EMITTERS)
