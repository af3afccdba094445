"""`otel-sessions serve`: how it says where it is, and why it can't start."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from backend_process import BackendProcess, clean_environment

from otel_sessions._version import __version__

Start = Callable[..., BackendProcess]


def otel_sessions(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "otel_sessions.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(env),
        check=False,
    )


def refused(*arguments: str, **env: str) -> str:
    """Run `serve` where it can't start; return the one line that it says."""
    anywhere = () if "--data" in arguments else ("--data", os.devnull + "/never")
    done = otel_sessions(
        "serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *anywhere, *arguments, **env
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("otel-sessions: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_the_first_line_of_json_tells_where_it_is(backend: BackendProcess, tmp_path: Path) -> None:
    """Ports are free ones, the folder is the one given, and both ports answer when the line is out."""
    assert backend.data.is_relative_to(tmp_path)
    assert (backend.data / "sessions.db").exists()
    for where in (backend.http, backend.grpc):
        host, _, port = where.rpartition(":")
        assert host == "127.0.0.1"
        with socket.create_connection((host, int(port)), timeout=5):
            pass


def test_the_greeting_names_the_page_and_the_endpoints(tmp_path: Path) -> None:
    """A person who starts it sees where to look and what to point an exporter at."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "otel_sessions.cli.main",
            "serve",
            "--http",
            "127.0.0.1:0",
            "--grpc",
            "127.0.0.1:0",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment({"OTEL_SESSIONS_DATA": str(tmp_path / "d")}),
    )
    assert process.stdout is not None
    with process.stdout as output:
        lines = [output.readline() for _ in range(6)]
    process.terminate()
    assert process.wait(30) == 0
    text = "".join(lines)
    assert "http://127.0.0.1:" in text
    assert str(tmp_path / "d") in text
    assert "127.0.0.1:0\n" not in text


def test_arguments_win_over_the_environment(tmp_path: Path) -> None:
    """The environment gives what the command line does not."""
    error = refused("--idle-after", "soon", OTEL_SESSIONS_IDLE_AFTER="60")
    assert "--idle-after=soon" in error
    error = refused("--data", str(tmp_path), OTEL_SESSIONS_IDLE_AFTER="never")
    assert "OTEL_SESSIONS_IDLE_AFTER=never" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--http", "4318"], "HOST:PORT"),
        (["--http", "127.0.0.1:99999"], "HOST:PORT"),
        (["--grpc", "http://127.0.0.1:4317"], "HOST:PORT"),
        (["--http", ":4318"], "HOST:PORT"),
        (["--idle-after", "0"], "as in 90s"),
        (["--idle-after", "-5"], "as in 90s"),
        (["--store", "postgres"], "write sqlite"),
        (["--token", "short"], "secrets.token_urlsafe"),
        (["--token", "with a space"], "secrets.token_urlsafe"),
    ],
)
def test_a_bad_option_is_told_with_what_to_write(arguments: list[str], said: str) -> None:
    """One line, exit code 2, and nothing was started."""
    error = refused(*arguments)
    assert said in error
    assert arguments[0] in error


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0"])
@pytest.mark.parametrize("option", ["--http", "--grpc"])
def test_it_listens_beyond_this_machine_only_with_a_token(option: str, address: str) -> None:
    """Sessions hold what people said; an open port would give it to everybody."""
    assert "OTEL_SESSIONS_TOKEN" in refused(option, address)


def test_with_a_token_it_listens_anywhere(start_backend: Start) -> None:
    """The token may come from the environment, out of sight of `ps`."""
    backend = start_backend("--http", "0.0.0.0:0", env={"OTEL_SESSIONS_TOKEN": "a-token-of-tests"})
    assert backend.http.startswith("0.0.0.0:")


@pytest.mark.parametrize("option", ["--http", "--grpc"])
def test_a_taken_port_is_told(option: str, tmp_path: Path) -> None:
    """Which one, and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        error = refused("--data", str(tmp_path), option, address)
    assert address in error
    assert f"{option} HOST:PORT" in error


def test_a_second_backend_in_the_same_folder_is_refused(backend: BackendProcess) -> None:
    """Two writers would each believe in their own leases."""
    assert str(backend.data) in refused("--data", str(backend.data))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """Where it lies below a file, or where writing is not allowed."""
    (tmp_path / "file").write_text("")
    assert "--data" in refused("--data", str(tmp_path / "file" / "below"))
    if os.geteuid() != 0:  # root writes anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "--data" in refused("--data", str(tmp_path / "locked"))


def test_a_file_that_is_no_database_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    """Whatever it is, it is the user's, and nothing of it is overwritten."""
    content = b"not a database at all, whatever its name says\n" * 500
    (tmp_path / "sessions.db").write_bytes(content)
    assert "sessions.db" in refused("--data", str(tmp_path))
    assert (tmp_path / "sessions.db").read_bytes() == content


def test_a_database_of_a_newer_version_is_refused(start_backend: Start) -> None:
    """An older program would not know what it does not know."""
    backend = start_backend()
    backend.stop()
    path = backend.data / "sessions.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9999")
    connection.close()
    error = refused("--data", str(backend.data))
    assert str(path) in error
    assert "newer" in error


def test_what_is_no_request_is_refused_and_leaves_no_traceback(backend: BackendProcess) -> None:
    """Anybody can send an address of 100,000 characters; it is answered, and no error of ours."""
    status, _, said = backend.exchange("GET", "/" + "x" * 100_000)
    assert status == 400
    assert b"65536" in said
    assert backend.exchange("GET", "/healthz")[0] == 200
    backend.stop()
    assert backend.stderr == ""


def test_the_command_line_explains_itself() -> None:
    """Version, help of all commands, and what is missing when nothing is asked for."""
    assert otel_sessions("--version").stdout == f"otel-sessions {__version__}\n"
    told = otel_sessions("--help").stdout
    for command in ("serve", "demo", "show", "replay"):
        assert command in told
        done = otel_sessions(command, "--help")
        assert done.returncode == 0
        assert f"otel-sessions {command}" in done.stdout
    for wrong in ([], ["unknown"], ["serve", "--unknown"]):
        assert otel_sessions(*wrong).returncode == 2


def test_help_loads_no_server() -> None:
    """What a command needs is imported when that command is chosen."""
    program = (
        "import sys\n"
        "from otel_sessions.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'aiohttp', 'grpc', 'sqlite3', 'opentelemetry', 'google'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=clean_environment()
    )
    assert done.stdout.splitlines()[-1] == "[]"
