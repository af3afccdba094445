"""Whose a folder of the spool is, at the moments when it becomes somebody's."""

from __future__ import annotations

import time

import pytest

from otel_sessions.sdk import _ownership
from otel_sessions.sdk._ownership import Claims, own
from otel_sessions.sdk._parcel import Parcel
from otel_sessions.sdk._spool import Limits, Spool


def test_who_looks_while_a_folder_gets_its_owner_does_not_take_it(tmp_path, monkeypatch):
    """Between the making of a lock and the holding of it nobody else holds it, nor removes the folder."""
    fcntl = pytest.importorskip("fcntl")
    hold, taken = fcntl.flock, []

    def late(handle, how):
        monkeypatch.setattr(_ownership.fcntl, "flock", hold)
        taken.extend(Claims().claim(folder, 0.0) for folder in tmp_path.iterdir())
        hold(handle, how)

    monkeypatch.setattr(_ownership.fcntl, "flock", late)
    owned = own(tmp_path)
    assert taken == [None]
    assert Claims().claim(owned.folder, 0.0) is None
    owned.let_go()
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_looks_just_then_does_not_keep_another_from_its_spool(tmp_path, monkeypatch):
    """The first parcel is on disk, whoever starts beside it."""
    fcntl = pytest.importorskip("fcntl")
    hold = fcntl.flock

    def late(handle, how):
        monkeypatch.setattr(_ownership.fcntl, "flock", hold)
        stranger = Spool(tmp_path, "traces", "http://a", Limits())
        stranger.take_over(time.monotonic())
        hold(handle, how)

    monkeypatch.setattr(_ownership.fcntl, "flock", late)
    spool = Spool(tmp_path, "traces", "http://a", Limits())
    kept = spool.put(Parcel(b"first", 1, {"s": 1}, time.time_ns()))
    assert kept.path.exists()
    spool.remove(kept)
    spool.close()
