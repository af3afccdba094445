"""Decorating the four kinds of functions: each call runs inside a block (a session, a task, a span).

Generators are inside of their block only while they run: what is current is put back at each `yield`, so
that the consumer never becomes a child of a suspended span, and a `break` or a close in another context
leaves nothing behind (otel-python #2606, openllmetry #3061, openinference #1769).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk import _context
from otel_sessions.sdk._values import shown

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Block", "Call", "decorated", "is_suspended", "put_back"]

F = TypeVar("F", bound=Callable[..., Any])


class Block(Protocol):
    """What a call runs in."""

    def __enter__(self) -> Any:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """End; the exception goes on."""
        ...


class Call:
    """The arguments of one call."""

    __slots__ = ("args", "function", "kwargs")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs

    def by_name(self) -> dict[str, Any]:
        """Return the arguments by their names, without `self` and `cls`."""
        bound = inspect.signature(self.function).bind(*self.args, **self.kwargs).arguments
        first = next(iter(bound), None)
        return {
            name: value for name, value in bound.items() if not (name == first and name in ("self", "cls"))
        }


Make = Callable[[Call], Block]
Returned = Callable[[Any, Any], None]


def decorated(function: F, make: Make, returned: Returned | None = None) -> F:
    """Return `function` so that each call runs in the block that `make` makes of it.

    `returned(block, value)` is told what a function or coroutine function returned. Raises
    ConfigurationError for what is no function.
    """
    if isinstance(function, (staticmethod, classmethod)):
        inner = cast("Callable[..., Any]", function.__func__)
        return cast("F", type(function)(decorated(inner, make, returned)))
    if not callable(function) or isinstance(function, type):
        raise ConfigurationError(f"{shown(function)} can't be decorated: give a function or method")
    if _is_any(function, inspect.isasyncgenfunction):
        wrapper: Any = _async_generator(function, make)
    elif _is_any(function, inspect.isgeneratorfunction):
        wrapper = _generator(function, make)
    elif _is_any(function, inspect.iscoroutinefunction):
        wrapper = _coroutine(function, make, returned)
    else:
        wrapper = _function(function, make, returned)
    return cast("F", functools.update_wrapper(wrapper, function))


def is_suspended(function: Callable[..., Any]) -> bool:
    """Tell whether what a call returns does the work, step by step: a generator or a coroutine."""
    return _is_any(
        function, inspect.isasyncgenfunction, inspect.isgeneratorfunction, inspect.iscoroutinefunction
    )


def _is_any(function: Callable[..., Any], *tests: Callable[[object], bool]) -> bool:
    """Tell whether a function, or the method that makes an object one, passes a test."""
    called: Any = function if hasattr(function, "__code__") else getattr(function, "__call__", function)  # noqa: B004
    return any(test(function) or test(called) for test in tests)


def _function(function: Callable[..., Any], make: Make, returned: Returned | None) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with make(Call(function, args, kwargs)) as block:
            value = function(*args, **kwargs)
            if returned is not None:
                returned(block, value)
        return value

    return wrapper


def _coroutine(function: Callable[..., Any], make: Make, returned: Returned | None) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        with make(Call(function, args, kwargs)) as block:
            value = await function(*args, **kwargs)
            if returned is not None:
                returned(block, value)
        return value

    return wrapper


def put_back(ours: _context.State, before: _context.State) -> None:
    """Make `before` current where `ours` still is: what was suspended may be closed in another context."""
    scope, context = _context.snapshot()
    _context.swap(
        (
            before[0] if scope is ours[0] else scope,
            before[1] if context is ours[1] else context,
        )
    )


class _Inside:
    """What is current inside of a suspended generator; as a block it is put in place and taken out again."""

    __slots__ = ("_begun", "_here", "_there")

    def __init__(self) -> None:
        self._there = _context.snapshot()
        self._here = self._there
        self._begun: _context.State | None = None

    def __enter__(self) -> None:
        self._there = _context.swap(self._here)

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        if self._begun is not None and kind is GeneratorExit:
            # Closed while it waited, perhaps by the collector; what it had entered since has been left.
            self._here = self._begun
            put_back(self._begun, self._there)
            return
        self._here = _context.swap(self._there)
        if self._begun is None:
            self._begun = self._here


def _generator(function: Callable[..., Generator[Any, Any, Any]], make: Make) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        block, inside = make(Call(function, args, kwargs)), _Inside()
        with inside:
            block.__enter__()
        try:
            result = yield from _steps(function(*args, **kwargs), inside)
        except BaseException as exc:
            with inside:
                block.__exit__(type(exc), exc, exc.__traceback__)
            raise
        with inside:
            block.__exit__(None, None, None)
        return result

    return wrapper


def _steps(generator: Generator[Any, Any, Any], inside: _Inside) -> Generator[Any, Any, Any]:
    """Drive a generator as `yield from` does, inside of its context for each step only."""
    step: Callable[[], Any] = functools.partial(next, generator)
    while True:
        with inside:
            try:
                item = step()
            except StopIteration as stop:
                return stop.value
        try:
            sent = yield item
        except GeneratorExit:
            with inside:
                generator.close()
            raise
        except BaseException as exc:  # noqa: BLE001 - it goes on into the generator
            step = functools.partial(generator.throw, exc)
        else:
            step = functools.partial(generator.send, sent)


def _async_generator(function: Callable[..., AsyncGenerator[Any, Any]], make: Make) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        block, inside = make(Call(function, args, kwargs)), _Inside()
        with inside:
            block.__enter__()
        generator = function(*args, **kwargs)
        step: Callable[[], Any] = generator.__anext__
        try:
            while True:
                with inside:
                    try:
                        item = await step()
                    except StopAsyncIteration:
                        break
                try:
                    sent = yield item
                except GeneratorExit:
                    with inside:
                        await generator.aclose()
                    raise
                except BaseException as exc:  # noqa: BLE001 - it goes on into the generator
                    step = functools.partial(generator.athrow, exc)
                else:
                    step = functools.partial(generator.asend, sent)
        except BaseException as exc:
            with inside:
                block.__exit__(type(exc), exc, exc.__traceback__)
            raise
        with inside:
            block.__exit__(None, None, None)

    return wrapper
