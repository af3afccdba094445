"""One run of the demo's agents, read in four places: our API, the real Jaeger, our /jaeger/, the real Prometheus."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from agents import sessions, spans
from configs import FOLDER
from processes import get_json, until

from otel_sessions.cli._demo.processes import agent_environment, child_environment, running
from otel_sessions.cli._drawing import label

pytestmark = pytest.mark.neighbours

PLAY = "otel_sessions.cli._demo."
ACTS = (
    ("trip", "To Lisbon in May, 2 adults, 4 nights"),
    ("table", "In Lisbon on Friday, 2 people"),
    ("bargain", "To Oslo at any time, 2 people"),
)
KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
ADDED_BY_JAEGER = {"span.kind", "otel.scope.name", "otel.scope.version", "otel.status_code", "error"}
ADDED_BY_JAEGER |= {"otel.status_description", "w3c.tracestate", "internal.span.format"}
OUTCOME = "otel_sessions.session.outcome"

Row = tuple[str, str, str, str, str, str, frozenset[tuple[str, str]]]
"""Trace, span, parent, name, kind, status, attributes."""


async def play(endpoint: str, logs: Path) -> None:
    """Let the demo's agents do each job once, against the demo's model."""
    async with running(
        PLAY + "model_server", environment=child_environment(), log=logs / "model.log"
    ) as model:
        url = (await model.announcement())["url"]
        environment = agent_environment(endpoint, "travel-agent") | {"DEMO_MODEL_URL": url}

        async def act(job: str, prompt: str) -> None:
            log = logs / f"{job}.log"
            async with running(PLAY + "agent", job, prompt, environment=environment, log=log) as child:
                await child.process.wait()

        await asyncio.gather(*(act(job, prompt) for job, prompt in ACTS))


def text(value: dict[str, Any]) -> str:
    """Return an OTLP value as Jaeger would show it: numbers as they are written, lists and maps as JSON."""
    ((kind, inner),) = value.items()
    if kind == "boolValue":
        return str(inner).lower()
    if kind == "doubleValue":
        return f"{float(inner):g}"
    if kind == "arrayValue":
        return json.dumps(
            [text(one) for one in inner.get("values", ())], separators=(",", ":"), ensure_ascii=False
        )
    return str(inner)


def of_otlp(span: dict[str, Any]) -> Row:
    """Return what our API's export says of a span."""
    return (
        span["traceId"],
        span["spanId"],
        span.get("parentSpanId", ""),
        span["name"],
        KINDS[span["kind"]],
        {0: "", 1: "OK", 2: "ERROR"}[span.get("status", {}).get("code", 0)],
        frozenset((pair["key"], text(pair["value"])) for pair in span.get("attributes", ())),
    )


def of_jaeger(span: dict[str, Any]) -> Row:
    """Return what an API of Jaeger's says of a span."""
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    (parent,) = [one["spanID"] for one in span["references"] if one["refType"] == "CHILD_OF"] or [""]
    shown = {
        key: str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
        for key, value in tags.items()
        if key not in ADDED_BY_JAEGER
    }
    return (
        span["traceID"],
        span["spanID"],
        parent,
        span["operationName"],
        tags["span.kind"],
        tags.get("otel.status_code", ""),
        frozenset(shown.items()),
    )


def outcomes(rows: set[Row]) -> Counter[str]:
    """Count the outcomes that roots tell."""
    return Counter(value for row in rows for key, value in row[6] if key == OUTCOME)


@pytest.mark.timeout(180, func_only=True)
def test_a_run_is_the_same_in_our_api_in_jaeger_in_our_jaeger_api_and_in_prometheus(  # noqa: PLR0917 - programs
    start_backend, start_jaeger, start_collector, start_prometheus, tmp_path, capsys
):
    """The same spans with ids, parents, kinds, errors and attributes; the same outcomes, tokens and counts."""
    backend, jaeger = start_backend(), start_jaeger()
    collector = start_collector(
        FOLDER / "jaeger.yaml", {"BACKEND_URL": backend.url, "JAEGER_URL": f"http://{jaeger.otlp_http}"}
    )
    prometheus = start_prometheus({"backend": f"{backend.http}/metrics"})
    until(lambda: prometheus.query('up{job="backend"} == 1'), "the first scrape, before anything happened")
    asyncio.run(play(collector.url, tmp_path))

    def told() -> list[dict[str, Any]]:
        found = sessions(backend)
        whole = len(found) == len(ACTS) and all(
            one["state"] == "ended" and not one["missing_spans"] for one in found
        )
        return found if whole else []

    shown = until(told, "three sessions have ended, and nothing of them is missing")
    exported = [span for session in shown for span in spans(backend, session)]
    ours = {of_otlp(span) for span in exported}
    until(lambda: len(jaeger.spans("travel-agent")) >= len(exported), "Jaeger has as many spans")
    theirs = jaeger.spans("travel-agent")
    url = f"{backend.url}/jaeger/api/traces"
    traces = get_json(url, {"service": "travel-agent", "limit": "1000"})["data"]
    neighbours = [span for trace in traces for span in trace["spans"]]

    assert len(ours) == len(exported) == len(theirs) == len(neighbours)
    assert {of_jaeger(span) for span in theirs} == ours
    assert {of_jaeger(span) for span in neighbours} == ours

    def counted(expression: str) -> dict[str, float]:
        return {
            ",".join(value for key, value in sorted(one["metric"].items()) if key not in ("job", "instance", "__name__")):
            float(one["value"][1])
            for one in prometheus.query(expression)
        }  # fmt: skip

    until(
        lambda: counted("sum(otel_sessions_spans_stored_total)") == {"": float(len(ours))},
        "Prometheus has scraped all of it",
    )
    ended = counted("sum by (outcome) (otel_sessions_sessions_ended_total) > 0")
    expected = Counter(one["outcome"] for one in shown)
    assert ended == expected == outcomes(ours) == outcomes({of_jaeger(span) for span in theirs})
    tokens = counted("sum by (direction) (otel_sessions_tokens_total)")
    assert tokens == {
        "input": sum(one["input_tokens"] or 0 for one in shown),
        "output": sum(one["output_tokens"] or 0 for one in shown),
    }
    assert counted("otel_sessions_model_calls_total") == {"": sum(one["model_calls"] for one in shown)}
    errors = sum(row[5] == "ERROR" for row in ours)
    assert (
        counted("otel_sessions_span_errors_total")
        == {"": errors}
        == {"": sum(one["errors"] for one in shown)}
    )
    with capsys.disabled():
        print(table(shown, ours, theirs, neighbours, ended))


def table(shown: Any, ours: set[Row], theirs: Any, neighbours: Any, ended: dict[str, float]) -> str:
    """Set side by side what each place says of each session."""
    columns = ("session", "our API", "Jaeger", "/jaeger/", "outcome", "in Jaeger", "Prometheus")
    lines = ["", "{:34} {:>8} {:>7} {:>9}  {:10} {:10} {}".format(*columns)]
    for session in shown:
        bearing = ("session.id", session["session_id"])
        here = {row for row in ours if bearing in row[6]}
        counts = [sum(bearing in of_jaeger(span)[6] for span in spans_) for spans_ in (theirs, neighbours)]
        (outcome,) = outcomes(here)
        (there,) = outcomes({of_jaeger(span) for span in theirs if bearing in of_jaeger(span)[6]})
        lines.append(
            f"{str(label(session))[:34]:34} {len(here):>8} {counts[0]:>7} {counts[1]:>9}  {session['outcome']:10} "
            f"{there:10} {ended[outcome]:g} ended {outcome}"
        )
    return "\n".join(lines)
