"""A worker with a session of its own, indexing one folder after another; the demo kills it at its work."""

from __future__ import annotations

import json
import time

import otel_sessions

__all__ = ["index"]

_FOLDERS = ("invoices", "letters", "contracts", "minutes")


def index(folder: str) -> None:
    """Index one folder, which takes its time."""
    with otel_sessions.tool("read_folder", arguments={"folder": folder}):
        time.sleep(0.6)
    with otel_sessions.step("write index"):
        time.sleep(600 if folder == "contracts" else 0.2)


def main() -> None:
    """Index all folders in one session."""
    otel_sessions.init()
    with otel_sessions.session("index documents", title="the archive of 2019") as session:
        print(json.dumps({"session": session.id}), flush=True)
        for folder in _FOLDERS:
            with session.task("index folder", attributes={"folder": folder}):
                index(folder)


if __name__ == "__main__":
    main()
