"""The stores that the contract suites run over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_sessions.backend.store.base import Store
from otel_sessions.backend.store.sqlite import SqliteStore

STORES: dict[str, Callable[[Path], Store]] = {"sqlite": SqliteStore}


@pytest.fixture(params=STORES, ids=str)
def open_store(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], Store]]:
    """Open stores of one kind; those still open at the end are closed."""
    opened: list[Store] = []

    def opener(folder: Path) -> Store:
        opened.append(STORES[request.param](folder))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[Path], Store], tmp_path: Path) -> Store:
    """Open an empty store."""
    return open_store(tmp_path / "data")
