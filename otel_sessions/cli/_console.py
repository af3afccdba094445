"""Where the commands print: a terminal, or a pipe that takes no colours."""

from __future__ import annotations

from typing import Final

from rich.console import Console

__all__ = ["console"]

_PIPE_WIDTH: Final = 250  # columns where nobody's terminal is: a file should not lose the end of a name


def console() -> Console:
    """Make a console: colours and the terminal's width on a terminal, neither elsewhere."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=_PIPE_WIDTH, no_color=True)
