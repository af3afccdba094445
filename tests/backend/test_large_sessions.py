"""Sessions of many spans: their structure is made one session at a time, beside what is small."""

from __future__ import annotations

import asyncio
import threading

from aiohttp import ClientSession
from api_client import Reader
from otlp_requests import span, traces

from otel_sessions.backend.api import sessions as sessions_module
from otel_sessions.backend.app import running
from otel_sessions.backend.clock import system_clock
from otel_sessions.backend.settings import Address, Settings
from otel_sessions.backend.store.sqlite import SqliteStore

LOOPBACK = Address("127.0.0.1", 0)


def test_of_large_sessions_one_is_read_at_a_time_and_small_ones_do_not_wait(tmp_path, monkeypatch):
    """Each takes memory and Python's lock from all others; who asks for little is not behind them."""
    monkeypatch.setattr(sessions_module, "LARGE", 3)
    go, reading, most = threading.Event(), [], []
    columns = SqliteStore.columns

    def held(self, session_id, after=None):
        rows = columns(self, session_id, after)
        if len(rows.start) > 3:
            reading.append(session_id)
            most.append(len(reading))
            assert go.wait(30)
            reading.remove(session_id)
        return rows

    monkeypatch.setattr(SqliteStore, "columns", held)

    async def claim() -> None:
        settings = Settings(LOOPBACK, LOOPBACK, tmp_path, 300 * 10**9)
        async with running(settings, system_clock()) as (listening, _), ClientSession() as client:
            reader = Reader(client, f"http://{listening.http}")
            for name, count in (("a", 9), ("b", 9), ("small", 3)):
                await reader.post_traces(traces([span(name, f"step {n}") for n in range(count)]))
            asked = [asyncio.create_task(reader.get(f"/api/v1/sessions/{name}/rows")) for name in "aabb"]
            while not reading:  # noqa: ASYNC110 - told by a thread
                await asyncio.sleep(0.005)
            assert (await reader.get("/api/v1/sessions/small/rows"))["total"] == 3
            go.set()
            assert [answer["total"] for answer in await asyncio.gather(*asked)] == [9] * 4
            assert most == [1] * 4

    asyncio.run(claim())
