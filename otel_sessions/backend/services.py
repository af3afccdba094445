"""What the parts at the edge (receivers, API, page) are handed to do their work."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from otel_sessions.backend.clock import Clock
from otel_sessions.backend.ingest import Ingest
from otel_sessions.backend.live import Live
from otel_sessions.backend.records import Signal
from otel_sessions.backend.replies import Documents
from otel_sessions.backend.settings import Settings
from otel_sessions.backend.store.base import Store

__all__ = ["Services", "Tally"]


class Tally:
    """How many requests one receiver answered, by signal and by the word for what became of them."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[Signal, str]] = Counter()

    def note(self, signal: Signal, what: str) -> None:
        """Count one more."""
        self.counts[signal, what] += 1

    def by_word(self) -> dict[str, int]:
        """Return the counts of all signals together."""
        words: Counter[str] = Counter()
        for (_, word), count in self.counts.items():
            words[word] += count
        return dict(words)


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
    documents: Documents = field(default_factory=Documents)
    csrf: str = field(default_factory=partial(secrets.token_urlsafe, 24))  # what a page has to say to write
