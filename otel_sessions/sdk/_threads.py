"""`init(thread_context=True)`: what is current goes along into threads, timers, executors and greenlets.

For programs that can't `wrap()` each function, since frameworks start their threads. What starts a thread or
submits to an executor is patched once and asks the switch each time. Only what we make current goes along:
the session and the OpenTelemetry Context. Other context variables keep their meaning.

opentelemetry-instrumentation-threading does much the same, but pins another release of OpenTelemetry than the
one that is installed (pip can't resolve it beside 1.45.2), leaves executors' own threads in the session that
first needed them, and knows no greenlets.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any, Final

from opentelemetry import context as otel

from otel_sessions.sdk import _context
from otel_sessions.sdk._guard import guard

__all__ = ["carry_into_threads"]

_OURS: Final = "otel-sessions-"
"""How the names of our threads begin: they belong to no session."""


class _Patch:
    """Whether threads are given what is current, and what was patched for it; one instance."""

    def __init__(self) -> None:
        self.wanted = False
        self.threads = False
        self.greenlets = False
        self.submitting = threading.local()


_patch: Final = _Patch()


def carry_into_threads(*, wanted: bool) -> None:
    """Switch it on or off for all that is started from now on."""
    _patch.wanted = wanted
    if wanted:
        with guard("threads"):
            _patch_threads()
            _patch_greenlets()


def _patch_threads() -> None:
    if _patch.threads:
        return
    _patch.threads = True
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    @functools.wraps(start)
    def start_inside(self: threading.Thread) -> None:
        undo: Callable[[], None] | None = None
        with guard("threads"):
            undo = _prepare(self)
        try:
            start(self)
        except BaseException:  # it may be started again, as by who waits for a process at its limit
            if undo is not None:
                undo()
            raise

    @functools.wraps(submit)
    def submit_inside(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        around = getattr(_patch.submitting, "now", False)
        _patch.submitting.now = True  # the executor's own threads belong to no session
        try:
            return submit(self, _inside(fn), *args, **kwargs)
        finally:
            _patch.submitting.now = around

    threading.Thread.start = start_inside
    ThreadPoolExecutor.submit = submit_inside


def _patch_greenlets() -> None:
    """Have gevent tell of each greenlet that starts; one imported later is found by the next `init()`."""
    gevent: Any = sys.modules.get("gevent")
    if gevent is not None and not _patch.greenlets:
        _patch.greenlets = True
        gevent.Greenlet.add_spawn_callback(_prepare_greenlet)


def _prepare(thread: threading.Thread) -> Callable[[], None] | None:
    """Have a thread that is about to start run inside of what is current here; return what undoes that."""
    if not _patch.wanted or getattr(_patch.submitting, "now", False) or thread.name.startswith(_OURS):
        return None
    run, own = thread.run, vars(thread)  # its namespace itself, for a subclass may refuse or watch attributes
    if (inside := _inside(run)) is run:
        return None
    own["run"] = wrapper = _RunInside(own, inside)
    return wrapper.take_off


class _RunInside:
    """Stands in for the `run` of one thread until that begins."""

    __slots__ = ("_before", "_inside", "_own")

    def __init__(self, own: dict[str, Any], inside: Callable[[], Any]) -> None:
        self._own = own
        self._before = own.get("run")
        self._inside = inside

    def __call__(self) -> None:
        self.take_off()  # else the thread would hold itself
        self._inside()

    def take_off(self) -> None:
        """Leave the thread as it was."""
        if self._own.get("run") is self:
            del self._own["run"]
            if self._before is not None:
                self._own["run"] = self._before


def _prepare_greenlet(greenlet: Any) -> None:
    with guard("threads"):
        if _patch.wanted and _anything_current():
            given: Context | None = greenlet.gr_context
            context = Context() if given is None else given
            context.run(_take_along, _context.snapshot())
            greenlet.gr_context = context


def _take_along(state: _context.State) -> None:
    """Make `state` current in a context, unless who made it has said what is."""
    if not _anything_current():
        _context.swap(state)


def _inside(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` so that it runs inside of what is current here; itself where nothing is."""
    if not _patch.wanted or not _anything_current():
        return function
    state = _context.snapshot()

    def run(*args: Any, **kwargs: Any) -> Any:
        before = _context.swap(state)
        try:
            return function(*args, **kwargs)
        finally:
            _context.swap(before)

    return run


def _anything_current() -> bool:
    return _context.current_scope() is not None or bool(otel.get_current())
