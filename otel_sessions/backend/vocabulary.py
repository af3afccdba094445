"""The names of the field, as data: which attributes of which emitter mean the same; pure.

Each slot of a record (`SESSION`, `MODEL`, `INPUT_TOKENS`, …) lists the attribute keys that may fill it, in
order of precedence; the first usable value wins. Two marks in a key:

    CC:input_tokens        only within the instrumentation scopes of one emitter (`EMITTERS`), for a bare
                           name means nothing elsewhere
    usage_details#input    the attribute holds JSON, and the value lies at this path within it

Sources: the packages and servers named beside the groups, and recorded telemetry. Raw attributes are
kept by the store; what is filled here serves lists, sums and the tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from otel_sessions import semconv

__all__ = [
    "ABSENT",
    "ALLOWED",
    "CALL_IDS",
    "CALL_LOGS",
    "CONTENTS",
    "CONTENT_EVENTS",
    "COSTS",
    "COUNTS",
    "EMITTERS",
    "IDS",
    "INDEXED_INPUTS",
    "INDEXED_OUTPUTS",
    "INPUTS",
    "KINDS",
    "NAMED_SPANS",
    "OUTPUTS",
    "PATTERNS",
    "PENDING",
    "PLACEHOLDERS",
    "SWITCHES",
    "TEXTS",
    "TOOL_ARGUMENTS",
    "TOOL_NAMES",
    "TOOL_RESULTS",
    "TURN_LOGS",
    "TURN_SPANS",
    "category_of_name",
    "emitter_of",
    "named",
    "plain_model",
]

EMITTERS: Final = (
    ("CC", "com.anthropic.claude_code"),
    ("CX", "codex"),
    ("GC", "gemini-cli"),
    ("AS", "agentscope"),
    ("PY", "pydantic-ai"),
    ("OA", "opentelemetry.instrumentation.openai_agents"),
    ("OI", "openinference.instrumentation.openai_agents"),
)
"""Emitters whose habits differ, and the prefix of their instrumentation scopes' names."""

ABSENT: Final = frozenset({"", "unknown", "[no_session_id]", "<not specified>"})
"""Texts that emitters write where they have no id."""

# --- The slots -----------------------------------------------------------------------------------------

_SESSION_IDS: Final = (
    semconv.SESSION_ID,
    "langfuse.session.id",
    semconv.GEN_AI_CONVERSATION_ID,
    "CX:conversation.id",
    "CX:thread_id",
    "CX:thread.id",  # its second time on a span; the first is the number of a thread of the OS (PATTERNS)
    "CX:key",
    "langsmith.metadata.thread_id",
    "traceloop.association.properties.session_id",
    "traceloop.association.properties#session_id",
    "lmnr.association.properties.session_id",
    "ai.telemetry.metadata.sessionId",
    "ai.telemetry.metadata.session_id",
    "mlflow.trace.session",
    "langfuse.trace.metadata.langfuse_session_id",
    "langfuse.observation.metadata.langfuse_session_id",
    "gcp.vertex.agent.session_id",
    "workflow.session_id",
    "llamaindex.handler_id",
)
# Never: mcp.session.id (transport), langsmith.trace.session_name (project), numbers in thread.id (of the OS).

PATTERNS: Final[Mapping[tuple[str, str], str]] = {
    ("CX", "CX:thread.id"): r"([0-9a-f]{8}-[0-9a-f-]{27})",
    ("CX", "CX:key"): r'Thread \{ thread_id: "([^"]+)" \}',  # what waits in a queue, as Rust prints it
}
"""Texts that hold an id only where they look like this, by emitter and key; the id is the group."""

