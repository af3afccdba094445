"""A real `otel-sessions serve` for tests: its own process, free ports, a folder of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["BackendProcess", "clean_environment"]

START_SECONDS = 60


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this environment without any setting of OpenTelemetry or of ours; spans wait in memory alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return {**kept, "OTEL_SESSIONS_SPOOL": "off", **(extra or {})}


class BackendProcess:
    """One backend; `http` and `grpc` are HOST:PORT as it announced them, `url` the page's address."""

    def __init__(
        self, data: Path, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> None:
        self.data = data
        self.http = "127.0.0.1:0"
        self.grpc = "127.0.0.1:0"
        self._arguments = list(arguments)
        self._env = clean_environment(env)
        self._errors: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.http}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def stderr(self) -> str:
        """What it has written to standard error so far."""
        return "".join(self._errors)

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "otel_sessions.cli.main", "serve", "--json"),
            *("--http", self.http, "--grpc", self.grpc, "--data", str(self.data)),
            *self._arguments,
        ]

    def start(self) -> BackendProcess:
        """Start it and wait until it says that it is ready."""
        process = subprocess.Popen(
            self.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._env
        )
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._reader = threading.Thread(target=self._errors.extend, args=(process.stderr,), daemon=True)
        self._reader.start()
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        if not line:
            code = self._ended()
            raise AssertionError(f"the backend ended with {code} before it was ready: {self.stderr}")
        announced = json.loads(line)
        self.http, self.grpc = announced["http"], announced["grpc"]
        return self

    def exchange(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request on a connection of its own; return status, headers and body of the answer."""
        connection = http.client.HTTPConnection(self.http, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def kill(self) -> None:
        """End it the hard way (SIGKILL), as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def stop(self) -> int:
        """End it the polite way (SIGTERM); return its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        return self._ended()

    def restart(self) -> BackendProcess:
        """Start it again at the same addresses and folder, stopped politely if it still runs."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Stop it from running (SIGSTOP), as a laptop that sleeps."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again."""
        os.kill(self.pid, signal.SIGCONT)

    def _ended(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        try:
            code = process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            self._reader.join(timeout=10)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        return code
