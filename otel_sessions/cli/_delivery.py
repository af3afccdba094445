"""Parcels of a spool on their way at last: to whom they were meant for, and to nobody else.

A parcel is removed after its acknowledgement and never before; whatever is not taken stays where it is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, cast
from urllib.parse import urlsplit

from otel_sessions.cli._spooled import Entry, Recipient
from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._answer import Answer, Transport, Verdict
from otel_sessions.sdk._endpoint import Endpoint, Signal, resolve_endpoint
from otel_sessions.sdk._outbox import Pacing
from otel_sessions.sdk._parcel import Parcel
from otel_sessions.sdk._split import split_parcel
from otel_sessions.sdk._spool import spool_folder

__all__ = ["Delivery", "deliver", "endpoint_of"]

_TRIES: Final = 5
_LONGEST_WAIT: Final = 10.0
"""Seconds; a receiver that asks for more is taken to be out of order."""
_REFUSALS: Final = 3
"""After so many refusals in a row, and nothing taken, the others would fare no better."""
_OTHERS: Final = ("HEADERS", "CLIENT_KEY", "CLIENT_CERTIFICATE")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the parcels for one recipient, in spans or events; `left` are parcels still there."""

    sent: int = 0
    rejected: int = 0
    left: int = 0
    trouble: str = ""

    @property
    def complete(self) -> bool:
        """Whether everything was taken."""
        return not (self.left or self.rejected)


def endpoint_of(recipient: Recipient, environ: Mapping[str, str], *, renewed: bool = False) -> Endpoint:
    """Return where a recipient's parcels go; raise ConfigurationError where this environment can't tell.

    Headers and client certificate of the environment are for the recipient that they name, by address and by
    themselves, and for no other. `renewed` believes that at the same address they replace former ones.
    """
    signal = cast("Signal", recipient.signal)
    here = resolve_endpoint(signal, environ)
    if _is_for(recipient, here) or (renewed and recipient.address == here.address):
        return here
    if recipient.address is None:
        raise ConfigurationError("the file that names its address is gone: export it, and replay that")
    bare = resolve_endpoint(signal, _without_secrets(recipient.address, recipient.signal, environ))
    if _is_for(recipient, bare):
        return bare
    advice = ", or give --renewed if only a token was changed" if recipient.address == here.address else ""
    raise ConfigurationError(
        "it was written with headers, a query or a certificate that this environment does not have: "
        f"set OTEL_EXPORTER_OTLP_* as for the program that wrote it{advice}"
    )


def _is_for(recipient: Recipient, endpoint: Endpoint) -> bool:
    root, name = recipient.folder.parent, recipient.folder.name
    return spool_folder(root, recipient.signal, endpoint.recipient) == root / name


def _without_secrets(address: str, signal: str, environ: Mapping[str, str]) -> dict[str, str]:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_"
    dropped = {f"{prefix}{name}" for prefix in ("OTEL_EXPORTER_OTLP_", own) for name in _OTHERS}
    kept = {name: value for name, value in environ.items() if name not in dropped}
    parts = urlsplit(address)
    # OTLP/HTTP goes to a path, for which gRPC has no use.
    http = parts.scheme in ("http", "https") and parts.path.strip("/")
    return {**kept, f"{own}ENDPOINT": address, f"{own}PROTOCOL": "http/protobuf" if http else "grpc"}


def deliver(
    entries: Iterable[Entry],
    transport: Transport,
    timeout: float,
    advance: Callable[[], object],
    sleep: Callable[[float], None] = time.sleep,
) -> Delivery:
    """Send parcels one after another, and remove each when it was taken. `timeout` (s) is for a request.

    What is refused, or can't be read, stays and is passed by; where nobody answers the rest is not tried.
    """
    done, refusals, hopeless = Delivery(), 0, False
    for entry in entries:
        if hopeless or entry.parcel is None:
            done = _more(done, left=1, trouble=f"{entry.path.name}: {entry.trouble}")
            advance()
            continue
        answer = _send(entry.parcel, entry.signal, transport, timeout, sleep)
        if answer.verdict is Verdict.ACCEPTED:
            done, refusals = _taken(done, entry, entry.parcel, answer), 0
        else:
            done, refusals = _more(done, left=1, trouble=answer.detail), refusals + 1
            hopeless = answer.verdict is Verdict.AGAIN or (refusals >= _REFUSALS and not done.sent)
        advance()
    return done


def _taken(done: Delivery, entry: Entry, parcel: Parcel, answer: Answer) -> Delivery:
    rejected = min(answer.rejected, parcel.items)
    done = _more(
        done, sent=parcel.items - rejected, rejected=rejected, trouble=answer.detail if rejected else ""
    )
    try:
        entry.remove()
    except OSError as error:
        return _more(done, left=1, trouble=f"{entry.path} was taken and can't be removed: {error.strerror}")
    return done


def _more(done: Delivery, *, sent: int = 0, rejected: int = 0, left: int = 0, trouble: str = "") -> Delivery:
    return Delivery(done.sent + sent, done.rejected + rejected, done.left + left, done.trouble or trouble)


def _send(
    parcel: Parcel, signal: str, transport: Transport, timeout: float, sleep: Callable[[float], None]
) -> Answer:
    """Send a parcel until it is taken or refused, a few times; one of spans that is too large in parts."""
    answer = transport.send(parcel.body, timeout)
    for failures in range(1, _TRIES):
        if answer.verdict is not Verdict.AGAIN:
            break
        sleep(min(_LONGEST_WAIT, Pacing().pause(failures, answer.retry_after, random.random())))  # noqa: S311
        answer = transport.send(parcel.body, timeout)
    if signal != "traces" or parcel.items <= 1 or not (answer.too_large or answer.perhaps_too_large):
        return answer
    rejected = 0
    for part in split_parcel(parcel):
        answer = _send(part, signal, transport, timeout, sleep)
        if answer.verdict is not Verdict.ACCEPTED:
            return answer  # the parts that were taken will be sent again: spans are told apart by their ids
        rejected += answer.rejected
    return replace(answer, rejected=rejected)
