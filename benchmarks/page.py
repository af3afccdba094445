"""First paint and scrolling of a large session in a real browser, beside a plain list of all rows in the DOM.

A real `serve` holds the sessions; Chromium opens each, headless, at 1280 x 860. "paint" counts from when the
page had the rows (the end of their answer) to the second frame after they stand there; "open" from the start
of the navigation. The plain list is built in the same browser from the same number of rows, five nodes
each, as a page without virtual rows would: `content-visibility` or not makes no difference to its nodes. One
scroll is a jump to a random place until the second frame after it. Where a list takes longer than the limit
it is "unfinished".

    python benchmarks/page.py [--rows 10000 200000] [--jumps 60] [--plain-up-to 50000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from reads import rss, served
from sessions import fill

from otel_sessions.backend.store.sqlite import SqliteStore

ROW_HEIGHT = 26  # px
LIMIT_MS = 60_000
_TWO_FRAMES = (
    "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
)
_JUMP = f"""async ([selector, share]) => {{
  const box = document.querySelector(selector);
  const began = performance.now();
  box.scrollTop = share * (box.scrollHeight - box.clientHeight);
  return (await {_TWO_FRAMES}) - began;
}}"""
_PAINTED = f"""async () => {{
  while (!document.querySelector("[role=treegrid] [role=row]")) await new Promise(requestAnimationFrame);
  const painted = await {_TWO_FRAMES};
  const rows = performance.getEntriesByType("resource").filter((e) => e.name.endsWith("/rows")).at(-1);
  return {{ open: painted, paint: painted - rows.responseEnd, answer: rows.responseEnd - rows.startTime }};
}}"""
_PLAIN = f"""async (count) => {{
  const began = performance.now();
  const box = document.createElement("div");
  box.id = "list";
  box.style = "height: 800px; overflow: auto";
  const all = document.createDocumentFragment();
  for (let n = 0; n < count; n++) {{
    const row = document.createElement("div");
    row.style = "height: {ROW_HEIGHT}px; position: relative";
    const name = document.createElement("em");
    name.textContent = `step ${{n}}`;
    const track = document.createElement("span");
    const bar = document.createElement("i");
    bar.style = `position: absolute; left: ${{(n * 37) % 90}}%; width: 5%; height: 8px; background: teal`;
    track.append(bar);
    const took = document.createElement("b");
    took.textContent = `${{n % 900}} ms`;
    row.append(name, track, took);
    all.append(row);
  }}
  box.append(all);
  document.body.append(box);
  return (await {_TWO_FRAMES}) - began;
}}"""


def scrolled(page: Page, selector: str, jumps: int) -> dict[str, float]:
    """Jump to random places; return how long that took."""
    places = random.Random(1)
    taken = sorted(page.evaluate(_JUMP, [selector, places.random()]) for _ in range(jumps))
    return {"scroll_p50": statistics.median(taken), "scroll_p95": taken[round(len(taken) * 0.95) - 1]}


def weight(page: Page) -> dict[str, float]:
    """Return the nodes of a page and its heap in MiB, after a collection."""
    client = page.context.new_cdp_session(page)
    client.send("HeapProfiler.collectGarbage")
    client.send("Performance.enable")
    metrics = {one["name"]: one["value"] for one in client.send("Performance.getMetrics")["metrics"]}
    nodes = page.evaluate("document.getElementsByTagName('*').length")
    return {"nodes": nodes, "heap_mib": metrics["JSHeapUsedSize"] / 2**20}


def measure_ours(browser: Browser, address: str, rows: int, jumps: int) -> dict[str, Any]:
    """Open a session on our page."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.set_default_timeout(LIMIT_MS)
    page.goto(f"http://{address}/sessions/page{rows}-0", wait_until="commit")
    told = page.evaluate(_PAINTED)
    told |= scrolled(page, "[role=treegrid]", jumps) | weight(page)
    page.close()
    return {"what": "ours, virtual rows", "rows": rows, **told}


def measure_plain(browser: Browser, rows: int, jumps: int) -> dict[str, Any]:
    """Build a plain list of all rows."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.set_default_timeout(LIMIT_MS)
    page.set_content("<body></body>")
    began = time.monotonic()
    told: dict[str, Any] = {"paint": page.evaluate(_PLAIN, rows)}
    left = LIMIT_MS / 1e3 - (time.monotonic() - began)
    some = max(3, min(jumps, int(left * 1e3 / max(50.0, told["paint"]))))
    told |= scrolled(page, "#list", some) | weight(page)
    page.close()
    return {"what": "plain list in the DOM", "rows": rows, **told}


def show(told: Sequence[dict[str, Any]]) -> None:
    """Print a table."""
    columns = ("paint", "open", "answer", "scroll_p50", "scroll_p95", "nodes", "heap_mib", "backend_rss_mib")
    print(f"{'':24} {'rows':>7} " + " ".join(f"{name:>15}" for name in columns))
    for row in told:
        cells = [f"{row[name]:15.0f}" if name in row else f"{'-':>15}" for name in columns]
        print(f"{row['what']:24} {row['rows']:7} " + " ".join(cells))
    ours = {row["rows"]: row for row in told if row["what"].startswith("ours")}
    for row in told:
        if not row["what"].startswith("ours") and row["rows"] in ours:
            mine = ours[row["rows"]]
            ratios = {name: row[name] / mine[name] for name in ("paint", "scroll_p50", "nodes")}
            print(
                f"{row['rows']} rows: plain / ours " + ", ".join(f"{k} {v:.1f}x" for k, v in ratios.items())
            )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 200_000])
    parser.add_argument("--jumps", type=int, default=60)
    parser.add_argument("--plain-up-to", type=int, default=50_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        parser.error("no chromium on the path: apt-get install chromium")
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder, "data"))
        for rows in options.rows:
            fill(store, f"page{rows}", 1, rows)
        store.close()
        with served(Path(folder, "data")) as (address, pid), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for rows in options.rows:
                told.append(measure_ours(browser, address, rows, options.jumps))
                told[-1]["backend_rss_mib"] = rss(pid, "VmHWM")
            told += [
                measure_plain(browser, rows, options.jumps)
                for rows in sorted({min(rows, options.plain_up_to) for rows in options.rows})
            ]
            browser.close()
    show(told)
    if options.json:
        options.json.write_text(json.dumps(told, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
