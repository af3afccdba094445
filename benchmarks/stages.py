"""Microseconds of CPU that each stage of storing a span takes, in one thread: `ingest.py --stages`.

Each stage is a function (or several) of the real backend, wrapped for the length of the run; what a stage
calls that is a stage itself counts there only. What is left is named "else". The wrappers cost about half a
microsecond a call, so nothing that is called for each span is wrapped.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import sqlite3
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from store import bodies

from otel_sessions.backend import decode as decoding
from otel_sessions.backend.receiver.inflate import inflate
from otel_sessions.backend.records import Encoding, Signal
from otel_sessions.backend.redact import Redactor
from otel_sessions.backend.redact_patterns import DEFAULTS
from otel_sessions.backend.store import _chunks, _connection, _placing, _sessions, _writer
from otel_sessions.backend.store.sqlite import SqliteStore

__all__ = ["measure_stages"]

ROUNDS = 3
STAGES: Sequence[tuple[str, object, str]] = (
    ("parse", decoding, "parse"),
    ("decode: attributes into records", decoding, "_traces"),
    ("compress", _chunks.Compressor, "compress"),
    ("place: records into rows, and whose they are", _writer.Writer, "_place"),
    ("insert rows", _placing.Placing, "_insert"),
    ("relations: parents, doubled calls", _writer, "note_parents"),
    ("relations: parents, doubled calls", _writer, "note_model_calls"),
    ("roll-ups: add", _sessions.Sessions, "note_members"),
    ("roll-ups: save", _sessions.Sessions, "save"),
    ("insert bodies", _writer.Writer, "_save_chunks"),
)
COMMIT = "commit"


class Clock:
    """CPU time of this thread, by stage, each without those inside it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inner = [0.0]

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a call, so that its time counts for a stage."""

        @functools.wraps(call)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            self._inner.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                took = time.thread_time() - began
                self.spent[stage] = self.spent.get(stage, 0.0) + took - self._inner.pop()
                self._inner[-1] += took

        return wrapped


@contextlib.contextmanager
def watched(clock: Clock) -> Generator[None]:
    """Have the stages of the backend timed."""

    execute = sqlite3.Connection.execute
    commit = clock.timed(COMMIT, execute)

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            return (commit if sql == "COMMIT" else execute)(self, sql, *args)

    with contextlib.ExitStack() as stack:
        for stage, owner, name in STAGES:
            stack.enter_context(patch.object(owner, name, clock.timed(stage, getattr(owner, name))))
        connect = functools.partial(sqlite3.connect, factory=Connection)
        stack.enter_context(patch.object(_connection.sqlite3, "connect", connect))
        yield


def load(requests: Sequence[bytes], coding: str, batch: int, folder: Path) -> tuple[float, dict[str, float]]:
    """Store requests on one thread; return CPU seconds, and those by stage."""
    clock = Clock()
    unpack = clock.timed("inflate", inflate)
    clean = clock.timed("scan for secrets", Redactor(DEFAULTS).redact)
    with watched(clock):
        store = SqliteStore(folder)
        clock.spent.clear()
        began = time.thread_time()
        for start in range(0, len(requests), batch):
            now = time.time_ns()
            plain = requests[start : start + batch]
            if coding != "identity":
                plain = [unpack(body, coding, 2**26) for body in plain]
            cleaned = [clean(Signal.TRACES, Encoding.PROTOBUF, body).body for body in plain]
            store.append([decoding.decode(Signal.TRACES, Encoding.PROTOBUF, body, now) for body in cleaned])
        whole = time.thread_time() - began
        store.close()
    return whole, clock.spent


def measure_stages(options: argparse.Namespace) -> dict[str, float]:
    """Print and return the microseconds by stage, of the best of some rounds."""
    made = bodies(options.spans, options.request, 7)
    spans = len(made) * options.request
    coding = options.coding[0]
    sent = [gzip.compress(body, 6) for body in made] if coding == "gzip" else made
    rounds: list[tuple[float, dict[str, float]]] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            rounds.append(load(sent, coding, options.batch, Path(name)))
    whole, spent = min(rounds, key=lambda one: one[0])
    spent["else"] = whole - sum(spent.values())
    found = {stage: seconds / spans * 1e6 for stage, seconds in spent.items()}
    found["all"] = whole / spans * 1e6
    print(f"{spans} spans, {options.request} a request, {options.batch} requests a commit, {coding}")
    for stage, took in found.items():
        print(f"{stage:46} {took:6.1f} us of CPU a span")
    return found
