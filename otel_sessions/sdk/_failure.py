"""What an exception leaves on a span: status ERROR and one exception event, bounded and sendable.

`record_exception` of OpenTelemetry is not used: it takes the whole of `str(exception)`, twice, lets out
what that raises, and half a surrogate pair in it makes the span unsendable. Nor is `traceback`'s way of
writing an exception, for it copies such a text several times: 30 MB held the program up for 0.1 s.
"""

from __future__ import annotations

import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.trace import StatusCode

from otel_sessions import semconv
from otel_sessions.sdk._guard import guard, text_of
from otel_sessions.sdk._values import clean, shortened, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from opentelemetry.trace import Span

__all__ = ["error_type", "fail"]

_MESSAGE: Final = 16 * 1024
"""Characters of an exception's text, wherever it stands; the rest is cut and marked."""
_STACKTRACE: Final = 64 * 1024
"""Characters of a stack trace. Its end is kept, which names the exception and where it was raised."""
_FRAMES: Final = 128
"""Frames that are written, those of the latest exception and the innermost ones first: each costs 0.1 ms, for
its line is looked up, and of an endless recursion there are a thousand."""
_EXCEPTIONS: Final = 32
"""Exceptions that are written, of a chain the latest ones, of a group the first ones."""
_NESTED: Final = 4
"""Groups within groups."""
_CUT: Final = "[cut]…\n"
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def fail(span: Span, error: BaseException | None, message: str | None = None, *, event: bool = True) -> None:
    """Give a span status ERROR, and record the exception as its one exception event."""
    said = None if message is None else shortened(to_json(message), _MESSAGE)
    if error is not None:
        text = shortened(text_of(error), _MESSAGE)
        said = clean(f"{type(error).__name__}: {text}") if said is None else said
        if event:
            with guard("exception event"):
                span.add_event(semconv.EXCEPTION_EVENT, _event(error, text))
    span.set_status(StatusCode.ERROR, said)


def error_type(error: BaseException) -> str:
    """Return what `error.type` says of an exception."""
    return clean(type(error).__qualname__)


def _event(error: BaseException, text: str) -> dict[str, Any]:
    return {
        semconv.EXCEPTION_TYPE: _full_type(error),
        semconv.EXCEPTION_MESSAGE: text,
        semconv.EXCEPTION_STACKTRACE: _end_of(_Trace().chain(error, text, 0)),
        "exception.escaped": "True",
    }


def _full_type(error: BaseException) -> str:
    module = type(error).__module__
    return error_type(error) if module == "builtins" else clean(f"{module}.{error_type(error)}")


class _Trace:
    """What one exception has room for."""

    __slots__ = ("exceptions", "frames")

    def __init__(self) -> None:
        self.exceptions = _EXCEPTIONS
        self.frames = _FRAMES

    def chain(self, error: BaseException, text: str, depth: int) -> list[str]:
        """Return the lines for an exception and what led to it, the first cause first, as Python does."""
        links: list[list[str]] = []
        seen: set[int] = set()
        before: tuple[BaseException, str] | None = (error, "")
        while before is not None and id(before[0]) not in seen:
            if self.exceptions == 0:
                links.append([_CUT])
                break
            self.exceptions -= 1
            link, joint = before
            seen.add(id(link))
            said = text if link is error else shortened(text_of(link), _MESSAGE)
            links.append([*self.one(link, said, depth), joint])
            before = _before(link)
        return [line for lines in reversed(links) for line in lines]

    def one(self, error: BaseException, text: str, depth: int) -> Iterator[str]:
        """Return the lines for an exception itself, its notes and its members."""
        yield from self.stack(error.__traceback__)
        yield f"{_full_type(error)}: {text}\n" if text else f"{_full_type(error)}\n"
        for note in _several(error, "__notes__"):
            yield shortened(to_json(note), _MESSAGE) + "\n"
        for number, member in enumerate(_several(error, "exceptions") if _is_group(error) else (), 1):
            if isinstance(member, BaseException) and self.exceptions and depth < _NESTED:
                yield f"  +---------------- {number} ----------------\n"
                said = shortened(text_of(member), _MESSAGE)
                for lines in self.chain(member, said, depth + 1):
                    yield "".join(f"  | {line}" for line in lines.splitlines(keepends=True))

    def stack(self, tb: TracebackType | None) -> Iterator[str]:
        """Return the lines for the innermost frames."""
        if tb is None:
            return
        yield "Traceback (most recent call last):\n"
        frames = sum(1 for _ in traceback.walk_tb(tb))
        if frames > self.frames:
            yield _CUT
        if self.frames:
            yield from traceback.format_tb(tb, limit=-self.frames)
            self.frames = max(0, self.frames - frames)


def _before(error: BaseException) -> tuple[BaseException, str] | None:
    if error.__cause__ is not None:
        return error.__cause__, _CAUSE
    if error.__context__ is not None and not error.__suppress_context__:
        return error.__context__, _CONTEXT
    return None


def _is_group(error: BaseException) -> bool:
    """Tell groups of Python 3.11 and of its backport from what has an attribute of that name only."""
    return any(kind.__name__ == "BaseExceptionGroup" for kind in type(error).__mro__)


def _several(error: BaseException, name: str) -> list[object]:
    """Return the first items of an attribute that foreign exceptions may have for purposes of their own."""
    with guard("exception event"):
        items: object = getattr(error, name, None)
        return list(cast("list[object]", items)[:_EXCEPTIONS]) if isinstance(items, (list, tuple)) else []
    return []


def _end_of(lines: Iterable[str]) -> str:
    """Return the last lines that have room."""
    kept: deque[str] = deque()
    room, cut = _STACKTRACE, ""
    for line in lines:
        short = shortened(line, _MESSAGE + len(_CAUSE))
        kept.append(short)
        room -= len(short)
        while room < 0:
            room += len(kept.popleft())
            cut = _CUT
    return cut + "".join(kept)
