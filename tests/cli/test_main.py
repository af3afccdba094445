"""What holds for every command: readers that leave, and what is said of a wrong call."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from backend_process import BackendProcess, clean_environment

from otel_sessions.cli.main import COMMANDS

COMMAND = [sys.executable, "-m", "otel_sessions.cli.main"]


def into_a_closed_pipe(*arguments: str, **environ: str) -> tuple[int, str]:
    """Run a command whose reader has gone already; return its exit code and standard error."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(environ),
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_into_a_reader_that_left_ends_without_a_word(command: str):
    """No traceback; some releases of argparse take it for written."""
    code, said = into_a_closed_pipe(*command.split(), "--help")
    assert (code in (0, 141), said) == (True, "")


@pytest.mark.slow
def test_what_a_command_prints_into_a_reader_that_left_is_thrown_away(backend: BackendProcess):
    """128 + SIGPIPE, as of any program that `head` has seen enough of; rich ends its own way, as quietly."""
    url = ("--url", backend.url)
    assert into_a_closed_pipe("show", "--list", "--json", *url) == (141, "")
    assert into_a_closed_pipe("show", "--list", *url) == (141, "")
    assert into_a_closed_pipe("doctor", "--no-probe", "--json") == (141, "")
    code, said = into_a_closed_pipe("doctor", "--no-probe")
    assert (code != 0, said) == (True, "")


def test_a_reader_that_stays_gets_everything(backend: BackendProcess):
    """The exit code is the command's own."""
    command = [*COMMAND, "show", "--list", "--url", backend.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No session yet" in done.stdout


def test_a_port_for_serve_is_answered_with_what_to_write():
    """There are two of them, so --port can't be meant."""
    done = subprocess.run(
        [*COMMAND, "serve", "--port", "8000"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "--http 127.0.0.1:8000" in done.stderr
    assert "--grpc" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("taken", [False, True])
def test_a_session_is_shown_by_the_beginning_of_its_id(
    start_backend: Callable[..., BackendProcess], taken: bool
):
    """Enough of it to be the only one; else it is said that there are several."""
    backend = start_backend()
    agent = "import sys, otel_sessions\notel_sessions.init()\nfor id in sys.argv[1:]:\n    with otel_sessions.session('trip', id=id):\n        pass\notel_sessions.flush(20)\n"
    ids = ["alpha-1234", "beta-alpha", *(["alpha-9999"] if taken else [])]
    environ = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url})
    subprocess.run([sys.executable, "-c", agent, *ids], env=environ, timeout=60, check=True)
    done = subprocess.run(
        [*COMMAND, "show", "alpha", "--json", "--url", backend.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if taken:
        assert (done.returncode, done.stdout) == (2, "")
        assert "alpha-1234" in done.stderr
        assert "give more of it" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert '"session_id": "alpha-1234"' in done.stdout
