"""Claims about the tests themselves: any two folders of them run together, and known versions are at hand."""

import ast
import sys
from collections import Counter
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TESTS = Path(__file__).parent
HELPERS = [
    path for path in TESTS.rglob("*.py") if not path.name.startswith(("test_", "__init__", "conftest"))
]


def test_each_helper_has_a_name_of_its_own_and_is_found():
    """All their folders are on the path together: of two of one name only the first would be imported."""
    names = Counter(path.stem for path in HELPERS)
    assert [name for name, times in names.items() if times > 1] == []
    imported_by_name = [path for path in HELPERS if path.parent.name not in ("samples", "typing", "programs")]
    assert {str(path.parent) for path in imported_by_name} <= set(sys.path)


def test_nothing_is_imported_from_a_conftest():
    """There are several, and which one `import conftest` finds depends on the folders that run."""

    def imported(path: Path) -> set[str]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module} | {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }

    assert [str(path) for path in TESTS.rglob("*.py") if "conftest" in imported(path)] == []


def test_each_dependency_has_a_version_that_is_known_to_work():
    """One that `pyproject.toml` allows, for each Python that is supported."""
    lines = (TESTS / "constraints.txt").read_text().splitlines()
    known = [Requirement(line) for line in lines if not line.startswith("#")]
    wrong = []
    for needed in map(Requirement, requires("otel-sessions") or ()):
        for python in ("3.10", "3.11", "3.12", "3.13"):
            versions = [
                str(one.specifier).removeprefix("==")
                for one in known
                if canonicalize_name(one.name) == canonicalize_name(needed.name)
                and (one.marker is None or one.marker.evaluate({"python_version": python}))
            ]
            if len(versions) != 1 or versions[0] not in needed.specifier:
                wrong.append((needed, python, versions))
    assert wrong == []
