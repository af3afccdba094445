"""docs/sdk.md is true: compared with the signatures, and its examples are executed."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from dataclasses import fields
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from backend_process import clean_environment

import otel_sessions
from otel_sessions.sdk._sender import EventStats
from otel_sessions.sdk._stats import SessionStats

TEXT = (Path(__file__).parent.parent / "docs/sdk.md").read_text()
SECTIONS = {
    name: body
    for head, body in re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    for name in re.findall(r"`([\w.]+)`", head)
}
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
ERRORS = {
    name: value
    for name in otel_sessions.__all__
    if inspect.isclass(value := getattr(otel_sessions, name)) and issubclass(value, Exception)
}


def found(name: str) -> Any:
    """Return what a name stands for, `Session.end` say."""
    return reduce(getattr, name.split("."), otel_sessions)


def public(kind: type) -> set[str]:
    """Return the names that a class shows."""
    return {name for name in dir(kind) if not name.startswith("_")}


def rows(body: str) -> dict[str, str]:
    """Return the table of a section: names and second columns."""
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\|", body, re.MULTILINE))


@pytest.mark.parametrize("name", [name for name in SECTIONS if not inspect.isclass(found(name))], ids=str)
def test_a_calls_arguments_and_defaults_are_those_of_its_signature(name: str) -> None:
    """None missing, none invented, in their order."""
    expected = {
        parameter.name: parameter.default
        for parameter in inspect.signature(found(name)).parameters.values()
        if parameter.name != "self"
    }
    said = {
        argument: inspect.Parameter.empty if default == "required" else ast.literal_eval(default.strip("`"))
        for argument, default in rows(SECTIONS[name]).items()
    }
    assert list(said.items()) == list(expected.items())


@pytest.mark.parametrize("name", [name for name in SECTIONS if inspect.isclass(found(name))], ids=str)
def test_what_a_value_tells_is_what_its_class_has(name: str) -> None:
    """Its methods have sections of their own."""
    methods = {section.partition(".")[2] for section in SECTIONS if section.startswith(f"{name}.")}
    assert set(rows(SECTIONS[name])) | methods == public(found(name))


def test_every_public_name_is_there() -> None:
    """As a section, or in the table of errors."""
    assert set(otel_sessions.__all__) - {"__version__"} - ERRORS.keys() == {
        name for name in SECTIONS if "." not in name
    }
    assert "`otel_sessions.__version__`" in TEXT


def test_the_table_of_errors_is_the_tree() -> None:
    """With what each is besides, for whoever catches that."""
    table = TEXT.partition("\n## Errors\n")[2]
    said = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", table, re.MULTILINE))
    assert said == {name: error.__bases__[-1].__name__ for name, error in ERRORS.items()}


def test_the_counts_within_stats_are_named() -> None:
    """Those of the events, and of one session."""
    said = SECTIONS["Stats"]
    for name, kind in (("events", EventStats), ("sessions", SessionStats)):
        (line,) = re.findall(rf"^\| `{name}` \|(.*)$", said, re.MULTILINE)
        assert {field.name for field in fields(kind)} <= set(re.findall(r"`(\w+)`", line))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_runs_as_it_stands(number: int, tmp_path: Path) -> None:
    """As a program, with a user of its own, sending nowhere."""
    env = {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES[number]],
        cwd=tmp_path,
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
