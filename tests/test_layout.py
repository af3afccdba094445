"""Claims about the tests themselves: any two folders of them run together."""

import ast
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent
MODULES = [path for path in TESTS.rglob("*.py") if path.name not in ("__init__.py", "conftest.py")]


def test_each_module_has_a_name_of_its_own():
    """Test folders are no packages: of two modules of one name only the first would be imported."""
    names = Counter(path.stem for path in MODULES)
    assert [name for name, times in names.items() if times > 1] == []


def test_nothing_is_imported_from_a_conftest():
    """There are several, and which one `import conftest` finds depends on the folders that run."""

    def imported(path: Path) -> set[str]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module} | {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }

    assert [str(path) for path in TESTS.rglob("*.py") if "conftest" in imported(path)] == []
