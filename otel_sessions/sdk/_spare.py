"""Threads for work that may hang in code of others: whoever waits for it keeps a deadline.

Processors, exporters and providers of others take locks and their time. Called in the thread of a user, or
in a signal handler, they could hold it for ever; called here, they cost whoever waits his deadline at most.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from otel_sessions.sdk._guard import guard
from otel_sessions.sdk._quiet import suppressed

__all__ = ["Spare"]

_PARKED_NAME: Final = "otel-sessions-spare"
_NAME: Final = "otel-sessions-aside"


class Spare:
    """One parked thread, for the end of the process, and others that are started when they are needed.

    None can be started at exit in Python 3.12, and none should be in a signal handler, which may interrupt
    another start in the midst of its locks.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Be as new: at first, and in a forked child, which has no thread."""
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self) -> bool:
        """Have the thread parked; False if it can't be started. Not for signal handlers."""
        with self._starting:
            if self._thread is None:
                self._thread = _started(self._run, _PARKED_NAME)
        return self.ready

    @property
    def ready(self) -> bool:
        """Whether there is a thread that takes jobs, now or when it is done with others."""
        return self._thread is not None

    def do(self, job: Callable[[], None]) -> None:
        """Let the parked thread do `job`. May be called from a signal handler: it takes no lock."""
        self._jobs.put(job)

    def within(self, deadline: float, job: Callable[[], None]) -> bool | None:
        """Do `job` in another thread, wait for it until `deadline` (monotonic s), tell whether it is done.

        None if there is no thread for it: then it was not begun. From the parked thread it is done there:
        whoever gave that its work keeps a deadline of his own.
        """
        if threading.current_thread() is self._thread:
            job()
            return True
        thread = _started(lambda: _quietly(job), _NAME)
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
            return not thread.is_alive()
        if not self.ready:
            return None
        done = threading.Event()

        def run() -> None:
            try:
                job()
            finally:
                done.set()

        self.do(run)
        return done.wait(max(0.0, deadline - time.monotonic()))

    def stop(self, deadline: float) -> None:
        """End the parked thread when it has done what it was given; wait for that until `deadline`."""
        thread, self._thread = self._thread, None
        self._jobs.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        jobs = self._jobs
        with suppressed():
            while (job := jobs.get()) is not None:
                with guard("job"):
                    job()


def _quietly(job: Callable[[], None]) -> None:
    with suppressed(), guard("job"):
        job()


def _started(run: Callable[[], None], name: str) -> threading.Thread | None:
    """Start a daemon thread; None if the process has too many, or is about to exit."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
