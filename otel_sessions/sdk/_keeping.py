"""What becomes of life cycle events that their target did not take at once: they are kept as spans are.

Before it: `_sender.py`, which tries each event once. After it: `_courier.py`. A start that only arrives after
its program has died still tells that there was a run: without it the backend would know that run's spans
alone, and take what is dead for something that never gave a sign of life. Heartbeats are never kept: later
they lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_sessions.sdk._courier import Courier, Destination
from otel_sessions.sdk._outbox import Pacing
from otel_sessions.sdk._parcel import Parcel
from otel_sessions.sdk._spool import Limits, Spool, parcel_now

if TYPE_CHECKING:
    from otel_sessions.sdk._answer import Transport
    from otel_sessions.sdk._endpoint import Endpoint
    from otel_sessions.sdk._events import Event

__all__ = ["keeper", "parcel_of"]

_WHAT: Final = "life cycle events"


def keeper(endpoint: Endpoint, spool: Path, connect: Callable[[], Transport], pacing: Pacing) -> Courier:
    """Make the courier of the events that have to wait."""
    return Courier(
        Destination(
            endpoint.address,
            connect,
            lambda: Spool(spool, "logs", endpoint.address, Limits(), recipient=endpoint.recipient),
            lambda parcel: [parcel],
            timeout=endpoint.timeout,
            pacing=pacing,
            what=_WHAT,
        )
    )


def parcel_of(events: Sequence[Event], body: bytes) -> Parcel:
    """Put the request that says these events into a parcel."""
    return parcel_now(body, dict(Counter(event.session_id for event in events)))
