"""What a running backend does by itself: removes what retention says, and finds out when it can store again.

All of it happens in the writer's thread between two commits, in steps that are over in milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from otel_sessions.backend.clock import Clock
from otel_sessions.backend.ingest import Ingest
from otel_sessions.backend.live import Live
from otel_sessions.backend.settings import Settings
from otel_sessions.backend.store.base import Pruned, Store
from otel_sessions.errors import BackendError

__all__ = ["Upkeep"]

logger = logging.getLogger(__name__)

PRUNE_SECONDS: Final = 10.0
"""Between two looks at what is beyond the retention."""

PROBE_SECONDS: Final = 1.0
"""Between two looks at whether commits fail; those who were turned away may have nothing to come back for."""


class Upkeep:
    """The two endless chores of one backend; run them beside it."""

    def __init__(self, settings: Settings, store: Store, live: Live, ingest: Ingest, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._live = live
        self._ingest = ingest
        self._clock = clock

    async def run(self) -> None:
        """Go on until cancelled."""
        await asyncio.gather(self._prune_on(), self._probe_on())

    async def _prune_on(self) -> None:
        failing = ""
        while True:
            try:
                await self._prune_all()
            except BackendError as error:
                self._ingest.counts.chores.trouble = str(error)
                if str(error) != failing:
                    logger.error("nothing can be removed: %s", error)  # noqa: TRY400 - it says what to do
                failing = str(error)
            else:
                self._ingest.counts.chores.trouble = failing = ""
            await asyncio.sleep(PRUNE_SECONDS)

    async def _prune_all(self) -> None:
        """Remove what is due; between two steps the writer is left alone for as long as a step took."""
        more = True
        while more:
            began = self._clock.monotonic()
            more = (await self._ingest.between(self._prune, self._take)).more
            await asyncio.sleep((self._clock.monotonic() - began) / 1e9)

    def _prune(self) -> Pruned:
        now = self._clock.wall()
        return self._store.prune(self._settings.retention, now, now - self._settings.idle_after)

    def _take(self, pruned: Pruned) -> None:
        self._live.forget(pruned.keys, pruned.changes)
        self._ingest.counts.note_pruned(pruned.keys, pruned.spans, pruned.logs, self._clock.wall())

    async def _probe_on(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            if self._ingest.fails:
                await self._probe()

    async def _probe(self) -> None:
        try:
            await self._ingest.between(self._store.probe, lambda _: self._ingest.note_success())
        except BackendError as error:
            logger.debug("still nothing can be stored: %s", error)
