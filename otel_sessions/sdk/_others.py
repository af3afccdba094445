"""What exports beside us: a joined provider, and processors that were given to `init()`.

All that may be asked of them is `force_flush`. It takes its time (a BatchSpanProcessor ignores its timeout,
and says True after losing everything), so it is called in a thread of ours, one at a time; and what it says
is believed only where it says no.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from otel_sessions.sdk._guard import guard

if TYPE_CHECKING:
    from otel_sessions.sdk._spare import Spare

__all__ = ["Others"]


class Others:
    """The force_flush of others, at most one under way."""

    __slots__ = ("_asking", "_provider", "_spare", "_turn")

    def __init__(self, provider: object | None, spare: Spare) -> None:
        """Make it for a joined `provider`; None where the provider is ours."""
        self._provider = provider
        self._spare = spare
        self.renew()

    def renew(self) -> None:
        """Be as new, in a forked child."""
        self._turn = threading.Lock()
        self._asking: int | None = None

    @property
    def asking(self) -> bool:
        """Whether the calling thread is asking a provider, which asks our own processor too."""
        return self._asking == threading.get_ident()

    def flush(self, processors: Sequence[Any], deadline: float, *, with_provider: bool) -> bool:
        """Ask them to send what they have; True if all have by `deadline` (monotonic s), or say so."""
        provider = self._provider if with_provider else None
        if not processors and provider is None:
            return True
        if not with_provider and self._asking is not None:
            return True  # a provider asks us in a thread of its own: before it, the processors were asked
        # One that was asked before, and hangs, would hang again: one thread for it is enough.
        turn = self._turn
        if not turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        answers: list[bool] = []

        def ask() -> None:
            try:
                answers.append(self._ask(processors, provider, deadline))
            finally:
                turn.release()

        done = self._spare.within(deadline, ask)
        if done is None:
            turn.release()
        return bool(done) and answers == [True]

    def _ask(self, processors: Sequence[Any], provider: object | None, deadline: float) -> bool:
        flushed = [_flushed(processor, deadline) for processor in processors]
        if provider is not None:
            self._asking = threading.get_ident()
            try:
                flushed.append(_flushed(provider, deadline))
            finally:
                self._asking = None
        return all(flushed)


def _flushed(other: object, deadline: float) -> bool:
    force_flush: Callable[[int], object] | None = getattr(other, "force_flush", None)
    if force_flush is None:
        return True
    milliseconds = int(1000 * (deadline - time.monotonic()))
    answer: object = False
    if milliseconds > 0:
        with guard("span processor"):
            answer = force_flush(milliseconds)
    return answer is not False
