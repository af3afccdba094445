"""The end of the process: end what is open, send what is left, within one deadline.

Three ways lead here: `atexit`, a signal whose disposition was the default, and the finalisers of a
multiprocessing child, which runs no `atexit`. A kill -9 leads nowhere; then the backend's lease tells.

The main thread only waits: the work is done by a parked thread (`_spare.py`). Ending a span runs processors
of others, which may want a lock that the interrupted main thread holds, or take their time. That costs the
deadline at most.
"""

from __future__ import annotations

import atexit
import inspect
import os
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from otel_sessions import semconv
from otel_sessions.lifecycle import ENDINGS, Ending, ending_for
from otel_sessions.sdk import _importing, _process
from otel_sessions.sdk._critical import is_critical
from otel_sessions.sdk._guard import guard, say
from otel_sessions.sdk._registry import OpenEntry, registry
from otel_sessions.sdk._settings import EXIT_DEADLINE

if TYPE_CHECKING:
    from types import FrameType

    from otel_sessions.sdk._root import Root
    from otel_sessions.sdk._spare import Spare

__all__ = [
    "end_all",
    "end_collected",
    "end_open",
    "handle_signals",
    "install",
    "latest",
    "watching",
]

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

_POSTPONED_BY: Final = 0.005
_POSTPONED_FOR: Final = 1.0
"""Seconds between the two tries of a signal, and in which it may be postponed at all."""
_LONGEST_PAUSE: Final = 0.1
"""Seconds between later tries, where the main thread takes none."""

_UNHURRIED: Final = 0.25
"""Seconds that ending everything may take before what has ended is sent without the rest."""

_FOR_ENDING: Final = 0.6
_FOR_SENDING: Final = 0.85
"""Share of the time at the end for ending what is open, and of the rest for sending; what remains then is for
counting what is left, and saying so."""

_IMPORT: Final = ("importlib._bootstrap", "_frozen_importlib")
_TAKES_A_SPAN: Final = "emit"
"""What the function of the SDK is called by which a joined provider's batch processor takes a span:
it may hold the lock of an event just then."""
_NEIGHBOUR: Final = "opentelemetry.sdk."
_OURS: Final = ("opentelemetry.", "otel_sessions.")


class Ender(Protocol):
    """What does the work at the end: the runtime."""

    @property
    def spare(self) -> Spare:
        """The thread in which it is done."""
        ...

    def first(self) -> AbstractContextManager[None]:
        """Let what ends in this block leave before all that waits."""
        ...

    def hurry(self, deadline: float) -> None:
        """Send what waits, until `deadline` (monotonic s); takes no lock and returns at once."""
        ...

    def finish(self, deadline: float) -> None:
        """Send what is left until `deadline`, in monotonic seconds."""
        ...


class _Leaving:
    """The end of this process that is under way; `deadline` in monotonic seconds."""

    __slots__ = ("deadline", "done")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.done = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the work, no longer than the deadline allows."""
        return self.done.wait(max(0.0, min(seconds, self.deadline - time.monotonic())))


class _Hooks:
    """The state of this module; one instance."""

    __slots__ = (
        "__weakref__",
        "ender",
        "finalizes",
        "first_signal",
        "handling",
        "leaving",
        "taken",
        "watches_children",
        "watching",
    )

    def __init__(self) -> None:
        self.ender: Ender | None = None
        self.finalizes = False
        self.watches_children = False
        self.watching = False
        self.first_signal: float | None = None
        self.handling = False
        self.taken = 0
        self.leaving: _Leaving | None = None


_hooks: Final = _Hooks()


def install(ender: Ender) -> None:
    """Have `ender` do the work at the end of this process; of several the last."""
    # The provider's own handler is registered by now, so that ours runs before it.
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    _hooks.ender = ender
    _hooks.leaving = None
    with guard("multiprocessing"):
        _finish_like_a_program()
    ender.spare.start()


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


def latest(deadline: float) -> float:
    """Return `deadline` (monotonic s), or that of the process's end where this is under way and sooner."""
    leaving = _hooks.leaving
    return deadline if leaving is None else min(deadline, leaving.deadline)


