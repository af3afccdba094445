"""Our own way out: batches are encoded once, kept on disk, and carried until they are acknowledged.

Before it: `_export.py` makes batches, in its thread. After it: `_courier.py`. Nothing here waits for a
network.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_sessions import semconv
from otel_sessions.sdk._amend import missing
from otel_sessions.sdk._courier import Courier, Destination
from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._ledger import ledgers
from otel_sessions.sdk._split import split_parcel
from otel_sessions.sdk._spool import Limits, Spool, parcel_now
from otel_sessions.sdk._transport import open_transport
from otel_sessions.sdk._way import Outbound, Sent, Way
from otel_sessions.sdk._wire import Encoded, Item, attributes_of, encode_requests

if TYPE_CHECKING:
    import threading

    from otel_sessions.sdk._endpoint import Endpoint

__all__ = ["DurableWay"]

_REQUEST: Final = 3 * 1024 * 1024
"""Bytes of a request. gRPC servers take 4 MiB unless told otherwise, the Collector's among them."""


class DurableWay:
    """The way to an OTLP endpoint."""

    def __init__(self, endpoint: Endpoint, spool: Path | None) -> None:
        """`spool` is the folder of requests that wait; None keeps them in memory."""
        self._target = endpoint.address
        self._unsendable = 0
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
        """Start the courier while there may be a thread; it imports what it needs by itself."""
        self._courier.start()

    def open(self) -> None:
        """Import nothing: the courier does."""

    def send(self, batch: Sequence[Outbound]) -> None:
        """Encode a batch, and give it to the courier; a span that can't be encoded is lost alone."""
        encoded: list[Encoded] | None = None
        with guard("encode"):
            encoded = self._encoded([_item(outbound) for outbound in batch])
        if encoded is None:
            encoded = self._encoded_singly(batch)
        for body, sessions in encoded:
            self._courier.take(parcel_now(body, sessions))

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
                self._unsendable += 1
                _count_lost(_session_of(outbound), 1, "unsendable")
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
        self._courier.retire()

    def stop(self, deadline: float) -> None:
        """Deliver what can be until `deadline`; the rest stays on disk."""
        self._courier.stop(deadline)

    def abandon(self) -> None:
        """Nothing holds this way up: its thread is a daemon."""

    def sent(self) -> Sent:
        """Return what became of the spans that were sent this way."""
        carried, stopped = self._courier.carried(), self._courier.stopped
        unsendable = {"unsendable": self._unsendable} if self._unsendable else {}
        return Sent(
            sent=carried.sent,
            pending=carried.waiting + (0 if stopped else carried.kept),
            kept=carried.kept if stopped else 0,
            dropped={**carried.dropped, **unsendable},
            answering=carried.answering,
            trouble=carried.trouble,
            target=self._target,
            on_disk=carried.kept,
        )

    def after_fork_in_child(self) -> None:
        """Let go of the spool: the parent sends what it took."""
        self._courier.after_fork_in_child()


def _spool(root: Path, endpoint: Endpoint) -> Spool:
    return Spool(root, "traces", endpoint.address, Limits(), recipient=endpoint.recipient)


def _item(outbound: Outbound) -> Item:
    """Return what is encoded of a span: with what a limit took from it, or became known at its end."""
    span, place, late = outbound
    attributes = attributes_of(span)
    if place is None and not late:
        return span, attributes, str(attributes.get(semconv.SESSION_ID) or "")
    attributes.update(missing(attributes, place, late=late))
    return span, attributes, str(attributes.get(semconv.SESSION_ID) or "")


def _session_of(outbound: Outbound) -> str:
    """Return the session of a span that can't be encoded, where that is known."""
    place = outbound[1]
    return "" if place is None else str(place.session_id or "")


def _count_lost(session: str, number: int, why: str) -> None:  # noqa: ARG001 - as the courier tells it
    ledger = ledgers.find(session)
    if ledger is not None:
        ledger.lost(number)