IDS: Final[Mapping[str, tuple[str, ...]]] = {
    "session": _SESSION_IDS,
    "conversation": (
        semconv.GEN_AI_CONVERSATION_ID,
        *(key for key in _SESSION_IDS if key not in (semconv.SESSION_ID, semconv.GEN_AI_CONVERSATION_ID)),
    ),
    "user": (
        semconv.USER_ID,
        "langfuse.user.id",
        "enduser.id",
        "gen_ai.user",
        "llm.user",
        "traceloop.association.properties.user_id",
        "traceloop.association.properties#user_id",
        "lmnr.association.properties.user_id",
        "ai.telemetry.metadata.userId",
        "ai.telemetry.metadata.user_id",
        "mlflow.trace.user",
        "workflow.user_id",
    ),
    "task": (
        semconv.TASK_ID,
        "agentscope.agent.reply_id",
        "llamaindex.run_id",
        "CC:prompt.id",
        "CX:turn.id",
        "CX:turn_id",
        "gcp.vertex.agent.invocation_id",
    ),
}
"""Slots that hold an id: a value that is no text becomes text, and the texts of ABSENT are no ids."""

TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    "agent": (
        semconv.GEN_AI_AGENT_NAME,
        "agent.name",
        "PY:agent_name",
        "graph.node.name",
        "graph.node.id",  # all that CrewAI has: the role
    ),
    "entity": ("traceloop.entity.name",),  # an agent's or a tool's name, as traceloop.span.kind says
    "request_model": (
        semconv.GEN_AI_REQUEST_MODEL,
        "llm.request.model_name",
        "llm.model_name",
        "embedding.model_name",
        "reranker.model_name",
        "llm.request.model",
        "langfuse.observation.model.name",
        "model_name",
        "CC:model",
        "CX:model",
        "GC:model",
    ),
    "response_model": (semconv.GEN_AI_RESPONSE_MODEL, "llm.response.model_name", "llm.response.model"),
    "provider": (
        semconv.GEN_AI_PROVIDER_NAME,
        "gen_ai.system",
        "llm.provider",
        "llm.system",
        "ai.model.provider",
    ),
    "tool": (
        semconv.GEN_AI_TOOL_NAME,
        "tool.name",
        "tool_call.function.name",
        "CC:tool_name",
        "CX:tool_name",
        "GC:function_name",
    ),
    "session_name": (semconv.SESSION_NAME,),
    "title": (semconv.SESSION_TITLE,),
    "task_name": (semconv.TASK_NAME,),
    "task_parent": (semconv.TASK_PARENT_ID,),
    "task_state": (semconv.TASK_STATE,),
    "outcome": (semconv.SESSION_OUTCOME,),
    "end_reason": (semconv.SESSION_END_REASON,),
    "process": (semconv.PROCESS_ID,),
    "spans_losses": (semconv.SPANS_LOSSES,),
    "end_state": ("agentops.session.end_state",),
    "error_type": (semconv.ERROR_TYPE,),
    "event_name": ("event.name",),
    "decision": ("CC:decision", "CX:decision"),
    "finish": (
        "gen_ai.response.finish_reasons",
        "gen_ai.response.finish_reason",
        "gen_ai.response.stop_reason",
        "llm.response.finish_reason",
        "llm.finish_reason",
        "CC:stop_reason",
    ),
}
"""Slots that hold a text that is not empty; of several finish reasons, the first."""

COUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "input": (
        semconv.GEN_AI_USAGE_INPUT_TOKENS,
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
        "langfuse.observation.usage_details#input",
        "decision.token_count.input",
        "CC:input_tokens",
        "CX:input_token_count",
        "GC:input_token_count",
    ),
    "output": (
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS,
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
        "langfuse.observation.usage_details#output",
        "CC:output_tokens",
        "CX:output_token_count",
        "GC:output_token_count",
    ),
    "cache_read": (
        semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
        "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
        "langsmith.metadata.usage_metadata#input_token_details.cache_read",
        "gen_ai.usage.details.cache_read_tokens",
        "CC:cache_read_tokens",
        "CX:cached_token_count",
        "GC:cached_content_token_count",
    ),
    "cache_write": (
        "gen_ai.usage.cache_write.input_tokens",
        semconv.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS,
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
        "CC:cache_creation_tokens",
        "CX:cache_write_token_count",
    ),
    "reasoning": (
        semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
        "gen_ai.usage.reasoning_tokens",
        "llm.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
        "CX:reasoning_token_count",
        "GC:thoughts_token_count",
    ),
    "spans_started": (semconv.SPANS_STARTED,),
    "spans_ended": (semconv.SPANS_ENDED,),
    "spans_dropped": (semconv.SPANS_DROPPED,),
}
"""Slots that hold a count. Totals are derived, `gen_ai.aggregated_usage.*` (Pydantic AI) is never summed."""

