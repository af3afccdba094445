"""What a program is, by the line that started its interpreter: its name, and whether gevent patches it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["names_gevent", "program_name"]

_WITH_VALUE: Final = "mcXW"
"""Options of the interpreter that take what follows, in their own word or the next."""

_GEVENT: Final = "gevent"
_MOST_READ: Final = 1_000_000
"""Bytes of a script that are looked through."""


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


def names_gevent(line: Sequence[str]) -> bool:
    """Tell whether a program is one of gevent's: its command line says so, or the script that it runs.

    gevent patches the standard library, at the top of the main script as a rule, and whatever was imported
    before keeps what it has of it: locks that no greenlet wakes, and an `ssl` that calls itself for ever.
    """
    files = [word for word in line[1:] if _is_file(word)]
    if any(_GEVENT in word for word in line[1:] if word not in files):
        return True
    with suppress(OSError), Path(files[0] if files else os.devnull).open("rb") as script:
        return _GEVENT.encode() in script.read(_MOST_READ)
    return False


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # too long for a path, or none at all
        return False


def _valued(cluster: str, words: Iterator[str]) -> tuple[str, str]:
    """Return the first of some one-letter options that takes a value, and that; two empty texts for none."""
    for at, letter in enumerate(cluster):
        if letter in _WITH_VALUE:
            return letter, cluster[at + 1 :] or next(words, "")
    return "", ""
