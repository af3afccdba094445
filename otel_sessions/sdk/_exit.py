"""The end of the process: end what is open, send what is left, within one deadline.

Three ways lead here: `atexit`, a signal whose disposition was the default, and the finalisers of a
multiprocessing child, which runs no `atexit`. A kill -9 leads nowhere; then the backend's lease tells.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_sessions import semconv
from otel_sessions.lifecycle import ENDINGS, Ending, ending_for
from otel_sessions.sdk import _importing, _process
from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._registry import OpenEntry, registry
from otel_sessions.sdk._settings import EXIT_DEADLINE

if TYPE_CHECKING:
    from types import FrameType

    from otel_sessions.sdk._root import Root

__all__ = ["end_collected", "end_open", "handle_signals", "install", "watching"]

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

_POSTPONED_BY: Final = 0.005
_POSTPONED_FOR: Final = 1.0
"""Seconds between the two tries of a signal, and in which it may be postponed at all."""

_CRITICAL: Final = (
    "opentelemetry.sdk._shared_internal",
    "otel_sessions.sdk._export",
    "otel_sessions.sdk._ledger",
    "otel_sessions.sdk._liveness",
    "otel_sessions.sdk._root",
    "otel_sessions.sdk._sender",
)
"""Modules whose functions hold locks that ending a span needs (the first: a joined provider's batch
processor), for microseconds and never while user code runs."""


class Ender(Protocol):
    """What does the work at the end: the runtime."""

    @property
    def busy(self) -> bool:
        """Whether the sender's thread can't begin a job now."""
        ...

    def do(self, job: Callable[[], None]) -> None:
        """Run a job in the sender's thread."""
        ...

    def finish(self, deadline: float) -> None:
        """Send what is left until `deadline`, in monotonic seconds."""
        ...


class _Hooks:
    """The state of this module; one instance."""

    __slots__ = ("__weakref__", "ender", "first_signal", "handling", "watches_children", "watching")

    def __init__(self) -> None:
        self.ender: Ender | None = None
        self.watches_children = False
        self.watching = False
        self.first_signal: float | None = None
        self.handling = False


_hooks: Final = _Hooks()


def install(ender: Ender) -> None:
    """Have `ender` do the work at the end of this process; of several the last."""
    # The provider's own handler is registered by now, so that ours runs before it.
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    _hooks.ender = ender


