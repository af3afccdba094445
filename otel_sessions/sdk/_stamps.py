"""When a life cycle event was made, so that a listener can tell fresh from old without trusting any clock.

Wall clocks of two machines never agree, and a monotonic clock stops while a laptop sleeps. Hence a number
for each event of a process, and the process's age on a clock that counts suspend.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from otel_sessions.sdk._events import Stamp
from otel_sessions.sdk._process import process_id

__all__ = ["CLOCKS", "STAMPS", "Clocks", "Stamps"]


def _age_clock() -> int:
    return time.monotonic_ns()


def _age_clock_with_suspend() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Clocks:
    """The three clocks, in ns: Unix time, monotonic time, and one that goes on while the machine sleeps."""

    wall: Callable[[], int] = time.time_ns
    monotonic: Callable[[], int] = time.monotonic_ns
    age: Callable[[], int] = _age_clock_with_suspend if hasattr(time, "CLOCK_BOOTTIME") else _age_clock


class Stamps:
    """Numbers and dates the events of a process.

    One for a process, however often tracing is set up in it: under one process id no number comes twice,
    and every age is counted from the same moment. A forked child has another id, and begins anew.
    """

    def __init__(self, clocks: Clocks, new_process_id: Callable[[], str]) -> None:
        """`new_process_id` returns the id of the running process, another one in a forked child."""
        self._clocks = clocks
        self._new_process_id = new_process_id
        self._begin(new_process_id())

    def _begin(self, process_id: str) -> None:
        self.process_id = process_id
        self._born = self._clocks.age()
        self._seq = itertools.count(1)

    def renew(self) -> None:
        """Begin anew where this is another process by now."""
        process_id = self._new_process_id()
        if process_id != self.process_id:
            self._begin(process_id)

    def next(self) -> Stamp:
        """Stamp an event that is made now."""
        return Stamp(next(self._seq), self._clocks.age() - self._born, self._clocks.wall())


CLOCKS: Final = Clocks()
"""The clocks of this machine."""
STAMPS: Final = Stamps(CLOCKS, process_id)
"""The numbers and ages of this process's events."""
