"""What looking for secrets costs a span: without a hit, with hits, in both encodings, beside stdlib `re`.

Requests of 60 spans with messages, tool calls and the usual attributes, about 2.4 KB a span. "re" searches
the raw body for one pattern after the other, as who has no RE2 would; the slow path parses, walks and writes
again; a false alarm is a text that the scan takes for a secret and the slow path does not. CPU time of one
thread, the best of the rounds. Then how fast long texts are scanned: base64 and hex are images and ids, in
which a careless pattern begins everywhere.

    python benchmarks/redaction.py [--rounds 5] [--spans 60]
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_sessions.backend.decode import decode
from otel_sessions.backend.otlp_json import span_json
from otel_sessions.backend.records import Encoding, Signal
from otel_sessions.backend.redact import Redactor
from otel_sessions.backend.redact_patterns import DEFAULTS, SECRET_NAMES

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
WORDS = [word for word in README.split() if "authorization" not in word]
ALARM = "the password: required"
KEY = "sk-" + "a1B2" * 12


def span(rng: random.Random, key: str = "") -> Span:
    """Make a span of a model call."""

    def text(words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words))

    roles = ("system", "user", "assistant")
    messages = [{"role": role, "parts": [{"type": "text", "content": text(60)}]} for role in roles]
    arguments = json.dumps({"query": text(6), "path": "/app/" + rng.randbytes(8).hex()})
    made = Span(
        trace_id=rng.randbytes(16), span_id=rng.randbytes(8), parent_span_id=rng.randbytes(8),
        name="chat gpt-5", start_time_unix_nano=18 * 10**17, end_time_unix_nano=18 * 10**17 + 10**9,
    )  # fmt: skip
    for name, value in {
        "session.id": rng.randbytes(16).hex(), "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.input.messages": json.dumps(messages), "gen_ai.tool.call.arguments": arguments,
        "gen_ai.response.id": "chatcmpl-" + rng.randbytes(12).hex(), "server.address": "api.openai.com",
        "gen_ai.tool.call.result": f"{text(40)} {key}",
    }.items():  # fmt: skip
        made.attributes.add(key=name).value.string_value = value
    for name in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "server.port"):
        made.attributes.add(key=name).value.int_value = rng.randrange(10**5)
    return made


def request(spans: list[Span]) -> bytes:
    """Encode a request in protobuf."""
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.extend(spans)
    return message.SerializeToString()


def in_json(spans: list[Span]) -> bytes:
    """Encode a request in JSON."""
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [*map(span_json, spans)]}]}]}).encode()


def micros(work: Callable[[], object], rounds: int) -> float:
    """Return the CPU time of one call, the best of some rounds of at least 50 ms."""
    calls, best = 1, float("inf")
    while rounds:
        began = time.thread_time_ns()
        for _ in range(calls):
            work()
        took = time.thread_time_ns() - began
        if took < 50_000_000:
            calls *= 2
            continue
        best, rounds = min(best, took / calls / 1e3), rounds - 1
    return best


def blocked(work: Callable[[], object]) -> float:
    """Return how long another thread got nothing done while this one works, in ms: who holds the lock."""
    stop, longest = threading.Event(), 0.0

    def watch() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not stop.is_set():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(0.05)
    longest = 0.0
    work()
    stop.set()
    watcher.join()
    return longest * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spans", type=int, default=60, help="spans of a request")
    args = parser.parse_args()
    rng = random.Random(1)
    quiet = [span(rng) for _ in range(args.spans)]
    one = [*quiet[1:], span(rng, KEY)]
    every = [span(rng, KEY) for _ in quiet]
    redactor = Redactor(DEFAULTS)
    regexes = [re.compile(regex.encode()) for regex in _portable()]

    def redact(encoding: Encoding, body: bytes) -> Callable[[], object]:
        return lambda: redactor.redact(Signal.TRACES, encoding, body)

    body = request(quiet)
    print(
        f"{args.spans} spans a request, {len(body) / args.spans:.0f} bytes a span, {len(DEFAULTS)} patterns"
    )
    print("µs of CPU a span:")
    work: dict[str, Callable[[], object]] = {
        "decode, to compare": lambda: decode(Signal.TRACES, Encoding.PROTOBUF, body, 1),
        "decode JSON": lambda: decode(Signal.TRACES, Encoding.JSON, in_json_quiet, 1),
        "scan, no secret": redact(Encoding.PROTOBUF, body),
        "JSON, no secret": redact(Encoding.JSON, in_json_quiet := in_json(quiet)),
        "false alarm in every span": redact(Encoding.PROTOBUF, request([span(rng, ALARM) for _ in quiet])),
        "one span of the request bears one": redact(Encoding.PROTOBUF, request(one)),
        "every span bears one": redact(Encoding.PROTOBUF, request(every)),
        "JSON, every span bears one": redact(Encoding.JSON, in_json(every)),
        f"stdlib re, {len(regexes)} patterns": lambda: [regex.search(body) for regex in regexes],
    }
    for name, do in work.items():
        print(f"{name:36} {micros(do, args.rounds) / args.spans:8.2f}")
    print("MB/s scanned, of texts of 4 MB:")
    for name, text in _texts(rng).items():
        print(f"{name:36} {len(text) / micros(lambda text=text: redactor.scan(text), args.rounds):8.0f}")
    large = body * (50_000_000 // len(body))
    print("another thread waits at most, while 50 MB are scanned:")
    print(f"  {blocked(lambda: redactor.scan(large)):.1f} ms by RE2, for all patterns")
    print(f"  {blocked(lambda: regexes[3].search(large)):.1f} ms by stdlib re, for one")


def _texts(rng: random.Random) -> dict[str, bytes]:
    """Make long texts of one kind each."""
    data = rng.randbytes(3_000_000)
    return {
        "base64": base64.b64encode(data),
        "base64url": base64.urlsafe_b64encode(data),
        "hex": data[:2_000_000].hex().encode(),
        "prose": (" ".join(WORDS) * (4_000_000 // sum(map(len, WORDS)))).encode()[:4_000_000],
    }


def _portable() -> list[str]:
    """Return our patterns as stdlib `re` reads them: flags within are written the same, `(?s:.)` too."""
    return [*(pattern.scanned for pattern in DEFAULTS), SECRET_NAMES + "\x12"]


if __name__ == "__main__":
    main()
