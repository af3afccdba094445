"""Claims that docs/jaeger.md does what it says: each block of it is run as it stands, at addresses of the test."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from backend_process import clean_environment
from processes import free_addresses, get_json, until

pytestmark = pytest.mark.neighbours

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/jaeger.md"
WARNING = "invalid parent span IDs={}; skipping clock skew adjustment"

AGENT = """
import otel_sessions

otel_sessions.init(service_name="travel")
with otel_sessions.session("plan trip", id="trip-1"):
    with otel_sessions.tool("search_flights"):
        pass
"""


def block(name: str, addresses: Mapping[str, str] | None = None) -> str:
    """Return the block that is marked with a name, with other addresses in the places of its own."""
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None, f"{DOCUMENT.name} has no {name}"
    text = found[1]
    for written, real in (addresses or {}).items():
        assert written in text
        text = text.replace(written, real)
    return text


def run_agent(folder: Path, settings: str = "", program: str = AGENT, **env: str) -> None:
    """Run a program with settings as a shell would have them."""
    file = folder / "agent.py"
    file.write_text(program)
    script = f"set -e\n{settings}\n{shlex.quote(sys.executable)} {shlex.quote(str(file))}"
    subprocess.run(["bash", "-c", script], env=clean_environment(env), check=True, timeout=60)


def asked(command: str) -> dict[str, Any]:
    """Run a command line that asks for JSON."""
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def spans_of(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the spans of an answer by their names."""
    return {one["operationName"]: one for trace in answer["data"] for one in trace["spans"]}


def test_every_block_of_the_document_is_run_here():
    """What is added to the document has a name, and a test that runs it."""
    names = re.findall(r"<!-- ([\w-]+) -->\n```", DOCUMENT.read_text())
    assert len(names) == DOCUMENT.read_text().count("\n```") / 2
    here = Path(__file__).read_text()
    assert [name for name in names if f'block("{name}"' not in here] == []


def test_an_agent_that_sends_to_jaeger_is_found_there_by_its_session(start_jaeger, tmp_path):
    """Two variables are all it takes, and the search is the one of the document."""
    jaeger = start_jaeger()
    run_agent(tmp_path, block("direct", {"127.0.0.1:4318": jaeger.otlp_http}))
    until(lambda: len(jaeger.spans("travel")) == 2, "both spans are stored")
    spans = spans_of(asked(block("ask", {"http://127.0.0.1:16686": jaeger.query_url})))
    assert spans.keys() == {"session plan trip", "execute_tool search_flights"}
    assert {one["warnings"] for one in spans.values()} == {None}


def test_a_task_of_its_own_trace_is_whole_while_its_session_is_open(start_jaeger, tmp_path):
    """No warning, a link to the root that is yet to come, and the session's id."""
    jaeger = start_jaeger()
    file = tmp_path / "agent.py"
    file.write_text(block("tasks"))
    env = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{jaeger.otlp_http}"})
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, str(file)], env=env, stdin=pipe, stdout=pipe, text=True) as agent:
        until(lambda: len(jaeger.spans("travel")) == 2, "the task is stored")
        spans = {one["operationName"]: one for one in jaeger.spans("travel")}
        assert spans.keys() == {"task find hotel", "execute_tool search_hotels"}
        assert [one["warnings"] for one in spans.values()] == [None, None]
        (link,) = spans["task find hotel"]["references"]
        assert agent.poll() is None
        agent.communicate("\n", timeout=30)
    until(lambda: len(jaeger.spans("travel")) == 3, "the root is stored")
    root = next(one for one in jaeger.spans("travel") if one["operationName"] == "session plan trip")
    assert (link["refType"], link["traceID"], link["spanID"]) == (
        "FOLLOWS_FROM",
        root["traceID"],
        root["spanID"],
    )
    ids = {
        tag["value"] for one in jaeger.spans("travel") for tag in one["tags"] if tag["key"] == "session.id"
    }
    assert ids == {"trip-1"}


def test_what_is_said_of_open_sessions_is_what_jaeger_warns_of(start_jaeger, tmp_path):
    """The warning that the document quotes is there while the root is missing, and goes when it has come."""
    quoted = re.search(r"`(invalid parent span IDs=…; [^`]*)`", DOCUMENT.read_text())
    assert quoted is not None
    assert quoted[1].replace("…", "{}") == WARNING
    jaeger = start_jaeger()
    file = tmp_path / "agent.py"
    file.write_text(AGENT + "    input()\n")
    env = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{jaeger.otlp_http}"})
    with subprocess.Popen([sys.executable, str(file)], env=env, stdin=subprocess.PIPE, text=True) as agent:
        until(lambda: jaeger.spans("travel"), "the tool is stored")
        (tool,) = jaeger.spans("travel")
        assert tool["warnings"] == [WARNING.format(tool["references"][0]["spanID"])]
        agent.communicate("\n", timeout=30)
    until(lambda: len(jaeger.spans("travel")) == 2, "the root is stored")
    assert [one["warnings"] for one in jaeger.spans("travel")] == [None, None]


# --- Through a Collector ------------------------------------------------------------------------------------


