"""What the demo's terminal says: where the page is, what happens now, and what to look at."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from otel_sessions.cli._demo.processes import HEARTBEAT, LEASE
from otel_sessions.cli._demo.story import SIGHTS, Sighting
from otel_sessions.cli._drawing import label, state

__all__ = ["Programme"]

_STATE_WIDTH: Final = 22
_INDENT: Final = " " * 8


class Programme:
    """The lines of the terminal, each with the time since the demo began."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def introduce(self, page: str, http: str, grpc: str, taken: Sequence[str], data: Path | None) -> None:
        """Tell where everything is, the page first; `taken` are usual addresses that were in use."""
        self._console.print(
            Text.assemble("\n  ", (page, "bold"), "   the page: leave it open beside this terminal\n")
        )
        for address in taken:
            self._console.print(
                f"  {address} is taken on this machine, so the demo uses a free port", style="yellow"
            )
        kept = f"data in {data}" if data else "what arrives is removed when it ends (--data DIR keeps it)"
        self._console.print(f"  OTLP/HTTP {http}, gRPC {grpc}; {kept}")
        self._console.print(
            f"  So that nobody has to wait, its agents beat every {HEARTBEAT} s (usually 5) and count as "
            f"lost after {LEASE} s of silence (usually 120)."
        )
        self._console.print("  Ctrl-C ends everything.\n")

    def say(self, text: str) -> None:
        """Tell what happens on stage."""
        self._console.print(self._time().append(f"» {text}", style="italic"))

    def tell(self, sighting: Sighting, page: str) -> None:
        """Tell a sighting: the session's state and name, its page, and what to look at."""
        shown = state(sighting.session)
        gap = " " * max(1, _STATE_WIDTH - shown.cell_len)
        line = Text.assemble(
            self._time(), shown, gap, (label(sighting.session), "bold"), (f"  {page}", "dim")
        )
        self._console.print(line)
        for sight in sighting.new:
            self._console.print(f"{_INDENT}└─ {SIGHTS[sight]}", style="italic")

    def end_story(self, http: str) -> None:
        """Tell that from now on only trips follow."""
        self._console.print("\n  That was the story. From now on a new trip every 20 s, until Ctrl-C.")
        self._console.print(f"  In another terminal: otel-sessions show --url {http}\n")

    def sum_up(self, missing: Sequence[str], last_words: Mapping[str, str]) -> None:
        """Tell how much of the story was seen; where some was not, what the parts of the demo last said."""
        self._console.print(f"\nSeen {len(SIGHTS) - len(missing)} of {len(SIGHTS)}.")
        for sight in missing:
            self._console.print(f"Not seen: {SIGHTS[sight]}.", style="red")
        for part, line in last_words.items() if missing else ():
            self._console.print(f"{part}: {line}", style="dim")

    def _time(self) -> Text:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return Text.assemble((f"{minutes:3}:{seconds:02}  ", "dim"))
