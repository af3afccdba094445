"""Claims about the documents: what they name exists, and what exists is named."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("docs/**/*.md"),
]
BY_NAME = re.compile(
    r"""\b(?:(?:pip|pipx|uv|poetry|pdm|conda)\b[^;&|]*\s(?:install|add)|pipx\ run|uvx)\b[^;&|]*"""
    r"""\s["']?otel[-_]sessions(?:\[[^\]]*\])?(?=[\s"'`,;&|=<>~!]|$)"""
)
VARIABLE = re.compile(r"\bOTEL_SESSIONS_[A-Z_]*[A-Z]\b")
TEST_ONLY = {"OTEL_SESSIONS_RECORDINGS"}


def sources():
    """Return the text of every module that ships."""
    return "\n".join(path.read_text() for path in (ROOT / "otel_sessions").rglob("*.py"))


def test_every_variable_of_ours_is_documented_and_every_documented_one_is_read():
    """A reader of docs/configuration.md misses no variable and tries none in vain."""
    documented = set(VARIABLE.findall((ROOT / "docs/configuration.md").read_text()))
    assert documented == set(VARIABLE.findall(sources())) - TEST_ONLY


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(document):
    """A link or a path in backticks leads somewhere."""
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:docs|tests|otel_sessions|benchmarks|examples|\.ci)/[\w./-]*)`", text)
    missing = [name for name in links if not (document.parent / name).exists()]
    missing += [name for name in paths if not (ROOT / name).exists()]
    assert missing == []


def told():
    """Return every line that may tell somebody what to type: documents, programs, the page."""
    folders = ("docs", "otel_sessions", "examples", "collector-config", "dashboards", "benchmarks")
    ends = {".md", ".py", ".js", ".html", ".yaml", ".yml", ".toml", ".sh", ".json"}
    paths = [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    for path in paths:
        if path.suffix in ends and path.is_file():
            yield from ((path.relative_to(ROOT), line) for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    ("line", "by_name"),
    [
        ('pip install "otel-sessions[instrument]" openai', True),
        ("python -m pip install --upgrade otel-sessions", True),
        ("uv add otel_sessions==1.0", True),
        ("`pipx install otel-sessions`", True),
        ("uvx otel-sessions demo", True),
        ("uv run otel-sessions demo", False),
        ('pip install "PATH-OF-THIS-CLONE[instrument]" openai', False),
        (".venv/bin/pip install -q . && .venv/bin/otel-sessions demo", False),
        ("pip install /home/ann/otel-sessions", False),
    ],
)
def test_what_installs_by_name_is_known_from_what_installs_from_a_place(line, by_name):
    """A path that ends in the name is a place."""
    assert bool(BY_NAME.search(line)) == by_name


def test_nobody_is_told_to_install_otel_sessions_by_its_bare_name():
    """It is on no index: whoever took that name there would be installed."""
    assert [(name, line) for name, line in told() if BY_NAME.search(line)] == []


def test_every_command_in_the_readme_is_one_that_the_program_knows():
    """Whoever copies a line of the README gets what it says."""
    asked = set(re.findall(r"otel-sessions (\w+)", (ROOT / "README.md").read_text()))
    for command in sorted(asked):
        done = subprocess.run(
            [sys.executable, "-m", "otel_sessions.cli.main", command, "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_the_steps_of_the_architecture_are_files():
    """The path of one span names no file that is not there."""
    drawing = (ROOT / "ARCHITECTURE.md").read_text().split("```")[1]
    named = re.findall(r"\b((?:sdk|backend)/[\w/]+\.py)", drawing)
    assert named
    assert [name for name in named if not (ROOT / "otel_sessions" / name).exists()] == []
