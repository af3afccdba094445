"""A real Prometheus scrapes a real backend; every query of every dashboard and alert finds what it asks for."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from backend_process import BackendProcess, clean_environment
from processes import Neighbour, Prometheus, free_addresses, get_json, until

from otel_sessions import semconv

pytestmark = pytest.mark.neighbours

FOLDER = Path(__file__).parents[2] / "dashboards"
RULES = FOLDER / "prometheus" / "rules.yaml"
DOCUMENT = FOLDER.parent / "docs" / "grafana.md"
NAMES = ("sessions.json", "delivery.json")
STORY_SECONDS = 120

RIGHTLY_ZERO = {
    "delivery.json: Queue": "requests wait for milliseconds; only a disk that is too slow fills the queue",
    "delivery.json: Waiting": "the same, and a commit fails only with the disk",
    "OtelSessionsQueueFilling": "the same",
    "OtelSessionsCommitsFailing": "the same",
}
"""Queries that find series, but only zeros, in a system that is well; all others must find a number."""


# --- queries --------------------------------------------------------------------------------------------------


def queries(names: Iterable[str] = NAMES) -> list[tuple[str, str]]:
    """Return every query with who asks it, variables put in as Grafana would; of alerts, what they compare."""
    found = [
        (f"{name}: {panel['title']}", _filled(target["expr"]))
        for name in names
        for panel in json.loads((FOLDER / name).read_text())["panels"]
        for target in panel["targets"]
    ]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            compared, _, _ = rule["expr"].replace(" == ", " > ").rpartition(" > ")
            found.append((rule["alert"], compared))
    return found


def _filled(expression: str) -> str:
    return expression.replace("$instance", ".*").replace("$__rate_interval", "1m")


def without_a_number(prometheus: Prometheus, asked: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the queries that found nothing, or nothing but zeros where that is not right."""
    return [
        (asker, expression)
        for asker, expression in asked
        if not _found(prometheus, expression, zero_will_do=asker in RIGHTLY_ZERO)
    ]


def _found(prometheus: Prometheus, expression: str, *, zero_will_do: bool) -> bool:
    # Over the last minutes: a rate is back at 0 soon after what it told of.
    series = prometheus.query(f"max_over_time(({expression})[3m:1s])")
    values = [float(one["value"][1]) for one in series]
    return any(value == value and (value or zero_will_do) for value in values)  # noqa: PLR0124 - no NaN


# --- what is sent -----------------------------------------------------------------------------------------------


