"""Silence around our exporter: it must neither trace its own requests nor chatter while nobody answers.

The official exporters log each retry. Those lines are taken out, for our thread only, and their reason is
kept for the one line that we say ourselves.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from opentelemetry import context as otel
from opentelemetry import trace

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["RetryLines", "is_suppressed", "suppressed"]

_TALKERS: Final = ("opentelemetry.exporter.", "otel_sessions.sdk._grpc")
"""How the names begin of modules that log what became of a request; each logger is named for its module."""
_INDIGESTIBLE: Final = ("Failed to encode", "Dropping span batch")
_SUPPRESS: Final = "suppress_instrumentation"
_NOBODYS_TRACE: Final = 1
_LENGTH: Final = 200


class OnRetry(Protocol):
    """Is told why a request has to be repeated, and whether anybody answered it."""

    def __call__(self, reason: str, *, reached: bool) -> None:
        """Take note."""
        ...


class RetryLines(logging.Filter):
    """Takes the official exporters' log lines of the thread that listens, and keeps what they tell.

    `reason` is the last one said since `begin()`; `indigestible` tells that the batch could not even be
    made into a request.
    """

    def __init__(self, on_retry: OnRetry) -> None:
        super().__init__()
        self._on_retry = on_retry
        self._thread: int | None = None
        self._heard: Sequence[logging.Logger] = ()
        self.reason: str | None = None
        self.indigestible = False

    def listen(self) -> None:
        """Begin to take the lines of the calling thread, which has imported its exporter."""
        self._thread = threading.get_ident()
        self._heard = [logging.getLogger(name) for name in list(sys.modules) if name.startswith(_TALKERS)]
        for logger in self._heard:
            logger.addFilter(self)

    def leave(self) -> None:
        """Take no more lines: another thread may have the same identity."""
        self._thread = None
        for logger in self._heard:
            logger.removeFilter(self)

    def begin(self) -> None:
        """Forget what was said of earlier batches."""
        self.reason = None
        self.indigestible = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the reason of our thread's lines, and let all others pass."""
        if record.thread != self._thread:
            return True
        message = record.getMessage()
        if message.startswith(_INDIGESTIBLE):
            self.indigestible = True
        if "timeout, max retries or shutdown" not in message and "Shutdown in progress" not in message:
            self.reason = _short(message)
            self._on_retry(self.reason, reached=not _is_silence(record))
        return False


def _is_silence(record: logging.LogRecord) -> bool:
    """Tell a failure to connect, which is logged as an exception or as UNAVAILABLE, from an answer."""
    said: tuple[object, ...] = record.args if isinstance(record.args, tuple) else ()
    return any(isinstance(item, Exception) or str(item) == "StatusCode.UNAVAILABLE" for item in said)


def _short(message: str) -> str:
    """Return the cause within a message: of an error of the network the system's own words."""
    refused = re.search(r"\[Errno -?\d+\] [A-Za-z ,]+|timed out|certificate verify failed", message)
    if refused:
        return refused[0]
    status = re.search(r"code: (\d{3}), reason: (.{0,120})", message, re.DOTALL)
    return f"HTTP {status[1]} {status[2]}" if status else message[:_LENGTH]


def is_suppressed(span: ReadableSpan) -> bool:
    """Tell whether a span was started in such a block all the same, by a sampler that samples everything."""
    context = span.get_span_context()
    return context is not None and context.trace_id == _NOBODYS_TRACE


@contextmanager
def suppressed() -> Generator[None]:
    """Keep instrumentations of HTTP clients from tracing what this thread sends.

    Their own switch is a key of the Context; an unsampled current span covers others under the usual
    samplers.
    """
    unsampled = trace.NonRecordingSpan(trace.SpanContext(_NOBODYS_TRACE, span_id=1, is_remote=False))
    token = otel.attach(trace.set_span_in_context(unsampled, otel.set_value(_SUPPRESS, True)))
    try:
        yield
    finally:
        otel.detach(token)