def end_open(
    ending: Ending,
    error: BaseException | None = None,
    *,
    without: frozenset[int] = frozenset(),
    first: AbstractContextManager[None] | None = None,
    until: float = inf,
) -> int:
    """End everything that is open here at one instant, mark it as forced, and return how many stay open.

    The roots first, for they tell how it ended: with their counts, in which what is about to end is counted.
    In the context `first` they pass what waits to be sent. Then all other spans, the youngest first, `until`
    that time (monotonic s): slow processors of others may take longer. Spans whose `id()` is in `without`
    stay open: their locks may never be released.
    """
    now = time.time_ns()
    roots = [root for root in reversed(list(registry.roots.values())) if id(root.span) not in without]
    with first or nullcontext():
        for root in roots:
            if not root.child:
                with guard("forced end"):
                    root.end(ending, error=error, forced_at=now, left_open=without)
    entries = [entry for entry in list(registry.open.values()) if id(entry.span) not in without]
    while entries and time.monotonic() < until:
        with guard("forced end"):
            _end(entries.pop(), now)
    for root in roots:
        if root.child:  # its parent process ends it: it has but counts to tell
            with guard("forced end"):
                root.leave()
    return len(entries)


def end_all(
    ender: Ender,
    deadline: float,
    ending: Ending,
    error: BaseException | None = None,
    *,
    without: frozenset[int] = frozenset(),
) -> None:
    """End what is open and send what is left, by `deadline` (monotonic s) unless code of others hangs."""
    began = time.monotonic()
    until = began + max(_UNHURRIED, _FOR_ENDING * (deadline - began))
    with guard("exit"):
        left = end_open(ending, error, without=without, first=ender.first(), until=until)
        if left:
            say("otel_sessions: %d spans could not be ended in time: what processes them is too slow", left)
    now = time.monotonic()
    ender.finish(now + _FOR_SENDING * max(0.0, deadline - now))


def end_collected(root: Root) -> None:
    """End a run whose session nobody holds any more."""
    root.end(ENDINGS["garbage_collected"])


def _end(entry: OpenEntry, now: int) -> None:
    span = entry.span
    with guard("forced end"):  # a copy: the block may be learning just now, in another thread
        span.set_attributes({**dict(entry.learned or {}), semconv.FORCED_END: True})
    # One that another thread has started since bears no end before its start.
    span.end(max(now, int(span.start_time or 0)))


def _leave(
    ender: Ender,
    deadline: float,
    ending: Ending,
    error: BaseException | None = None,
    *,
    without: frozenset[int] = frozenset(),
) -> None:
    """Have all that is left done in the spare thread, once, and wait for it until `deadline`."""
    leaving = _hooks.leaving
    if leaving is None:
        leaving = _hooks.leaving = _Leaving(deadline)
        done = leaving.done

        def work() -> None:
            try:
                end_all(ender, deadline, ending, error, without=without)
            finally:
                done.set()

        ender.spare.do(work)
    if not leaving.wait(_UNHURRIED):
        ender.hurry(leaving.deadline)
        leaving.wait(EXIT_DEADLINE)


# --- atexit --------------------------------------------------------------------------------------------


def _at_exit() -> None:
    error = _uncaught()
    with guard("exit"):
        _leave_at_exit(ENDINGS["exit_open"] if error is None else ending_for(error), error)
    if isinstance(error, KeyboardInterrupt):
        _die_of_the_interrupt()


def _leave_at_exit(ending: Ending, error: BaseException | None) -> None:
    ender, deadline = _hooks.ender, time.monotonic() + EXIT_DEADLINE
    if ender is None:
        return
    if ender.spare.start():
        _leave(ender, deadline, ending, error)
    else:  # a process at its limit of threads: nothing is lost that can be kept
        end_all(ender, deadline, ending, error)


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


class _Interrupted(NamedTuple):
    """What a signal has interrupted.

    `in_use` are the ids of objects whose methods are under way, `critical` whether it may hold a lock that
    the end needs, `importing` whether it imports.
    """

    in_use: frozenset[int] = frozenset()
    critical: bool = False
    importing: bool = False


