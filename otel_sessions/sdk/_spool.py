"""Requests on disk between their encoding and their acknowledgement, one file each.

Before it: `_parcel.py`. After it: `_courier.py`, which sends a file and removes it. Nothing else knows files.

    FOLDER/                   OTEL_SESSIONS_SPOOL, mode 0700
      traces-3f2a9c…/         one for each recipient: what was meant for one is never sent to another
        address               its address, for people
        812-9be01f…/          one for each process; whoever comes later takes over those of the dead
          000000000007        a parcel, first written as `.tmp`
        rejected/             what the receiver will never take, and why

Any number of processes share a folder (`_ownership.py`). Written pages survive the death of a process, not a
power loss, which a parcel's checksum tells.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import Final

from otel_sessions.sdk._ownership import Claims, Owned, is_locked, own
from otel_sessions.sdk._parcel import DamagedParcelError, Parcel, parcel_from_bytes, parcel_to_bytes

__all__ = ["Kept", "Limits", "Spool", "spool_folder"]

_REJECTED: Final = "rejected"
_ADDRESS: Final = "address"
_UNFINISHED: Final = ".tmp"

_LARGEST: Final = 256 * 1024 * 1024
"""Bytes of a file that can be ours: no request is larger, whatever else lies in the folder."""

_HELD: Final = 16
"""Folders of dead processes that are held at once: each has a lock, and its file is one of those that the
program may have open."""

_FOR_A_MOMENT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})
"""Errors that say nothing about a file: the process or the system has too much open just now."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a spool keeps: bytes for one address, seconds, and bytes of what was rejected."""

    size: int = 512 * 1024 * 1024
    age: float = 7 * 24 * 3600.0
    rejected: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """A parcel on disk. `sessions` is known of those that this process wrote."""

    path: Path
    size: int
    sessions: Mapping[str, int] | None = None


def spool_folder(root: Path, signal: str, recipient: str) -> Path:
    """Return the folder of what goes to one recipient."""
    return root / f"{signal}-{hashlib.sha256(recipient.encode('utf-8', 'backslashreplace')).hexdigest()[:16]}"


