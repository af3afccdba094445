"""The transcript: what was said and done, in order, each thing once, and nothing that nobody said."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from telemetry import BEGAN, OTHER_TRACE, SECOND, TRACE, log, sid, span, stored_logs, stored_spans

from otel_sessions.backend.messages import parts
from otel_sessions.backend.transcript import span_messages, transcript
from otel_sessions.backend.vocabulary import INPUTS, OUTPUTS, TOOL_ARGUMENTS, TOOL_RESULTS, named

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
CLAUDE = "com.anthropic.claude_code.events"
CODEX = "codex_otel.log_only"


def said(role: str, *texts: str) -> dict[str, Any]:
    """Make a message of texts, in the conventions' form."""
    return {"role": role, "parts": [{"type": "text", "content": text} for text in texts]}


def asked(call_id: str, **arguments: Any) -> dict[str, Any]:
    """Make an assistant's message that calls the tool "search"."""
    return {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": call_id, "name": "search", "arguments": arguments}],
    }


def returned(call_id: str, result: Any) -> dict[str, Any]:
    """Make the message that returns what the tool gave."""
    return {"role": "tool", "parts": [{"type": "tool_call_response", "id": call_id, "result": result}]}


def chat(number: int, at: int, inputs: list[Any], outputs: list[Any], **more: Any) -> Span:
    """Make a model span; messages go as JSON, as on spans they may."""
    content = {"gen_ai.input.messages": json.dumps(inputs), "gen_ai.output.messages": json.dumps(outputs)}
    return span(
        number,
        more.pop("parent", 0),
        "chat m",
        at,
        attributes={**CHAT, **content, **more.pop("attributes", {})},
        **more,
    )


def told(
    spans: Iterable[Span], logs: Iterable[LogRecord] = (), scope: str = "test", log_scope: str = "test"
) -> list[tuple[Any, ...]]:
    """Make a transcript; of each item its kind and what it holds."""
    items = transcript(stored_spans(spans, scope), stored_logs(logs, log_scope))
    return [
        (
            item["kind"],
            *(
                item[name]
                for name in ("text", "name", "call_id", "arguments", "result", "ok")
                if item[name] is not None
            ),
        )
        for item in items
    ]


def test_history_that_each_call_repeats_appears_once() -> None:
    """Three calls, each with all that was said before; one tool between them."""
    user, call, result, answer = (
        said("user", "weather?"),
        asked("c1", city="Paris"),
        returned("c1", "sunny"),
        said("assistant", "Sunny."),
    )
    spans = [
        chat(1, 0, [user], [call], attributes={"gen_ai.system_instructions": '[{"type":"text","content":"Be brief."}]'}),
        span(2, 0, "execute_tool search", 1, attributes={**TOOL, "gen_ai.tool.call.id": "c1", "gen_ai.tool.call.result": "sunny"}),
        chat(3, 2, [user, call, result], [answer], attributes={"gen_ai.system_instructions": '[{"type":"text","content":"Be brief."}]'}),
        chat(4, 5, [user, call, result, answer, said("user", "thanks")], [said("assistant", "Sunny.")],
             attributes={"gen_ai.system_instructions": '[{"type":"text","content":"Be brief."}]'}, trace=OTHER_TRACE),
    ]  # fmt: skip
    expected = [
        ("system", "Be brief."),
        ("user", "weather?"),
        ("tool_call", "search", "c1", {"city": "Paris"}),
        ("tool_result", "search", "c1", "sunny", True),
        ("assistant", "Sunny."),
        ("user", "thanks"),
        ("assistant", "Sunny."),
    ]
    assert told(spans) == expected
    assert told(reversed(spans)) == expected


def test_the_same_words_in_a_new_turn_are_said_again() -> None:
    """Two turns without history, in two traces; a retry within one trace is no new turn."""
    again = [chat(1, 0, [said("user", "hi")], [said("assistant", "yes")]),
             chat(2, 5, [said("user", "hi")], [said("assistant", "yes")], trace=OTHER_TRACE)]  # fmt: skip
    assert told(again) == [("user", "hi"), ("assistant", "yes")] * 2
    retry = [
        chat(1, 0, [said("user", "hi")], []),
        chat(2, 5, [said("user", "hi")], [said("assistant", "yes")]),
    ]
    assert told(retry) == [("user", "hi"), ("assistant", "yes")]


