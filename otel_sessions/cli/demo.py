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
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_sessions.cli._demo.programme import Programme
    from otel_sessions.cli._demo.stage import Stage

__all__ = ["configure", "run"]

# Not OTLP's own ports: what programs of this machine send there would go with the demo.
_HTTP: Final = "127.0.0.1:4328"
_GRPC: Final = "127.0.0.1:4327"
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
        "--data", metavar="DIR", type=Path, help="keep the data there (default: removed at the end)"
    )
    parser.add_argument(
        "--once", action="store_true", help="tell the story once; exit code 0 if every state was seen, else 1"
    )


def run(args: argparse.Namespace) -> int:
    """Play the demo until Ctrl-C, or once."""
    from rich.console import Console

    from otel_sessions.cli._demo.programme import Programme

    programme = Programme(Console(highlight=False, soft_wrap=True, markup=False))
    with tempfile.TemporaryDirectory(prefix="otel-sessions-demo-") as folder:
        return asyncio.run(_play(args, Path(folder), programme))


async def _play(args: argparse.Namespace, folder: Path, programme: Programme) -> int:
    from otel_sessions.cli._demo.stage import set_up

    _cancel_on_signals()
    http, grpc = args.http or _free(_HTTP), args.grpc or _free(_GRPC)
    taken = [default for default, used in ((_HTTP, http), (_GRPC, grpc)) if used == _any_port(default)]
    try:
        async with set_up(http, grpc, args.data or folder / "data", logs=folder, say=programme.say) as stage:
            programme.introduce(stage.api.page(), stage.http, stage.grpc, taken, args.data)
            if not args.no_browser and _has_screen():
                # A thread, because some browsers keep open() waiting until they are closed.
                threading.Thread(target=webbrowser.open, args=(stage.api.page(),), daemon=True).start()
            return await (_once if args.once else _until_interrupted)(stage, programme)
    except asyncio.CancelledError:
        programme.say("ended, with everything that was started")
        return _INTERRUPTED if args.once else 0


async def _once(stage: Stage, programme: Programme) -> int:
    """Tell the story until the backend told of every sight."""
    from otel_sessions.cli._demo.stage import at_once

    observed = stage.observe(programme.tell, until_complete=True)
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(at_once(stage.play_story(), until=observed), _LONGEST_STORY)
    programme.sum_up(stage.watch.missing, stage.last_words())
    return 1 if stage.watch.missing else 0


async def _until_interrupted(stage: Stage, programme: Programme) -> int:
    """Tell the story, then let one trip follow the other."""
    from otel_sessions.cli._demo.stage import at_once

    async def show() -> None:
        await stage.play_story()
        programme.end_story(stage.http)
        await stage.play_on()

    await at_once(stage.observe(programme.tell), show())
    return 0


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
            return _any_port(address)
    return address


def _any_port(address: str) -> str:
    return address.rsplit(":", 1)[0] + ":0"


def _has_screen() -> bool:
    """Tell whether a browser would have a window; a text browser would take over this terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
