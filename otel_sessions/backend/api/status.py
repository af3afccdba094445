"""How the server itself is: alive, ready, its counters as JSON and for Prometheus."""

from __future__ import annotations

import asyncio
import dataclasses
import platform
import shutil

from aiohttp import hdrs, web

from otel_sessions._version import __version__
from otel_sessions.backend.api.problems import ProblemError
from otel_sessions.backend.api.shapes import JsonObject, ns
from otel_sessions.backend.metrics import exposition
from otel_sessions.backend.provenance import install_command
from otel_sessions.backend.records import Emitter
from otel_sessions.backend.replies import API_HEADERS, answer
from otel_sessions.backend.services import Services
from otel_sessions.backend.store.base import Totals
from otel_sessions.backend.vitals import SECONDS, SESSIONS, EmitterCounts
from otel_sessions.errors import BackendError

__all__ = ["healthz", "metrics", "readyz", "status"]


async def healthz(_services: Services, _request: web.Request) -> web.Response:
    """Answer, which is all that is asked."""
    return web.Response(text="ok\n", headers=API_HEADERS)


async def readyz(services: Services, _request: web.Request) -> web.Response:
    """Tell whether requests can be stored and read. Raises ProblemError (503) that says why they can't."""
    trouble = services.ingest.trouble()
    if trouble is not None:
        raise ProblemError(503, trouble, headers={"Retry-After": "2"})
    try:
        await asyncio.to_thread(services.store.totals)
    except BackendError as exc:
        raise ProblemError(503, str(exc), headers={"Retry-After": "2"}) from exc
    return web.Response(text="ready\n", headers=API_HEADERS)


async def status(services: Services, request: web.Request) -> web.Response:
    """Show version, totals and counters."""
    event_id, now = services.live.last_event_id(), services.clock.wall()
    counted = {**_counters(services), **_vitals(services)}

    def read() -> JsonObject:
        return {
            "version": __version__,
            "started_at": ns(services.started_at),
            "now": ns(now),
            "event_id": event_id,
            "idle_after": ns(services.settings.idle_after),
            "python": platform.python_version(),
            "install": install_command(),
            "disk": _disk(services),
            "store": dataclasses.asdict(_totals(services, now)),
            **counted,
        }

    return await answer(request, read)


async def metrics(services: Services, request: web.Request) -> web.Response:
    """Show how the server is, in Prometheus' text format or as OpenMetrics, which is asked for by Accept."""
    totals = await asyncio.to_thread(_totals, services, services.clock.wall())
    body, content_type = exposition(services, totals, request.headers.get(hdrs.ACCEPT, ""))
    return web.Response(body=body, headers={**API_HEADERS, hdrs.CONTENT_TYPE: content_type})


def _totals(services: Services, now: int) -> Totals:
    return services.store.totals(idle_before=now - services.settings.idle_after)


def _disk(services: Services) -> JsonObject:
    """Return where the data lies, and the room on that disk; null where the system does not tell."""
    folder = services.settings.data
    try:
        usage = shutil.disk_usage(folder)
    except OSError:  # it was removed, or is of another machine that is gone
        return {"folder": str(folder), "size": None, "free": None}
    return {"folder": str(folder), "size": usage.total, "free": usage.free}


def _vitals(services: Services) -> JsonObject:
    """Collect how it does just now; in the event loop, where it is counted."""
    counts, retention = services.ingest.counts, services.settings.retention
    rate, spread = counts.rates.at(services.clock.monotonic()), counts.recent.spread()
    return {
        "trouble": services.ingest.trouble(),
        "rates": {"seconds": SECONDS, **{name: round(value, 2) for name, value in rate._asdict().items()}},
        "commits": {
            "count": spread.count,
            "p50": ns(spread.p50),
            "p99": ns(spread.p99),
            "max": ns(spread.max),
        },
        "retention": {
            "age": ns(retention.age),
            "size": retention.size,
            "looked_at": ns(counts.chores.looked_at),
            "removed_at": ns(counts.chores.removed_at),
            "trouble": counts.chores.trouble or None,
        },
        "emitters": [_emitter_json(emitter, sent) for emitter, sent in counts.emitters.counts()],
    }


def _emitter_json(emitter: Emitter, sent: EmitterCounts) -> JsonObject:
    return {
        "service": emitter.service or None,
        "sdk": emitter.sdk or None,
        "sdk_version": emitter.version or None,
        "others": sent.others,
        "spans": sent.spans,
        "logs": sent.logs,
        "sessions": len(sent.sessions),
        "sessions_exact": len(sent.sessions) < SESSIONS,
        "last_seen_at": ns(sent.last_seen_at),
    }


def _counters(services: Services) -> JsonObject:
    """Collect what is counted in memory; in the event loop, where it is counted."""
    ingest = dataclasses.asdict(services.ingest.stats())
    apart = {name: ingest.pop(name) for name in ("metrics_seen", "metric_sessions", "redacted")}
    return {
        "ingest": ingest,
        "receivers": {name: tally.by_word() for name, tally in services.receivers.items()},
        "stream": dataclasses.asdict(services.live.stats()),
        **apart,
    }
