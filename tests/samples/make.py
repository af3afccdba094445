"""Write all samples anew: `python tests/samples/make.py`."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "backend"))

from telemetry import BEGAN, OTHER_TRACE, SECOND, TRACE, log, logs, sid, span, traces  # noqa: E402 - after its folder

from otel_sessions import semconv  # noqa: E402 - after its folder

PATHS = {"traces": "/v1/traces", "logs": "/v1/logs"}
CODEX = {"service.name": "codex_exec"}
CODEX_SCOPE = "codex_otel.log_only"

Body = tuple[str, Any]  # signal, and a message or JSON text


def _request(number: int, body: Body) -> tuple[dict[str, Any], str, bytes]:
    signal, message = body
    is_json = isinstance(message, str)
    name = f"{number:04}.{'json' if is_json else 'pb'}"
    raw = message.encode() if is_json else message.SerializeToString(deterministic=True)
    about = {
        "file": name,
        "path": PATHS[signal],
        "content_type": "application/json" if is_json else "application/x-protobuf",
        "content_encoding": None,
        "transfer": "chunked" if is_json else "content-length",
        "protocol": "http/json" if is_json else "http/protobuf",
        "user_agent": "otel-sessions-samples",
        "wire_bytes": len(raw),
        "received_at_offset_s": 0.1 * (number - 1),
    }
    return about, name, raw


def write(name: str, scenario: str, bodies: Sequence[Body], **sessions: tuple[int, int]) -> None:
    """Write one sample; for each session its id ("trace" for one without), its spans and its logs."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    requests = [_request(number, body) for number, body in enumerate(bodies, 1)]
    for _, file, raw in requests:
        (folder / file).write_bytes(raw)
    expected = [
        {"id": None if id_.startswith("trace") else id_, "spans": spans, "logs": records}
        for id_, (spans, records) in sessions.items()
    ]
    about = {
        "emitter": "samples",
        "version": "1",
        "scenario": scenario,
        "expected": {"sessions_count": len(expected), "sessions": expected},
        "requests": [request for request, _, _ in requests],
    }
    (folder / "recording.json").write_text(json.dumps(about, indent=1) + "\n")


def chunked_json() -> None:
    """Write what a Node exporter sends."""
    attributes = [
        {"key": "session.id", "value": {"stringValue": "json-1"}},
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": 1500}},
        {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "60"}},
        {"key": "error", "value": {}},
        {"key": "ratio", "value": {"doubleValue": "NaN"}},
    ]
    spans = [
        {
            "traceId": TRACE.hex().upper(), "spanId": sid(0xAB).hex().upper(), "name": "chat \ud83d", "kind": 3, "flags": 257,
            "startTimeUnixNano": str(BEGAN), "endTimeUnixNano": BEGAN + SECOND, "attributes": attributes,
            "droppedAttributesCount": 0, "status": {"code": 1}, "fieldOfTomorrow": {"a": [1]},
        },
    ]  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "node"}}]}
    body = {
        "resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "node"}, "spans": spans}]}]
    }
    write("chunked-json", "one model call", [("traces", json.dumps(body))], **{"json-1": (1, 0)})


def repeated_key() -> None:
    """Write a span that bears one key twice."""
    one = span(1, attributes={"conversation.id": "rep-1", "thread.id": 3})
    one.attributes.add(key="thread.id").value.string_value = "rep-1"
    write(
        "repeated-key",
        "thread.id as OS thread, then as text",
        [("traces", traces([one], "codex_exec", CODEX))],
        **{"rep-1": (1, 0)},
    )


def quoted_session_id() -> None:
    """Write an id in quotes."""
    spans = [
        span(1, attributes={"gen_ai.conversation.id": '"run-1"'}),
        span(2, 1, attributes={"gen_ai.conversation.id": '"run-1"'}),
    ]
    write("quoted-session-id", "AgentScope 1", [("traces", traces(spans, "agentscope"))], **{"run-1": (2, 0)})


def children_first() -> None:
    """Write children, then their root, in requests of their own."""
    children = traces([span(3, 2, at=2), span(2, 1, at=1)])
    told = logs([log("turn.start", 1, number=2)])
    root = traces([span(1, attributes={"session.id": "late-1"})])
    write(
        "children-first",
        "the root comes last",
        [("traces", children), ("logs", told), ("traces", root)],
        **{"late-1": (3, 1)},
    )


def cycle() -> None:
    """Write parents that lead nowhere."""
    spans = [
        span(1, 3, at=3),
        span(2, 1, at=1),
        span(3, 2, at=2),
        span(4, 4, at=4),
        span(5, 9, at=5, attributes={"session.id": "cyc-1"}),
    ]
    write("cycle", "1 -> 3 -> 2 -> 1, 4 -> 4, 5 -> nobody", [("traces", traces(spans))], **{"cyc-1": (5, 0)})


def nested_values() -> None:
    """Write every type of value."""
    value = {
        "turn": 1,
        "tags": ["a", None, 2.5],
        "raw": b"\x00\xff",
        "none": None,
        "deep": {"off": False, "zero": 0, "empty": ""},
    }
    one = span(1, attributes={"session.id": "nest-1", "state": value})
    told = log(
        "turn.start", number=1, body=value, attributes={"session.id": "nest-1", "list": [[1], {"a": []}]}
    )
    write(
        "nested-values",
        "maps within arrays within maps",
        [("traces", traces([one])), ("logs", logs([told]))],
        **{"nest-1": (1, 1)},
    )


