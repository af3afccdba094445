"""`otel-sessions demo`: a backend, a small but real agent program, and every state a session can be in."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

    from otel_sessions.cli._demo.stage import Stage
    from otel_sessions.cli._demo.story import Sighting

__all__ = ["configure", "run"]

_HTTP: Final = "127.0.0.1:4318"
_GRPC: Final = "127.0.0.1:4317"
_LONGEST_STORY: Final = 90.0  # seconds; it takes about 25 on an idle machine
_INTERRUPTED: Final = 130


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Start a backend, open its page, and run a small agent program against a stub model, so that every "
        "state of a session can be seen. Nothing leaves this machine. Ctrl-C ends everything."
    )
    parser.add_argument("--no-browser", action="store_true", help="only tell the page's address")
    parser.add_argument(
        "--http", metavar="HOST:PORT", help=f"page, API, OTLP/HTTP (default: {_HTTP}, or a free port)"
    )
    parser.add_argument("--grpc", metavar="HOST:PORT", help=f"OTLP/gRPC (default: {_GRPC}, or a free port)")
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="keep the data there (default: a temporary folder)"
    )
    parser.add_argument(
        "--once", action="store_true", help="tell the story once; exit code 0 if every state was seen, else 1"
    )


def run(args: argparse.Namespace) -> int:
    """Play the demo until Ctrl-C, or once."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="otel-sessions-demo-") as folder:
        return asyncio.run(_play(args, Path(folder), console))


async def _play(args: argparse.Namespace, folder: Path, console: Console) -> int:
    from otel_sessions.cli._demo.stage import set_up

    _cancel_on_signals()
    http, grpc = args.http or _free(_HTTP), args.grpc or _free(_GRPC)
    try:
        async with set_up(http, grpc, args.data or folder / "data", folder) as stage:
            _introduce(stage, args, console)
            if args.once:
                return await _once(stage, console)
            await _until_interrupted(stage, console)
    except asyncio.CancelledError:
        console.print("\nEnded, with everything that was started.")
        return _INTERRUPTED if args.once else 0
    return 0


async def _once(stage: Stage, console: Console) -> int:
    """Tell the story until the backend told of every sight."""
    from otel_sessions.cli._demo.stage import at_once
    from otel_sessions.cli._demo.story import SIGHTS

    observed = stage.observe(_teller(stage, console), until_complete=True)
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(at_once(stage.play_story(), until=observed), _LONGEST_STORY)
    missing = stage.watch.missing
    console.print(f"\nSeen {len(SIGHTS) - len(missing)} of {len(SIGHTS)}.")
    for sight in missing:
        console.print(f"Not seen: {SIGHTS[sight]}.")
    return 1 if missing else 0


async def _until_interrupted(stage: Stage, console: Console) -> None:
    from otel_sessions.cli._demo.stage import at_once

    async def show() -> None:
        await at_once(stage.play_story())
        console.print("\nThat was the story. From now on a new trip every 20 s; Ctrl-C ends everything.\n")
        await stage.play_on()

    await at_once(stage.observe(_teller(stage, console)), show())


def _introduce(stage: Stage, args: argparse.Namespace, console: Console) -> None:
    """Tell where everything is, the page first, and open it."""
    page = stage.api.page()
    console.print(f"\n  [bold]{page}[/]   the page: leave it open beside this terminal\n")
    for wanted, address in ((_HTTP, stage.http), (_GRPC, stage.grpc)):
        if not address.endswith(wanted) and wanted not in (args.http, args.grpc):
            console.print(
                f"  {wanted} is taken on this machine, so the demo listens on {address}", style="yellow"
            )
    console.print(f"  OTLP/HTTP {stage.http}, gRPC {stage.grpc}; data in {args.data or 'a temporary folder'}")
    console.print("  Ctrl-C ends everything.\n")
    if not args.no_browser and _has_screen():
        # A thread, because some browsers keep open() waiting until they are closed.
        threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()


def _teller(stage: Stage, console: Console) -> Callable[[Sighting], None]:
    """Return what prints a sighting: when, the session's state and name, where to look, what for."""
    from rich.text import Text

    from otel_sessions.cli._demo.story import SIGHTS
    from otel_sessions.cli._drawing import label, state

    began = time.monotonic()

    def tell(sighting: Sighting) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        line = Text(f"{minutes:3}:{seconds:02}  ", style="dim")
        line.append_text(state(sighting.session)).append(f"  {label(sighting.session)}  ", style="bold")
        console.print(line.append(stage.api.page(sighting.session["id"]), style="dim"))
        for sight in sighting.new:
            console.print(f"        └─ {SIGHTS[sight]}", style="italic")

    return tell


def _cancel_on_signals() -> None:
    """Turn the first Ctrl-C, SIGTERM or hang-up into a cancellation, by which children are ended in order."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    told: list[int] = []

    def stop(number: int) -> None:
        if task is not None and not told:
            told.append(number)
            task.cancel()

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        with suppress(NotImplementedError, AttributeError):  # Windows has Ctrl-C only, by KeyboardInterrupt
            loop.add_signal_handler(number := getattr(signal, name), stop, number)


def _free(address: str) -> str:
    """Return `address`, or where it is taken, one on the same host that lets the system choose the port."""
    host, port = address.rsplit(":", 1)
    with socket.socket() as probe:
        if os.name == "posix":  # elsewhere this option would let us take a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
    return address


def _has_screen() -> bool:
    """Tell whether a browser would have a window; a text browser would take over this terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
