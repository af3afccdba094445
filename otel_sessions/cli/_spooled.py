"""What lies in a spool, as a person asks about it: by recipient, of programs that live and that are gone.

Reads the folders that `sdk/_spool.py` writes, and takes over those of dead programs by the same locks: an
agent beside it never loses what it owns, and nothing is sent by two.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._ownership import WATCHED, Claims, Owned
from otel_sessions.sdk._parcel import DamagedParcelError, Parcel, parcel_from_bytes

__all__ = [
    "Entry",
    "Found",
    "Items",
    "Look",
    "Recipient",
    "claimed",
    "count_entries",
    "find_recipients",
    "look",
    "read_entries",
]

_SIGNALS: Final = ("traces", "logs")
_REJECTED: Final = "rejected"
_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class Items:
    """So many spans and life cycle events; as a text "4 spans, 2 events"."""

    spans: int = 0
    events: int = 0

    @classmethod
    def of(cls, signal: str, number: int) -> Items:
        """Return so many items of a signal."""
        return cls(events=number) if signal == "logs" else cls(spans=number)

    @property
    def total(self) -> int:
        """Both together."""
        return self.spans + self.events

    def __add__(self, other: Items) -> Items:
        return Items(self.spans + other.spans, self.events + other.events)

    def __str__(self) -> str:
        """Name what there is; of nothing at all, no spans."""
        kinds = [(self.spans, "span"), (self.events, "event")]
        there = [f"{number} {name}{'' if number == 1 else 's'}" for number, name in kinds if number]
        return ", ".join(there) or "0 spans"


@dataclass(frozen=True, slots=True)
class Recipient:
    """A folder of what goes to one recipient. `address` is None where nothing tells it any more."""

    folder: Path
    signal: str
    address: str | None

    def programs(self) -> list[Path]:
        """Return the folders of the programs that wrote here, or took over what others wrote."""
        with suppress(OSError):
            return sorted(path for path in self.folder.iterdir() if path.is_dir() and path.name[0].isdigit())
        return []

    @property
    def rejected(self) -> Path:
        """Return the folder of what was set aside."""
        return self.folder / _REJECTED


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a spool. `parcel` is None where it can't be read, and `trouble` says why.

    Of one that was set aside `trouble` is the receiver's reason.
    """

    path: Path
    size: int
    parcel: Parcel | None
    trouble: str = ""
    signal: str = "traces"

    @property
    def items(self) -> Items:
        """Return what is in it, as far as it can be read."""
        return Items.of(self.signal, self.parcel.items if self.parcel else 0)

    def remove(self) -> None:
        """Remove it and what is said about it."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".why").unlink(missing_ok=True)


@dataclass(slots=True)
class Found:
    """The sum of some entries; `oldest` is in Unix ns, `items` and `sessions` count what can be read."""

    parcels: int = 0
    size: int = 0
    items: Items = field(default_factory=Items)
    damaged: int = 0
    oldest: int | None = None
    sessions: dict[str, Items] = field(default_factory=dict[str, Items])
    reasons: Counter[str] = field(default_factory=Counter[str])

    def add(self, entry: Entry) -> None:
        """Count an entry."""
        self.parcels += 1
        self.size += entry.size
        if entry.trouble:
            self.reasons[entry.trouble] += 1
        if entry.parcel is None:
            self.damaged += 1
            return
        self.items += entry.items
        for session, number in entry.parcel.sessions.items():
            self.sessions[session] = self.sessions.get(session, Items()) + Items.of(entry.signal, number)
        self.oldest = min(self.oldest or entry.parcel.at, entry.parcel.at)


@dataclass(frozen=True, slots=True)
class Look:
    """What lies in the folder of one recipient."""

    recipient: Recipient
    waiting: Found
    rejected: Found
    programs: Counter[str]
    """How many folders have an owner who lives, or none, or nobody knows: without locks that takes a minute.

    A living program takes over what dead ones left for the same recipient."""


def find_recipients(root: Path, address: str | None = None) -> list[Recipient]:
    """Return the recipients in a spool, or those of one address.

    A spool that does not exist is empty. Raises ConfigurationError where nothing is for that address.
    """
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and _signal(path) in _SIGNALS)
    except FileNotFoundError:
        folders = []
    except OSError as error:
        raise ConfigurationError(
            f"{root} can't be read ({error.strerror}): name the spool with --folder"
        ) from error
    found = [Recipient(path, _signal(path), _address(path)) for path in folders]
    if address is None:
        return found
    wanted = [recipient for recipient in found if address in (recipient.address, recipient.folder.name)]
    if not wanted:
        known = ", ".join(sorted({it.address for it in found if it.address})) or "nothing at all"
        raise ConfigurationError(f"{root} holds nothing for {address}, but for: {known}")
    return wanted


def _signal(folder: Path) -> str:
    """Return the signal in a recipient's name: `traces-…`, `logs-…`."""
    return folder.name.partition("-")[0]