def _on_signal(number: int, frame: FrameType | None) -> None:
    """End and send everything, then let the signal do what it would have done.

    The interrupted code goes on only when we return. If it holds a lock that we need, we would wait for
    ourselves (4.7 s and everything lost, measured). So in the midst of a span, of what `_critical.py` knows,
    or of an import while our threads import, the signal is sent once more a little later; a span that is
    still worked on then stays open. Mere waits, as in `flush`, hold nothing.
    """
    postponed = False
    _hooks.taken += 1
    try:
        with guard("signal"):
            postponed = _leave_by_signal(number, frame)
    finally:  # whatever else is raised meanwhile, by Ctrl-C for one
        if not postponed:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _leave_by_signal(number: int, frame: FrameType | None) -> bool:
    """Do the work; True if there is more to wait for: the signal comes again, or is being handled."""
    if _hooks.handling:
        # It comes more than once where a process and its group are sent it, as by timeout(1). What is under
        # way keeps its deadline, and dies of the first.
        return True
    ender = _hooks.ender
    if ender is None or not ender.spare.ready:
        return False
    now = time.monotonic()
    if _hooks.first_signal is None:
        _hooks.first_signal = now
    interrupted = _Interrupted()
    with guard("signal"):
        interrupted = _look_at(frame)
    in_the_midst = interrupted.critical or (interrupted.importing and _importing.under_way())
    if in_the_midst and _hooks.leaving is None and now - _hooks.first_signal < _POSTPONED_FOR:
        taken = _hooks.taken
        ender.spare.do(lambda: _send_again(number, taken))
        return True
    _hooks.handling = True
    deadline = _hooks.first_signal + EXIT_DEADLINE
    _leave(ender, deadline, ENDINGS["signal"], without=interrupted.in_use)
    return False


def _send_again(number: int, taken: int) -> None:
    """Send a signal to the main thread until it is taken, or the end has begun otherwise.

    Once is not enough: one that arrives just before the thread begins to wait for a lock wakes nobody, and
    Python looks at it only when the wait is over (1 in 3,000 where a program waits at once, on 3.13).
    """
    pause = _POSTPONED_BY
    while _hooks.taken == taken and _hooks.leaving is None:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        _send_to_main_thread(number)


def _send_to_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, number)  # to the process, it may go to a thread that has no use for it
    else:
        os.kill(os.getpid(), number)


def _look_at(frame: FrameType | None) -> _Interrupted:
    """Look at what the interrupted thread does, frame by frame, without calling anything of the user's."""
    in_use: set[int] = set()
    at_work: set[int] = set()
    critical = importing = False
    only_ours = True
    while frame is not None:
        code, module = frame.f_code, dict.get(frame.f_globals, "__name__")
        # Only a function's locals are sure to be a mapping of Python's own.
        if code.co_flags & inspect.CO_OPTIMIZED and "self" in code.co_varnames:
            in_use.add(id(frame.f_locals.get("self")))
        only_ours = only_ours and str(module).startswith(_OURS)
        if only_ours:
            at_work |= in_use
        critical = critical or is_critical(code) or _takes_a_span(module, code.co_name)
        importing = importing or module in _IMPORT
        frame = frame.f_back
    return _Interrupted(frozenset(in_use), critical or _any_open(at_work), importing)


def _takes_a_span(module: object, function: str) -> bool:
    return function == _TAKES_A_SPAN and isinstance(module, str) and module.startswith(_NEIGHBOUR)


def _any_open(objects: set[int]) -> bool:
    return any(id(entry.span) in objects for entry in list(registry.open.values()))


# --- Children of multiprocessing ----------------------------------------------------------------------------


def _before_fork() -> None:
    """Have the children that multiprocessing forks finish like programs."""
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None and _hooks.ender is not None and not _hooks.watches_children:
        _hooks.watches_children = True

        def in_child(_hooks: object) -> None:
            _finish_like_a_program()

        util.register_after_fork(_hooks, in_child)


def _finish_like_a_program() -> None:
    """Do in a multiprocessing child what atexit does elsewhere.

    One that was forked, by us or by a fork server, leaves by os._exit, which runs no atexit. A fork server's
    knows of us only when it calls `init()`.
    """
    process: Any = sys.modules.get("multiprocessing.process")
    util: Any = sys.modules.get("multiprocessing.util")
    if process is None or util is None or process.parent_process() is None or _hooks.finalizes:
        return
    _hooks.finalizes = True
    util.Finalize(None, _at_exit, exitpriority=0)


def _after_fork() -> None:
    _hooks.finalizes = False
    _hooks.handling = False
    _hooks.first_signal = None
    _hooks.leaving = None


_process.around_fork(before=_before_fork, in_child=_after_fork)
