"""The spans and runs that are open in this process, and where each belongs.

One instance a process. Its dicts are written by single operations that are atomic under the interpreter
lock and in free-threaded builds; no lock is held while user code runs. In a forked child it starts anew,
but remembers what was open: those spans are the parent's to end.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from otel_sessions.sdk import _process
from otel_sessions.sdk._guard import say_once

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span

    from otel_sessions.sdk._context import Place
    from otel_sessions.sdk._root import Root

__all__ = ["Key", "OpenEntry", "registry"]

Key = int
"""A span id: 64 random bits, unique in a process."""


_MOST_OPEN: Final = 100_000
"""Open spans that are held, 3 kB each. OpenTelemetry itself holds none: a library that never ends its spans
would otherwise fill the memory by our doing."""


class OpenEntry:
    """An open span and its place; `place` is None outside of sessions."""

    __slots__ = ("place", "span")

    def __init__(self, span: Span, place: Place | None) -> None:
        self.span = span
        self.place = place


class Registry:
    """What is open."""

    __slots__ = ("inherited", "open", "roots")

    def __init__(self) -> None:
        self.open: dict[Key, OpenEntry] = {}
        self.roots: dict[int, Root] = {}
        self.inherited: frozenset[Key] = frozenset()

    def opened(self, key: Key, entry: OpenEntry) -> None:
        """Note an open span; far too many make room by those that nobody will end, as far as one can tell."""
        self.open[key] = entry
        if len(self.open) > _MOST_OPEN:
            self._make_room()

    def _make_room(self) -> None:
        """Forget the oldest span, unless its run is open: then it may well be at work."""
        with suppress(StopIteration, RuntimeError, KeyError):
            oldest = next(iter(self.open))
            place = self.open[oldest].place
            root = place.root if place is not None else None
            if root is None or root.ended:
                del self.open[oldest]
                if root is not None:
                    root.forget(oldest)
                say_once(
                    "open spans",
                    "otel_sessions: more than %d spans are open; the oldest, which seem never to end, "
                    "are no longer looked after",
                    _MOST_OPEN,
                )

    def forget(self) -> None:
        """Leave everything that is open to the parent process; called in a forked child."""
        self.inherited = self.inherited | frozenset(self.open)
        roots = list(self.roots.values())
        self.open = {}
        self.roots = {}
        for root in roots:
            root.inherit()


registry: Final = Registry()
_process.around_fork(in_child=registry.forget)
