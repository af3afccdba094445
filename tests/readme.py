"""The README as data: its commands and its program, for tests that do what it says."""

import re
from pathlib import Path

TEXT = (Path(__file__).parent.parent / "README.md").read_text()


def program() -> str:
    """Return the README's agent program."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    return next(block for block in blocks if "otel_sessions.session(" in block)


def command(name: str) -> str:
    """Return the one command line that is marked with a name."""
    found = re.search(rf"<!-- {name} -->\n```sh\n(.*?)\n```", TEXT, re.DOTALL)
    assert found is not None, f"README.md has no {name}"
    return found.group(1)
