"""What other layouts of the index rows would cost: the same rows and bodies, inserted into each, in turn.

python benchmarks/layouts.py [--spans 24000] [--rounds 4] [--folder DIR]
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store import START, bodies

from otel_sessions.backend.decode import decode
from otel_sessions.backend.records import Encoding, Signal
from otel_sessions.backend.store._chunks import Compressor
from otel_sessions.backend.store._rows import SPAN_COLUMNS, row_id, span_row

BATCH = 8  # requests a commit
COLUMNS = [name.strip() for name in SPAN_COLUMNS.split(",")]
ROWID = f"CREATE TABLE spans (id INTEGER PRIMARY KEY, {', '.join(COLUMNS[1:])})"
KEYED = f"CREATE TABLE spans ({', '.join(COLUMNS)}, PRIMARY KEY (trace_id, span_id)) WITHOUT ROWID"
GROUPED = f"CREATE TABLE spans ({', '.join(COLUMNS)}, PRIMARY KEY (session, trace_id, span_id)) WITHOUT ROWID"
BY_KEY = "CREATE UNIQUE INDEX by_key ON spans (trace_id, span_id)"
BY_SESSION = "CREATE INDEX by_session ON spans (session, revision)"
BY_PARENT = "CREATE INDEX by_parent ON spans (trace_id, parent_id) WHERE category IN (3, 4)"
BY_SERVICE = "CREATE INDEX by_service ON spans (service, start)"
BY_OPERATION = "CREATE INDEX by_operation ON spans (service, name, kind, start)"
BY_PLACE = "CREATE INDEX by_place ON spans (id)"
BODIES = "CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB)"


@dataclass(frozen=True)
class Layout:
    """One way to lay out the rows."""

    name: str
    ddl: tuple[str, ...]
    compressed: bool = True
    words: bool = False  # names as text in each row
    page: int = 4096


LAYOUTS = (
    Layout("rowid, no index", (ROWID,)),
    Layout("rowid + unique key", (ROWID, BY_KEY)),
    Layout("rowid + unique key + session", (ROWID, BY_KEY, BY_SESSION)),
    Layout("rowid + unique key + session + parents of model calls", (ROWID, BY_KEY, BY_SESSION, BY_PARENT)),
    Layout(
        "as it is: and service and operation",
        (ROWID, BY_KEY, BY_SESSION, BY_PARENT, BY_SERVICE, BY_OPERATION),
    ),
    Layout("  with names as text", (ROWID, BY_KEY, BY_SESSION, BY_PARENT), words=True),
    Layout("  with bodies uncompressed", (ROWID, BY_KEY, BY_SESSION, BY_PARENT), compressed=False),
    Layout("  in pages of 8 KiB", (ROWID, BY_KEY, BY_SESSION, BY_PARENT), page=8192),
    Layout("  in pages of 16 KiB", (ROWID, BY_KEY, BY_SESSION, BY_PARENT), page=16384),
    Layout("WITHOUT ROWID by key, place indexed", (KEYED, BY_SESSION, BY_PARENT, BY_PLACE)),
    Layout("WITHOUT ROWID by session and key", (GROUPED, BY_KEY, BY_PARENT)),
)


class Load:
    """Rows and bodies made beforehand: what is measured is the database alone."""

    def __init__(self, spans: int) -> None:
        compressor = Compressor()
        requests = [decode(Signal.TRACES, Encoding.PROTOBUF, body, START) for body in bodies(spans, 60, 7)]
        self.count = sum(len(request.spans) for request in requests)
        self.plain = [request.body for request in requests]
        self.compressed = [compressor.compress(body) for body in self.plain]
        numbers, words, sessions = _Numbers(), _Words(), dict[str, int]()
        self.rows: dict[bool, list[list[tuple[Any, ...]]]] = {False: [], True: []}
        for chunk, request in enumerate(requests, 1):
            for as_text, table in ((False, numbers), (True, words)):
                self.rows[as_text].append(
                    [
                        span_row(
                            span,
                            row_id(chunk, span.ordinal),
                            sessions.setdefault(span.hint.value if span.hint else "", len(sessions) + 1),
                            chunk // BATCH,
                            table,
                        )
                        for span in request.spans
                    ]
                )


class _Numbers(dict[Any, Any]):
    def __missing__(self, word: Any) -> Any:
        self[word] = None if word is None else len(self) + 1
        return self[word]


class _Words(dict[Any, Any]):
    def __missing__(self, word: Any) -> Any:
        return word


def measure(layout: Layout, load: Load, folder: Path | None) -> tuple[float, float, float]:
    """Return us of CPU and of the clock, and bytes on disk, a span."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        file = Path(name) / "layout.db"
        conn = sqlite3.connect(file, isolation_level=None)
        conn.executescript(
            f"PRAGMA page_size={layout.page}; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
            f" PRAGMA cache_size=-65536; PRAGMA wal_autocheckpoint={4000 * 4096 // layout.page};"
        )
        for statement in (*layout.ddl, BODIES):
            conn.execute(statement)
        insert = f"INSERT OR IGNORE INTO spans ({SPAN_COLUMNS}) VALUES ({','.join('?' * len(COLUMNS))})"
        bodies = load.compressed if layout.compressed else load.plain
        rows = load.rows[layout.words]
        cpu, clock = time.process_time(), time.perf_counter()
        for begin in range(0, len(rows), BATCH):
            end = begin + BATCH
            conn.execute("BEGIN IMMEDIATE")
            conn.executemany(insert, [row for of_request in rows[begin:end] for row in of_request])
            conn.executemany("INSERT INTO bodies VALUES (?, ?)", enumerate(bodies[begin:end], begin))
            conn.execute("COMMIT")
        cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
        conn.close()
        return cpu / load.count * 1e6, clock / load.count * 1e6, file.stat().st_size / load.count


def main() -> None:
    """Measure each layout in turn, a few rounds, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spans", type=int, default=24_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure")
    options = parser.parse_args()
    load = Load(options.spans)
    print(f"{load.count} spans; SQLite {sqlite3.sqlite_version}; rows and bodies made beforehand")
    samples: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(options.rounds):
        for layout in LAYOUTS:
            samples.setdefault(layout.name, []).append(measure(layout, load, options.folder))
    for name, values in samples.items():
        cpu, clock, disk = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:38} {cpu:5.1f} us CPU {clock:6.1f} us clock {disk:6.0f} bytes")


if __name__ == "__main__":
    main()
