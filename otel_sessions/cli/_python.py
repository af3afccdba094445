"""Which commands are Python programs, and what switches tracing on in them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["LAUNCHER", "is_python", "with_tracing"]

LAUNCHER: Final = "opentelemetry-instrument"
"""It becomes the program, and does the same in it: done here, it would be done twice."""

_INTERPRETER: Final = re.compile(r"(python|pypy)(3[\d.]*)?t?", re.ASCII)
_SHEBANG: Final = re.compile(rb"#!.*\b(python|pypy)[\d.]*|#!/bin/sh\n'''exec' .*\b(python|pypy)[\d.]*")
"""The second is what pip writes where the path of the interpreter is too long for the system."""
_HEAD: Final = 1_000
"""Bytes in which a script says what runs it."""
_FOLDER: Final = str(Path(__file__).with_name("_below_run"))


def is_python(command: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Tell whether a command is a Python interpreter, or a script that one runs (`crewai`, `uvicorn`)."""
    found = shutil.which(command[0], path=environ.get("PATH"))
    if found is None or Path(found).name == LAUNCHER:
        return False
    if _INTERPRETER.fullmatch(Path(found).name):
        return True
    try:
        with Path(found).open("rb") as file:
            return _SHEBANG.match(file.read(_HEAD)) is not None
    except OSError:  # it may be run, yet not read
        return False


def with_tracing(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which Python programs are traced from their start."""
    path = environ.get("PYTHONPATH", "")
    # An empty entry is the working directory, an empty variable none at all.
    others = [entry for entry in path.split(os.pathsep) if entry != _FOLDER] if path else []
    return {**environ, "PYTHONPATH": os.pathsep.join([_FOLDER, *others])}
