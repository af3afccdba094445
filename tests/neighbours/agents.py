"""Agents for tests: programs with our SDK that work in sessions, and say which spans they ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from backend_process import BackendProcess, clean_environment

__all__ = ["Agent", "SpanId", "attributes", "sessions", "spans", "stored"]

SpanId = tuple[str, str]
"""Trace id and span id, in hex."""

_SOURCE = """
import json, sys, time
import otel_sessions
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor

class Ended(SpanProcessor):
    def __init__(self):
        self.spans = []
    def on_end(self, span):
        self.spans.append((format(span.context.trace_id, "032x"), format(span.context.span_id, "016x")))

ended = Ended()
otel_sessions.init(service_name="neighbour", span_processors=[ended])
third_party = trace.get_tracer("third.party", "1.0", schema_url="https://opentelemetry.io/schemas/1.28.0")

def work(number, inner):
    with otel_sessions.session("work", id=f"work-{number}", title=f"Number {number}", user_id="ada"):
        with otel_sessions.agent("planner"), otel_sessions.model_call("gpt-5", provider="openai") as call:
            call.record(input_tokens=number, output_tokens=2)
        with otel_sessions.task("look up"), otel_sessions.tool("search", arguments={"number": number}):
            third_party.start_span("GET").end()
        if inner:
            with otel_sessions.session("inner", id=f"inner-{number}", nested="child"):
                third_party.start_span("GET").end()

count, inner, seconds = int(sys.argv[1]), sys.argv[2] == "inner", float(sys.argv[3])
begin = time.monotonic()
for number in range(count):
    work(number, inner)
    time.sleep(max(0, begin + seconds * (number + 1) / count - time.monotonic()))
while (result := otel_sessions.flush(10)).pending:
    if time.monotonic() > begin + seconds + 60:
        raise SystemExit(f"not sent: {result}")
stats = otel_sessions.stats()
print(json.dumps({"spans": ended.spans, "faults": stats.faults, "flush": repr(result)}))
"""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent at work; each of its sessions has 6 spans, the inner ones 2."""

    process: subprocess.Popen[str]

    @classmethod
    def start(
        cls, env: Mapping[str, str], count: int = 3, *, inner: bool = False, seconds: float = 0
    ) -> Agent:
        """Start an agent that works through `count` sessions, spread over some seconds."""
        command = [sys.executable, "-c", _SOURCE, str(count), "inner" if inner else "", str(seconds)]
        # A temporary failure of the export is a warning, not a fault: it goes to standard error.
        return cls(
            subprocess.Popen(
                command,
                env=clean_environment(env),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def spans(self, timeout: float = 60) -> set[SpanId]:
        """Wait for its end; return the spans that it ended and sent."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        finally:
            self.process.kill()
            self.process.communicate()
        assert self.process.returncode == 0, err
        told = json.loads(out)
        assert told["faults"] == {}, err
        return {(trace, span) for trace, span in told["spans"]}


def sessions(backend: BackendProcess, token: str = "") -> list[dict]:
    """Return every session as the API shows it now."""
    found, after = [], ""
    while True:
        page = _asked(backend, f"/api/v1/sessions?limit=500{after}", token)
        found += page["sessions"]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def spans(backend: BackendProcess, session: Mapping, token: str = "") -> list[dict]:
    """Return the spans of a session as they are stored, with `resource`, `scope` and `schema_urls` of each."""
    document = _asked(backend, f"/api/v1/sessions/{session['id']}/otlp", token)
    return [
        {**span, "resource": group["resource"], "scope": scope.get("scope", {})}
        | {"schema_urls": (group.get("schemaUrl", ""), scope.get("schemaUrl", ""))}
        for group in document["resourceSpans"]
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]


def stored(backend: BackendProcess, token: str = "") -> list[SpanId]:
    """Return the ids of all stored spans, each as often as it is stored."""
    return [
        (span["traceId"], span["spanId"])
        for one in sessions(backend, token)
        for span in spans(backend, one, token)
    ]


def attributes(bearer: Mapping) -> dict[str, object]:
    """Return the attributes of something in OTLP JSON, each value plain."""
    return {one["key"]: next(iter(one["value"].values()), None) for one in bearer.get("attributes", ())}


def _asked(backend: BackendProcess, path: str, token: str) -> dict:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    status, _, body = backend.exchange("GET", path, headers=headers)
    assert status == 200, body
    return json.loads(body)