class Spool:
    """What this process wrote for one address, and what it took over from others. For one thread."""

    def __init__(
        self,
        root: Path,
        signal: str,
        address: str,
        limits: Limits,
        *,
        recipient: str | None = None,
        locks: bool = True,
    ) -> None:
        """`recipient` tells apart those who share an address, which is written down; none of it is."""
        self._root = root
        self.folder = spool_folder(root, signal, recipient or address)
        self._address = address
        self._limits = limits
        self._locks = locks
        self._claims = Claims()
        self._own: Owned | None = None
        self._taken: dict[Path, Owned] = {}
        self._further: deque[tuple[Path, int]] = deque()  # of others, dead or not, and how much is in them
        self._looked = 0.0
        self._queue: deque[Kept] = deque()
        self._inherited: deque[Kept] = deque()
        self._waiting = 0
        self._others = 0
        self._number = 0
        self._in_hand: Kept | None = None
        self.lost: Counter[tuple[str, str]] = Counter()
        """Spans or records of this process that were dropped here, by reason and session id."""
        self.lost_of_others: Counter[str] = Counter()
        """Those that other processes had left, by reason."""

    # --- What this process writes ------------------------------------------------------------------------

    def put(self, parcel: Parcel, *, inherited: bool = False, first: bool = False) -> Kept:
        """Write a parcel; raise OSError where that can't be, and then nothing was written.

        An `inherited` one is part of what another process had left; what is put `first` leaves next.
        """
        content = parcel_to_bytes(parcel)
        own_folder = self._open().folder
        self._make_room(len(content))
        self._number += 1
        path = own_folder / f"{self._number:012d}"
        unfinished = path.with_suffix(_UNFINISHED)
        try:
            _write(unfinished, content)
            unfinished.rename(path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            self._reopen_if_gone()
            raise
        kept = Kept(path, len(content), None if inherited else parcel.sessions)
        queue = self._inherited if inherited else self._queue
        (queue.appendleft if first else queue.append)(kept)
        self._waiting += kept.size
        return kept

    def __len__(self) -> int:
        return len(self._queue) + len(self._inherited)

    @property
    def size(self) -> int:
        """Return how many bytes wait for this address, those of other processes as they were last seen."""
        return self._waiting + self._others

    def _forget(self, kept: Kept) -> None:
        self._in_hand = None if self._in_hand is kept else self._in_hand
        for queue in (self._queue, self._inherited):
            with suppress(ValueError):
                queue.remove(kept)  # the first one, as a rule
                self._waiting -= kept.size

    def _open(self) -> Owned:
        if self._own is None:
            for folder in (self._root, self.folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            address = self.folder / _ADDRESS
            if not address.exists():
                _write(address, self._address.encode())
            self._own = own(self.folder, locks=self._locks)
        return self._own

    def _reopen_if_gone(self) -> None:
        if self._own is not None and not self._own.folder.exists():
            self._own.forget()
            self._own = None

    def _make_room(self, size: int) -> None:
        while self.size + size > self._limits.size:
            if not self._inherited:
                self._take_further()
            oldest = next((kept for kept in self._by_worth() if kept is not self._in_hand), None)
            if oldest is None:
                return
            self._drop(oldest, "spool full")

    def _by_worth(self) -> Iterator[Kept]:
        """Return what waits, that first which is worth least."""
        yield from self._inherited
        yield from self._queue

    def _drop(self, kept: Kept, why: str) -> None:
        """Lose a parcel, and count what was in it."""
        self._forget(kept)
        sessions = kept.sessions
        if sessions is None:
            with suppress(OSError, DamagedParcelError):
                sessions = parcel_from_bytes(kept.path.read_bytes()).sessions
        self._count(kept, sessions, why)
        with suppress(OSError):
            kept.path.unlink()

    def _count(self, kept: Kept, sessions: Mapping[str, int] | None, why: str) -> None:
        for session, number in ({"": 1} if sessions is None else sessions).items():
            if kept.sessions is None:
                self.lost_of_others[why] += number
            else:
                self.lost[why, session] += number

    # --- What is sent ------------------------------------------------------------------------------------

    def first(self) -> tuple[Kept, Parcel] | None:
        """Return the oldest parcel of this process, else of those that others left.

        What can't be read or is too old is lost, counted, and not in the way. Raise OSError where it can't be
        read now, but may be later. What is returned stays in hand, and is not dropped, until it is removed or
        rejected, or another one is.
        """
        while len(self) or self._take_further():
            kept = (self._queue or self._inherited)[0]
            try:
                parcel = parcel_from_bytes(kept.path.read_bytes())
            except (FileNotFoundError, NotADirectoryError):
                self._drop(kept, "gone from the spool")
            except (DamagedParcelError, OSError) as error:
                if isinstance(error, OSError) and error.errno in _FOR_A_MOMENT:
                    raise
                self._forget(kept)
                self._count(kept, kept.sessions, "damaged in the spool")
                self._set_aside(kept, str(error))
            else:
                if self._is_young(parcel):
                    self._in_hand = kept
                    return kept, parcel
                self._drop(kept, "too old")
        return None

    def remove(self, kept: Kept) -> None:
        """Forget a parcel that was acknowledged."""
        self._forget(kept)
        with suppress(OSError):
            kept.path.unlink()

    def reject(self, kept: Kept, parcel: Parcel, why: str) -> None:
        """Set aside a parcel that the receiver will never take."""
        self._forget(kept)
        self._count(kept, parcel.sessions, "rejected")
        self._set_aside(kept, why)

    def _set_aside(self, kept: Kept, why: str) -> None:
        folder = self.folder / _REJECTED
        with suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            _make_room_for_rejected(folder, self._limits.rejected - kept.size)
            aside = folder / f"{kept.path.parent.name}-{kept.path.name}"
            kept.path.rename(aside)
            _write(aside.with_suffix(".why"), why.encode("utf-8", "backslashreplace"))

    # --- What others left -----------------------------------------------------------------------------------

    def take_over(self, now: float) -> int:
        """Take what dead processes left for this address; return how many parcels. `now`: monotonic s.

        Of many a few at a time: the next ones' turn comes when these are sent.
        """
        found = 0
        self._others = 0
        self._further.clear()
        self._looked = now
        if self._own is not None:
            self._own.touch()
        mine = self._own.folder if self._own is not None else None
        for folder in _folders(self.folder):
            if folder == mine:
                continue
            owned = self._taken.get(folder)
            if owned is not None:
                owned.touch()
                continue
            if self._holds_enough and is_locked(folder):
                self._leave_for_later(folder)
            else:
                found += self._take(folder, now)
        return found

    @property
    def _holds_enough(self) -> bool:
        return sum(owned.lock is not None for owned in self._taken.values()) >= _HELD

    def _leave_for_later(self, folder: Path) -> None:
        size = _size(_parcels(folder))
        self._others += size
        self._further.append((folder, size))

    def _take(self, folder: Path, now: float) -> int:
        """Take one folder, if its owner is gone; return how many parcels are in it."""
        owned = None
        with suppress(OSError):  # of another user's
            owned = self._claims.claim(folder, now)
        if owned is None:
            self._others += _size(_parcels(folder))
            return 0
        _clear(owned.folder)
        left = list(_parcels(owned.folder))
        if not left:
            owned.let_go()
            return 0
        self._taken[owned.folder] = owned
        self._inherited.extend(left)
        self._waiting += _size(left)
        return len(left)

    def _take_further(self) -> int:
        """Take more of what dead processes left, now that what was taken is sent; return how many parcels."""
        self.let_go_of_empty()
        found = 0
        while self._further and not self._holds_enough:
            folder, size = self._further.popleft()
            self._others -= size
            found += self._take(folder, self._looked)
        return found

    def sweep(self, now: float) -> int:
        """Remove what dead processes left for other recipients and is too old; return how many spans.

        Who replaces a token, or an address, never sends to the old one again. `now`: monotonic s.
        """
        removed = 0
        with suppress(OSError):
            for recipient in self._root.iterdir():
                if recipient != self.folder and recipient.is_dir():
                    for folder in _folders(recipient):
                        removed += self._swept(folder, now)
        return removed

    def _swept(self, folder: Path, now: float) -> int:
        removed = 0
        with suppress(OSError, DamagedParcelError):
            oldest = next(_parcels(folder), None)
            if oldest is not None and self._is_young(parcel_from_bytes(oldest.path.read_bytes())):
                return 0  # whoever comes for it just now must not find it held
            owned = Claims().claim(folder, now)
            if owned is None:
                return 0
            try:
                for kept in _parcels(folder):
                    parcel = parcel_from_bytes(kept.path.read_bytes())
                    if self._is_young(parcel):
                        break
                    kept.path.unlink()
                    removed += parcel.items
            finally:
                owned.let_go()
        return removed

    def _is_young(self, parcel: Parcel) -> bool:
        return age_of(parcel) <= self._limits.age

    def let_go_of_empty(self) -> None:
        """Remove the folders that were taken over and are sent."""
        waiting = {kept.path.parent for kept in self._inherited}
        for folder in [folder for folder in self._taken if folder not in waiting]:
            self._taken.pop(folder).let_go()

    # --- The end -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave what is not sent to whoever comes next."""
        for owned in self._forget_all():
            owned.let_go()

    def after_fork_in_child(self) -> None:
        """Begin anew: the parent sends what it wrote."""
        for owned in self._forget_all():
            owned.forget()
        self._claims = Claims()
        self._in_hand = None
        self.lost.clear()
        self.lost_of_others.clear()

    def _forget_all(self) -> list[Owned]:
        """Know of no folder and no parcel any more; return the folders that were this process's."""
        owned = [*([self._own] if self._own is not None else []), *self._taken.values()]
        self._own = None
        self._taken.clear()
        self._further.clear()
        self._queue.clear()
        self._inherited.clear()
        self._waiting = 0
        return owned


def parcel_now(body: bytes, sessions: Mapping[str, int]) -> Parcel:
    """Put a request that was made just now into a parcel; `sessions` counts its items by session id."""
    boot, uptime = boot_and_uptime()
    return Parcel(body, sum(sessions.values()), sessions, time.time_ns(), boot, uptime)


def age_of(parcel: Parcel) -> float:
    """Return a parcel's age in seconds; of the same boot by a clock that no one sets."""
    boot, uptime = boot_and_uptime()
    if parcel.boot and parcel.boot == boot:
        return uptime - parcel.uptime
    return (time.time_ns() - parcel.at) / 1e9


def boot_and_uptime() -> tuple[str, float]:
    """Return which boot of this machine this is ("" where nobody tells), and the seconds since."""
    try:
        return _boot(), time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return "", 0.0


@cache
def _boot() -> str:
    # As bytes: a file opened as text looks its codec up, which may be an import, and waits for the program's.
    return Path("/proc/sys/kernel/random/boot_id").read_bytes().decode().strip()


def _folders(recipient: Path) -> Iterator[Path]:
    """Return the folders of processes."""
    with suppress(OSError):
        for path in sorted(recipient.iterdir()):
            if path.is_dir() and path.name != _REJECTED:
                yield path


def _parcels(folder: Path) -> Iterator[Kept]:
    """Return what lies in the folder of one process, oldest first."""
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.name.isdigit():
                with suppress(OSError):
                    found = path.stat()
                    # Reading a pipe that somebody put there never ends, and a huge file fills the memory.
                    if S_ISREG(found.st_mode) and found.st_size <= _LARGEST:
                        yield Kept(path, found.st_size)


def _size(parcels: Iterable[Kept]) -> int:
    return sum(kept.size for kept in parcels)


def _clear(folder: Path) -> None:
    """Remove what a killed process was just writing."""
    with suppress(OSError):
        for path in folder.glob(f"*{_UNFINISHED}"):
            path.unlink()


def _make_room_for_rejected(folder: Path, room: int) -> None:
    files = sorted(
        (path for path in folder.iterdir() if not path.suffix), key=lambda path: path.stat().st_mtime_ns
    )
    size = sum(path.stat().st_size for path in files)
    for path in files:
        if size <= room:
            return
        size -= path.stat().st_size
        path.unlink()
        path.with_suffix(".why").unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
