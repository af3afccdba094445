"""Was a signal sent to the whole process group? A process beside the command knows.

A supervisor, `kill -TERM -PGID` or a service manager signals everybody at once: the command has it then,
and must not get it a second time from us. Who receives a signal is not told whether others were sent it too.
So a process of our group blocks all of them, waits for the end of its input, and the kernel shows which ones
it was sent (/proc, Linux only; elsewhere nobody is asked, and all is passed on).

It is a plain `cat`: a process of our own name would be hit by `pkill -f otel-sessions`, which is meant for
us, and the command would never hear of it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["Witness"]

_GRACE: Final = 0.02
"""Seconds from our signal to the one of the others: the kernel goes through a group in microseconds, a
service manager through its processes in some milliseconds."""

_PENDING: Final = "ShdPnd:"
_NEVER_BLOCKED: Final = frozenset({"SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCONT"})


class Witness:
    """A process of our group that keeps the signals it was sent; it ends when we do, however that is."""

    __slots__ = ("_pid", "_pipe", "_wait")

    def __init__(self, wait: Callable[[float], None] = time.sleep) -> None:
        self._pid: int | None = None
        self._pipe = -1
        self._wait = wait
        self._call()

    def heard(self, number: int) -> bool:
        """Tell whether it was sent this signal as well; a new one is called for the next."""
        if not self._has(number):
            self._wait(_GRACE)
            if not self._has(number):
                return False
        self.dismiss()
        self._call()
        return True

    def dismiss(self) -> None:
        """Let it end."""
        if self._pid is None:
            return
        os.close(self._pipe)
        os.kill(self._pid, signal.SIGKILL)  # it is our child, and not reaped yet
        os.waitpid(self._pid, 0)
        self._pid = None

    def _has(self, number: int) -> bool:
        if self._pid is None:
            return False
        try:
            status = Path(f"/proc/{self._pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
        pending = next((line for line in status.splitlines() if line.startswith(_PENDING)), "")
        return bool(int(pending.removeprefix(_PENDING) or "0", 16) >> (number - 1) & 1)

    def _call(self) -> None:
        if not Path("/proc/self/status").exists():
            return
        blocked = [s for s in signal.Signals if s.name not in _NEVER_BLOCKED]
        reading, self._pipe = os.pipe()  # not inherited, so only we hold its other end
        nowhere = os.open(os.devnull, os.O_WRONLY)
        files = [
            (os.POSIX_SPAWN_DUP2, reading, 0),
            (os.POSIX_SPAWN_DUP2, nowhere, 1),
            (os.POSIX_SPAWN_DUP2, nowhere, 2),
        ]
        try:
            self._pid = os.posix_spawnp("cat", ["cat"], {}, file_actions=files, setsigmask=blocked)
        except OSError:  # no `cat` here
            os.close(self._pipe)
        finally:
            os.close(reading)
            os.close(nowhere)
