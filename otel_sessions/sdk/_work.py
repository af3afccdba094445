"""Conventional spans of an agent's work: `agent`, `tool`, `step`, `model_call`, as blocks and decorators.

Names and attributes are those of OpenTelemetry's GenAI conventions (semantic-conventions-genai, status
Development). What is passed here as content is recorded, unless NO_CONTENT forbids it; what decorators
see is recorded only where it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any, Final, TypeVar, cast, overload

from opentelemetry.trace import SpanKind

from otel_sessions import semconv
from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk import _provider
from otel_sessions.sdk._calls import Call, decorated
from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._messages import messages_json
from otel_sessions.sdk._options import LONGEST_NAME
from otel_sessions.sdk._settings import Content
from otel_sessions.sdk._spans import SpanBlock
from otel_sessions.sdk._values import attribute_values, shown, to_json

__all__ = ["ModelCall", "Work", "agent", "model_call", "step", "tool"]

F = TypeVar("F", bound=Callable[..., Any])

_MOST_CHOICES: Final = 128
"""Finish reasons of one answer: OpenAI's `n` goes to 128."""


class Work(SpanBlock):
    """An agent, a tool or a step: a block, or a decorator of functions that run in one.

    Made by `agent()`, `tool()` and `step()`. As a decorator it makes a new block for each call.
    """

    __slots__ = ("_arguments_key", "_result_key")

    def __init__(
        self,
        name: str,
        attributes: dict[str, Any],
        *,
        arguments_key: str = semconv.STEP_ARGUMENTS,
        result_key: str = semconv.STEP_RESULT,
    ) -> None:
        super().__init__(name, attributes)
        self._arguments_key = arguments_key
        self._result_key = result_key

    def __call__(self, function: F) -> F:
        """Decorate a function, coroutine function, generator function or async generator function."""
        return decorated(function, self._for_call, _note_result)

    @property
    def result(self) -> Any:
        """What the work returned, as it was recorded: assign it inside of the block."""
        return self._learned().get(self._result_key)

    @result.setter
    def result(self, value: Any) -> None:
        if _provider.content() is not Content.NEVER:
            self._learn({self._result_key: to_json(value)})

    def _for_call(self, call: Call) -> Work:
        attributes = self._attributes
        if _provider.content() is Content.CAPTURED and self._arguments_key not in attributes:
            with guard("content"):
                attributes = {**attributes, self._arguments_key: to_json(call.by_name())}
        return Work(self._name, attributes, arguments_key=self._arguments_key, result_key=self._result_key)


