"""The key of a data folder under which ids that are secrets are told apart: made once, read at each start."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from otel_sessions.errors import DataFolderError

__all__ = ["KEY_FILE", "key_in"]

KEY_FILE: Final = "redaction.key"
_KEY_BYTES: Final = 32


def key_in(folder: Path) -> bytes:
    """Return the key of a folder that is ours alone; make it where there is none. Raises DataFolderError.

    Who has it can try out which secret a marker stands for, so it is for its owner's eyes, and in no backup.
    """
    path = folder / KEY_FILE
    try:
        if path.exists() and len(key := path.read_bytes()) == _KEY_BYTES:
            return key
        return _made(path)
    except OSError as error:
        raise DataFolderError(
            f"The key {path} can't be read or written ({error.strerror or error}). Change its permissions."
        ) from error


def _made(path: Path) -> bytes:
    key, whole = secrets.token_bytes(_KEY_BYTES), path.with_suffix(".new")
    whole.unlink(missing_ok=True)
    with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    whole.replace(path)
    return key
