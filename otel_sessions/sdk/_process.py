"""Who this process is: a random id that is renewed at fork, and what has to happen in a forked child."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from otel_sessions.sdk._guard import guard

__all__ = ["around_fork", "generation", "process_id"]


class _Process:
    """The identity of the running process; one instance, changed by the fork hook only."""

    __slots__ = ("generation", "id")

    def __init__(self) -> None:
        self.generation = 0
        self.renew()

    def renew(self) -> None:
        self.id = os.urandom(16).hex()
        self.generation += 1


_process: Final = _Process()
_before: Final[list[Callable[[], None]]] = []
_in_parent: Final[list[Callable[[], None]]] = []
_in_child: Final[list[Callable[[], None]]] = []


def process_id() -> str:
    """Return the random id of this process (`otel_sessions.process.id`)."""
    return _process.id


def generation() -> int:
    """Return a number that is another one in each forked child; what bears an older one was inherited."""
    return _process.generation


def around_fork(
    *,
    before: Callable[[], None] | None = None,
    in_parent: Callable[[], None] | None = None,
    in_child: Callable[[], None] | None = None,
) -> None:
    """Call these at each fork from now on, each list in the order of registration."""
    for hooks, hook in ((_before, before), (_in_parent, in_parent), (_in_child, in_child)):
        if hook is not None:
            hooks.append(hook)


def _run(hooks: list[Callable[[], None]]) -> None:
    for hook in hooks:
        with guard("fork"):
            hook()


def _become_child() -> None:
    _process.renew()
    _run(_in_child)


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(
        before=lambda: _run(_before), after_in_parent=lambda: _run(_in_parent), after_in_child=_become_child
    )
