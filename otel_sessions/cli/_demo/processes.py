"""The demo's child processes: started on a leash, ended by their own process id whatever happens.

Each child has a session (in the kernel's sense) of its own, so Ctrl-C in the terminal reaches the demo
alone, which then ends the children in order: agents before the backend that hears their last words.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from otel_sessions.errors import BackendError

__all__ = ["HEARTBEAT", "LEASE", "Child", "agent_environment", "child_environment", "last_line", "running"]

HEARTBEAT: Final = 2
LEASE: Final = 10
"""Seconds, for the agents of the demo: a twelfth of the usual lease, or nobody would see one that is lost."""

_PATIENCE: Final = 8.0  # seconds for a gentle end; the backend may have a checkpoint to write
_READY: Final = 30.0  # seconds for a child to say that it is ready


@dataclass(frozen=True, slots=True)
class Child:
    """A running child; what it says on standard error goes to the file `log`."""

    process: asyncio.subprocess.Process
    log: Path

    async def announcement(self) -> dict[str, Any]:
        """Wait for the JSON line by which a server says where it listens.

        Raises BackendError with the child's own words where it ends instead.
        """
        if self.process.stdout is None:
            raise BackendError("the child has no standard output")
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), _READY)
            return dict(json.loads(line))
        except (ValueError, asyncio.TimeoutError) as error:
            raise BackendError(self.last_words() or "a part of the demo did not start") from error

    def last_words(self) -> str:
        """Return the last line that the child wrote to its log, without the program's name before it."""
        return last_line(self.log).removeprefix("otel-sessions: ")

    async def end(self) -> None:
        """Cut the child's leash, by which it ends itself, and kill it where it does not.

        No signal from here: to send one, `subprocess` looks first whether the child is dead, and so takes its
        exit code away from asyncio (Python 3.11 and older), which then complains on standard error.
        """
        if self.process.returncode is not None:
            return
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), _PATIENCE)
        except asyncio.TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kill the child without a word (kill -9)."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def running(
    module: str, *arguments: str, environment: Mapping[str, str], log: Path
) -> AsyncGenerator[Child]:
    """Run a module as a child process for as long as the block lasts."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "otel_sessions.cli._demo.leash",
            module,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
    child = Child(process, log)
    try:
        yield child
    finally:
        await child.end()


def last_line(log: Path) -> str:
    """Return the last line of a log, or nothing."""
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return said[-1] if said else ""


def child_environment() -> dict[str, str]:
    """Return the environment of a child, free of the user's own telemetry settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


def agent_environment(endpoint: str, service: str) -> dict[str, str]:
    """Return the environment of an agent that reports to `endpoint`, with a pulse fast enough to watch."""
    return {
        **child_environment(),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_SERVICE_NAME": service,
        "OTEL_SESSIONS_HEARTBEAT": str(HEARTBEAT),
        "OTEL_SESSIONS_LEASE": str(LEASE),
        "OTEL_SESSIONS_SPOOL": "off",
    }
