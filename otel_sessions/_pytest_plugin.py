"""The plugin of pytest: the fixture `captured_sessions`. Loads nothing of ours before a test asks for it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from otel_sessions.testing import Captured

__all__ = ["captured_sessions"]


@pytest.fixture
def captured_sessions() -> Generator[Captured]:
    """Capture the sessions of this test: see `otel_sessions.testing`, and docs/testing.md."""
    from otel_sessions.testing import captured_sessions as capture  # noqa: PLC0415 - paid by who uses it

    with capture() as captured:
        yield captured
