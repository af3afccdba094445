"""The two clocks of the backend, as one value that is passed in: nothing below reads a clock by itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Clock", "system_clock"]


@dataclass(frozen=True, slots=True)
class Clock:
    """`wall` is Unix time, for what is stored and shown; leases count on `monotonic`; both in ns."""

    wall: Callable[[], int]
    monotonic: Callable[[], int]


def system_clock() -> Clock:
    """Return this machine's clocks; the monotonic one goes on while the machine sleeps, where that exists.

    Senders count their own age the same way, so that a laptop that sleeps looks to neither side as if
    messages had travelled through the night.
    """
    return Clock(time.time_ns, _boot_time if _boot_clock() is not None else time.monotonic_ns)


def _boot_clock() -> int | None:
    if sys.platform == "linux":
        return time.CLOCK_BOOTTIME
    if sys.platform == "darwin":
        return time.CLOCK_MONOTONIC  # counts sleep there, unlike time.monotonic()
    return None


def _boot_time() -> int:
    clock = _boot_clock()
    return time.monotonic_ns() if clock is None else time.clock_gettime_ns(clock)
