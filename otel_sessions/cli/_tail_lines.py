"""The lines that `tail` prints: for people, or one JSON object each."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, Protocol

from rich.text import Text

from otel_sessions.cli._console import console
from otel_sessions.cli._drawing import Line, clean, label, span_line, state, tokens

__all__ = ["DrawnLines", "JsonLines", "Lines"]

_STATE_WIDTH: Final = 24


class Lines(Protocol):
    """Who prints what happens."""

    def session(self, session: Mapping[str, Any]) -> None:
        """Tell the state that a session is in now."""
        ...

    def span(self, session_id: str, span: Line) -> None:
        """Tell that a span opened or ended."""
        ...

    def not_live(self, why: str) -> None:
        """Tell that nothing is heard, and why."""
        ...

    def live(self) -> None:
        """Tell that what happens is heard again."""
        ...


class DrawnLines:
    """Lines for people, each with the time of day at which it was heard."""

    def __init__(self) -> None:
        self._console = console()
        self._live = True

    def session(self, session: Mapping[str, Any]) -> None:
        """Print glyph, state, name, service, tokens and id."""
        shown = state(session)
        gap = " " * max(1, _STATE_WIDTH - shown.cell_len)
        facts = (str(session.get("service") or ""), tokens(session), str(session["id"]))
        facts = "  ".join(clean(fact) for fact in facts if fact)
        self._print(Text.assemble(shown, gap, (label(session), "bold"), (f"  {facts}", "dim")))

    def span(self, session_id: str, span: Line) -> None:  # noqa: ARG002 - only one session's spans are followed
        """Print a span that opened, or ended and how long it took."""
        self._print(Text.assemble("  ", span_line(span)))

    def not_live(self, why: str) -> None:
        """Print once that nothing is heard."""
        if self._live:
            self._print(Text(f"✕ not live: {clean(why)}. Trying again.", style="red"))
        self._live = False

    def live(self) -> None:
        """Print that it is heard again, if it was not."""
        if not self._live:
            self._print(Text("● live again", style="green"))
        self._live = True

    def _print(self, line: Text) -> None:
        self._console.print(Text.assemble((time.strftime("%H:%M:%S  "), "dim"), line), soft_wrap=True)


class JsonLines:
    """JSON objects, one a line, each with what it tells of as `type`."""

    def session(self, session: Mapping[str, Any]) -> None:
        """Print a session as the API gives it."""
        _print({"type": "session", **session})

    def span(self, session_id: str, span: Line) -> None:
        """Print a span: times are Unix nanoseconds as text, `end` is null while it is open."""
        times = {"start": str(span.start), "end": None if span.end is None else str(span.end)}
        told = {name: value for name, value in asdict(span).items() if name != "parent"}
        _print({"type": "span", "session": session_id, **told, **times})

    def not_live(self, why: str) -> None:
        """Print that nothing is heard."""
        _print({"type": "not_live", "detail": why})

    def live(self) -> None:
        """Print that what is heard from now on is live."""
        _print({"type": "live"})


def _print(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()
