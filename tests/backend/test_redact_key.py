"""The key that tells ids apart: one for each data folder, for its owner alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_sessions.backend.redact_key import KEY_FILE, key_in
from otel_sessions.errors import DataFolderError


def test_a_folder_keeps_its_key(tmp_path: Path) -> None:
    """Over restarts; another has another."""
    other = tmp_path / "other"
    other.mkdir()
    key = key_in(tmp_path)
    assert len(key) == 32
    assert key_in(tmp_path) == key != key_in(other)
    assert [path.name for path in other.iterdir()] == [KEY_FILE]
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o77 == 0


def test_a_key_that_was_cut_is_made_anew(tmp_path: Path) -> None:
    """And what a start that was killed left is no hindrance."""
    (tmp_path / KEY_FILE).write_bytes(b"short")
    (tmp_path / KEY_FILE).with_suffix(".new").write_bytes(b"left")
    assert len(key_in(tmp_path)) == 32
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_a_key_that_can_not_be_read_ends_the_start(tmp_path: Path) -> None:
    """Rather than that one session becomes two."""
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(DataFolderError, match=KEY_FILE):
        key_in(tmp_path)