def test_a_window_that_slides_on_repeats_nothing() -> None:
    """The oldest messages fall out of the history; what is left of it is known."""
    words = [
        said("user", "one"),
        said("assistant", "1"),
        said("user", "two"),
        said("assistant", "2"),
        said("user", "three"),
    ]
    spans = [
        chat(1, 0, words[:1], words[1:2]),
        chat(2, 2, words[:3], words[3:4]),
        chat(3, 4, words[2:5], [said("assistant", "3")]),
    ]
    assert [item[1] for item in told(spans)] == ["one", "1", "two", "2", "three", "3"]


def test_an_answer_that_is_worded_otherwise_in_history_is_the_same_answer() -> None:
    """Some emitters write a representation of the object into the output, and the text into the history."""
    spans = [
        chat(1, 0, [said("user", "hi")], [said("assistant", "{'text': 'yes'}")]),
        chat(
            2,
            2,
            [said("user", "hi"), said("assistant", "yes"), said("user", "why")],
            [said("assistant", "so")],
        ),
    ]
    assert [item[1] for item in told(spans)] == ["hi", "{'text': 'yes'}", "why", "so"]


def test_agents_speak_only_for_models_that_say_nothing() -> None:
    """Else everything would be said twice."""
    agent = span(9, 0, "invoke_agent a", 0, 9, attributes={
        "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a",
        "gen_ai.input.messages": json.dumps([said("user", "hi")]), "gen_ai.output.messages": json.dumps([said("assistant", "yes")]),
    })  # fmt: skip
    silent = span(1, 9, "chat m", 1, attributes=CHAT)
    assert told([agent, silent]) == [("user", "hi"), ("assistant", "yes")]
    assert told([agent, chat(1, 1, [said("user", "hi")], [said("assistant", "yes")], parent=9)]) == [
        ("user", "hi"),
        ("assistant", "yes"),
    ]


def test_one_of_two_model_spans_for_one_call_speaks() -> None:
    """Two instrumentations, or LlamaIndex's acomplete around complete."""
    outer = chat(1, 0, [said("user", "hi")], [said("assistant", "yes")])
    inner = chat(2, 0, [said("user", "hi")], [said("assistant", "yes")], parent=1)
    assert told([outer, inner]) == [("user", "hi"), ("assistant", "yes")]


def test_a_call_without_an_id_is_the_call_with_the_same_arguments() -> None:
    """OpenInference's tool spans bear none."""
    spans = [
        chat(1, 0, [said("user", "hi")], [asked("c1", q="a"), asked("c2", q="b")]),
        span(2, 0, "search", 1, attributes={"openinference.span.kind": "TOOL", "tool.name": "search", "input.value": '{"q": "b"}', "output.value": "B"}),
        span(3, 0, "search", 2, attributes={"openinference.span.kind": "TOOL", "tool.name": "search", "input.value": '{"q": "a"}', "output.value": "A"}),
    ]  # fmt: skip
    assert told(spans)[1:] == [
        ("tool_call", "search", "c1", {"q": "a"}),
        ("tool_call", "search", "c2", {"q": "b"}),
        ("tool_result", "search", "c2", "B", True),
        ("tool_result", "search", "c1", "A", True),
    ]


@pytest.mark.parametrize(
    ("more", "ok"),
    [
        ({"status": 2, "message": "no such city"}, False),
        ({"status": 1}, True),
        ({"attributes": {**TOOL, "gen_ai.tool.call.result": "x"}}, True),
        ({}, None),
    ],
)
def test_success_is_null_where_nobody_knows(more: dict[str, Any], ok: bool | None) -> None:
    """A tool that neither failed nor returned anything has done nobody knows what."""
    [_, result] = transcript(
        stored_spans([span(1, 0, "execute_tool search", **{"attributes": TOOL, **more})]), []
    )
    assert result["ok"] is ok


def test_a_tools_schema_is_not_what_it_was_given() -> None:
    """OpenInference puts the JSON schema into tool.parameters."""
    schema = {"type": "object", "properties": {"q": {"type": "string"}}}
    given = {**TOOL, "tool.parameters": json.dumps(schema)}
    [call, _] = transcript(stored_spans([span(1, 0, "execute_tool search", attributes=given)]), [])
    assert call["arguments"] is None
    [call, _] = transcript(
        stored_spans(
            [span(1, 0, "execute_tool search", attributes={**given, "tool.parameters": '{"q": "a"}'})]
        ),
        [],
    )
    assert call["arguments"] == {"q": "a"}


