"""Trace and span ids from a generator of our own.

OpenTelemetry's uses the global `random`: `random.seed(42)` in user code gives the same trace ids again. A
private generator would repeat its parent's ids in a forked child, so it is seeded anew there. `os.urandom`
for each id costs five times as much.
"""

from __future__ import annotations

import os
import random
import weakref
from typing import Final

from opentelemetry.sdk.trace.id_generator import IdGenerator

from otel_sessions.sdk import _process

__all__ = ["PrivateIds"]

_SEED_BYTES: Final = 16


class PrivateIds(IdGenerator):
    """Random ids that no seed of the program's repeats."""

    def __init__(self) -> None:
        self._seed()
        renew = weakref.WeakMethod(self._seed)

        def in_child() -> None:
            if (seed := renew()) is not None:
                seed()

        _process.around_fork(in_child=in_child)

    def _seed(self) -> None:
        # Not for secrets; ids only have to differ.
        self._random = random.Random(os.urandom(_SEED_BYTES))  # noqa: S311

    def generate_span_id(self) -> int:
        """Return 64 random bits, never 0."""
        return self._random.getrandbits(64) or self.generate_span_id()

    def generate_trace_id(self) -> int:
        """Return 128 random bits, never 0."""
        return self._random.getrandbits(128) or self.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """Say so: samplers may rely on it."""
        return True