def logs_only() -> None:
    """Write a session without spans."""
    given = {"conversation.id": "log-1", "model": "gpt-5"}
    told = [
        log("event otel/src/events.rs:12", 0, attributes={"event.name": "codex.user_prompt", "prompt": "list", **given}),
        log("event otel/src/events.rs:20", 1, attributes={"event.name": "codex.sse_event", "event.kind": "response.completed", **given}),
        log("event otel/src/events.rs:20", 1, attributes={
            "event.name": "codex.sse_event", "event.kind": "response.completed", "input_token_count": "1500", "output_token_count": "60",
            "cached_token_count": 900, **given}),
        log("event otel/src/tool.rs:54", 2, attributes={
            "event.name": "codex.tool_result", "tool_name": "exec", "call_id": "c1", "arguments": '{"cmd": "ls"}', "success": "true",
            "output": "Process exited with code 3\n", **given}),
    ]  # fmt: skip
    write(
        "logs-only",
        "one Codex turn, interrupted",
        [("logs", logs(told, CODEX_SCOPE, CODEX))],
        **{"log-1": (0, 4)},
    )


def sent_twice() -> None:
    """Write the same requests twice."""
    spans = traces([span(1, attributes={"session.id": "twice-1"}), span(2, 1)])
    told = logs(
        [
            log("tick", 1, attributes={"session.id": "twice-1"}),
            log("tick", 1, attributes={"session.id": "twice-1"}),
        ]
    )
    write("sent-twice", "the acks were lost", [("traces", spans), ("logs", told)] * 2, **{"twice-1": (2, 2)})


def two_keys_one_session() -> None:
    """Write one id under two keys."""
    spans = traces([span(1, attributes={"gen_ai.conversation.id": "both-1"})])
    told = logs([log("x", 1, attributes={"session.id": "both-1"})])
    write(
        "two-keys-one-session",
        "a conversation and a session",
        [("traces", spans), ("logs", told)],
        **{"both-1": (1, 1)},
    )


def two_sessions_one_trace() -> None:
    """Write two ids into one trace."""
    spans = [
        span(1, attributes={"session.id": "one"}),
        span(2, 1, attributes={"session.id": "two"}),
        span(3, 2),
    ]
    write(
        "two-sessions-one-trace",
        "a child of another session",
        [("traces", traces(spans))],
        one=(2, 0),
        two=(1, 0),
    )


def life_cycle() -> None:
    """Write a run from start to end."""

    def event(name: str, seq: int, at: int, number: int = 1, **given: Any) -> Any:
        common = {"session.id": "run-1", semconv.PROCESS_ID: "p1", semconv.SEQ: seq, semconv.ELAPSED: at * SECOND,
                  semconv.HEARTBEAT_INTERVAL: 5.0, semconv.LEASE: 120.0}  # fmt: skip
        attributes = {**common, **{getattr(semconv, key): value for key, value in given.items()}}
        return log(name, at, number=number, attributes=attributes)

    counts = {"SPANS_STARTED": 2, "SPANS_ENDED": 2, "SPANS_DROPPED": 0}
    ended = {"SESSION_OUTCOME": "ok", "SESSION_END_REASON": "completed", **counts}
    began = [
        event("session.start", 1, 0, SESSION_NAME="trip"),
        event("otel_sessions.session.heartbeat", 2, 0, PHASE="running"),
    ]
    opened = [
        event(
            "otel_sessions.span.start",
            3,
            2,
            2,
            SPAN_NAME="execute_tool search",
            SPAN_KIND=1,
            SPAN_PARENT_ID=sid(1).hex(),
            SPAN_START=BEGAN + SECOND,
        )
    ]
    root = {
        "session.id": "run-1",
        semconv.SESSION_NAME: "trip",
        **{getattr(semconv, key): value for key, value in ended.items()},
    }
    spans = [span(2, 1, "execute_tool search", 1, 3, attributes={"session.id": "run-1", "gen_ai.operation.name": "execute_tool"}),
             span(1, 0, "session trip", 0, 5, attributes=root)]  # fmt: skip
    scope = semconv.SCOPE_NAME
    bodies: list[Body] = [
        ("logs", logs(began, scope)),
        ("logs", logs(opened, scope)),
        ("logs", logs([event("session.end", 4, 5, **ended)], scope)),
        ("traces", traces(spans, scope)),
    ]
    write("life-cycle", "one run that completed", bodies, **{"run-1": (2, 3)})


def no_id() -> None:
    """Write traces that name no session."""
    bodies = [
        ("traces", traces([span(1), span(2, 1)])),
        ("traces", traces([span(1, trace=OTHER_TRACE, at=9)])),
    ]
    write("no-id", "two traces without any id", bodies, trace_1=(2, 0), trace_2=(1, 0))


if __name__ == "__main__":
    for make in (chunked_json, repeated_key, quoted_session_id, children_first, cycle, nested_values, logs_only, sent_twice,
                 two_keys_one_session, two_sessions_one_trace, life_cycle, no_id):  # fmt: skip
        make()
