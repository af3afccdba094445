"""Recorded requests of real emitters: where they lie, and what is known to be true of them.

Three are kept in `tests/samples`, beside samples of ours. More are found through OTEL_SESSIONS_RECORDINGS, or
in a folder beside the repository.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_sessions.backend.decode import decode
from otel_sessions.backend.records import Encoding, Request, Signal

__all__ = ["RECORDINGS", "SAMPLES", "bodies_of", "decoded", "every_recording", "expected_of", "samples"]

SAMPLES = Path(__file__).parent / "samples"
RECORDINGS = Path(
    os.environ.get("OTEL_SESSIONS_RECORDINGS", Path(__file__).parents[2] / "shared/data/otlp-recordings")
)


def expected_of(folder: Path) -> dict[str, Any]:
    """Read what is known to be true of a recording."""
    return json.loads((folder / "recording.json").read_text())["expected"]


def bodies_of(folder: Path) -> Iterator[tuple[Signal, Encoding, bytes]]:
    """Read the requests of a recording in order of arrival."""
    for request in json.loads((folder / "recording.json").read_text())["requests"]:
        path = request["path"].lower()
        signal = Signal.TRACES if "trace" in path else Signal.LOGS if "logs" in path else Signal.METRICS
        encoding = Encoding.JSON if request["file"].endswith(".json") else Encoding.PROTOBUF
        yield signal, encoding, (folder / request["file"]).read_bytes()


def decoded(folder: Path) -> list[Request]:
    """Decode all requests of a recording."""
    return [decode(*body, received_at=1) for body in bodies_of(folder)]


def _folders(parent: Path, *, own: bool = False) -> list[Path]:
    """Find recordings: of real emitters, or our own samples."""
    indexes = sorted(parent.glob("*/recording.json"))
    return [
        index.parent for index in indexes if own == (json.loads(index.read_text())["emitter"] == "samples")
    ]


samples = pytest.mark.parametrize(
    "folder", [pytest.param(folder, id=folder.name) for folder in _folders(SAMPLES, own=True)]
)
"""Run a test for each sample of ours."""

every_recording = pytest.mark.parametrize(
    "folder",
    [
        *(pytest.param(folder, id=f"kept-{folder.name}") for folder in _folders(SAMPLES)),
        *(
            pytest.param(folder, marks=pytest.mark.recordings, id=folder.name)
            for folder in _folders(RECORDINGS)
        ),
    ]
    + (
        []
        if RECORDINGS.is_dir()
        else [
            pytest.param(
                None,
                marks=pytest.mark.skip(reason="no recordings: OTEL_SESSIONS_RECORDINGS names their folder"),
                id="recordings",
            )
        ]
    ),
)
"""Run a test for each recording of a real emitter that is here."""
