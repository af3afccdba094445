"""Dashboards, alerts and provisioning: whole, current, and about metrics that exist."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from backend_process import BackendProcess

from otel_sessions.backend.metrics import METRICS

FOLDER = Path(__file__).parents[1] / "dashboards"
PROMETHEUS = FOLDER / "prometheus"
NAMES = ("sessions.json", "delivery.json")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
FOREIGN = {"process_cpu_seconds_total", "process_resident_memory_bytes", "up"}
"""Metrics in queries that are not ours: of the process, and of Prometheus itself."""


@pytest.fixture(params=NAMES)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return one of the committed dashboards."""
    return read(request.param)


def read(name: str) -> dict[str, Any]:
    """Return a committed dashboard."""
    return json.loads((FOLDER / name).read_text())


def rules() -> list[dict[str, Any]]:
    """Return the alerts."""
    (group,) = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    return group["rules"]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every query there is, with who asks it."""
    for name in NAMES:
        for panel in read(name)["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


# --- dashboards ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    importlib.util.find_spec("grafana_foundation_sdk") is None,
    reason="grafana-foundation-sdk is not installed; it needs Python 3.11 and the group `dashboards`",
)
def test_the_dashboards_are_what_their_source_makes() -> None:
    """Nobody edited the JSON, or forgot to make it again."""
    command = [sys.executable, str(FOLDER / "make.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_dashboard_loads_in_every_grafana_from_10_on(dashboard: dict[str, Any]) -> None:
    """Classic JSON, with a fixed address of its own and none of any database."""
    assert dashboard["schemaVersion"] == 42
    assert dashboard["uid"].startswith("otel-sessions")
    assert "id" not in dashboard


def test_every_panel_says_what_it_shows_and_in_which_unit(dashboard: dict[str, Any]) -> None:
    """Title, description, unit; titles are unique."""
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles)


def test_panels_have_ids_of_their_own_and_places_of_their_own(dashboard: dict[str, Any]) -> None:
    """No two lie over each other, none is cut off."""
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_every_variable_that_is_used_is_defined_and_the_other_way_round(dashboard: dict[str, Any]) -> None:
    """Grafana's own begin with two underscores."""
    defined = [variable["name"] for variable in dashboard["templating"]["list"]]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard)))
    assert {name for name in used if not name.startswith("__")} == set(defined)
    assert {name for name in used if name.startswith("__")} <= {
        "__all",
        "__rate_interval",
        "__field",
        "__data",
    }
    assert len(set(defined)) == len(defined)


def test_no_data_source_is_fixed(dashboard: dict[str, Any]) -> None:
    """Whoever imports it chooses their Prometheus."""
    found = list(_values_of("datasource", dashboard))
    assert len(found) > len(dashboard["panels"])
    assert all(source == SOURCE for source in found)


