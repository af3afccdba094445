"""The real Jaeger and our backend side by side: sent the same, asked the same, compared member by member.

What the comparison leaves out is tolerated, and told in the table of test_jaeger.py.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from backend_process import BackendProcess
from processes import Jaeger, until
from tap import Body

__all__ = ["EVER", "Pair", "assert_same_traces", "differences", "fetch", "plain_otlp", "plain_traces"]

# --- Asking both --------------------------------------------------------------------------------------------


def fetch(url: str) -> tuple[int, Any]:
    """Return status and JSON of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 -- our own loopback addresses
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def post(url: str, body: Body) -> None:
    """Send one export request."""
    request = urllib.request.Request(  # noqa: S310 -- loopback
        url + body.path, body.content, {"Content-Type": body.content_type}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        assert answer.status == 200


@dataclass(frozen=True)
class Pair:
    """The real Jaeger and our backend, which were sent the same."""

    jaeger: Jaeger
    backend: BackendProcess

    def send(self, bodies: Iterable[Body], *, settle: bool = True) -> None:
        """Send traces to both and logs to ours; wait until the traces can be read."""
        for body in bodies:
            if body.path == "/v1/traces":
                post(f"http://{self.jaeger.otlp_http}", body)
            post(self.backend.url, body)
        if settle:
            self.settle()

    def settle(self) -> None:
        """Wait until Jaeger has stored what it acknowledged."""
        seen = [-1]

        def still() -> bool:
            now = sum(len(self.jaeger.spans(service)) for service in self.services())
            quiet = now == seen[0]
            seen[0] = now
            time.sleep(0.3)
            return quiet

        until(still, "Jaeger has stored what it acknowledged")

    def services(self) -> list[str]:
        """Return the services that Jaeger knows."""
        return fetch(f"{self.jaeger.query_url}/api/services")[1]["data"] or []

    def ask(
        self, path: str, query: Sequence[tuple[str, str]] = ()
    ) -> tuple[tuple[int, Any], tuple[int, Any]]:
        """Ask both the same."""
        asked = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        return fetch(self.jaeger.query_url + asked), fetch(f"{self.backend.url}/jaeger{asked}")


# --- What is compared ---------------------------------------------------------------------------------------


BOOKKEEPING = re.compile(r" XXX_\w+:(\{\}|\[\]|0)")


def plain_trace(trace: dict[str, Any]) -> dict[str, Any]:
    """Return a trace of API v1 without what is tolerated: processes in their places, spans in order, each once."""
    spans: dict[str, Any] = {}
    for one in sorted(trace["spans"], key=lambda one: (one["spanID"], len(one["warnings"] or ()))):
        inlined = {name: value for name, value in one.items() if name != "processID"}
        inlined["process"] = trace["processes"][one["processID"]]
        if one["warnings"]:
            inlined["warnings"] = [BOOKKEEPING.sub("", warning) for warning in one["warnings"]]
        spans.setdefault(one["spanID"], without_null_bytes(inlined))
    return {**{name: trace[name] for name in trace if name != "processes"}, "spans": list(spans.values())}


def without_null_bytes(value: Any) -> Any:
    """Write empty bytes as we do."""
    if isinstance(value, dict):
        if value.get("type") == "binary" and value["value"] is None:
            return {**value, "value": ""}
        if value == {"bytesValue": None}:
            return {"bytesValue": ""}
        return {name: without_null_bytes(inner) for name, inner in value.items()}
    return [without_null_bytes(inner) for inner in value] if isinstance(value, list) else value


def plain_traces(answer: tuple[int, Any]) -> tuple[int, Any]:
    """Return an answer of API v1 with its traces in order."""
    status, body = answer
    traces = sorted((plain_trace(trace) for trace in body["data"] or ()), key=lambda one: one["traceID"])
    return status, {**body, "data": traces}


def plain_otlp(answer: tuple[int, Any]) -> tuple[int, Any]:
    """Return an answer of API v3 as spans in order, each once, each with its resource and scope."""
    status, body = answer
    assert set(body) == {"result"}, body
    assert set(body["result"]) == {"resourceSpans"}
    spans: dict[tuple[str, str], Any] = {}
    for group in body["result"]["resourceSpans"]:
        assert set(group) == {"resource", "scopeSpans"}
        for scoped in group["scopeSpans"]:
            assert set(scoped) == {"scope", "spans"}
            for one in scoped["spans"]:
                events = [by_key(event) for event in one.get("events", ())]
                spans[one["traceId"], one["spanId"]] = (
                    by_key(group["resource"]),
                    scoped["scope"],
                    {**without_null_bytes(by_key(one)), "events": events},
                )
    return status, [spans[key] for key in sorted(spans)]


def by_key(record: dict[str, Any]) -> dict[str, Any]:
    """Return something with attributes, these in the order of their keys."""
    return {**record, "attributes": sorted(record.get("attributes", ()), key=lambda item: item["key"])}


def trace_ids_of(pair: Pair) -> list[str]:
    """Return the ids of all traces that Jaeger has."""
    found = set()
    for service in pair.services():
        _, body = fetch(
            f"{pair.jaeger.query_url}/api/traces?{urllib.parse.urlencode({**EVER, 'service': service})}"
        )
        found |= {trace["traceID"] for trace in body["data"]}
    return sorted(found)


EVER = {"start": "1", "end": "4000000000000000", "limit": "1000"}


def differences(ours: Any, theirs: Any, at: str = "") -> list[str]:
    """Say where two answers differ, member by member."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = dict.fromkeys((*ours, *theirs))
        return [
            text
            for key in keys
            for text in differences(ours.get(key, ...), theirs.get(key, ...), f"{at}.{key}")
        ]
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [text for no, (mine, other) in pairs for text in differences(mine, other, f"{at}[{no}]")]
    same = ours == theirs and isinstance(ours, bool) == isinstance(theirs, bool)
    return [] if same else [f"{at}: here {ours!r}, there {theirs!r}"]


def assert_same_traces(pair: Pair) -> int:
    """Compare every trace in every form; return how many there were."""
    ids = trace_ids_of(pair)
    forms = [("/api/traces/", (), plain_traces), ("/api/traces/", [("raw", "true")], plain_traces)]
    forms += [("/api/v3/traces/", (), plain_otlp)]
    found: list[str] = []
    for one in ids:
        for path, query, plain in forms:
            theirs, ours = pair.ask(path + one, query)
            found += differences(plain(ours), plain(theirs), f"{path}{one}{query or ''}")
    assert not found, "\n".join(found)
    return len(ids)
