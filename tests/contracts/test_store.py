"""What every store promises, whatever the database: one suite, run over each of them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_sessions.backend.records import (
    Encoding,
    Flag,
    Gauge,
    LogRecord,
    Request,
    SessionHint,
    Signal,
    SpanRecord,
    TimelineEntry,
)
from otel_sessions.backend.resolve import (
    global_key,
    home_rank,
    scoped_twin,
    session_id,
    session_key,
    trace_key,
)
from otel_sessions.backend.store.base import SessionQuery, Store
from otel_sessions.backend.store.sqlite import SqliteStore

Opener = Callable[[Path], Store]
STORES: dict[str, Opener] = {"sqlite": SqliteStore}