def _values_of(key: str, value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from _values_of(key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values_of(key, inner)


def test_queries_of_a_panel_are_told_apart(dashboard: dict[str, Any]) -> None:
    """Each has its letter, and a legend where there are several."""
    for panel in dashboard["panels"]:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        assert len(references) == 1 or all(target["legendFormat"] for target in panel["targets"])


# --- what they ask for --------------------------------------------------------------------------------------


def unknown_names(expression: str) -> set[str]:
    """Return what looks like a metric or a label in a query and is none of ours."""
    known = set(FOREIGN)
    labels = {"instance", "job", "le"}
    for metric in METRICS:
        parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        known.update(metric.name + part for part in parts)
        labels.update(metric.labels)
    metrics = set(re.findall(r"\b(?:otel_sessions|process)_\w+|\bup\b", expression))
    asked = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    grouped = [
        name for names in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for name in names.split(",")
    ]
    return (metrics - known) | ({name.strip() for name in (*asked, *grouped)} - labels)


@pytest.mark.parametrize(("asker", "expression"), [*expressions()], ids=lambda value: value[:60])
def test_a_query_names_only_what_is_there(asker: str, expression: str) -> None:
    """Metrics and labels are those that the backend declares."""
    assert unknown_names(expression) == set(), asker


def test_a_query_of_a_metric_that_is_not_there_is_noticed() -> None:
    """The check above can fail."""
    wrong = 'sum by (color) (rate(otel_sessions_sessions_begun_total{shape="round", state="ended"}[5m]))'
    assert unknown_names(wrong) == {"otel_sessions_sessions_begun_total", "color", "shape"}
    assert unknown_names("otel_sessions_commit_requests") == {"otel_sessions_commit_requests"}


def test_every_metric_of_ours_is_looked_at_somewhere() -> None:
    """A metric that no panel and no alert uses would be dead weight."""
    asked = " ".join([*(expression for _, expression in expressions()), (FOLDER / NAMES[0]).read_text()])
    unused = {
        metric.name for metric in METRICS if not re.search(rf"\b{metric.name}(_bucket|_count)?\b", asked)
    }
    assert unused == {"otel_sessions_metric_points_total"}


# --- alerts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    """And its unit tests have it fire."""
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert all(len(text) > 15 for text in rule["annotations"].values())
    assert rule["labels"]["severity"] in ("page", "ticket")
    tests = (PROMETHEUS / "rules_test.yaml").read_text()
    fires = rf'ALERTS{{alertname="{rule["alert"]}"|alertname: {rule["alert"]}\n\s+exp_alerts:\n'
    assert re.search(fires, tests)


def test_the_alerts_look_for_the_job_that_the_example_scrapes() -> None:
    """One name in both files."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    asked = {name for rule in rules() for name in re.findall(r'job="([^"]+)"', rule["expr"])}
    assert asked == jobs
    assert [PROMETHEUS / name for name in config["rule_files"]] == [PROMETHEUS / "rules.yaml"]


# --- documentation ------------------------------------------------------------------------------------------


def block(name: str) -> str:
    """Return the block of docs/grafana.md that is marked with a name."""
    text = (FOLDER.parent / "docs" / "grafana.md").read_text()
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found is not None, name
    return found.group(1)


def test_the_documented_job_is_that_of_the_example() -> None:
    """Who copies the one gets the other."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    assert yaml.safe_load(block("scrape"))["scrape_configs"] == config["scrape_configs"]


def test_the_documented_commands_put_the_files_where_grafana_looks(tmp_path: Path) -> None:
    """Dashboards lie in the folder that their provisioning names."""
    for folder in ("dashboards", "datasources"):
        (tmp_path / "etc/grafana/provisioning" / folder).mkdir(parents=True)
    commands = block("provision")
    for place in ("/etc/grafana/", "/var/lib/grafana/"):
        assert place in commands
        commands = commands.replace(f" {place}", f" {tmp_path}{place}")
    done = subprocess.run(
        ["sh", "-e", "-c", commands], cwd=FOLDER.parent, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (provisioning,) = (tmp_path / "etc/grafana/provisioning/dashboards").iterdir()
    (provider,) = yaml.safe_load(provisioning.read_text())["providers"]
    assert {path.name for path in (tmp_path / provider["options"]["path"][1:]).iterdir()} == set(NAMES)
    assert len(list((tmp_path / "etc/grafana/provisioning/datasources").iterdir())) == 1


# --- provisioning -------------------------------------------------------------------------------------------


def test_the_data_sources_are_those_that_the_dashboards_and_traces_need() -> None:
    """Grafana reaches them itself, not the browser."""
    provisioned = yaml.safe_load((FOLDER / "provisioning/datasources/otel-sessions.yaml").read_text())
    assert provisioned["apiVersion"] == 1
    sources = {source["type"]: source for source in provisioned["datasources"]}
    assert set(sources) == {"prometheus", "jaeger"}
    assert all(source["access"] == "proxy" for source in sources.values())
    assert sources["jaeger"]["url"].endswith(":4318/jaeger")
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    assert sources["prometheus"]["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_the_backend_answers_where_grafana_looks_for_a_jaeger(backend: BackendProcess) -> None:
    """The path of the data source, and the call by which Grafana tests one."""
    provisioned = yaml.safe_load((FOLDER / "provisioning/datasources/otel-sessions.yaml").read_text())
    (url,) = (source["url"] for source in provisioned["datasources"] if source["type"] == "jaeger")
    status, _, body = backend.exchange("GET", f"{urlsplit(url).path}/api/services")
    assert status == 200
    assert "data" in json.loads(body)


def test_the_dashboards_are_provisioned_from_files() -> None:
    """With the keys that Grafana asks for."""
    provisioned = yaml.safe_load((FOLDER / "provisioning/dashboards/otel-sessions.yaml").read_text())
    assert provisioned["apiVersion"] == 1
    (provider,) = provisioned["providers"]
    assert (provider["type"], provider["name"]) == ("file", "otel-sessions")
    assert provider["options"]["path"].startswith("/")
