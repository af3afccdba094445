"""Whose a folder of the spool is: exactly one living process sends what lies in it.

The operating system tells who lives: the owner of a folder holds a lock on a file in it, which is let go
when the process dies, however it dies. Where the file system knows no locks the owner touches a file instead,
and a folder whose file did not change while somebody watched it for `WATCHED` seconds of his own monotonic
clock has no owner any more: no clock of another machine, and no jump of any clock, makes a living one look
dead.

Both ways a mistake costs a request sent twice, never a loss: receivers tell spans apart by their ids.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

__all__ = ["WATCHED", "Claims", "NoLocksError", "Owned", "is_locked", "own"]

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

WATCHED: Final = 60.0
"""Seconds without a touch after which a folder without a lock has no owner."""

_LOCK: Final = "lock"
_ALIVE: Final = "alive"
_HIDDEN: Final = "."


class NoLocksError(OSError):
    """The file system knows no locks."""


@dataclass(slots=True)
class Owned:
    """A folder that is this process's, until it lets go or dies. `lock` is None where there are no locks."""

    folder: Path
    lock: int | None

    def touch(self) -> None:
        """Show that the owner lives, where no lock shows it; call it every few seconds."""
        if self.lock is None:
            with suppress(FileNotFoundError):  # somebody removed the folder
                (self.folder / _ALIVE).touch(mode=0o600)

    def let_go(self) -> None:
        """Remove the folder if nothing is left in it, else leave it to whoever comes next."""
        with suppress(OSError):
            if not any(path.name not in (_LOCK, _ALIVE) for path in self.folder.iterdir()):
                shutil.rmtree(self.folder)
        self.forget()

    def forget(self) -> None:
        """Close the lock without touching the folder; in a forked child it stays the parent's."""
        lock, self.lock = self.lock, None
        if lock is not None:
            with suppress(OSError):
                os.close(lock)


def own(parent: Path, *, locks: bool = True) -> Owned:
    """Make a folder of our own in `parent`; raise OSError where that can't be."""
    name = f"{os.getpid()}-{secrets.token_hex(6)}"
    hidden = parent / f"{_HIDDEN}{name}"  # until its lock is held, or whoever looks just then would take it
    hidden.mkdir(mode=0o700, parents=True)
    lock: int | None = None
    if locks:
        with suppress(NoLocksError):
            lock = _hold(hidden / _LOCK)
    if lock is None:
        with suppress(FileNotFoundError):
            (hidden / _LOCK).unlink()
        Owned(hidden, lock).touch()
    try:
        return Owned(hidden.rename(parent / name), lock)
    except OSError:
        Owned(hidden, lock).forget()
        raise


def is_locked(folder: Path) -> bool:
    """Tell whether a lock shows who owns a folder: to claim it opens a file, for as long as it is held."""
    return (folder / _LOCK).exists()


class Claims:
    """What one process has seen of folders of others, so that it finds those whose owner is gone."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, float]] = {}

    def claim(self, folder: Path, now: float) -> Owned | None:
        """Take a folder whose owner is gone; None while he may live. `now` is in monotonic seconds."""
        if folder.name.startswith(_HIDDEN):  # somebody is about to own it
            return None
        lock = folder / _LOCK
        if lock.exists():
            try:
                held = _hold(lock)
            except (BlockingIOError, FileNotFoundError):
                return None
            except NoLocksError:
                return self._claim_unlocked(folder, lock, now)
            return Owned(folder, held)
        return self._claim_unlocked(folder, folder / _ALIVE, now)

    def _claim_unlocked(self, folder: Path, sign: Path, now: float) -> Owned | None:
        try:
            touched = (sign if sign.exists() else folder).stat().st_mtime_ns
        except FileNotFoundError:
            return None
        seen = self._seen.get(folder)
        if seen is None or seen[0] != touched:
            self._seen[folder] = (touched, now)
            return None
        if now - seen[1] < WATCHED:
            return None
        del self._seen[folder]
        taken = folder.with_name(f"{os.getpid()}-{secrets.token_hex(6)}")
        try:
            folder.rename(taken)  # of several who saw the same, one succeeds
        except OSError:
            return None
        owned = Owned(taken, None)
        owned.touch()
        return owned


def _hold(path: Path) -> int:
    """Lock a file; raise BlockingIOError where somebody holds it, NoLocksError where nobody can."""
    if fcntl is None:
        raise NoLocksError("no locks on this system")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError as error:
        os.close(handle)
        raise NoLocksError(*error.args) from error
    return handle
