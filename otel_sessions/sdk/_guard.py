"""The one place where our own faults are caught: counted, logged once, never passed on to user code.

Whatever user code calls goes through `guarded`, or runs inside `guard`; so do hooks, exporters and
processors of others that we call. `KeyboardInterrupt`, `SystemExit` and cancellations pass, and whatever a
signal handler of the program raised: they belong to the program.
"""

from __future__ import annotations

import functools
import logging
import signal
from collections import Counter
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import CodeType, TracebackType

__all__ = [
    "faults",
    "guard",
    "guarded",
    "guarded_hook",
    "ignored",
    "ignored_so_far",
    "say",
    "say_once",
    "text_of",
]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
A = TypeVar("A")
B = TypeVar("B")

_logger: Final = logging.getLogger("otel_sessions")
_faults: Final[Counter[str]] = Counter()
_ignored: Final[Counter[str]] = Counter()
_said: Final[set[object]] = set()


def faults() -> Mapping[str, int]:
    """Return how often each place of ours failed in this process."""
    return dict(_faults)


def guarded(place: str) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """Make a function return None where it would raise an Exception; the fault is counted under `place`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R | None]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R | None:
            try:
                return function(*args, **kwargs)
            except Exception as exc:
                if _is_the_programs(exc):
                    raise
                _note(place, exc)
                return None

        return wrapper

    return decorate


def guarded_hook(place: str) -> Callable[[Callable[[S, A, B], None]], Callable[[S, A, B], None]]:
    """Do the same for a method of two arguments that every span passes: half the price."""

    def decorate(method: Callable[[S, A, B], None]) -> Callable[[S, A, B], None]:
        @functools.wraps(method)
        def wrapper(self: S, a: A, b: B) -> None:
            try:
                method(self, a, b)
            except Exception as exc:
                if _is_the_programs(exc):
                    raise
                _note(place, exc)

        return wrapper

    return decorate


class guard:  # noqa: N801 - reads as a statement: `with guard("export"):`
    """Swallow, count and log once any Exception that leaves the block."""

    __slots__ = ("_place",)

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _type: type[BaseException] | None, exc: BaseException | None, _tb: TracebackType | None
    ) -> bool:
        if not isinstance(exc, Exception) or _is_the_programs(exc):
            return False
        _note(self._place, exc)
        return True


def say_once(key: object, message: str, *args: object) -> None:
    """Log a warning, the first time that `key` is given in this process."""
    if key not in _said:
        _said.add(key)
        say(message, *args)


def say(message: str, *args: object) -> None:
    """Log a warning; a handler or filter of the user's that raises harms nobody."""
    try:
        _logger.warning(message, *args)
    except Exception as exc:
        if _is_the_programs(exc):
            raise
        _faults["log"] += 1


def ignored(what: str, message: str, *args: object, number: int = 1) -> None:
    """Count what could not be recorded for no fault of ours, and say so the first time."""
    _ignored[what] += number
    say_once(("ignored", what), message, *args)


def ignored_so_far() -> Mapping[str, int]:
    """Return how much of each kind was ignored in this process."""
    return dict(_ignored)


def text_of(exc: BaseException) -> str:
    """Return an exception's text; whatever it raises instead of a text is none of the program's."""
    try:
        return str(exc)
    except BaseException:  # noqa: BLE001 - __str__ of a foreign exception, as `traceback` guards it too
        return f"<{type(exc).__name__} that has no text>"


def _is_the_programs(exc: BaseException) -> bool:
    """Tell whether a signal handler of the program raised it, in the midst of what we did: a time limit, say.

    Then it is meant for the program, which waits for it as for a KeyboardInterrupt. Only what fails pays for
    the look.
    """
    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    traceback = exc.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code in codes and not str(frame.f_globals.get("__name__")).startswith("otel_sessions."):
            return True
        traceback = traceback.tb_next
    return False


def _code_of(handler: object) -> CodeType | None:
    """Return the code that a signal handler runs first; None for what is none of Python's."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    handler = getattr(handler, "__func__", handler)
    if callable(handler) and not hasattr(handler, "__code__"):
        handler = type(handler).__call__
    return getattr(handler, "__code__", None)


def _note(place: str, exc: BaseException) -> None:
    _faults[place] += 1
    say_once(
        ("fault", place, type(exc)),
        "otel_sessions: %s failed and was skipped (%s: %s); further faults are counted in stats().faults",
        place,
        type(exc).__name__,
        text_of(exc),
    )
