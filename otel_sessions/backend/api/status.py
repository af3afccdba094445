"""How the server itself is: alive, ready, its counters as JSON and for Prometheus."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Final

from aiohttp import web

from otel_sessions._version import __version__
from otel_sessions.backend.api.problems import ProblemError
from otel_sessions.backend.api.shapes import JsonObject, ns
from otel_sessions.backend.replies import API_HEADERS, answer
from otel_sessions.backend.services import Services
from otel_sessions.backend.store.base import Totals
from otel_sessions.errors import BackendError

__all__ = ["healthz", "metrics", "prometheus_text", "readyz", "status"]

_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX: Final = "otel_sessions_backend"
_GAUGES: Final = frozenset(
    {
        "store_bytes_on_disk",
        "store_chunks",
        "store_logs",
        "store_sessions",
        "store_sessions_by_state",
        "store_spans",
        "ingest_waiting_bytes",
        "ingest_waiting_requests",
        "stream_readers",
        "stream_watched_runs",
    }
)
"""What may fall again; all else only grows until a restart."""


async def healthz(_services: Services, _request: web.Request) -> web.Response:
    """Answer, which is all that is asked."""
    return web.Response(text="ok\n", headers=API_HEADERS)


async def readyz(services: Services, _request: web.Request) -> web.Response:
    """Tell whether the store can be read. Raises ProblemError (503) where it can't."""
    try:
        await asyncio.to_thread(services.store.totals)
    except BackendError as exc:
        raise ProblemError(503, str(exc), headers={"Retry-After": "2"}) from exc
    return web.Response(text="ready\n", headers=API_HEADERS)


async def status(services: Services, request: web.Request) -> web.Response:
    """Show version, totals and counters."""
    event_id, now = services.live.last_event_id(), services.clock.wall()
    counted = _counters(services)

    def read() -> JsonObject:
        return {
            "version": __version__,
            "started_at": ns(services.started_at),
            "now": ns(now),
            "event_id": event_id,
            "idle_after": ns(services.settings.idle_after),
            "store": dataclasses.asdict(_totals(services, now)),
            **counted,
        }

    return await answer(request, read)


async def metrics(services: Services, _request: web.Request) -> web.Response:
    """Show the counters in Prometheus' text format."""
    counted = _counters(services)
    totals = await asyncio.to_thread(_totals, services, services.clock.wall())
    body = prometheus_text({"store": dataclasses.asdict(totals), **counted}).encode()
    return web.Response(body=body, headers={**API_HEADERS, "Content-Type": _PROMETHEUS})


def _totals(services: Services, now: int) -> Totals:
    return services.store.totals(idle_before=now - services.settings.idle_after)


def _counters(services: Services) -> JsonObject:
    """Collect what is counted in memory; in the event loop, where it is counted."""
    ingest = dataclasses.asdict(services.ingest.stats())
    metrics_seen = ingest.pop("metrics_seen")
    return {
        "ingest": ingest,
        "receivers": {name: dict(tally.counts) for name, tally in services.receivers.items()},
        "stream": dataclasses.asdict(services.live.stats()),
        "metrics_seen": metrics_seen,
    }


def prometheus_text(counted: Mapping[str, Mapping[str, object]]) -> str:
    """Write counters in Prometheus' text format.

    Single numbers become a metric each. Of groups, the key is a label: sessions by state, answers of a
    receiver. Names of metrics that senders chose stay out: they would be labels without bound.
    """
    store, receivers = counted["store"], counted["receivers"]
    groups = [("store", store), ("ingest", counted["ingest"]), ("stream", counted["stream"])]
    singles = {
        f"{group}_{name}": [("", value)]
        for group, values in groups
        for name, value in values.items()
        if isinstance(value, int)
    }
    labelled = {
        "store_sessions_by_state": [
            (f'{{state="{name}"}}', n) for name, n in _numbers(store["sessions_by_state"])
        ],
        "receiver_requests": [
            (f'{{receiver="{name}",answer="{word}"}}', n)
            for name, tally in receivers.items()
            for word, n in _numbers(tally)
        ],
    }
    return "".join(
        line + "\n" for name, values in {**singles, **labelled}.items() for line in _metric(name, values)
    )


def _metric(name: str, values: list[tuple[str, int]]) -> Iterator[str]:
    full, kind = (name, "gauge") if name in _GAUGES else (f"{name}_total", "counter")
    yield f"# TYPE {_PREFIX}_{full} {kind}"
    for labels, value in values:
        yield f"{_PREFIX}_{full}{labels} {value}"


def _numbers(values: object) -> list[tuple[str, int]]:
    return list(values.items()) if isinstance(values, Mapping) else []
