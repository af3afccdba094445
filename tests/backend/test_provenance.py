"""The command that installs this very package elsewhere."""

from __future__ import annotations

import json

import pytest

from otel_sessions._version import __version__
from otel_sessions.backend.provenance import command_for, install_command


@pytest.mark.parametrize(
    ("said", "command"),
    [
        (None, f"pip install otel-sessions=={__version__}"),
        ({"url": "file:///home/ann/clone", "dir_info": {"editable": True}}, "pip install /home/ann/clone"),
        ({"url": "file:///home/ann/my%20clone", "dir_info": {}}, "pip install '/home/ann/my clone'"),
        ({"url": "https://x.example/o.whl", "archive_info": {}}, "pip install https://x.example/o.whl"),
        (
            {"url": "https://x.example/o.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install git+https://x.example/o.git@abc",
        ),
    ],
)
def test_what_was_installed_is_named_by_where_it_came_from(said, command):
    """An index has it only if it came from one (PEP 610)."""
    assert command_for(None if said is None else json.dumps(said)) == command


def test_what_runs_here_can_be_installed_by_what_is_said():
    """The tests run from a clone, or from what was installed."""
    assert install_command().startswith("pip install ")