@pytest.fixture
def programs_of(tmp_path: Path, jaeger_program: Path, otelcol: Path) -> tuple[Path, str, str]:
    """Return a folder with the three programs of the document, the Collector's address and Jaeger's page.

    Each is the real one, told beside its own arguments to leave alone whatever else uses this machine.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    query, *others = free_addresses(6)
    collector, grpc, health = free_addresses(3)
    names = (
        "query.grpc-server",
        "admin.http",
        "collector.grpc-server",
        "collector.http-server",
        "http-server",
    )
    ports = {"query.http-server": query, **dict(zip(names, others, strict=True))}
    agents = ("jaeger-binary", "jaeger-compact", "zipkin-compact")
    options = [f"--{name}.host-port={address}" for name, address in ports.items()]
    options += [f"--processor.{agent}.server-host-port=127.0.0.1:0" for agent in agents]
    queue = tmp_path / "queue"
    lines = {
        "otel-sessions": f'{sys.executable} -m otel_sessions.cli.main "$@" --data {tmp_path / "data"}',
        "jaeger": f'SPAN_STORAGE_TYPE=memory OTEL_TRACES_SAMPLER=always_off {jaeger_program} "$@" {" ".join(options)}',
        "otelcol-contrib": f"COLLECTOR_HTTP={collector} COLLECTOR_GRPC={grpc} COLLECTOR_HEALTH={health}"
        f' COLLECTOR_QUEUE={queue} exec {otelcol} "$@" --set service.telemetry.metrics.level=none',
    }
    for name, line in lines.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return folder, collector, query


@pytest.fixture
def run_lines(tmp_path: Path) -> Iterator[Any]:
    """Run each line of a block in a process group of its own, which ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(lines: str, folder: Path) -> None:
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        for line in lines.splitlines():
            with (tmp_path / "lines.log").open("ab") as log:
                started.append(
                    subprocess.Popen(
                        ["bash", "-c", line],
                        cwd=ROOT,
                        env=clean_environment({"PATH": path}),
                        start_new_session=True,
                        stdout=log,
                        stderr=log,
                    )
                )

    yield run
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_through_the_collector_jaeger_and_our_backend_get_the_same(programs_of, run_lines, tmp_path):
    """The three lines of the document, and an agent that knows the Collector only."""
    folder, collector, query = programs_of
    our_http, our_grpc, jaeger_grpc, jaeger_http = free_addresses(4)
    places = {"127.0.0.1:14318": our_http, "127.0.0.1:14317": our_grpc}
    places |= {"127.0.0.1:24317": jaeger_grpc, "127.0.0.1:24318": jaeger_http}
    # The Collector sends where its configuration says without any variable, if others have these ports or not.
    config = (ROOT / "collector-config/jaeger.yaml").read_text()
    assert "127.0.0.1:14318" in config
    for written, real in places.items():
        config = config.replace(written, real)
    (tmp_path / "jaeger.yaml").write_text(config)
    lines = block("collector", {**places, "collector-config/jaeger.yaml": str(tmp_path / "jaeger.yaml")})
    assert len(lines.splitlines()) == 3
    run_lines(lines, folder)
    until(lambda: listens(f"http://{query}/api/services"), "Jaeger is ready", 60)
    until(lambda: listens(f"http://{our_http}/readyz"), "our backend is ready", 60)
    until(lambda: listens(f"http://{collector}/"), "the Collector is ready", 60)
    run_agent(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector}")
    search = f"/api/traces?{urllib.parse.urlencode({'service': 'travel'})}"
    shown = [
        until(lambda url=url: whole(url), f"both spans are at {url}")
        for url in (f"http://{query}{search}", f"http://{our_http}/jaeger{search}")
    ]
    assert shown[0].keys() == shown[1].keys() == {"session plan trip", "execute_tool search_flights"}
    for name, one in shown[0].items():
        assert {**one, "processID": ""} == {**shown[1][name], "processID": ""}


def listens(url: str) -> bool:
    """Tell whether anybody answers at all."""
    try:
        urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 -- our own loopback addresses
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def whole(url: str) -> dict[str, dict[str, Any]] | None:
    """Return the spans of an answer once both are there."""
    spans = spans_of(get_json(url))
    return spans if len(spans) == 2 else None


# --- Our backend as Jaeger ----------------------------------------------------------------------------------


def test_grafana_s_data_source_works_as_it_is_provisioned(start_backend, tmp_path):
    """With the token of the document: its health check, its lists, its search and its view of one trace."""
    backend = start_backend("--token", "YOUR_TOKEN")
    headers = "authorization=Bearer%20YOUR_TOKEN"
    run_agent(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=backend.url, OTEL_EXPORTER_OTLP_HEADERS=headers)
    (source,) = yaml.safe_load(block("grafana", {"127.0.0.1:4318": backend.http}))["datasources"]
    header = {source["jsonData"]["httpHeaderName1"]: source["secureJsonData"]["httpHeaderValue1"]}

    def get(path: str) -> Any:
        request = urllib.request.Request(source["url"] + path, headers=header)  # noqa: S310 -- loopback
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)["data"]

    assert get("/api/services") == ["travel"]
    assert get("/api/services/travel/operations") == ["execute_tool search_flights", "session plan trip"]
    (trace,) = get("/api/traces?service=travel&operation=session+plan+trip&limit=20&lookback=custom")
    assert get(f"/api/traces/{trace['traceID']}") == [trace]
    assert [one["warnings"] for one in trace["spans"]] == [None, None]


def test_a_session_is_found_at_our_backend_by_one_command(backend, tmp_path):
    """The same search as in Jaeger, at another address."""
    run_agent(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=backend.url)
    spans = spans_of(asked(block("ask-us", {"127.0.0.1:4318": backend.http})))
    assert spans.keys() == {"session plan trip", "execute_tool search_flights"}
