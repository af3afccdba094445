"""Every name that we put on the wire, or look for there; imports nothing.

Names of the field come from OpenTelemetry's semantic conventions (1.44.0; `gen_ai.*` from the
repository semantic-conventions-genai, status Development). Names that begin with `otel_sessions.`
are ours: no convention has a heartbeat, a state, a task or an outcome of a session yet.
Each own name states type, unit and meaning.
"""

from typing import Final

SCOPE_NAME: Final = "otel_sessions"
"""Instrumentation scope of our spans and of the life cycle events."""

# --- The conventions' names ------------------------------------------------------------------

SESSION_ID: Final = "session.id"
SESSION_PREVIOUS_ID: Final = "session.previous_id"
USER_ID: Final = "user.id"
SERVICE_NAME: Final = "service.name"
SERVICE_NAMESPACE: Final = "service.namespace"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
PROCESS_PID: Final = "process.pid"
ERROR_TYPE: Final = "error.type"
EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_AGENT_ID: Final = "gen_ai.agent.id"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"
GEN_AI_AGENT_DESCRIPTION: Final = "gen_ai.agent.description"
GEN_AI_WORKFLOW_NAME: Final = "gen_ai.workflow.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_USAGE_COST: Final = "gen_ai.usage.cost"
"""double, USD: what a model call cost. No convention names it; OpenLIT writes, Langfuse reads it."""
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
GEN_AI_TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
GEN_AI_TOOL_TYPE: Final = "gen_ai.tool.type"
GEN_AI_TOOL_DESCRIPTION: Final = "gen_ai.tool.description"
GEN_AI_TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"

OPERATION_CHAT: Final = "chat"
OPERATION_EMBEDDINGS: Final = "embeddings"
OPERATION_EXECUTE_TOOL: Final = "execute_tool"
OPERATION_INVOKE_AGENT: Final = "invoke_agent"

# --- Ours: on the root span of a run, and on the end event ----------------------------------------

SESSION_NAME: Final = "otel_sessions.session.name"
"""string: the session's name, of low cardinality ("plan trip")."""
SESSION_TITLE: Final = "otel_sessions.session.title"
"""string: the human text of this one session ("Lisbon in May, two adults")."""
SESSION_TAGS: Final = "otel_sessions.session.tags"
"""string[]: free labels."""
SESSION_OUTCOME: Final = "otel_sessions.session.outcome"
"""string: ok, error, cancelled; absent where nobody knows."""
SESSION_END_REASON: Final = "otel_sessions.session.end_reason"
"""string: why the run ended, a value of lifecycle.EndReason; its presence says that the run ended."""
SESSION_MESSAGE: Final = "otel_sessions.session.message"
"""string: what was said about the end, where the outcome is not error (else it is the status description)."""
SPANS_STARTED: Final = "otel_sessions.session.spans.started"
"""int: spans started in this session by this process so far, the root included."""
SPANS_ENDED: Final = "otel_sessions.session.spans.ended"
"""int: spans ended in this session by this process so far, the root included, late ones left out."""
SPANS_DROPPED: Final = "otel_sessions.session.spans.dropped"
"""int: spans of this session known to be lost by this process so far, late ones left out."""

SPANS_LOSSES: Final = "otel_sessions.session.spans.losses"
"""string: why they are lost, as `reason=count,reason=count` by losses.py; absent where none is."""

# --- Ours: on spans ---------------------------------------------------------------------------------

TASK_ID: Final = "otel_sessions.task.id"
"""string: the task that a span or log belongs to."""
TASK_NAME: Final = "otel_sessions.task.name"
"""string: its name, of low cardinality."""
TASK_PARENT_ID: Final = "otel_sessions.task.parent.id"
"""string: the id of the task around it; absent at the top."""
TASK_STATE: Final = "otel_sessions.task.state"
"""string, on task spans: running, done, failed, cancelled, refused, timed_out."""
TASK_RESULT: Final = "otel_sessions.task.result"
"""string, on task spans: the task's result, recorded only where content capture is on."""
STEP_ARGUMENTS: Final = "otel_sessions.step.arguments"
"""string (JSON), on agent and step spans: arguments, recorded only where content capture is on."""
STEP_RESULT: Final = "otel_sessions.step.result"
"""string (JSON), on agent and step spans: result, recorded only where content capture is on."""
LATE: Final = "otel_sessions.late"
"""bool: the span was ended after its run had ended, whatever end time it bears."""
FORCED_END: Final = "otel_sessions.forced_end"
"""bool: we ended the span because its process was ending."""
SYNTHETIC: Final = "otel_sessions.synthetic"
"""bool: a root that a backend made up for a lost run."""

