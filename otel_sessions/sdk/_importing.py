"""Imports in our threads, kept apart from forks.

A child that is forked while another thread imports a module inherits that module's lock, held by nobody:
the first import of it in the child, by us or by its user, would wait for ever. (Measured: a fork within
0.1 s of the first session hung in `import requests`.) So a fork waits for our imports to end.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from otel_sessions.sdk import _process

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["importing", "under_way"]

_PATIENCE: Final = 10.0
"""Seconds that a fork waits at most. The imports take 0.3 s, but several where busy threads share a core; a
late child is better than one that hangs."""


class _Gate:
    """Held while a thread of ours imports, and around each fork; one instance."""

    __slots__ = ("held", "inside", "lock")

    def __init__(self) -> None:
        self.open_()

    def open_(self) -> None:
        # Reentrant, for what is imported may fork (platform looks for the C library by a subprocess).
        self.lock = threading.RLock()
        self.held = False
        self.inside: list[int] = []

    def before_fork(self) -> None:
        self.held = self.lock.acquire(timeout=_PATIENCE)

    def after_fork_in_parent(self) -> None:
        if self.held:
            self.held = False
            self.lock.release()


_gate: Final = _Gate()


@contextmanager
def importing() -> Generator[None]:
    """Import in this block what a thread of ours needs; no fork happens meanwhile."""
    inside, thread = _gate.inside, threading.get_ident()
    inside.append(thread)
    try:
        with _gate.lock:
            yield
    finally:
        inside.remove(thread)


def under_way() -> bool:
    """Tell whether another thread imports something, or is about to; it may need what this one imports."""
    here = threading.get_ident()
    return any(thread != here for thread in list(_gate.inside))


_process.around_fork(before=_gate.before_fork, in_parent=_gate.after_fork_in_parent, in_child=_gate.open_)
