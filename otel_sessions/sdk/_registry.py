"""The spans and runs that are open in this process, and where each belongs.

One instance a process. Its dicts are written by single operations that are atomic under the interpreter
lock and in free-threaded builds; no lock is held while user code runs. In a forked child it starts anew,
but remembers what was open: those spans are the parent's to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_sessions.sdk import _process
from otel_sessions.sdk._guard import ignored

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import Span

    from otel_sessions.sdk._context import Place
    from otel_sessions.sdk._root import Root

__all__ = ["Key", "OpenEntry", "registry"]

Key = int
"""A span id: 64 random bits, unique in a process."""


_MOST_OPEN: Final = 100_000
"""Open spans that are held, 3 kB each. OpenTelemetry itself holds none: a library that never ends its spans
would otherwise fill the memory by our doing."""

_ROOM: Final = 1_000
"""How many are let go at once, so that the search for them costs each span next to nothing."""


class OpenEntry:
    """An open span and its place; `place` is None outside of sessions.

    `sampled` tells whether the span will be sent. `learned` is what its block knows by now and will set at
    the end: whoever ends the span by force sets it.
    """

    __slots__ = ("learned", "place", "sampled", "span")

    def __init__(self, span: Span, place: Place | None, *, sampled: bool) -> None:
        self.span = span
        self.place = place
        self.sampled = sampled
        self.learned: dict[str, Any] | None = None


class Registry:
    """What is open."""

    __slots__ = ("_full", "inherited", "open", "roots")

    def __init__(self) -> None:
        self.open: dict[Key, OpenEntry] = {}
        self.roots: dict[int, Root] = {}
        self.inherited: frozenset[Key] = frozenset()
        self._full = 0

    def opened(self, key: Key, entry: OpenEntry) -> None:
        """Note an open span; far too many make room by the oldest, which nobody will end, it seems."""
        self.open[key] = entry
        if len(self.open) > _MOST_OPEN and len(self.open) > self._full:
            self._make_room()

    def is_inside(self, span: trace.Span, root: Root) -> bool:
        """Tell whether a span is open and belongs to a run."""
        entry = self.open.get(span.get_span_context().span_id)
        return entry is not None and entry.place is not None and entry.place.root is root

    def _make_room(self) -> None:
        """Forget the oldest spans, but no root: a run may last as long as the program does."""
        gone = 0
        for key in list(self.open):
            entry = self.open.get(key)
            if entry is None or _is_root(entry):
                continue
            self.open.pop(key, None)
            if entry.place is not None and entry.place.root is not None:
                entry.place.root.forget(key)
            gone += 1
            if gone == _ROOM:
                break
        # Where there are roots only, the next search is worth while after that many more.
        self._full = len(self.open) + _ROOM if gone < _ROOM else 0
        if gone:
            ignored(
                "open spans",
                "otel_sessions: more than %d spans are open; the oldest, which seem never to end, "
                "are no longer looked after",
                _MOST_OPEN,
                number=gone,
            )

    def forget(self) -> None:
        """Leave everything that is open to the parent process; called in a forked child."""
        self.inherited = self.inherited | frozenset(self.open)
        roots = list(self.roots.values())
        self.open = {}
        self.roots = {}
        for root in roots:
            root.inherit()


def _is_root(entry: OpenEntry) -> bool:
    root = entry.place.root if entry.place is not None else None
    return root is not None and root.span is entry.span


registry: Final = Registry()
_process.around_fork(in_child=registry.forget)