def test_a_failed_call_is_an_event_with_its_reason() -> None:
    """By the message of its status, else its exception, else its type."""
    failed = span(
        1, 0, "chat m", attributes=CHAT, status=2, events=[("exception", {"exception.message": "overloaded"})]
    )
    assert told([failed]) == [("event", "overloaded", "error", False)]


def test_claude_codes_logs_and_spans_tell_one_story() -> None:
    """The prompt from the span, success from the execution, the answer from the log: each once."""
    scope = "com.anthropic.claude_code.tracing"
    spans = [
        span(1, 0, "claude_code.interaction", 0, 9, attributes={"span.type": "interaction", "user_prompt": "list"}),
        span(2, 1, "claude_code.tool", 2, 2, attributes={"span.type": "tool", "tool_name": "Bash", "tool_use_id": "t1", "full_command": "ls"}),
        span(3, 2, "claude_code.tool.execution", 2, 1, attributes={"span.type": "tool.execution", "tool_use_id": "t1", "success": False, "error": "exit 3"}),
    ]  # fmt: skip
    logs = [
        log(at=1, number=1, attributes={"event.name": "user_prompt", "prompt": "list"}),
        log(at=2, number=2, attributes={"event.name": "tool_decision", "decision": "accept", "tool_name": "Bash", "tool_use_id": "t1"}),
        log(at=4, number=1, attributes={"event.name": "tool_result", "tool_name": "Bash", "tool_use_id": "t1", "success": "false", "error": "exit 3"}),
        log(at=8, number=1, attributes={"event.name": "assistant_response", "response": "Done."}),
    ]  # fmt: skip
    expected = [
        ("user", "list"),
        ("tool_call", "Bash", "t1", "ls"),
        ("tool_result", "Bash", "t1", "exit 3", False),
        ("assistant", "Done."),
    ]
    assert told(spans, logs, scope, CLAUDE) == expected
    assert [item[0] for item in told([], logs, scope, CLAUDE)] == [item[0] for item in expected]


def test_codex_success_is_what_the_exit_code_says() -> None:
    """It writes success=true for a command that exits with code 3."""
    given = {
        "event.name": "codex.tool_result",
        "tool_name": "exec",
        "call_id": "c1",
        "arguments": '{"cmd": "x"}',
        "success": "true",
    }
    for code, ok in (("0", True), ("3", False)):
        output = f"Wall time: 0.1\nProcess exited with code {code}\nOutput:\n"
        [_, result] = transcript([], stored_logs([log(attributes={**given, "output": output})], CODEX))
        assert result["ok"] is ok
    assert transcript([], stored_logs([log(attributes=given)], CODEX))[1]["ok"] is True


def test_messages_that_stand_only_in_logs_belong_to_their_span() -> None:
    """Content capture may be set to events only: then the span is silent and the log speaks."""
    details = log("gen_ai.client.inference.operation.details", 1, number=1, attributes={
        "gen_ai.input.messages": [said("user", "hi")], "gen_ai.output.messages": [said("assistant", "yes")],
    })  # fmt: skip
    older = [log("gen_ai.user.message", 1, number=1, body={"content": "hi"}),
             log("gen_ai.choice", 2, number=1, body={"index": 0, "message": {"role": "assistant", "content": "yes"}})]  # fmt: skip
    for logs in ([details], older):
        assert told([span(1, 0, "chat m", attributes=CHAT)], logs) == [("user", "hi"), ("assistant", "yes")]


def test_a_span_by_itself_repeats_its_history() -> None:
    """The view of one span shows what that span holds, in its order."""
    stored = stored_spans(
        [
            chat(
                1,
                0,
                [said("user", "hi"), said("assistant", "yes"), said("user", "why")],
                [said("assistant", "so")],
            )
        ]
    )[0]
    items = span_messages(stored)
    assert [(item["kind"], item["text"]) for item in items] == [
        ("user", "hi"),
        ("assistant", "yes"),
        ("user", "why"),
        ("assistant", "so"),
    ]
    assert items[0] == {
        "kind": "user", "at": str(BEGAN), "agent": None, "model": None, "text": "hi", "name": None, "call_id": None, "arguments": None,
        "result": None, "ok": None, "span": {"trace_id": TRACE.hex(), "span_id": sid(1).hex()},
    }  # fmt: skip
    assert (items[3]["at"], items[3]["model"]) == (str(BEGAN + SECOND), "m")


