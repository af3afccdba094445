"""`otel-sessions tail`: what becomes of sessions, line by line, as it happens."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_sessions.cli._backend import add_backend
from otel_sessions.errors import EndpointError, UsageError

if TYPE_CHECKING:
    from otel_sessions.cli._api import Api
    from otel_sessions.cli._tail_lines import Lines

__all__ = ["configure", "run"]

_FIRST_WAIT: Final = 0.5  # seconds until a cut stream is asked for again; twice as long each time, up to
_LONGEST_WAIT: Final = 5.0
_LIST: Final = 500  # sessions read to begin with and after a cut; the API gives no more at once


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = (
        "Follow all sessions, or one with its spans: a line for each change of state, until Ctrl-C. "
        "While the backend can't be reached it says so, and goes on where it was."
    )
    parser.add_argument(
        "session", metavar="SESSION", nargs="?", help="id of a session, to follow its spans too"
    )
    parser.add_argument(
        "-n", "--lines", metavar="N", type=int, default=10, help="how many of what was to begin with (10)"
    )
    parser.add_argument(
        "--filter",
        metavar="TEXT",
        default="",
        help="only sessions that meet it: 'state:lost tool:search tokens>10k \"two words\"'",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object a line instead")
    add_backend(parser)


def run(args: argparse.Namespace) -> int:
    """Follow until Ctrl-C. Raises EndpointError where no backend answers to begin with."""
    from otel_sessions.cli._api import Api
    from otel_sessions.cli._tail_lines import DrawnLines, JsonLines

    if args.session and args.filter:
        raise UsageError("--filter chooses among all sessions: leave it out to follow one")
    if args.lines < 0:
        raise UsageError("--lines is 0 or more")
    api = Api(args.url, args.token)
    lines = JsonLines() if args.json else DrawnLines()
    tail = (
        _OneSession(api, lines, _id(api, args.session))
        if args.session
        else _AllSessions(api, lines, args.filter)
    )
    place = tail.catch_up(args.lines)
    while True:
        place = _follow(tail, lines, place)


def _id(api: Api, wanted: str) -> str:
    session = api.session(wanted)
    if session is None:
        raise EndpointError(f"no session {wanted!r} at {api.url}; `otel-sessions tail` follows all")
    return str(session["id"])


def _follow(tail: _AllSessions | _OneSession, lines: Lines, place: str) -> str:
    """Follow the stream from a place on until it is cut, and return the place from which it goes on."""
    trouble = tail.follow(place)
    wait = _FIRST_WAIT
    while True:
        if trouble:
            lines.not_live(trouble)
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        try:
            place = tail.catch_up()
        except EndpointError as error:
            trouble = str(error)
        else:
            lines.live()
            return place


class _AllSessions:
    """Every session that meets a filter; told is each change of state."""

    def __init__(self, api: Api, lines: Lines, query: str) -> None:
        from otel_sessions.cli._following import Sessions

        self._api = api
        self._lines = lines
        self._query = query
        self._known = Sessions()

    def catch_up(self, most: int | None = None) -> str:
        """Tell what changed, `most` lines of it, and return the place in the stream after it."""
        answer = self._api.sessions(_LIST, self._query)
        read = {session["id"]: session for session in answer["sessions"]}
        for session_id in self._known.open():  # one that was open before a cut may be far back by now
            if session_id not in read and (session := self._api.session(session_id)) is not None:
                read[session_id] = session
        changed = [session for session in read.values() if self._known.changed(session)]
        changed.sort(key=lambda session: int(session["last_seen_at"] or 0))
        for session in changed if most is None else changed[len(changed) - min(most, len(changed)) :]:
            self._lines.session(session)
        return str(answer["event_id"])

    def follow(self, place: str) -> str | None:
        """Tell what happens from a place on until the stream ends; returns what cut it, if anything did."""
        try:
            for event in self._api.follow(place, query=self._query):
                if event.name == "reset":
                    return None
                if event.name == "session" and self._known.changed(event.data):
                    self._lines.session(event.data)
                elif event.name in ("gone", "unmatched"):
                    self._known.forget(event.data["id"])
        except EndpointError as error:
            return str(error)
        return "the backend ended the stream"


class _OneSession:
    """One session: each change of its state, and its spans as they open and end."""

    def __init__(self, api: Api, lines: Lines, session: str) -> None:
        from otel_sessions.cli._following import Sessions, Spans

        self._api = api
        self._lines = lines
        self._id = session
        self._known = Sessions()
        self._spans = Spans()

    def catch_up(self, most: int | None = None) -> str:
        """Tell what changed, `most` spans of it, and return the place in the stream after it."""
        session = self._api.session(self._id)
        if session is None:
            raise EndpointError(f"{self._api.url} has no session {self._id} any more")
        self._session(session)
        spans = self._spans.changed(self._api.rows(self._id, after=self._spans.revision))
        for span in spans if most is None else spans[len(spans) - min(most, len(spans)) :]:
            self._lines.span(self._id, span)
        return str(session["event_id"])

    def follow(self, place: str) -> str | None:
        """Tell what happens from a place on until the stream ends; returns what cut it, if anything did."""
        try:
            for event in self._api.follow(place, session=self._id):
                if event.name == "reset":
                    return None
                if event.name == "session" and event.data["id"] == self._id:
                    self._session(event.data)
                elif event.name == "rows":
                    for span in self._spans.changed(event.data):
                        self._lines.span(self._id, span)
        except EndpointError as error:
            return str(error)
        return "the backend ended the stream"

    def _session(self, session: Mapping[str, Any]) -> None:
        if self._known.changed(session):
            self._lines.session(session)
