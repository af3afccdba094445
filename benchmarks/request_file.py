"""Requests that one program of a benchmark makes and another sends, in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_requests(path: Path, requests: Sequence[bytes]) -> None:
    """Write requests into one file, each behind its length."""
    with path.open("wb") as file:
        for body in requests:
            file.write(len(body).to_bytes(4, "big") + body)


def read_requests(path: Path) -> list[bytes]:
    """Read what `write_requests` wrote."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : end])
        at = end
    return found
