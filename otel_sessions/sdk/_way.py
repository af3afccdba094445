"""What a way out of this process is, and what it says became of the spans it took.

Two there are: `_durable.py`, our own to an OTLP endpoint, and `_foreign.py`, an exporter of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_sessions.sdk._context import Place

__all__ = ["Outbound", "Sent", "Way", "total"]

Outbound = tuple["ReadableSpan", "Place | None", bool]
"""An ended span, where it belongs, and whether it ended after its run: a bare tuple, for it is many."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of spans, in numbers.

    `kept` are on disk, for a later program, because this one is about to end; `on_disk` are those, or of the
    `pending` ones those that would not be lost with this process. `answering` is None until
    something was tried.
    """

    sent: int = 0
    pending: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    answering: bool | None = None
    trouble: str | None = None
    target: str | None = None
    on_disk: int = 0


class Way(Protocol):
    """A way out. `open` and `send` are called in the worker's thread, everything else anywhere."""

    def start(self) -> None:
        """Start what it needs a thread for, while there may be one."""
        ...

    def open(self) -> None:
        """Import what it needs."""
        ...

    def send(self, batch: Sequence[Outbound]) -> None:
        """Take a batch, and account for it."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether `relieve` may be called."""
        ...

    def relieve(self, batch: Sequence[Outbound]) -> None:
        """Take a batch in the thread of whoever has no room for it; nothing here may wait."""
        ...

    @property
    def relieved(self) -> int:
        """How many spans were taken so, and wait for the next `send`, which may be of an empty batch."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a request is under way, which an instrumentation may trace."""
        ...

    def flush(self, deadline: float) -> bool:
        """Wait until what was taken has arrived or is lost, at most until `deadline` (monotonic s)."""
        ...

    def hasten(self, nobody_listens: threading.Event) -> None:
        """Set the event as soon as it is clear that waiting for `send` is in vain."""
        ...

    def replaced_by(self, other: Way | None) -> None:
        """Send what it has, and end."""
        ...

    def stop(self, deadline: float) -> None:
        """Send what it has until `deadline` (monotonic s), and end."""
        ...

    def abandon(self) -> None:
        """End what hangs; this may hang too."""
        ...

    def sent(self) -> Sent:
        """Tell what became of what it took."""
        ...

    def after_fork_in_child(self) -> None:
        """Let go of what is the parent's."""
        ...


def total(parts: Iterable[Sent], *, pending: int, dropped: Mapping[str, int], target: str | None) -> Sent:
    """Sum what several ways tell, and what waits before them; the last one tells how it is now."""
    sent, kept, on_disk = 0, 0, 0
    lost = Counter(dropped)
    last = Sent()
    for last in parts:
        sent, pending, kept = sent + last.sent, pending + last.pending, kept + last.kept
        on_disk += last.on_disk
        lost.update(last.dropped)
    return Sent(sent, pending, kept, dict(lost), last.answering, last.trouble, target, on_disk)
