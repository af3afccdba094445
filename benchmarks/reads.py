"""What reading costs as the store grows: the list, one session, one trace, a search; and how late others are.

One real `serve` on one folder, which grows from step to step; every read over HTTP, uncompressed, one at a
time. "late" is the longest that `/healthz` took while four readers opened the session of 200,000 spans at
once: how long the event loop kept others waiting. Ratios are to the first step, in the same run.

    python benchmarks/reads.py [--spans 10000 100000 1000000] [--repeat 30] [--json FILE] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from sessions import fill

from otel_sessions.backend.store.sqlite import SqliteStore

SERVE = [sys.executable, "-m", "otel_sessions.cli.main", "serve", "--json"]
LISTEN = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
SPANS_EACH = 100  # of the sessions of the list
SIZES = (50, 1_000, 10_000, 200_000)  # of the sessions that are opened
LARGEST_WHOLE = 10_000  # of the traces that are read with all contents
READERS = 4


@contextlib.contextmanager
def served(folder: Path) -> Generator[tuple[str, int]]:
    """Run a backend on a folder; yield its address and its process id."""
    process = subprocess.Popen([*SERVE, *LISTEN, "--data", str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["http"], process.pid
    finally:
        process.terminate()
        process.communicate()


def get(address: str, path: str, *, zipped: bool = False) -> bytes:
    """Read one answer."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=120)) as connection:
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"} if zipped else {})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, body[:200])
        return gzip.decompress(body) if answer.headers["Content-Encoding"] == "gzip" else body


def milliseconds(read: Callable[[], object], repeat: int) -> dict[str, float]:
    """Return p50 and p99 of a read, after one that warms."""
    read()
    taken: list[float] = []
    for _ in range(repeat):
        began = time.perf_counter()
        read()
        taken.append((time.perf_counter() - began) * 1e3)
    taken.sort()
    return {"p50": statistics.median(taken), "p99": taken[min(len(taken) - 1, round(len(taken) * 0.99))]}


def rss(pid: int, line: str = "VmRSS") -> float:
    """Return a figure of a process's memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split(f"{line}:")[1].split()[0]) / 1024


def late(address: str, path: str) -> dict[str, float]:
    """Open something by several readers at once; return how long that took and others had to wait."""
    done = threading.Event()
    waits: list[float] = []

    def ask() -> None:
        with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            while not done.is_set():
                began = time.perf_counter()
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                waits.append((time.perf_counter() - began) * 1e3)
                time.sleep(0.005)

    asking = threading.Thread(target=ask)
    asking.start()
    began = time.perf_counter()
    command = [sys.executable, "-c", _READ, f"http://{address}{path}"]
    readers = [subprocess.Popen(command) for _ in range(READERS)]
    for reader in readers:
        assert reader.wait() == 0
    took = (time.perf_counter() - began) * 1e3
    done.set()
    asking.join()
    waits.sort()
    return {"all_read": took, "others_p99": waits[round(len(waits) * 0.99) - 1], "others_max": waits[-1]}


_READ = """
import sys, urllib.request
asked = urllib.request.Request(sys.argv[1], headers={"Accept-Encoding": "gzip"})
urllib.request.urlopen(asked, timeout=120).read()
"""


def measure_lists(folder: Path, steps: Sequence[int], repeat: int) -> list[dict[str, Any]]:
    """Grow the store and read the list, a small trace and a search at each step."""
    told: list[dict[str, Any]] = []
    stored = 0
    for spans in steps:
        store = SqliteStore(folder)
        fill(store, f"step{spans}", (spans - stored) // SPANS_EACH, SPANS_EACH)
        store.close()
        stored = spans
        session = f"step{spans}-0"
        with served(folder) as (address, pid):
            reads = {
                "list of 50": "/api/v1/sessions?limit=50",
                "list of 50, by a word": f"/api/v1/sessions?limit=50&q={session}",
                "session of 100": f"/api/v1/sessions/{session}",
                "rows of 100": f"/api/v1/sessions/{session}/rows",
                "search, 50 hits": "/api/v1/search?q=telemetry&limit=50",
            }
            for what, path in reads.items():
                taken = milliseconds(lambda path=path: get(address, path), repeat)
                told.append({"spans": spans, "read": what, **taken, "rss_mib": rss(pid)})
    return told


def measure_sizes(folder: Path, repeat: int) -> list[dict[str, Any]]:
    """Open sessions of several sizes, and watch the rest while the largest is opened by many."""
    store = SqliteStore(folder)
    traces = {size: fill(store, f"size{size}", 1, size, spans_a_trace=size)[0] for size in SIZES}
    store.close()
    told: list[dict[str, Any]] = []
    with served(folder) as (address, pid):
        for size, trace in traces.items():
            for what, path in (
                ("session", f"/api/v1/sessions/size{size}-0"),
                ("rows", f"/api/v1/sessions/size{size}-0/rows"),
                ("the trace, whole (Jaeger)", f"/jaeger/api/traces/{trace.hex()}"),
            ):
                if what.endswith("(Jaeger)") and size > LARGEST_WHOLE:
                    continue
                many = repeat if size <= 1_000 else 5
                taken = milliseconds(lambda path=path: get(address, path, zipped=True), many)
                told.append({"spans": size, "read": what, **taken, "rss_mib": rss(pid)})
        largest = f"/api/v1/sessions/size{SIZES[-1]}-0/rows"
        crowd = {"read": f"rows, {READERS} readers at once", **late(address, largest)}
        told.append({"spans": SIZES[-1], **crowd, "rss_mib": rss(pid, "VmHWM")})
    return told


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table; ratios are to the first row of the same read."""
    first: dict[str, float] = {}
    print(f"{'read':28} {'spans':>9} {'p50 ms':>9} {'p99 ms':>9} {'ratio':>7} {'RSS MiB':>8}")
    for row in rows:
        if "p50" not in row:
            figures = ", ".join(
                f"{name} {row[name]:.0f} ms" for name in ("all_read", "others_p99", "others_max")
            )
            print(f"{row['read']:28} {row['spans']:9} {figures}, peak RSS {row['rss_mib']:.0f} MiB")
            continue
        ratio = row["p50"] / first.setdefault(row["read"], row["p50"])
        print(
            f"{row['read']:28} {row['spans']:9} {row['p50']:9.1f} {row['p99']:9.1f} {ratio:7.1f}"
            f" {row['rss_mib']:8.0f}"
        )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spans", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        lists = measure_lists(Path(folder, "lists"), options.spans, options.repeat)
        show(lists)
        sizes = measure_sizes(Path(folder, "sizes"), options.repeat)
        show(sizes)
    if options.json:
        options.json.write_text(json.dumps({"lists": lists, "sizes": sizes}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
