"""The spans and runs that are open in this process, and where each belongs.

One instance a process. Its dicts are written by single operations that are atomic under the interpreter
lock and in free-threaded builds; no lock is held while user code runs. In a forked child it starts anew,
but remembers what was open: those spans are the parent's to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_sessions.sdk import _process

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span
    from opentelemetry.trace import SpanContext

    from otel_sessions.sdk._context import Place
    from otel_sessions.sdk._root import Root

__all__ = ["Key", "OpenEntry", "key_of", "registry"]

Key = tuple[int, int]
"""Trace id and span id."""


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

    def forget(self) -> None:
        """Leave everything that is open to the parent process; called in a forked child."""
        self.inherited = self.inherited | frozenset(self.open)
        roots = list(self.roots.values())
        self.open = {}
        self.roots = {}
        for root in roots:
            root.inherit()


def key_of(context: SpanContext) -> Key:
    """Return the key of a span."""
    return (context.trace_id, context.span_id)


registry: Final = Registry()
_process.around_fork(in_child=registry.forget)