def handle_signals(*, wanted: bool) -> None:
    """Handle SIGTERM and SIGHUP where their disposition is the default, or give ours back.

    Only the main thread may; elsewhere nothing is done, and `watching` stays False.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _hooks.watching = True
    for number in _SIGNALS:
        present = signal.getsignal(number)
        if wanted and present is signal.SIG_DFL:
            signal.signal(number, _on_signal)
        elif not wanted and present is _on_signal:
            signal.signal(number, signal.SIG_DFL)


def watching() -> bool:
    """Tell whether the dispositions of signals were looked at in this process."""
    return _hooks.watching


def end_open(
    ending: Ending, error: BaseException | None = None, *, without: frozenset[int] = frozenset()
) -> None:
    """End everything that is open here, the youngest first, at one instant and marked as forced.

    Spans whose `id()` is in `without` stay open: their locks may never be released.
    """
    now = time.time_ns()
    for entry in reversed(list(registry.open.values())):
        if id(entry.span) not in without:
            with guard("forced end"):
                _end(entry, ending, error, now)
    for root in list(registry.roots.values()):
        if id(root.span) not in without:
            with guard("forced end"):
                _end_root(root, ending, error, now)


def end_collected(root: Root) -> None:
    """End a run whose session nobody holds any more."""
    root.end(ENDINGS["garbage_collected"])


def _end(entry: OpenEntry, ending: Ending, error: BaseException | None, now: int) -> None:
    root = entry.place.root if entry.place is not None else None
    if root is not None and root.span is entry.span:
        _end_root(root, ending, error, now)
    else:
        # A copy: the block may be learning just now, in another thread.
        entry.span.set_attributes({**dict(entry.learned or {}), semconv.FORCED_END: True})
        entry.span.end(now)


def _end_root(root: Root, ending: Ending, error: BaseException | None, now: int) -> None:
    if root.child:
        root.leave()
    else:
        root.end(ending, error=error, forced_at=now)


def _end_by(ender: Ender, deadline: float, end: Callable[[], None], *, here: bool) -> None:
    """Let `end` end what is open, and send what is left, until `deadline`.

    In the sender's thread, for foreign processors take their time in `on_end`; where that thread is busy
    here, if that is allowed.
    """
    if here and ender.busy:
        end()
    else:
        done = threading.Event()

        def job() -> None:
            try:
                end()
            finally:
                done.set()

        ender.do(job)
        done.wait(max(0.0, deadline - time.monotonic()))
    ender.finish(deadline)


# --- atexit --------------------------------------------------------------------------------------------


def _at_exit() -> None:
    error = _uncaught()
    ending = ENDINGS["exit_open"] if error is None else ending_for(error)
    if _hooks.ender is not None:
        deadline = time.monotonic() + EXIT_DEADLINE
        with guard("exit"):
            _end_by(_hooks.ender, deadline, lambda: end_open(ending, error), here=True)
    if isinstance(error, KeyboardInterrupt):
        _die_of_the_interrupt()


def _die_of_the_interrupt() -> None:
    """Keep the exit status of Ctrl-C, by which a shell's loop stops.

    The interpreter notes an uncaught KeyboardInterrupt in a flag that every later `exec` of a text clears;
    dataclasses, for one, do that when a module is imported, as an exporter may be just now. Raising
    another one in an `exec` sets it again.
    """
    with suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")  # noqa: S102 - a constant


def _uncaught() -> BaseException | None:
    """Return the exception that ends the program, if one does.

    The interpreter leaves it in `sys.last_value`, but so does every prompt: interactive ones are left out,
    and what did not come through the main program's outermost frame.
    """
    error: BaseException | None = getattr(sys, "last_value", None)
    if error is None or hasattr(sys, "ps1") or sys.flags.interactive or "IPython" in sys.modules:
        return None
    traceback = error.__traceback__
    outermost = traceback.tb_frame.f_globals.get("__name__") if traceback is not None else None
    return error if outermost in ("__main__", "runpy") else None


# --- Signals ---------------------------------------------------------------------------------------------


def _on_signal(number: int, frame: FrameType | None) -> None:
    """End and send everything, then let the signal do what it would have done.

    The interrupted code goes on only when we return. If it holds a lock that we need, we would wait for
    ourselves (4.7 s and everything lost, measured): a span that it is working on stays open, and in the
    midst of a queue, or of an import while our threads import, the signal is sent once more a little later.
    """
    ender = _hooks.ender
    if ender is not None and not _hooks.handling:
        now = time.monotonic()
        if _hooks.first_signal is None:
            _hooks.first_signal = now
        in_use, critical = _stack(frame)
        if now - _hooks.first_signal < _POSTPONED_FOR and (critical or _importing.under_way()):
            ender.do(lambda: _send_again(number))
            return
        _hooks.handling = True
        with guard("signal"):
            _end_by(
                ender,
                now + EXIT_DEADLINE,
                lambda: end_open(ENDINGS["signal"], without=in_use),
                here=not critical,
            )
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _send_again(number: int) -> None:
    time.sleep(_POSTPONED_BY)
    os.kill(os.getpid(), number)


def _stack(frame: FrameType | None) -> tuple[frozenset[int], bool]:
    """Return the ids of objects that the interrupted thread works on, and whether it is critical to wait."""
    in_use: set[int] = set()
    critical = False
    while frame is not None:
        in_use.add(id(frame.f_locals.get("self")))
        critical = critical or frame.f_globals.get("__name__") in _CRITICAL
        frame = frame.f_back
    return frozenset(in_use), critical


# --- Children of multiprocessing ----------------------------------------------------------------------------


def _before_fork() -> None:
    """Have a multiprocessing child finish like a program: it leaves by os._exit, which runs no atexit."""
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None and _hooks.ender is not None and not _hooks.watches_children:
        _hooks.watches_children = True

        def finish_like_a_program(_hooks: object) -> None:
            util.Finalize(None, _at_exit, exitpriority=0)

        util.register_after_fork(_hooks, finish_like_a_program)


def _after_fork() -> None:
    _hooks.handling = False
    _hooks.first_signal = None


_process.around_fork(before=_before_fork, in_child=_after_fork)
