"""Which requests a fault of ours meets each time, so that they are not sent again for ever.

What storing a request fails with may pass: a full disk, no memory, a state that another request changes. So
its sender is told to come back. But a fault that only this request meets, again and again, would never let it
through, nor whatever its sender has queued behind it; OTLP has 500 for that, a failure for good.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from otel_sessions.errors import BackendError

__all__ = ["ATTEMPTS", "Faults"]

ATTEMPTS: Final = 3
"""Failures, each alone in its commit, after which the fault is taken for one of that request."""

_REMEMBERED: Final = 1_000
_PASSING: Final = (BackendError, OSError, MemoryError)


class Faults:
    """Remembers the requests that failed lately."""

    def __init__(self) -> None:
        self._failed: OrderedDict[bytes, int] = OrderedDict()

    def is_for_good(self, body: bytes, error: BaseException) -> bool:
        """Note that storing a request failed alone; tell whether it does so each time."""
        if isinstance(error, _PASSING):
            return False
        key = hashlib.blake2b(body, digest_size=16).digest()
        times = self._failed.pop(key, 0) + 1
        self._failed[key] = times
        if len(self._failed) > _REMEMBERED:
            self._failed.popitem(last=False)
        return times >= ATTEMPTS
