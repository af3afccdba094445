"""A program beside us as a process: started, awaited, killed, started again; its log is kept for the failure."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from backend_process import clean_environment

__all__ = ["Collector", "Jaeger", "Neighbour", "Prometheus", "free_addresses", "get_json", "until"]

START_SECONDS = 60
STOP_SECONDS = 30


def free_addresses(count: int) -> list[str]:
    """Return addresses of the loopback interface that nobody listened at a moment ago, HOST:PORT each."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return addresses


def until(true: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait until something holds, and return it; fail with what it was about."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def get_json(url: str, query: Mapping[str, str] | None = None) -> Any:
    """Ask an HTTP API and return its answer; raise urllib's HTTPError for anything but success."""
    asked = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 -- our own loopback addresses
        return json.load(answer)


class Neighbour:
    """One program; `ready` is the address that answers 200 once it works, `log` what it has written."""

    def __init__(
        self, name: str, command: Sequence[str | Path], ready: str, log: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self._command = [str(part) for part in command]
        self._ready = ready
        self._log = log
        self._env = clean_environment(env)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything it has written so far, over all its starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start it and wait until it is ready."""
        assert self._process is None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._env)
        until(self._answers, f"{self.name} is ready", START_SECONDS)

    def _answers(self) -> bool:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"{self.name} ended with {code} before it was ready:\n{self.log[-3000:]}"
        try:
            with urllib.request.urlopen(self._ready, timeout=5) as answer:  # noqa: S310 -- loopback
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """End it the hard way (SIGKILL), as a crash would; nothing if it has ended."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it the polite way (SIGTERM)."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.kill(process.pid, how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@dataclass(frozen=True, slots=True)
class Collector:
    """A Collector: where it listens, and the process."""

    grpc: str
    """HOST:PORT of OTLP/gRPC."""
    http: str
    """HOST:PORT of OTLP/HTTP."""
    metrics: str
    """HOST:PORT of the Prometheus exporter, where the configuration has one."""
    queue: Path
    """The folder of its file storage."""
    process: Neighbour

    @property
    def url(self) -> str:
        """The endpoint of OTLP/HTTP."""
        return f"http://{self.http}"


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A Jaeger all-in-one: where it listens, and the process."""

    otlp_grpc: str
    """HOST:PORT of OTLP/gRPC."""
    otlp_http: str
    """HOST:PORT of OTLP/HTTP."""
    query_url: str
    """The base of its HTTP APIs: `/api/traces`, `/api/v3/traces`, …"""
    process: Neighbour

    def spans(self, service: str) -> list[dict[str, Any]]:
        """Return every span that it shows of a service, each as often as it is stored."""
        query = {"service": service, "limit": "1000"}
        traces = get_json(f"{self.query_url}/api/traces", query)["data"] or []
        return [span for trace in traces for span in trace["spans"]]

    def has(self, trace: str) -> bool:
        """Tell whether it has a trace."""
        try:
            return bool(get_json(f"{self.query_url}/api/traces/{trace}")["data"])
        except urllib.error.HTTPError as absent:
            if absent.code != HTTPStatus.NOT_FOUND:
                raise
            return False


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus server: its address, and the process."""

    url: str
    process: Neighbour

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query: `[{"metric": {…}, "value": [time, "text"]}, …]`."""
        answer = get_json(f"{self.url}/api/v1/query", {"query": expression})
        return answer["data"]["result"]
