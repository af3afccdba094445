"""What an exception leaves on a span: status ERROR and one exception event, bounded and sendable.

`record_exception` of OpenTelemetry is not used: it takes the whole of `str(exception)`, twice, lets out
what that raises, and half a surrogate pair in it makes the span unsendable.
"""

from __future__ import annotations

import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import StatusCode

from otel_sessions import semconv
from otel_sessions.sdk._guard import guard, text_of
from otel_sessions.sdk._values import clean, shortened, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.trace import Span

__all__ = ["describe", "error_type", "fail"]

_MESSAGE: Final = 16 * 1024
"""Characters of an exception's text, wherever it stands; the rest is cut and marked."""
_STACKTRACE: Final = 64 * 1024
"""Characters of a stack trace. Its end is kept, which names the exception and where it was raised."""
_CUT: Final = "[cut]…\n"


def fail(span: Span, error: BaseException | None, message: str | None = None, *, event: bool = True) -> None:
    """Give a span status ERROR, and record the exception as its one exception event."""
    if error is not None and event:
        with guard("exception event"):
            span.add_event(semconv.EXCEPTION_EVENT, _event(error))
    said = describe(error) if message is None else shortened(to_json(message), _MESSAGE)
    span.set_status(StatusCode.ERROR, said)


def describe(error: BaseException | None) -> str | None:
    """Return an exception's type and text."""
    if error is None:
        return None
    return clean(f"{type(error).__name__}: {shortened(text_of(error), _MESSAGE)}")


def error_type(error: BaseException) -> str:
    """Return what `error.type` says of an exception."""
    return clean(type(error).__qualname__)


def _event(error: BaseException) -> dict[str, Any]:
    module, name = type(error).__module__, error_type(error)
    return {
        semconv.EXCEPTION_TYPE: name if module == "builtins" else f"{clean(module)}.{name}",
        semconv.EXCEPTION_MESSAGE: shortened(text_of(error), _MESSAGE),
        semconv.EXCEPTION_STACKTRACE: _stacktrace(error),
        "exception.escaped": "True",
    }


def _stacktrace(error: BaseException) -> str:
    with guard("stack trace"):
        return _end_of(traceback.TracebackException.from_exception(error, compact=True).format())
    return ""


def _end_of(lines: Iterable[str]) -> str:
    """Return the last lines, each shortened, that have room."""
    kept: deque[str] = deque()
    room, cut = _STACKTRACE, ""
    for line in lines:
        short = shortened(line, _MESSAGE)
        kept.append(short)
        room -= len(short)
        while room < 0:
            room += len(kept.popleft())
            cut = _CUT
    return cut + "".join(kept)