# --- Ours: on every life cycle event ------------------------------------------------------------------

PROCESS_ID: Final = "otel_sessions.process.id"
"""string: random id of the sending process, renewed at fork.

`service.instance.id` will not do: the environment may fix one value for every process.
"""
SEQ: Final = "otel_sessions.seq"
"""int: number of this event in its process, from 1."""
ELAPSED: Final = "otel_sessions.elapsed"
"""int, ns: age of the sending process when it made the event, on a clock that counts suspend."""
HEARTBEAT_INTERVAL: Final = "otel_sessions.heartbeat"
"""double, s: how often this process sends heartbeats."""
LEASE: Final = "otel_sessions.lease"
"""double, s: how long a run may be believed after its last heartbeat."""
CHILD: Final = "otel_sessions.child"
"""bool: sent by a child process that took the session up; the event bears the carried root's span id."""
PHASE: Final = "otel_sessions.session.phase"
"""string, on heartbeat and state: running or waiting."""
WAITING_FOR: Final = "otel_sessions.waiting_for"
"""string: what a waiting run waits for ("approval")."""
OPEN_SPANS: Final = "otel_sessions.open_spans"
"""string[]: hex ids of spans open in this run and process, at most 64, oldest first."""
SPAN_NAME: Final = "otel_sessions.span.name"
"""string, on span.start: name of the announced span."""
SPAN_KIND: Final = "otel_sessions.span.kind"
"""int, on span.start: OTLP's SpanKind number (1 = internal)."""
SPAN_PARENT_ID: Final = "otel_sessions.span.parent_id"
"""string, on span.start: hex id of the parent span; absent for a root."""
SPAN_START: Final = "otel_sessions.span.start"
"""int, ns, on span.start: Unix time at which the announced span started."""

# --- Names of life cycle events ---------------------------------------------------------------------------

EVENT_SESSION_START: Final = "session.start"
EVENT_SESSION_RESUMED: Final = "otel_sessions.session.resumed"
EVENT_SESSION_HEARTBEAT: Final = "otel_sessions.session.heartbeat"
EVENT_SESSION_STATE: Final = "otel_sessions.session.state"
EVENT_SPAN_START: Final = "otel_sessions.span.start"
EVENT_SESSION_END: Final = "session.end"

EVENTS: Final = frozenset(
    {
        EVENT_SESSION_START,
        EVENT_SESSION_RESUMED,
        EVENT_SESSION_HEARTBEAT,
        EVENT_SESSION_STATE,
        EVENT_SPAN_START,
        EVENT_SESSION_END,
    }
)

# --- Carriage between processes ---------------------------------------------------------------------------

BAGGAGE_RUN: Final = "otel_sessions.run"
"""Baggage key beside `session.id`: hex span id of the run's root."""
BAGGAGE_TRACE: Final = "otel_sessions.trace"
"""Baggage key beside it: hex trace id of the run's root, where `traceparent` is of another trace."""

# --- In Collectors (collector-config/): taken off again before the backend --------------------------------

ROUTE: Final = "otel_sessions.route"
"""string, on resources of spans and on logs: what load balancing goes by.

The id of the session, under whatever name it was sent, else the trace id.
"""
ROUTE_SCHEMA_URL: Final = "otel_sessions.route.schema_url"
"""string, on resources and scopes of spans: the schema URL that grouping by ROUTE would lose."""
CARRY_NAME: Final = "otel_sessions.carry.name"
"""string: the span's name, while secrets are masked in attributes."""
CARRY_STATUS: Final = "otel_sessions.carry.status"
"""string: the description of its status, the same."""
