"""Claims about collector-config/ that need no Collector: names, order, and that the files agree."""

from __future__ import annotations

import copy
import re
from collections import defaultdict

import pytest
from configs import COMMANDS, FOLDER, attributes, known_attributes, load
from session_ids import statements

from otel_sessions import semconv

README = FOLDER / "README.md"
LOCAL = FOLDER / "local.yaml"
FILES = sorted(FOLDER.rglob("*.yaml"))
files = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_every_file_is_started_by_some_command():
    """No configuration lies there that no test ever starts."""
    assert {path for paths in COMMANDS.values() for path in paths} == set(FILES)


@files
def test_every_attribute_that_a_configuration_names_exists(path):
    """A name with a slip would silently match nothing."""
    assert attributes(load(path)) - known_attributes() == set()


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (
            ("processors", "transform/session_id", "trace_statements"),
            'set(span.attributes["session.ids"], "x")',
        ),
        (("connectors", "span_metrics", "dimensions"), {"name": "gen_ai.operation"}),
        (("exporters", "load_balancing", "routing_attributes"), "session_id"),
    ],
)
def test_a_name_with_a_slip_is_found_wherever_it_stands(place, wrong):
    """Statements, dimensions and routes are all looked at."""
    for path in FILES:
        config = copy.deepcopy(load(path))
        section = config.get(place[0], {}).get(place[1], {})
        if place[2] in section:
            section[place[2]].append(wrong)
            assert len(attributes(config) - known_attributes()) == 1
            break
    else:
        pytest.fail(f"no configuration has {place}")


@pytest.mark.parametrize(
    ("file", "processor", "record", "target"),
    [
        ("jaeger.yaml", "transform/session_id", "span", semconv.SESSION_ID),
        ("scaled/agent.yaml", "transform/route", "span", semconv.ROUTE),
        ("scaled/agent.yaml", "transform/route", "log", semconv.ROUTE),
    ],
)
def test_a_configuration_knows_the_session_ids_that_the_backend_knows(file, processor, record, target):
    """Variant by variant, in the same order; tests/neighbours/session_ids.py prints what is missing."""
    kind = {"span": "trace_statements", "log": "log_statements"}[record]
    found = load(FOLDER / file)["processors"][processor][kind]
    expected = statements(record, target)
    assert found[: len(expected)] == expected


def test_what_has_the_same_name_is_the_same_in_every_file():
    """Who changes the pattern of a secret in one file changes it in all; only addresses may differ."""
    seen = defaultdict(set)
    for path in FILES:
        config = load(path)
        for section in ("receivers", "processors", "exporters", "extensions"):
            for name, value in config.get(section, {}).items():
                if name not in ("transform/session_id", "otlp"):
                    seen[section, name].add(repr({k: v for k, v in value.items() if k != "endpoint"}))
    assert {name for name, values in seen.items() if len(values) > 1} == set()
    assert len(seen) > 10


@files
def test_memory_is_limited_first_and_secrets_are_masked_before_anything_is_kept(path):
    """What is refused early costs nothing; nothing leaves the agent's machine, nor is queued, unmasked."""
    for name, pipeline in load(path)["service"]["pipelines"].items():
        if pipeline["receivers"] != ["otlp"]:
            continue
        processors = pipeline["processors"]
        assert processors[0] == "memory_limiter", name
        if path.parent.name != "scaled" or path.stem == "agent":
            assert "redaction" in processors, name


@files
def test_whatever_sends_keeps_its_queue_on_disk_and_never_gives_up(path):
    """And batches behind the queue: a batch processor would acknowledge what it holds in memory."""
    config = load(path)
    senders = {name: value for name, value in config["exporters"].items() if name != "prometheus"}
    for name, exporter in senders.items():
        assert exporter["sending_queue"]["storage"] in load(LOCAL)["service"]["extensions"], name
        assert "batch" in exporter["sending_queue"], name
        assert exporter["retry_on_failure"]["max_elapsed_time"] == 0, name
    assert not [name for name in config["processors"] if name.startswith("batch")]


def test_the_document_names_every_variable_and_no_other():
    """Who reads the table misses no address and sets none in vain."""
    used = set(re.findall(r"\$\{env:([A-Z0-9_]+)", "".join(path.read_text() for path in FILES)))
    row = re.compile(r"^\| (`[A-Z0-9_`, ]+`) \|", re.MULTILINE)
    told = {name for cell in row.findall(README.read_text()) for name in re.findall(r"[A-Z0-9_]+", cell)}
    assert told == used


def test_the_document_names_every_file():
    """Each has a row that tells what it is for."""
    told = set(re.findall(r"^\| `([\w/]+\.yaml)` \|", README.read_text(), re.MULTILINE))
    assert told == {str(path.relative_to(FOLDER)) for path in FILES}