def post(url: str, path: str, body: bytes) -> int:
    """Send JSON; return the status."""
    request = urllib.request.Request(url + path, body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 -- our own loopback address
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def traces(*spans: Mapping[str, Any]) -> bytes:
    """Make an export request."""
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def logs(*records: Mapping[str, Any], scope: str = "tests") -> bytes:
    """Make an export request."""
    scoped = {"scope": {"name": scope}, "logRecords": records}
    return json.dumps({"resourceLogs": [{"scopeLogs": [scoped]}]}).encode()


def span(**attributes: Any) -> dict[str, Any]:
    """Make a span whose parent never comes."""
    now = time.time_ns()
    return {
        "traceId": secrets.token_hex(16),
        "spanId": secrets.token_hex(8),
        "parentSpanId": secrets.token_hex(8),
        "name": "chat",
        "startTimeUnixNano": str(now - 1_000_000_000),
        "endTimeUnixNano": str(now),
        "attributes": _attributes(attributes),
    }


def beat(session: str, number: int) -> dict[str, Any]:
    """Make a heartbeat of a process that has dropped three spans with each."""
    now = time.time_ns()
    told = {
        semconv.SESSION_ID: session,
        semconv.PROCESS_ID: session,
        semconv.SEQ: number,
        semconv.ELAPSED: number,
        semconv.PHASE: "running",
        semconv.SPANS_STARTED: number,
        semconv.SPANS_ENDED: number,
        semconv.SPANS_DROPPED: 3 * number,
    }
    return {
        "timeUnixNano": str(now),
        "eventName": semconv.EVENT_SESSION_HEARTBEAT,
        "traceId": session.rjust(32, "a"),
        "spanId": session.rjust(16, "b"),
        "attributes": _attributes(told),
    }


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    kinds = {int: "intValue", float: "doubleValue", str: "stringValue"}
    return [
        {"key": key.replace("__", "."), "value": {kinds[type(value)]: value}} for key, value in values.items()
    ]


def provoke(url: str, number: int) -> None:
    """Send what a healthy system does not: copies, refusals, losses, secrets; and what the demo has none of, like costs."""
    usage = {"input_tokens": 9, "output_tokens": 5, "cache_read__input_tokens": 4}
    call = span(
        gen_ai__operation__name="chat",
        gen_ai__request__model="gpt-5",
        gen_ai__usage__cost=0.25,
        http__request__header__authorization="Bearer of a secret",
        **{f"gen_ai__usage__{name}": tokens for name, tokens in usage.items()},
    )
    note = logs({"timeUnixNano": str(time.time_ns()), "body": {"stringValue": f"note {number}"}})
    for _ in range(2):
        assert post(url, "/v1/traces", traces(call)) == 200
        assert post(url, "/v1/logs", note) == 200
    assert post(url, "/v1/traces", b"{") == 400
    assert post(url, "/v1/traces", traces(span(), {"name": "no ids"})) == 200
    assert post(url, "/v1/logs", logs(beat("cafe", number), scope=semconv.SCOPE_NAME)) == 200


# --- claims -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300, func_only=True)
def test_every_query_finds_what_it_asks_for_while_the_demo_plays(
    start_neighbour: Callable[..., Neighbour], start_prometheus: Callable[..., Prometheus]
) -> None:
    """Panels and alerts find series, with numbers in them; alerts fire, and say so in whole sentences."""
    http, grpc = free_addresses(2)
    command = [*(sys.executable, "-u", "-m", "otel_sessions.cli.main", "demo", "--no-browser")]
    demo = start_neighbour("demo", [*command, "--http", http, "--grpc", grpc], f"http://{http}/readyz", {})
    prometheus = start_prometheus({"otel-sessions": http}, rules=[RULES])
    url = f"http://{http}"
    asked = queries()
    number = 0

    def all_found() -> bool:
        nonlocal number, asked
        number += 1
        provoke(url, number)
        time.sleep(1)  # the next scrape
        asked = without_a_number(prometheus, asked)
        return not asked

    with urllib.request.urlopen(f"{url}/api/v1/stream", timeout=STORY_SECONDS):  # noqa: S310 -- loopback
        try:
            until(all_found, "every query finds a number", STORY_SECONDS)
        except AssertionError:
            pytest.fail(f"these queries found nothing: {asked}")
    alerts = get_json(f"{prometheus.url}/api/v1/alerts")["data"]["alerts"]
    firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    assert firing == {"OtelSessionsSessionsLost", "OtelSessionsAgentsDropSpans"}
    texts = [text for alert in alerts for text in alert["annotations"].values()]
    assert all("{{" not in text and "error" not in text and "no value" not in text for text in texts)
    demo.stop()


def test_a_query_that_finds_nothing_is_noticed(
    backend: BackendProcess, start_prometheus: Callable[..., Prometheus]
) -> None:
    """The check above can fail: by a metric or a label that is not there, and by nothing but zeros."""
    prometheus = start_prometheus({"otel-sessions": backend.http})
    right = ("right", "sum(otel_sessions_start_time_seconds)")
    until(lambda: not without_a_number(prometheus, [right]), "the backend is scraped")
    wrong = [
        ("no such metric", 'sum by (state) (otel_sessions_sessions_begun{instance=~".*"})'),
        ("no such label", 'sum(otel_sessions_sessions{colour="red"})'),
        ("no such state", 'sum(otel_sessions_sessions{state="gone"})'),
        ("nothing but zeros", "otel_sessions_sessions"),
        ("not a number", "otel_sessions_queue_bytes / 0"),
    ]
    assert without_a_number(prometheus, [right, *wrong]) == wrong


def test_prometheus_finds_no_fault_with_the_metrics(backend: BackendProcess, promtool: Path) -> None:
    """Names, types, units and help texts, with data of every kind."""
    provoke(backend.url, 1)
    _, _, text = backend.exchange("GET", "/metrics")
    assert b"otel_sessions_cost_usd_total{" in text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_prometheus_scrapes_with_a_token_only(
    start_backend: Callable[..., BackendProcess], start_prometheus: Callable[..., Prometheus]
) -> None:
    """As prometheus.yaml says."""
    backend = start_backend("--token", "very-secret-token")
    let_in = start_prometheus({"otel-sessions": backend.http}, token="very-secret-token")
    turned_away = start_prometheus({"otel-sessions": backend.http})
    up = 'up{job="otel-sessions"}'
    values = [
        until(lambda one=one: one.query(up), "it was scraped")[0]["value"][1] for one in (let_in, turned_away)
    ]
    assert values == ["1", "0"]


def test_the_rules_and_the_example_configuration_are_valid(promtool: Path) -> None:
    """Alerts fire when their unit tests say so; checked by the commands of the documentation."""
    commands = f"{block('rules')}promtool check config dashboards/prometheus/prometheus.yaml"
    done = subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=FOLDER.parent,
        env={**clean_environment(), "PATH": f"{promtool.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") >= 3


def test_prometheus_starts_as_documented(prometheus_program: Path, start_neighbour, tmp_path: Path) -> None:
    """With the example's configuration, and its rules are loaded."""
    (address,) = free_addresses(1)
    command = block("start").replace("127.0.0.1:9090", address).split()
    assert command[0] == "prometheus"
    config = command[1].replace("=dashboards/", f"={FOLDER}/")
    data = f"--storage.tsdb.path={tmp_path / 'data'}"
    start_neighbour(
        "prometheus", [prometheus_program, config, *command[2:], data], f"http://{address}/-/ready", {}
    )
    groups = get_json(f"http://{address}/api/v1/rules")["data"]["groups"]
    assert [len(group["rules"]) for group in groups] == [
        len(yaml.safe_load(RULES.read_text())["groups"][0]["rules"])
    ]


def block(name: str) -> str:
    """Return the block of docs/grafana.md that is marked with a name."""
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None, name
    return found.group(1)
