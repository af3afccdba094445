"""What the demo sets out to show, and whether it was seen: pure functions over the API's answers.

Nothing is ticked off because the demo did it; it is ticked off because the backend told so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["SIGHTS", "Sighting", "Watch"]

SIGHTS: Final = {
    "running": "a running session: its open spans grow as you look",
    "tasks": "three tasks at once in one session: open it, their bars lie side by side",
    "retry": "a tool that failed and was tried again, in a session that ended well",
    "waiting": "a session that waits for a person's approval: it is not hung, and it is not idle",
    "completed": "a session that ended well",
    "failed": "a session that ended by an error: its model was overloaded",
    "cancelled": "a session that was cancelled, which is no error",
    "idle": "a foreign program that sends plain spans and no sign of life: nobody can tell whether it ended",
    "stale": "a worker that was killed (-9) a moment ago: three heartbeats are missing",
    "lost": "the same worker: its lease is over, what it had open is drawn open",
}
"""Everything there is to see, with what to look at."""

_TASKS: Final = 3
_OUTCOMES: Final = {"ok": "completed", "error": "failed", "cancelled": "cancelled"}


@dataclass(frozen=True, slots=True)
class Sighting:
    """A session in a state that it was not in when last looked at, and what that shows for the first time."""

    session: Mapping[str, Any]
    state: str
    new: tuple[str, ...]


@dataclass(slots=True)
class Watch:
    """What was seen so far."""

    seen: set[str] = field(default_factory=set[str])
    _states: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def missing(self) -> list[str]:
        """What has not been seen yet."""
        return [sight for sight in SIGHTS if sight not in self.seen]

    def look(self, sessions: Iterable[Mapping[str, Any]]) -> list[Sighting]:
        """Take note of sessions as the API tells of them, and return what changed since last time."""
        sightings: list[Sighting] = []
        for session in sessions:
            state = _state(session)
            shows = [sight for sight in _shown_by(session, state) if sight not in self.seen]
            if self._states.get(session["id"]) == state and not shows:
                continue
            self._states[session["id"]] = state
            self.seen.update(shows)
            sightings.append(Sighting(session, state, tuple(shows)))
        return sightings


def _state(session: Mapping[str, Any]) -> str:
    if session["state"] != "ended":
        return str(session["state"])
    return _OUTCOMES.get(str(session["outcome"]), "ended")


def _shown_by(session: Mapping[str, Any], state: str) -> list[str]:
    shown = [state] if state in SIGHTS else []
    if session["tasks_count"] >= _TASKS:
        shown.append("tasks")
    if state == "completed" and session["errors"]:
        shown.append("retry")
    return shown
