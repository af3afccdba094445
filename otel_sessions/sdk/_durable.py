"""Our own way out: batches are encoded once, kept on disk, and carried until they are acknowledged.

Before it: `_export.py` makes batches, in its thread. After it: `_courier.py`. Nothing here waits for a
network.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_sessions import semconv
from otel_sessions.sdk._amend import missing
from otel_sessions.sdk._courier import Courier, Destination
from otel_sessions.sdk._critical import critical
from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._ledger import counted_in, ledgers
from otel_sessions.sdk._split import split_parcel
from otel_sessions.sdk._spool import Limits, Spool, parcel_now
from otel_sessions.sdk._transport import open_transport
from otel_sessions.sdk._way import Outbound, Sent, Way
from otel_sessions.sdk._wire import Encoded, Item, attributes_of, encode_requests

if TYPE_CHECKING:
    from otel_sessions.sdk._endpoint import Endpoint

__all__ = ["DurableWay"]

_REQUESTS: Final = 64 * 1024 * 1024
"""Bytes of requests that are encoded where spans end, and not on disk yet: about 150,000 spans."""
_REQUEST: Final = 3 * 1024 * 1024
"""Bytes of a request. gRPC servers take 4 MiB unless told otherwise, the Collector's among them."""


class DurableWay:
    """The way to an OTLP endpoint."""

    def __init__(self, endpoint: Endpoint, spool: Path | None) -> None:
        """`spool` is the folder of requests that wait; None keeps them in memory."""
        self._target = endpoint.address
        self._dropped: Counter[str] = Counter()
        self._relief = _Relief()
        self._courier = Courier(
            Destination(
                endpoint.address,
                lambda: open_transport(endpoint, "traces"),
                None if spool is None else lambda: _spool(spool, endpoint),
                split_parcel,
                timeout=endpoint.timeout,
            ),
            lost=_count_lost,
        )

    def start(self) -> None:
        """Start the courier while there may be a thread; it imports when there is something to send."""
        self._courier.start()

    def open(self) -> None:
        """Import nothing: the courier does."""

    def send(self, batch: Sequence[Outbound]) -> None:
        """Encode a batch, and give it to the courier; a span that can't be encoded is lost alone."""
        for encoded in self._relief.whole():
            self._courier.take(parcel_now(encoded.body, encoded.sessions))
        for encoded in self._encoded_safely(batch):
            self._courier.take(parcel_now(encoded.body, encoded.sessions))

    @property
    def has_room(self) -> bool:
        """Whether what is encoded, and not on disk yet, leaves room for more."""
        return self._relief.size < _REQUESTS

    def relieve(self, batch: Sequence[Outbound]) -> None:
        """Encode a batch in whatever thread; the worker's next `send` takes it from there."""
        for encoded in self._encoded_safely(batch):
            self._relief.add(encoded)

    @property
    def relieved(self) -> int:
        """How many spans are encoded, and wait for the next `send`."""
        return self._relief.spans

    def _encoded_safely(self, batch: Sequence[Outbound]) -> list[Encoded]:
        with guard("encode"):
            return self._encoded([_item(outbound) for outbound in batch])
        return self._encoded_singly(batch)

    def _encoded(self, items: Sequence[Item]) -> list[Encoded]:
        resource = {semconv.PROCESS_PID: os.getpid()}
        return list(encode_requests(items, limit=_REQUEST, resource=resource))

    def _encoded_singly(self, batch: Sequence[Outbound]) -> list[Encoded]:
        found: list[Encoded] = []
        for outbound in batch:
            before = len(found)
            with guard("encode"):
                found += self._encoded([_item(outbound)])
            if len(found) == before:
                self._lose({_session_of(outbound): 1}, "unsendable")
        return found

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._courier.sending

    def flush(self, deadline: float) -> bool:
        """Wait until all that was sent has arrived, or was refused."""
        return self._courier.flush(deadline)

    def hasten(self, nobody_listens: threading.Event) -> None:
        """Set nothing: `send` does not wait for anybody."""

    def replaced_by(self, other: Way | None) -> None:  # noqa: ARG002 - the protocol's
        """Go on until all is delivered."""
        self.send(())
        self._courier.retire()

    def stop(self, deadline: float) -> None:
        """Deliver what can be until `deadline`; the rest stays on disk."""
        for encoded in self._relief.whole():  # the disk held the worker up; it shall not hold up this
            self._lose(encoded.sessions, "not sent in time")
        self._courier.stop(deadline)

    def _lose(self, sessions: Mapping[str, int], why: str) -> None:
        for session, number in sessions.items():
            self._dropped[why] += number
            _count_lost(session, number, why)

    def abandon(self) -> None:
        """Nothing holds this way up: its thread is a daemon."""

    def sent(self) -> Sent:
        """Return what became of the spans that were sent this way."""
        carried, stopped = self._courier.carried(), self._courier.stopped
        return Sent(
            sent=carried.sent,
            pending=carried.waiting + (0 if stopped else carried.kept),
            kept=carried.kept if stopped else 0,
            dropped=dict(Counter(carried.dropped) + self._dropped),
            answering=carried.answering,
            trouble=carried.trouble,
            target=self._target,
            on_disk=carried.kept,
        )

    def after_fork_in_child(self) -> None:
        """Let go of the spool: the parent sends what it took."""
        self._relief = _Relief()
        self._courier.after_fork_in_child()


class _Relief:
    """Requests that were encoded where spans end, until the worker takes them; for any thread."""

    __slots__ = ("_lock", "_requests", "size", "spans")

    def __init__(self) -> None:
        # Reentrant, for the collector may end a suspended generator's span in the midst of it.
        self._lock = threading.RLock()
        self._requests: deque[Encoded] = deque()
        self.size = 0
        self.spans = 0

    @critical
    def add(self, encoded: Encoded) -> None:
        """Keep a request."""
        with self._lock:
            self._requests.append(encoded)
            self.size += len(encoded.body)
            self.spans += sum(encoded.sessions.values())

    def whole(self) -> Iterator[Encoded]:
        """Take all there is, put together into requests of a good size: OTLP is joined by concatenation."""
        taken = self._take()
        while taken:
            bodies: list[bytes] = []
            sessions: Counter[str] = Counter()
            size = 0
            while taken and (not bodies or size + len(taken[0].body) <= _REQUEST):
                encoded = taken.popleft()
                bodies.append(encoded.body)
                sessions.update(encoded.sessions)
                size += len(encoded.body)
            yield Encoded(b"".join(bodies), sessions)
            self._forget(size, sum(sessions.values()))

    @critical
    def _take(self) -> deque[Encoded]:
        with self._lock:
            taken, self._requests = self._requests, deque()
        return taken

    @critical
    def _forget(self, size: int, spans: int) -> None:
        with self._lock:
            self.size -= size
            self.spans -= spans


def _spool(root: Path, endpoint: Endpoint) -> Spool:
    return Spool(root, "traces", endpoint.address, Limits(), recipient=endpoint.recipient)


def _item(outbound: Outbound) -> Item:
    """Return what is encoded of a span: with what a limit took from it, or became known at its end."""
    span, place, late = outbound
    attributes = attributes_of(span)
    if place is not None or late:
        attributes.update(missing(attributes, place, late=late))
    return span, attributes, counted_in(attributes)


def _session_of(outbound: Outbound) -> str:
    """Return the session that counts a span which can't be encoded, where that is known."""
    _, place, late = outbound
    return "" if place is None or late else str(place.session_id or "")


def _count_lost(session: str, number: int, why: str) -> None:
    ledger = ledgers.find(session)
    if ledger is not None:
        ledger.lost(why, number)
