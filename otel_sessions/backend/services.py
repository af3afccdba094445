"""What the parts at the edge (receivers, API, page) are handed to do their work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from otel_sessions.backend.clock import Clock
from otel_sessions.backend.ingest import Ingest
from otel_sessions.backend.live import Live
from otel_sessions.backend.settings import Settings
from otel_sessions.backend.store.base import Store

__all__ = ["Services", "Tally"]


class Tally:
    """How many requests one receiver answered, by the word for what became of them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def note(self, what: str) -> None:
        """Count one more."""
        self.counts[what] = self.counts.get(what, 0) + 1


@dataclass(frozen=True, slots=True)
class Services:
    """One running backend."""

    settings: Settings
    clock: Clock
    store: Store
    live: Live
    ingest: Ingest
    started_at: int  # Unix ns
    receivers: Mapping[str, Tally]  # "http", "grpc"
