"""What one span or log says: what went in, what came out, which tool was called with what; pure.

Where each emitter puts it is data (`vocabulary`), which form it has is `messages`' matter. What a span does
not say is not made up: no text, no item.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions import semconv
from otel_sessions.backend.attributes import plain
from otel_sessions.backend.json_values import as_json
from otel_sessions.backend.messages import Part, is_conversation, loaded, parts, plain_call_id
from otel_sessions.backend.vocabulary import (
    ALLOWED,
    CALL_IDS,
    CONTENT_EVENTS,
    INDEXED_INPUTS,
    INDEXED_OUTPUTS,
    INPUTS,
    OUTPUTS,
    TOOL_ARGUMENTS,
    TOOL_NAMES,
    TOOL_RESULTS,
    named,
)

__all__ = ["Said", "failure_of", "said_by_event", "said_by_log", "said_by_span", "tool_parts"]

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What went into a call, system instructions first, and what came out."""

    inputs: tuple[Part, ...] = ()
    outputs: tuple[Part, ...] = ()

    def or_else(self, other: Said) -> Said:
        """Return this, with what it lacks taken from another."""
        return Said(self.inputs or other.inputs, self.outputs or other.outputs)


def attributes_of(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Return attributes as values that JSON can hold; of a key that is repeated, the first."""
    given: dict[str, Any] = {}
    for attribute in attributes:
        if attribute.key not in given:
            given[attribute.key] = as_json(plain(attribute.value))
    return given


# --- Models and agents -------------------------------------------------------------------------------------


def said_by_span(span: SpanMessage, emitter: str) -> Said:
    """Return what a model or an agent was told and what it answered, by its attributes, else its events."""
    said = _said(attributes_of(span.attributes), emitter)
    for event in span.events:
        if event.name in CONTENT_EVENTS:
            said = _with(said, said_by_event(event.name, attributes_of(event.attributes), None))
    return said


def _with(said: Said, more: Said) -> Said:
    return Said(said.inputs + more.inputs, said.outputs + more.outputs)


def _said(given: Attributes, emitter: str) -> Said:
    system = parts(given.get(semconv.GEN_AI_SYSTEM_INSTRUCTIONS), "system")
    inputs = _first(given, named(INPUTS, emitter), INDEXED_INPUTS, "user")
    outputs = _first(given, named(OUTPUTS, emitter), INDEXED_OUTPUTS, "assistant")
    return Said((*system, *inputs), tuple(outputs))


_NOTHING: Final = (None, "", [], {})


def _first(given: Attributes, keys: list[str], indexed: tuple[str, ...], role: str) -> list[Part]:
    """Return the first messages there are, else the first plain text: arguments of a function come last."""
    values = [value for key in keys if (value := loaded(given.get(key))) not in _NOTHING]
    for value in values:
        if is_conversation(value):
            return parts(value, role)
    for prefix in indexed:
        if found := _indexed(given, prefix, role):
            return found
    return parts(values[0], role) if values else []


def _indexed(given: Attributes, prefix: str, role: str) -> list[Part]:
    """Put messages together that are taken apart into one attribute for each of their fields."""
    messages: dict[int, dict[str, Any]] = {}
    for key, value in given.items():
        if key.startswith(prefix):
            index, _, field = key[len(prefix) :].partition(".")
            if index.isdecimal():
                messages.setdefault(int(index), {})[field.removeprefix("message.")] = value
    return [part for index in sorted(messages) for part in _rebuilt(messages[index], role)]


_CALL_FIELD: Final = re.compile(r"tool_calls\.(\d+)\.(?:tool_call\.)?(?:function\.)?(name|arguments|id)")
_CONTENT_FIELD: Final = re.compile(r"contents\.(\d+)\.message_content\.(text|type)")


def _rebuilt(fields: Mapping[str, Any], role: str) -> list[Part]:
    message: dict[str, Any] = {"role": role}
    calls: dict[int, dict[str, Any]] = {}
    contents: dict[int, dict[str, Any]] = {}
    for field, value in fields.items():
        if field in ("role", "content", "name", "tool_call_id"):
            message[field] = value
        elif match := _CALL_FIELD.fullmatch(field):
            calls.setdefault(int(match[1]), {})[match[2]] = value
        elif match := _CONTENT_FIELD.fullmatch(field):
            contents.setdefault(int(match[1]), {})[match[2]] = value
    message.setdefault("content", [contents[index] for index in sorted(contents)])
    message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return parts([message], role)


_EVENT_ROLES: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}


def said_by_event(name: str, given: Attributes, body: Any) -> Said:
    """Return what one event of the conventions before 1.37 says, as a span event or as a log record."""
    if name == "gen_ai.client.inference.operation.details":
        return _said(given, "")
    payload = {**given, **body} if isinstance(body, dict) else given
    if name in _EVENT_ROLES:
        message = {"role": _EVENT_ROLES[name], **payload, "content": payload.get("content")}
        return Said(inputs=tuple(parts([message], "user")))
    if name == "gen_ai.choice":
        return Said(outputs=tuple(parts(payload.get("message") or payload.get("content"), "assistant")))
    prompt, completion = payload.get("gen_ai.prompt"), payload.get("gen_ai.completion")
    return Said(tuple(parts(prompt, "user")), tuple(parts(completion, "assistant")))


# --- Tools ------------------------------------------------------------------------------------------------

_OK, _ERROR = 1, 2
_EXIT_CODE: Final = re.compile(r"^Process exited with code (\d+)$", re.MULTILINE)


def tool_parts(span: SpanMessage, emitter: str) -> tuple[Part, Part]:
    """Return the call that a tool span stands for, and its result."""
    given = attributes_of(span.attributes)
    call, result = _tool(given, emitter)
    if emitter == "GC":
        call, result = _gemini_tool(given, call, result)
    if span.status.code == _ERROR:
        return call, replace(result, ok=False, result=result.result or failure_of(span))
    if result.ok is None and _says_ok(span, result, emitter):
        result = replace(result, ok=True)
    return call, result


def _says_ok(span: SpanMessage, result: Part, emitter: str) -> bool:
    """Tell whether a tool succeeded: it has status OK (which Gemini CLI writes on all), or it returned."""
    if emitter == "GC" or not span.end_time_unix_nano:
        return False
    return span.status.code == _OK or result.result is not None


def _tool(given: Attributes, emitter: str) -> tuple[Part, Part]:
    name = _text(given, named(TOOL_NAMES, emitter))
    call_id = plain_call_id(_text(given, named(CALL_IDS, emitter)), name)
    arguments = next(
        (value for key in named(TOOL_ARGUMENTS, emitter) if _is_given(value := loaded(given.get(key)))), None
    )
    result = next(
        (loaded(given[key]) for key in named(TOOL_RESULTS, emitter) if given.get(key) is not None), None
    )
    returned = Part("tool_result", name=name, call_id=call_id, ok=_success(given, result, emitter))
    if (
        isinstance(result, dict)
        and isinstance(result.get("output"), dict)
        and is_conversation(result["output"])
    ):
        message = parts(result["output"], "tool")  # LangChain's ToolMessage
        if len(message) == 1:
            returned = replace(returned, result=message[0].result, ok=message[0].ok)
    else:
        returned = replace(returned, result=result)
    return Part("tool_call", name=name, call_id=call_id, arguments=arguments), returned


def _is_given(arguments: Any) -> bool:
    is_schema = (
        isinstance(arguments, dict) and arguments.get("type") == "object" and "properties" in arguments
    )
    return arguments not in (None, "") and not is_schema


def _success(given: Attributes, result: Any, emitter: str) -> bool | None:
    """Return what an emitter says of a tool's success. Codex says true of commands that exit with code 3."""
    said = given.get("success")
    success = {"true": True, "false": False}.get(said) if isinstance(said, str) else said
    if emitter == "CX" and isinstance(result, str) and (code := _EXIT_CODE.search(result)):
        return code[1] == "0"
    return success if isinstance(success, bool) else None


def _gemini_tool(given: Attributes, call: Part, result: Part) -> tuple[Part, Part]:
    """Read Gemini CLI's tool span: request and response are one object each, under the names of messages."""
    asked = loaded(given.get(semconv.GEN_AI_INPUT_MESSAGES))
    answered = loaded(given.get(semconv.GEN_AI_OUTPUT_MESSAGES))
    if isinstance(asked, dict):
        call = replace(call, arguments=asked.get("args"))
    if isinstance(answered, dict):
        ok = {"success": True, "error": False}.get(str(answered.get("status")))
        response = answered.get("response")
        given_back = parts(response.get("responseParts"), "tool") if isinstance(response, dict) else []
        result = replace(result, ok=ok, result=given_back[0].result if given_back else None)
    return call, result


def failure_of(span: SpanMessage) -> str | None:
    """Return why a span failed: the message of its status, of its last exception, or the error's type."""
    if span.status.message:
        return span.status.message
    for event in reversed(span.events):
        if event.name == semconv.EXCEPTION_EVENT:
            given = attributes_of(event.attributes)
            told = given.get(semconv.EXCEPTION_MESSAGE) or given.get(semconv.EXCEPTION_TYPE)
            return told if isinstance(told, str) else None
    return _text(attributes_of(span.attributes), [semconv.ERROR_TYPE])


# --- Logs of command line agents --------------------------------------------------------------------------


_LOG_FORMS: Final = {
    ("CC", "user_prompt"): "prompt",
    ("CX", "codex.user_prompt"): "prompt",
    ("GC", "gemini_cli.user_prompt"): "prompt",
    ("CC", "assistant_response"): "response",
    ("GC", "gemini_cli.api_response"): "messages",
    ("CC", "tool_decision"): "decision",
    ("CX", "codex.tool_decision"): "decision",
    ("CC", "tool_result"): "tool",
    ("CX", "codex.tool_result"): "tool",
    ("GC", "gemini_cli.tool_call"): "tool",
    ("CC", "api_error"): "failure",
    ("GC", "gemini_cli.api_error"): "failure",
}


def said_by_log(log: LogMessage, name: str, emitter: str) -> list[Part]:
    """Return what a log of Claude Code, Codex or Gemini CLI says; of any other log, nothing."""
    form = _LOG_FORMS.get((emitter, name))
    given = attributes_of(log.attributes) if form else {}
    said: list[Part] = []
    if form == "prompt":
        said = _plain_text(given, "prompt", "user")
    elif form == "response":
        said = _plain_text(given, "response", "assistant")
    elif form == "messages":
        said = parts(given.get("response_text"), "assistant")
    elif form == "decision" and given.get("decision") in ALLOWED:
        said = [_tool(given, emitter)[0]]
    elif form == "tool":
        call, result = _tool(given, emitter)
        failure = given.get("error") if result.ok is False else None
        said = [call, replace(result, result=result.result or failure)]
    elif form == "failure":
        said = [Part("event", name="error", text=_text(given, ["error", "error.message"]), ok=False)]
    return said


def _plain_text(given: Attributes, key: str, kind: str) -> list[Part]:
    text = given.get(key)
    return [Part(kind, text=text)] if isinstance(text, str) and text else []


def _text(given: Attributes, keys: list[str]) -> str | None:
    return next((value for key in keys if isinstance(value := given.get(key), str) and value), None)
