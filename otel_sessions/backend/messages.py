"""Messages of any dialect into parts of one; pure.

Models are spoken to in many forms: the conventions' `parts`, OpenAI's `content` and `tool_calls` and the
items of its Responses API, Anthropic's blocks, Gemini's `functionCall`, LangChain's constructors and
generations. What is none of these is shown as it is, as text: nothing that was said is hidden.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_sessions.backend.json_values import loads
from otel_sessions.backend.vocabulary import ABSENT

__all__ = ["Part", "is_conversation", "loaded", "parts", "plain_call_id"]


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that was said or done.

    `kind` is system, user, assistant, tool_call, tool_result or event.
    """

    kind: str
    text: str | None = None
    name: str | None = None
    call_id: str | None = None
    arguments: Any = None
    result: Any = None
    ok: bool | None = None


_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "tool": "tool_result",
    "function": "tool_result",
}
_CLASSES: Final = {  # LangChain's constructors, by the end of their id
    "SystemMessage": "system",
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "ToolMessage": "tool_result",
}
_WRAPPERS: Final = ("messages", "generations", "candidates", "output", "kwargs")
_OUTCOMES: Final = {"success": True, "error": False}
_PAIR: Final = 2

Json = Mapping[str, Any]


def loaded(value: Any) -> Any:
    """Return what a text of JSON holds, and anything else (cut JSON, plain words, numbers) as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{", '"'):
        try:
            return loads(value)
        except ValueError:
            return value
    return value


def is_conversation(value: Any) -> bool:
    """Tell whether a value is in one of the forms of messages, and not any other data."""
    if isinstance(value, dict):
        return _role(value) is not None or any(
            name in value for name in ("messages", "generations", "candidates")
        )
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def parts(value: Any, role: str) -> list[Part]:
    """Return the parts of messages in any dialect; `role` is who speaks where they do not say."""
    return list(_parts(loaded(value), role))


def _parts(value: Any, role: str) -> Iterator[Part]:
    if isinstance(value, list):
        if _is_pair(value):
            yield from _parts(value[1], _ROLES[value[0]])
        else:
            for item in value:
                yield from _parts(item, role)
    elif isinstance(value, dict):
        yield from _of_object(value, role)
    elif value is not None and value != "":
        yield _spoken(role, value if isinstance(value, str) else json.dumps(value))


def _of_object(value: Json, role: str) -> Iterator[Part]:
    role = _role(value) or role
    part = _call(value) or _response(value)
    if part is not None:
        yield part
    elif (media := _media(value)) is not None:
        yield _spoken(role, media)
    elif isinstance(value.get("message"), dict):  # a generation of LangChain, with its text beside
        yield from _parts(value["message"], role)
    elif "parts" in value:
        yield from _message(value, value["parts"], role)
    elif "content" in value and _kind(value) not in _TEXT_TYPES:
        yield from _message(value, value["content"], role)
    elif (text := _text_of(value)) is not None:
        if text:
            yield _spoken(role, text)
    elif (wrapper := next((name for name in _WRAPPERS if name in value), None)) is not None:
        yield from _parts(value[wrapper], role)
    else:
        yield _spoken(role, _shown(value))


def _message(value: Json, content: Any, role: str) -> Iterator[Part]:
    """Return what one message says and which tools it calls."""
    if role == "tool_result" and not _has_responses(content):
        yield Part(
            "tool_result",
            name=_string(value.get("name")),
            call_id=plain_call_id(value.get("tool_call_id") or value.get("id"), None),
            result=_joined(content),
            ok=_OUTCOMES.get(str(value.get("status"))),
        )
        return
    yield from _parts(content, role)
    calls = value.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            inner = call.get("function")
            yield _called(inner if isinstance(inner, dict) else call, call.get("id"))


# --- Parts of a message ---------------------------------------------------------------------------------

_TEXT_TYPES: Final = frozenset({"text", "output_text", "input_text", "reasoning", "thinking", "refusal"})
_MEDIA_TYPES: Final = frozenset(
    {
        "blob",
        "uri",
        "file",
        "image",
        "image_url",
        "input_image",
        "audio",
        "input_audio",
        "input_file",
        "document",
    }
)
_CALL_TYPES: Final = frozenset({"tool_call", "tool_use", "function_call"})
_RESPONSE_TYPES: Final = frozenset({"tool_call_response", "tool_result", "function_call_output"})


def plain_call_id(call_id: Any, name: str | None) -> str | None:
    """Return the id of a tool call, None for what is none.

    Gemini CLI puts the tool's name before ids of calls that are running, and leaves it out in history.
    """
    if not isinstance(call_id, str) or call_id in ABSENT:
        return None
    return call_id.removeprefix(f"{name}__") if name else call_id


def _text_of(value: Json) -> str | None:
    """Return the text of a part, None where it is none."""
    if _kind(value) in _TEXT_TYPES or isinstance(value.get("text"), str):
        for name in ("content", "text", "thinking", "reasoning", "refusal"):
            if isinstance(value.get(name), str):
                return value[name]
    return None


def _media(value: Json) -> str | None:
    """Name a picture, a sound or a file, which no text can show; None for anything else."""
    kind = _kind(value)
    if kind not in _MEDIA_TYPES and not isinstance(value.get("inlineData") or value.get("fileData"), dict):
        return None
    inner = value.get("inlineData") or value.get("fileData") or value
    named = (
        inner.get("mime_type")
        or inner.get("mimeType")
        or inner.get("media_type")
        or inner.get("modality")
        or kind
    )
    return f"[{named}]"


def _call(value: Json) -> Part | None:
    if _kind(value) in _CALL_TYPES:
        return _called(value, value.get("call_id") or value.get("id"))
    inner = value.get("functionCall") or value.get("function_call")
    return _called(inner, inner.get("id")) if isinstance(inner, dict) else None


def _called(value: Json, call_id: Any) -> Part:
    given = next((value[name] for name in ("arguments", "args", "input") if name in value), None)
    name = _string(value.get("name"))
    return Part("tool_call", name=name, call_id=plain_call_id(call_id, name), arguments=loaded(given))


def _response(value: Json) -> Part | None:
    if _kind(value) in _RESPONSE_TYPES:
        call_id = value.get("call_id") or value.get("tool_use_id") or value.get("id")
        given = next(
            (value[name] for name in ("result", "response", "output", "content") if name in value), None
        )
        failed = value.get("is_error")
        return Part(
            "tool_result",
            name=_string(value.get("name")),
            call_id=plain_call_id(call_id, None),
            result=_joined(given),
            ok=None if failed is None else not failed,
        )
    inner = value.get("functionResponse")
    if not isinstance(inner, dict):
        return None
    name = _string(inner.get("name"))
    result, ok = _gemini_result(inner.get("response"))
    return Part("tool_result", name=name, call_id=plain_call_id(inner.get("id"), name), result=result, ok=ok)


def _gemini_result(response: Any) -> tuple[Any, bool | None]:
    if isinstance(response, dict) and len(response) == 1:
        if "output" in response:
            return response["output"], None
        if "error" in response:
            return response["error"], False
    return response, None


def _has_responses(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(item, dict) and _response(item) for item in content)


def _joined(content: Any) -> Any:
    """Return the text of blocks of text, and any other content as it is."""
    content = loaded(content)
    if isinstance(content, list) and content and all(isinstance(item, dict) for item in content):
        texts = [_text_of(item) for item in content]
        if all(text is not None for text in texts):
            return "\n".join(text for text in texts if text)
    return content


def _spoken(role: str, text: str) -> Part:
    return Part(role, result=text) if role == "tool_result" else Part(role, text=text)


# --- Who speaks -------------------------------------------------------------------------------------------


def _role(value: Json) -> str | None:
    for name in ("role", "type"):
        said = value.get(name)
        if isinstance(said, str) and said.lower() in _ROLES:
            return _ROLES[said.lower()]
    path = value.get("id")
    return _CLASSES.get(path[-1]) if isinstance(path, list) and path and isinstance(path[-1], str) else None


def _is_message(value: Any) -> bool:
    if isinstance(value, list):
        return _is_pair(value) or is_conversation(value)
    if not isinstance(value, dict):
        return False
    kinds = _CALL_TYPES | _RESPONSE_TYPES
    return _role(value) is not None or _kind(value) in kinds or is_conversation(value)


def _is_pair(value: list[Any]) -> bool:
    return len(value) == _PAIR and all(isinstance(item, str) for item in value) and value[0] in _ROLES


def _kind(value: Json) -> str | None:
    """Return the type that an object says it has; some hold an object or a list there."""
    return _string(value.get("type"))


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)
