"""What of a followed backend was told already: sessions by their state, spans by whether they are open.

Before it comes what is read (`_api`), after it what is printed (`_tail_lines`). What is read twice, from a
list and from the stream after it, is told once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_sessions.backend.records import Flag
from otel_sessions.cli._drawing import Line, lines

__all__ = ["Sessions", "Spans"]

_REMEMBERED: Final = 10_000  # ended sessions whose state is remembered; an older one may be told again
_ENDED: Final = "ended"


@dataclass(slots=True)
class Sessions:
    """The sessions as they were last told, by which a change is known from more of the same."""

    _told: dict[str, tuple[object, ...]] = field(default_factory=dict[str, tuple[object, ...]])

    def changed(self, session: Mapping[str, Any]) -> bool:
        """Take note of a session, and tell whether it is in another state than when last told."""
        now = tuple(session.get(name) for name in ("state", "waiting_for", "outcome", "end_reason"))
        before = self._told.pop(session["id"], None)
        self._told[session["id"]] = now  # at the end: the dictionary is in the order of changes
        if len(self._told) > _REMEMBERED:
            self._forget()
        return now != before

    def open(self) -> list[str]:
        """Return the ids of those that had not ended when last told."""
        return [session_id for session_id, (state, *_) in self._told.items() if state != _ENDED]

    def forget(self, session_id: str) -> None:
        """Forget a session that is gone."""
        self._told.pop(session_id, None)

    def _forget(self) -> None:
        oldest = next((one for one, (state, *_) in self._told.items() if state == _ENDED), None)
        del self._told[oldest if oldest is not None else next(iter(self._told))]


@dataclass(slots=True)
class Spans:
    """The spans of the followed session as they were last told, and up to which revision."""

    revision: int = 0
    _told: dict[tuple[str, str], bool] = field(default_factory=dict[tuple[str, str], bool])

    def changed(self, document: Mapping[str, Any]) -> list[Line]:
        """Take note of changed rows, and return those that opened or ended since, in order of time."""
        self.revision = max(self.revision, int(document["revision"]))
        news: list[Line] = []
        columns = document["columns"]
        keys = zip((document["traces"][trace] for trace in columns["trace"]), columns["id"], strict=True)
        for key, line in zip(keys, lines(document), strict=True):
            is_open = Flag.OPEN in line.flags
            if Flag.PLACEHOLDER in line.flags or self._told.get(key) == is_open:
                continue
            self._told[key] = is_open
            news.append(line)
        return sorted(news, key=lambda line: line.start if line.end is None else line.end)
