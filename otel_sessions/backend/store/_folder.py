"""The data folder: made if need be, and held by one backend at a time.

The lock is the operating system's, on a file of its own, so it goes with the process that held it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO, Final

from otel_sessions.errors import DataFolderError

__all__ = ["FolderLock"]

_LOCK_FILE: Final = "lock"


class FolderLock:
    """The exclusive use of a data folder, from construction until `release`."""

    def __init__(self, folder: Path) -> None:
        """Make the folder and take it. Raises DataFolderError where that fails or another has it."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = (folder / _LOCK_FILE).open("a+", encoding="ascii")
        except OSError as exc:
            raise DataFolderError(
                f"The data folder {folder} can't be written ({exc.strerror or exc}). "
                "Choose another with --data, or change its permissions."
            ) from exc
        try:
            _lock(file)
        except OSError as exc:
            owner = _owner(folder)
            file.close()
            raise DataFolderError(
                f"The data folder {folder} is in use by another backend{owner}. "
                "Stop that one, or choose another folder with --data."
            ) from exc
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let others use the folder."""
        self._file.close()


def _owner(folder: Path) -> str:
    try:
        pid = (folder / _LOCK_FILE).read_text(encoding="ascii").strip()
    except OSError:  # Windows denies reading what another process locked
        return ""
    return f" (process {pid})" if pid else ""


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(1 << 30)  # beyond what is written, so that others can still read who holds it
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
