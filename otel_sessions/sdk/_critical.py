"""Which functions hold a lock that the end of the process needs too.

A signal is handled in the midst of what the main thread does, and that goes on only when the handler returns.
If it holds a lock that ending a session takes, nobody gets it meanwhile. So a signal that finds the main
thread in such a function is postponed. Each holds its lock for microseconds, runs no code of the user's and
waits for nobody but, in the first event of a process, for a thread to start.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, Final, TypeVar, cast

__all__ = ["critical", "is_critical"]

F = TypeVar("F", bound=Callable[..., Any])

_marked: Final[set[CodeType]] = set()


def critical(function: F) -> F:
    """Mark a function that takes such a lock; it is returned as it is, and costs nothing more."""
    _marked.add(cast("FunctionType", function).__code__)
    return function


def is_critical(code: CodeType) -> bool:
    """Tell whether this is the code of a marked function."""
    return code in _marked