# --- Dialects ----------------------------------------------------------------------------------------------


def _lc(kind: str, **fields: Any) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", kind], "kwargs": fields}


CALLED = ("tool_call", "search", "c1", {"q": "a"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain words", [("user", "plain words")]),
        ('[{"role": "user", "content": "hi"}]', [("user", "hi")]),
        ('[{"role": "user", "content": "cut of', [("user", '[{"role": "user", "content": "cut of')]),
        ([{"role": "developer", "content": [{"type": "input_text", "text": "be"}, {"type": "text", "text": "kind"}]}], [("system", "be"), ("system", "kind")]),
        ([{"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "search", "arguments": '{"q": "a"}'}}]}], [CALLED]),
        ([{"role": "tool", "tool_call_id": "c1", "content": "x"}], [("tool_result", "c1", "x")]),
        ([{"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "search", "input": {"q": "a"}}]}], [CALLED]),
        ([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "x"}], "is_error": True}]}], [("tool_result", "c1", "x", False)]),
        ([{"type": "function_call", "call_id": "c1", "id": "fc", "name": "search", "arguments": '{"q": "a"}'}], [CALLED]),
        ([{"type": "function_call_output", "call_id": "c1", "output": "x"}], [("tool_result", "c1", "x")]),
        ([{"role": "model", "parts": [{"functionCall": {"id": "search__c1", "name": "search", "args": {"q": "a"}}}]}], [CALLED]),
        ([{"role": "user", "parts": [{"functionResponse": {"id": "c1", "name": "search", "response": {"error": "no"}}}]}], [("tool_result", "search", "c1", "no", False)]),
        ([{"candidates": [{"content": {"role": "model", "parts": [{"text": "yes"}]}}]}], [("assistant", "yes")]),
        ({"messages": [[_lc("SystemMessage", content="s"), _lc("HumanMessage", content="h")]]}, [("system", "s"), ("user", "h")]),
        ({"messages": [["user", "hi"]]}, [("user", "hi")]),
        ({"generations": [[{"text": "", "message": _lc("AIMessage", content="", tool_calls=[{"id": "c1", "name": "search", "args": {"q": "a"}}])}]]}, [CALLED]),
        ({"messages": [{"type": "tool", "content": "x", "tool_call_id": "c1", "status": "error"}]}, [("tool_result", "c1", "x", False)]),
        ([{"role": "user", "parts": [{"type": "blob", "mime_type": "image/png", "content": "iVBOR"}]}], [("user", "[image/png]")]),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:…"}}]}], [("user", "[image_url]")]),
        ([{"role": "user", "parts": [{"inlineData": {"mimeType": "audio/wav", "data": "…"}}]}], [("user", "[audio/wav]")]),
        ([{"role": "user", "content": ""}, {"role": "assistant", "parts": []}], []),
        ({"topic": "x"}, [("user", '{"topic": "x"}')]),
        (None, []),
    ],
)  # fmt: skip
def test_each_dialect_of_messages_is_understood(value: Any, expected: list[tuple[Any, ...]]) -> None:
    """What is in none of them is shown as it is, as text; cut JSON too."""
    read = [
        (
            part.kind,
            *(
                field
                for field in (part.text, part.name, part.call_id, part.arguments, part.result, part.ok)
                if field is not None
            ),
        )
        for part in parts(value, "user")
    ]
    assert read == expected


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}], "gen_ai.output.messages": [said("assistant", "yes")]},
        {"llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": "hi",
         "llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.contents.0.message_content.text": "yes"},
        {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "hi", "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "yes"},
        {"input.value": '{"args": ["hi"]}', "llm.prompts": ["hi"], "output.value": "yes"},
        {"input.value": '[{"role": "user", "content": "hi"}]', "output.value": "yes"},
        {"gen_ai.prompt": '{"messages": [{"role": "user", "content": "hi"}]}', "gen_ai.completion": "yes"},
        {"traceloop.entity.input": '[{"role": "user", "content": "hi"}]', "traceloop.entity.output": "yes"},
    ],
)  # fmt: skip
def test_messages_are_found_wherever_an_emitter_puts_them(attributes: dict[str, Any]) -> None:
    """Structured, as JSON, taken apart into indices, or as plain text."""
    assert told([span(1, 0, "chat m", attributes={**CHAT, **attributes})]) == [
        ("user", "hi"),
        ("assistant", "yes"),
    ]