COSTS: Final[Mapping[str, tuple[str, ...]]] = {
    "cost": (
        "llm.cost.total",
        semconv.GEN_AI_USAGE_COST,
        "gen_ai.usage.total_cost",
        "langfuse.observation.cost_details#total",
        "operation.cost",
        "CC:cost_usd",
    ),
}
"""Slots that hold an amount of USD; no convention has a name for it."""

SWITCHES: Final[Mapping[str, tuple[str, ...]]] = {
    "late": (semconv.LATE,),
    "forced": (semconv.FORCED_END,),
    "synthetic": (semconv.SYNTHETIC,),
}
"""Slots that hold a bool."""

CONTENTS: Final = (
    semconv.GEN_AI_INPUT_MESSAGES,
    semconv.GEN_AI_OUTPUT_MESSAGES,
    semconv.GEN_AI_TOOL_CALL_ARGUMENTS,
    semconv.GEN_AI_TOOL_CALL_RESULT,
    semconv.STEP_ARGUMENTS,
    semconv.STEP_RESULT,
    semconv.TASK_RESULT,
    "input.value",
    "output.value",
    "llm.input_messages.0.message.role",
    "llm.input_messages.0.message.content",
    "llm.output_messages.0.message.role",
    "llm.output_messages.0.message.content",
    "llm.prompts",
    "gen_ai.prompt",
    "gen_ai.completion",
    "gen_ai.prompt.0.role",
    "gen_ai.prompt.0.content",
    "gen_ai.completion.0.role",
    "gen_ai.completion.0.content",
    "traceloop.entity.input",
    "traceloop.entity.output",
    "agentops.entity.input",
    "agentops.entity.output",
    "langfuse.observation.input",
    "langfuse.observation.output",
    "lmnr.span.input",
    "lmnr.span.output",
    "pydantic_ai.all_messages",
    "final_result",
    "tool_call.function.arguments",
    "tool.result",
    "CC:user_prompt",
    "CC:full_command",
    "CC:tool_input",
)
"""Attributes that hold messages, a tool's arguments or its result: their presence is all a row tells."""

PENDING: Final = ("agentscope.agent.hitl_pending_tools",)
"""Attributes that name what waits for a person's word."""

INPUTS: Final = (
    semconv.GEN_AI_INPUT_MESSAGES,
    "pydantic_ai.all_messages",
    "langfuse.observation.input",
    "lmnr.span.input",
    "traceloop.entity.input",
    "agentops.entity.input",
    "gen_ai.prompt",
    "llm.prompts",
    "input.value",
    "CC:user_prompt",
    semconv.STEP_ARGUMENTS,
)
"""Attributes in which a model or an agent was spoken to; messages go before plain text."""

OUTPUTS: Final = (
    semconv.GEN_AI_OUTPUT_MESSAGES,
    "langfuse.observation.output",
    "lmnr.span.output",
    "traceloop.entity.output",
    "agentops.entity.output",
    "gen_ai.completion",
    "final_result",
    "output.value",
    semconv.STEP_RESULT,
    semconv.TASK_RESULT,
)
"""Attributes in which it answered."""

INDEXED_INPUTS: Final = ("llm.input_messages.", "gen_ai.prompt.")
"""Prefixes of messages that are taken apart: `llm.input_messages.0.message.role`, `gen_ai.prompt.0.role`."""
INDEXED_OUTPUTS: Final = ("llm.output_messages.", "gen_ai.completion.")
"""The same for answers."""

