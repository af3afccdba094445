"""What became of one request, whichever way it went.

The words between those who send (`_courier.py` spans, `_outbox.py` and `_sender.py` events) and the ways out
(`_transport.py`, `_grpc.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from otel_sessions._version import __version__

__all__ = ["USER_AGENT", "Answer", "Transport", "Verdict"]

USER_AGENT: Final = f"otel-sessions-python/{__version__}"


class Verdict(Enum):
    """What became of a request."""

    ACCEPTED = "accepted"
    AGAIN = "again"
    """Not taken now: the same request may be sent again."""
    REFUSED = "refused"
    """Not taken, and never will be: retrying is pointless, other requests may fare better."""
    UNSUPPORTED = "unsupported"
    """The target takes nothing of this signal."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of one request.

    `rejected` spans or records of an accepted request were not kept; `retry_after` (s) is the target's wish;
    `reached` tells whether anything answered, `timed_out` that it might have, later; `too_large` whether a
    part of it might be taken, `perhaps_too_large` that the target has no other word for that; `detail` is for
    people.
    """

    verdict: Verdict
    detail: str = ""
    rejected: int = 0
    retry_after: float | None = None
    reached: bool = True
    too_large: bool = False
    perhaps_too_large: bool = False
    timed_out: bool = False


class Transport(Protocol):
    """Something that takes serialised export requests of one signal."""

    def send(self, body: bytes, timeout: float) -> Answer:
        """Send one request within about `timeout` seconds; trouble of the network is an answer, too."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...