def test_every_transcript_can_be_sent_as_json() -> None:
    """Bytes, NaN, half an emoji within JSON, JSON that nests without end: nothing an emitter writes breaks the answer."""
    messages = '[{"role": "user", "parts": [{"type": "text", "content": "a\\ud83d"}]}]'
    spans = [
        span(1, 0, "chat m", attributes={**CHAT, "gen_ai.input.messages": messages, "gen_ai.output.messages": "[" * 50_000}),
        span(3, 0, "chat m", 9, attributes={**CHAT, "gen_ai.output.messages": "[" * 500 + "]" * 500}),
        span(2, 0, "execute_tool search", 2, attributes={**TOOL, "gen_ai.tool.call.arguments": {"raw": b"\xff", "x": float("nan")},
                                                         "gen_ai.tool.call.result": '{"y": -Infinity}'}),
    ]  # fmt: skip
    items = transcript(stored_spans(spans), [])
    json.dumps(items, ensure_ascii=False, allow_nan=False).encode()
    assert items[0]["text"] == "a\ufffd"
    assert items[1]["text"] == "[" * 50_000
    assert (items[2]["arguments"], items[3]["result"]) == ({"raw": "/w==", "x": "NaN"}, {"y": "-Infinity"})


def test_messages_in_span_events_are_read_too() -> None:
    """The conventions before 1.37 put them there."""
    events = [
        ("gen_ai.system.message", {"content": "s"}),
        ("gen_ai.content.prompt", {"gen_ai.prompt": "hi"}),
        ("gen_ai.choice", {"message": "yes"}),
    ]
    assert told([span(1, 0, "chat m", attributes=CHAT, events=events)]) == [
        ("system", "s"),
        ("user", "hi"),
        ("assistant", "yes"),
    ]


# --- Any shape ---------------------------------------------------------------------------------------------

ATTRIBUTES = [
    "gen_ai.system_instructions",
    *named((*INPUTS, *OUTPUTS, *TOOL_ARGUMENTS, *TOOL_RESULTS), ""),
    "gen_ai.tool.call.id",
    "success",
]
FIELDS = [
    "role", "type", "id", "name", "content", "parts", "text", "message", "messages", "generations", "kwargs", "output", "status",
    "tool_calls", "function", "function_call", "functionCall", "functionResponse", "response", "arguments", "inlineData", "is_error",
]  # fmt: skip
WORDS = ["user", "assistant", "tool", "text", "tool_call", "tool_call_response", "image", "HumanMessage", ""]
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.just(0.5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(
    st.sampled_from([CHAT, TOOL]),
    st.dictionaries(st.sampled_from(ATTRIBUTES), SHAPES, max_size=4),
    st.booleans(),
    st.sampled_from(["test", "gemini-cli", CODEX]),
)
def test_no_message_of_any_shape_takes_the_transcript_away(
    kind: dict[str, Any], attributes: dict[str, Any], as_text: bool, scope: str
) -> None:
    """Whatever stands where messages should, as JSON or as a structured value, the rest is shown."""
    given = {key: json.dumps(value) if as_text else value for key, value in attributes.items()}
    odd = span(1, 0, "chat m", attributes={**kind, **given})
    innocent = chat(2, 5, [], [said("assistant", "an innocent answer")])
    spans = stored_spans([odd, innocent], scope)
    json.dumps(span_messages(spans[0]), allow_nan=False)
    assert "an innocent answer" in [item["text"] for item in transcript(spans, [])]


@pytest.mark.parametrize(
    "message",
    [
        {"type": {"a": 1}, "x": 1},
        {"role": "user", "parts": [{"type": ["text"], "content": "hello"}]},
        {"role": "assistant", "content": "hello", "tool_calls": 5},
        {"role": "assistant", "content": "hello", "tool_calls": True},
    ],
)
def test_a_message_with_a_field_of_another_type_is_shown_as_far_as_it_goes(message: dict[str, Any]) -> None:
    """A type that is an object, calls that are a number: neither hides what else the message says."""
    assert [part.text for part in parts([message], "user")] in (["hello"], ['{"type": {"a": 1}, "x": 1}'])


def test_success_that_is_no_yes_or_no_says_nothing() -> None:
    """A list under `success` is no answer to whether a tool succeeded."""
    [_, result] = transcript(
        stored_spans([span(1, 0, "execute_tool search", attributes={**TOOL, "success": [True]})]), []
    )
    assert result["ok"] is None
