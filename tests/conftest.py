"""What tests of every part may use: a real backend of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from backend_process import BackendProcess


@pytest.fixture
def start_backend(tmp_path: Path) -> Iterator[Callable[..., BackendProcess]]:
    """Start backends with further arguments and environment, each with a folder of its own unless told."""
    started: list[BackendProcess] = []

    def start(
        *arguments: str, data: Path | None = None, env: Mapping[str, str] | None = None
    ) -> BackendProcess:
        folder = data or tmp_path / f"data-{len(started)}"
        started.append(BackendProcess(folder, arguments, env))
        return started[-1].start()

    yield start
    for backend in started:
        backend.kill()


@pytest.fixture
def backend(start_backend: Callable[..., BackendProcess]) -> BackendProcess:
    """Start a backend on free ports of the loopback address."""
    return start_backend()
