"""What commands on a data folder share: its option, and a bar that moves."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["add_data", "data_folder", "progress_bar"]


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the folder."""
    parser.add_argument(
        "--data", metavar="DIR", help="data folder (default: this user's own) [OTEL_SESSIONS_DATA]"
    )


def data_folder(args: argparse.Namespace) -> Path:
    """Return the folder that the command or the environment names."""
    from otel_sessions.backend.settings import read_settings

    data = {"OTEL_SESSIONS_DATA": os.environ.get("OTEL_SESSIONS_DATA", "")}
    return read_settings({"data": args.data}, data).data


@contextmanager
def progress_bar(description: str) -> Generator[Callable[[int, int], None]]:
    """Yield what moves the bar: how much is done, of how much; no bar where nobody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