def _address(folder: Path) -> str | None:
    try:
        return (folder / "address").read_text(encoding="utf-8", errors="backslashreplace") or None
    except OSError:
        return None


def read_entries(folder: Path) -> Iterator[Entry]:
    """Read the parcels of a program, or those set aside, oldest first, one after another."""
    with suppress(OSError):
        for path in sorted(path for path in folder.iterdir() if path.name[-1:].isdigit()):
            with suppress(FileNotFoundError):  # sent meanwhile, by whom it belongs to
                yield _read(path)


def count_entries(folders: Iterable[Path]) -> int:
    """Count parcels without reading them."""
    number = 0
    for folder in folders:
        with suppress(OSError):
            number += sum(1 for path in folder.iterdir() if path.name[-1:].isdigit())
    return number


def _read(path: Path) -> Entry:
    size, why, of = path.stat().st_size, path.with_suffix(".why"), _signal(path.parent.parent)
    reason = ""
    with suppress(OSError):
        reason = why.read_text(encoding="utf-8", errors="backslashreplace")
    try:
        return Entry(path, size, parcel_from_bytes(path.read_bytes()), reason, of)
    except DamagedParcelError as error:
        return Entry(path, size, None, reason or str(error), of)
    except FileNotFoundError:
        raise
    except OSError as error:
        return Entry(path, size, None, str(error.strerror), of)


def look(recipient: Recipient) -> Look:
    """Sum up what lies in the folder of a recipient; nothing is changed."""
    seen = Look(recipient, Found(), Found(), Counter())
    for folder in recipient.programs():
        seen.programs[_owner(folder)] += 1
        for entry in read_entries(folder):
            seen.waiting.add(entry)
    for entry in read_entries(recipient.rejected):
        seen.rejected.add(entry)
    return seen


def _owner(folder: Path) -> str:
    try:
        owned = Claims().claim(folder, time.monotonic())
    except OSError:  # of another user
        return "unknown"
    if owned is None:
        return "alive" if (folder / _LOCK).exists() else "unknown"
    owned.forget()
    return "dead"


@contextmanager
def claimed(
    recipients: Iterable[Recipient],
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Generator[dict[Recipient, list[Owned]]]:
    """Take the folders of dead programs for as long as this lasts; then they are free, the empty ones gone.

    Where there are no locks it watches them for a minute, and says so by `tell`.
    """
    claims, taken = Claims(), dict[Recipient, list[Owned]]()
    try:
        for recipient in recipients:
            taken[recipient] = _claim(recipient.programs(), claims, clock())
        unlocked = {it: [p for p in it.programs() if not (p / _LOCK).exists()] for it in taken}
        if any(unlocked.values()):
            tell("no locks here: it takes a minute to see whether programs are alive")
            sleep(WATCHED)
            for recipient, folders in unlocked.items():
                taken[recipient] += _claim(folders, claims, clock())
        yield taken
    finally:
        for owned in (owned for each in taken.values() for owned in each):
            with suppress(OSError):
                for unfinished in owned.folder.glob("*.tmp"):  # it was being written when its program died
                    unfinished.unlink()
            owned.let_go()


def _claim(folders: Iterable[Path], claims: Claims, now: float) -> list[Owned]:
    found: list[Owned] = []
    for folder in folders:
        with suppress(OSError):  # of another user
            if (owned := claims.claim(folder, now)) is not None:
                found.append(owned)
    return found