class ModelCall(SpanBlock):
    """A call of a model: a block that is told what the model answered. Made by `model_call()`."""

    __slots__ = ()

    def record(
        self,
        *,
        messages: Any = None,
        finish_reasons: Iterable[str] | None = None,
        model: str | None = None,
        response_id: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        cache_creation_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        cost: float | Decimal | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Record what the model answered; may be called several times, the last word on each thing counts.

        `messages` are the answer's, as for `model_call`. `input_tokens` includes `cached_tokens`, as the
        conventions say; `output_tokens` includes `reasoning_tokens`. `cost` is in USD and
        for this call alone. `model` is the one that answered.
        """
        learned = attribute_values({} if attributes is None else attributes)
        told = {
            semconv.GEN_AI_RESPONSE_MODEL: model,
            semconv.GEN_AI_RESPONSE_ID: response_id,
            semconv.GEN_AI_USAGE_INPUT_TOKENS: input_tokens,
            semconv.GEN_AI_USAGE_OUTPUT_TOKENS: output_tokens,
            semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: cached_tokens,
            semconv.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: cache_creation_tokens,
            semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: reasoning_tokens,
            semconv.GEN_AI_USAGE_COST: float(cost) if isinstance(cost, Decimal) else cost,
        }
        learned |= attribute_values(told)
        if finish_reasons is not None:
            with guard("content"):
                learned[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = _reasons(finish_reasons)
        if messages is not None and _provider.content() is not Content.NEVER:
            learned[semconv.GEN_AI_OUTPUT_MESSAGES] = messages_json(messages, role="assistant")
        self._learn(learned)


@overload
def agent(name: F, /) -> F: ...
@overload
def agent(
    name: str | None = None,
    *,
    id: str | None = None,
    description: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Work: ...
def agent(
    name: str | F | None = None,
    *,
    id: str | None = None,  # noqa: A002 - the word of the convention, gen_ai.agent.id
    description: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Work | F:
    """Return a block or decorator for an agent at work: a span `invoke_agent NAME`.

    As a decorator without a name it takes the function's. With content capture, arguments and result are
    recorded as JSON.
    """

    def make(named: str) -> Work:
        return Work(
            f"{semconv.OPERATION_INVOKE_AGENT} {named}",
            _known(
                {
                    semconv.GEN_AI_OPERATION_NAME: semconv.OPERATION_INVOKE_AGENT,
                    semconv.GEN_AI_AGENT_NAME: named,
                    semconv.GEN_AI_AGENT_ID: id,
                    semconv.GEN_AI_AGENT_DESCRIPTION: description,
                },
                attributes,
            ),
        )

    return _named(name, make)


@overload
def tool(name: F, /) -> F: ...
@overload
def tool(
    name: str | None = None,
    *,
    call_id: str | None = None,
    type: str = "function",
    description: str | None = None,
    arguments: Any = None,
    attributes: Mapping[str, Any] | None = None,
) -> Work: ...
def tool(
    name: str | F | None = None,
    *,
    call_id: str | None = None,
    type: str = "function",  # noqa: A002 - the word of the convention, gen_ai.tool.type
    description: str | None = None,
    arguments: Any = None,
    attributes: Mapping[str, Any] | None = None,
) -> Work | F:
    """Return a block or decorator for a tool's execution: a span `execute_tool NAME`.

    `call_id` is the model's id of the call, `arguments` what the model passed; assign the block's `result`.
    As a decorator without a name it takes the function's. With content capture, arguments and result are
    recorded as JSON.
    """

    def make(named: str) -> Work:
        known = {
            semconv.GEN_AI_OPERATION_NAME: semconv.OPERATION_EXECUTE_TOOL,
            semconv.GEN_AI_TOOL_NAME: named,
            semconv.GEN_AI_TOOL_TYPE: type,
            semconv.GEN_AI_TOOL_CALL_ID: call_id,
            semconv.GEN_AI_TOOL_DESCRIPTION: description,
        }
        if arguments is not None and _provider.content() is not Content.NEVER:
            known[semconv.GEN_AI_TOOL_CALL_ARGUMENTS] = to_json(arguments)
        return Work(
            f"{semconv.OPERATION_EXECUTE_TOOL} {named}",
            _known(known, attributes),
            arguments_key=semconv.GEN_AI_TOOL_CALL_ARGUMENTS,
            result_key=semconv.GEN_AI_TOOL_CALL_RESULT,
        )

    return _named(name, make)


@overload
def step(name: F, /) -> F: ...
@overload
def step(name: str | None = None, *, attributes: Mapping[str, Any] | None = None) -> Work: ...
def step(name: str | F | None = None, *, attributes: Mapping[str, Any] | None = None) -> Work | F:
    """Return a block or decorator for any other piece of work: a span with just that name.

    As a decorator without a name it takes the function's. With content capture, arguments and result are
    recorded as JSON.
    """
    return _named(name, lambda named: Work(named, _known({}, attributes)))


def model_call(
    model: str | None,
    *,
    provider: str | None = None,
    operation: str = semconv.OPERATION_CHAT,
    messages: Any = None,
    system: Any = None,
    tools: Any = None,
    attributes: Mapping[str, Any] | None = None,
) -> ModelCall:
    """Return a block for a call of a model: a span `chat MODEL` of kind CLIENT, or `chat` for an unknown one.

    `provider` is the conventions' name of who serves it ("openai", "anthropic"), `operation` another one
    than chat ("embeddings"). `messages` is a text, or a list of messages as OpenAI, Anthropic or the
    conventions write them; `system` and `tools` are the instructions and tool definitions sent with them.
    Tell the block what came back by `record`.
    """
    known: dict[str, Any] = {
        semconv.GEN_AI_OPERATION_NAME: operation,
        semconv.GEN_AI_REQUEST_MODEL: model,
        semconv.GEN_AI_PROVIDER_NAME: provider,
    }
    if _provider.content() is not Content.NEVER:
        known[semconv.GEN_AI_INPUT_MESSAGES] = (
            None if messages is None else messages_json(messages, role="user")
        )
        known[semconv.GEN_AI_SYSTEM_INSTRUCTIONS] = (
            None if system is None else messages_json(system, role=None)
        )
        known[semconv.GEN_AI_TOOL_DEFINITIONS] = None if tools is None else to_json(tools)
    name = _said(operation)
    if said := _said(model):
        name = f"{name} {said}"
    return ModelCall(name, _known(known, attributes), kind=SpanKind.CLIENT)


def _known(conventional: Mapping[str, Any], attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the attributes that have a value; the caller's win."""
    given = {} if attributes is None else attribute_values(attributes)
    return attribute_values(conventional) | given if conventional else given


def _said(name: Any) -> str:
    """Return a name that may come from outside, a model's answer say, as far as a span's name goes."""
    if name is None:
        return ""
    said = name if type(name) is str else to_json(name)
    return said if len(said) <= LONGEST_NAME else said[: LONGEST_NAME - 1] + "…"


def _reasons(told: Any) -> tuple[str, ...]:
    """Return finish reasons as texts, one for each choice; there may be none for some."""
    many = told if isinstance(told, Iterable) and not isinstance(told, (str, bytes, Mapping)) else (told,)
    return tuple(_said(reason) for reason in islice(many, _MOST_CHOICES) if reason is not None)


def _named(name: str | F | None, make: Callable[[str], Work]) -> Work | F:
    if isinstance(name, str):
        return make(_said(name))
    if name is None:
        return cast("Work", _Unnamed(make))
    return _decorate_by_name(name, make)


def _decorate_by_name(function: F, make: Callable[[str], Work]) -> F:
    named = getattr(function, "__name__", None) or getattr(
        getattr(function, "__func__", None), "__name__", None
    )
    if not isinstance(named, str):
        raise ConfigurationError(f"{shown(function)} has no name: write one, as in @tool('search')")
    return make(_said(named))(function)


class _Unnamed:
    """A decorator that takes the function's name: `@tool()`."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[str], Work]) -> None:
        self._make = make

    def __call__(self, function: F) -> F:
        return _decorate_by_name(function, self._make)

    def __enter__(self) -> Any:
        raise ConfigurationError("a block needs a name: write it, as in `with tool('search'):`")

    __aenter__ = __enter__

    def __exit__(self, *_exc: object) -> None:
        """Never reached."""

    __aexit__ = __exit__


def _note_result(block: Any, value: Any) -> None:
    if _provider.content() is Content.CAPTURED and value is not None:
        with guard("content"):
            block.result = value