TOOL_ARGUMENTS: Final = (
    semconv.GEN_AI_TOOL_CALL_ARGUMENTS,
    "tool_call.function.arguments",
    "input.value",
    "tool.parameters",  # unless it is a JSON schema: what the tool takes, not what it was given
    "langfuse.observation.input",
    "lmnr.span.input",
    "traceloop.entity.input",
    "agentops.entity.input",
    "gen_ai.prompt",
    "CC:tool_input",
    "CC:tool_parameters",
    "CC:full_command",
    "CX:arguments",
    "GC:function_args",
)
"""Attributes that hold what a tool was given."""

TOOL_RESULTS: Final = (
    semconv.GEN_AI_TOOL_CALL_RESULT,
    "tool.result",
    "output.value",
    "langfuse.observation.output",
    "lmnr.span.output",
    "traceloop.entity.output",
    "agentops.entity.output",
    "gen_ai.completion",
    "CX:output",
)
"""Attributes that hold what it returned."""

CALL_IDS: Final = (
    semconv.GEN_AI_TOOL_CALL_ID,
    "tool.id",
    "tool_call.id",
    "gen_ai.tool.call_id",
    "CC:tool_use_id",
    "CX:call_id",
)
"""Attributes that hold the id of a tool's call."""

TOOL_NAMES: Final = TEXTS["tool"]
"""Attributes that hold a tool's name."""


_CHAIN: Final = "chain"  # a workflow at the top of a trace, else a step

_GEN_AI_OPERATIONS: Final = {
    "chat": "model",
    "generate_content": "model",
    "text_completion": "model",
    "llm_call": "model",  # Gemini CLI
    "embeddings": "embedding",
    "retrieval": "retrieval",
    "search_memory": "retrieval",
    "execute_tool": "tool",
    "tool_call": "tool",  # Gemini CLI
    "invoke_agent": "agent",
    "invoke_workflow": "workflow",
    "create_agent": "step",
    "plan": "step",
    "format": "step",  # AgentScope
    "schedule_tool_calls": "step",  # Gemini CLI
    "chain": _CHAIN,
}
KINDS: Final[Mapping[str, Mapping[str, str]]] = {
    semconv.GEN_AI_OPERATION_NAME: _GEN_AI_OPERATIONS,
    "openinference.span.kind": {
        "llm": "model",
        "embedding": "embedding",
        "tool": "tool",
        "agent": "agent",
        "retriever": "retrieval",
        "reranker": "retrieval",
        "prompt": "step",
        "chain": _CHAIN,
        "guardrail": "step",
        "evaluator": "step",
        "decision": "step",
    },
    "traceloop.span.kind": {"workflow": "workflow", "task": "step", "agent": "agent", "tool": "tool"},
    "agentops.span.kind": {
        "session": "session",
        "workflow": "workflow",
        "task": "step",
        "operation": "step",
        "agent": "agent",
        "tool": "tool",
        "llm": "model",
        "chain": _CHAIN,
        "text": "step",
        "guardrail": "step",
        "http": "step",
    },
    "langfuse.observation.type": {
        "generation": "model",
        "embedding": "embedding",
        "agent": "agent",
        "tool": "tool",
        "chain": _CHAIN,
        "retriever": "retrieval",
        "span": "step",
        "evaluator": "step",
        "guardrail": "step",
        "event": "step",
    },
    "langsmith.span.kind": {
        "llm": "model",
        "embedding": "embedding",
        "tool": "tool",
        "retriever": "retrieval",
        "chain": _CHAIN,
        "prompt": "step",
        "parser": "step",
    },
    "lmnr.span.type": {"llm": "model", "tool": "tool", "default": "step", "evaluator": "step"},
    "llm.request.type": {
        "chat": "model",
        "completion": "model",
        "rerank": "retrieval",
        "embedding": "embedding",
    },
    "CC:span.type": {
        "interaction": "agent",
        "llm_request": "model",
        "tool": "tool",
        "tool.execution": "step",  # within the tool span: one call, not two
        "tool.blocked_on_user": "step",
    },
    "CX:codex.tool.phase": {"dispatch": "tool"},
}
"""What kind of work a span says it is; a value that is not listed (OpenAI Agents: "unknown") says nothing."""

