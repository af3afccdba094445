"""What a program is called, by the line that started its interpreter. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["program_name"]

_WITH_VALUE: Final = "mcXW"
"""Options of the interpreter that take what follows, in their own word or the next."""


def program_name(line: Sequence[str]) -> str:
    """Return the script or module that a Python interpreter was told to run, else the interpreter's name.

    `line` is like `sys.orig_argv`.
    """
    if not line:
        return "python"
    words = iter(line[1:])
    for word in words:
        if word == "--":
            continue
        if word == "-":
            break
        if not word.startswith("-"):
            return Path(word).name or Path(line[0]).name
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                next(words, None)
            continue
        letter, value = _valued(word[1:], words)
        if letter == "m" and value:
            return value
        if letter in ("m", "c"):
            break
    return Path(line[0]).name or "python"


def _valued(cluster: str, words: Iterator[str]) -> tuple[str, str]:
    """Return the first of some one-letter options that takes a value, and that; two empty texts for none."""
    for at, letter in enumerate(cluster):
        if letter in _WITH_VALUE:
            return letter, cluster[at + 1 :] or next(words, "")
    return "", ""