NAMED_SPANS: Final[Mapping[tuple[str, str], str]] = {
    ("CX", "session_task.turn"): "agent",
    ("PY", "agent run"): "agent",  # before its version 2, with the summed usage of its calls
    ("PY", "running tool"): "tool",
}
"""Spans that only their name tells: emitter and name, and what kind of work they are."""

TURN_SPANS: Final = frozenset({("CC", "claude_code.interaction"), ("CX", "session_task.turn")})
"""Spans that are one turn wherever they stand; else an agent or workflow at the top of a trace is one."""

CONTENT_EVENTS: Final = frozenset(
    {
        "gen_ai.content.prompt",
        "gen_ai.content.completion",
        "gen_ai.system.message",
        "gen_ai.user.message",
        "gen_ai.assistant.message",
        "gen_ai.tool.message",
        "gen_ai.choice",
        "gen_ai.client.inference.operation.details",
    }
)
"""Span events that hold messages (conventions before 1.37)."""

PLACEHOLDERS: Final[Mapping[tuple[str, str], str]] = {
    # opentelemetry-instrumentation-openai-agents-v2 writes its own name on every span that is no agent's.
    ("OA", semconv.GEN_AI_AGENT_NAME): "OpenAI Agent",
}

# --- Logs that tell of calls and turns ------------------------------------------------------------------

CALL_LOGS: Final[Mapping[tuple[str, str], str]] = {
    ("CC", "api_request"): "model",
    ("CC", "tool_decision"): "tool",
    ("CX", "codex.sse_event"): "model",
    ("CX", "codex.tool_decision"): "tool",
    ("GC", "gemini_cli.api_response"): "model",
    ("GC", "gemini_cli.tool_call"): "tool",
    ("", "gen_ai.client.inference.operation.details"): "model",
}
"""The one log that tells of a call: emitter ("" for any without an entry) and event name, and what kind.

Gemini CLI sends `gen_ai.client.inference.operation.details` too, for the same calls: not counted. A log of a
model call counts only with its usage (Codex sends several `codex.sse_event` a call), one of a tool only
where the call was allowed.
"""

ALLOWED: Final = ("accept", "approved", "approved_for_session", "approved_execpolicy_amendment")
"""Decisions of Claude Code and Codex after which a tool ran."""

TURN_LOGS: Final = frozenset(
    {("CC", "user_prompt"), ("CX", "codex.user_prompt"), ("GC", "gemini_cli.user_prompt")}
)
"""The one log that tells of a turn."""

_NAME_PREFIXES: Final = (
    ("session ", "session", ""),
    ("task ", "task", ""),
    ("invoke_agent ", "agent", "agent"),
    ("execute_tool ", "tool", "tool"),
    ("chat ", "model", "model"),
    ("text_completion ", "model", "model"),
    ("generate_content ", "model", "model"),
    ("embeddings ", "embedding", "model"),
    ("retrieval ", "retrieval", ""),
    ("invoke_workflow ", "workflow", ""),
)


def category_of_name(name: str) -> tuple[str, str, str]:
    """Tell what a span is by its conventional name: category, slot of what follows, and that text.

    For spans that are only announced: their name is all that is known.
    """
    for prefix, category, slot in _NAME_PREFIXES:
        if name.startswith(prefix):
            return category, slot, name[len(prefix) :]
    return "step", "", ""


def named(keys: tuple[str, ...], emitter: str) -> list[str]:
    """Return the attribute keys of a list that hold for an emitter, in order of precedence."""
    split = ((key, *key.partition(":")) for key in keys)
    return [bare if mark else key for key, owner, mark, bare in split if not mark or owner == emitter]


def plain_model(model: str) -> str:
    """Return a model's name without the variant that Claude Code puts in brackets: it is the same model."""
    head, bracket, _ = model.partition("[")
    return head if bracket and head and model.endswith("]") else model


def emitter_of(scope: str) -> str:
    """Return which emitter of EMITTERS an instrumentation scope belongs to, "" for any other."""
    for emitter, prefix in EMITTERS:
        if scope.startswith(prefix):
            return emitter
    return ""
