"""The backend's own API as a command reads it: JSON over HTTP, one clear error where it can't.

Proxies are not asked: the backend is on this machine as a rule, and a proxy would answer in its stead.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import quote, urlencode, urlsplit

from otel_sessions.cli._sse import Event, events
from otel_sessions.errors import ConfigurationError, EndpointError

__all__ = ["Api"]

TIMEOUT: Final = 10.0
_SILENCE: Final = 40.0  # seconds without a word after which a stream is dead; it has a ping every 15
_LONGEST_WORD: Final = 200
_REFUSED: Final = {401: "does not know this token", 403: "lets this token send, but not read"}
"""What the backend's answer to a token says of it."""


@dataclass(frozen=True, slots=True)
class Api:
    """The API of the backend at `url` (`http://127.0.0.1:4318`)."""

    url: str
    token: str | None = None

    def sessions(self, limit: int = 20, query: str = "") -> dict[str, Any]:
        """Return the list of sessions, newest first; those that meet a filter, however far back they are."""
        asked = {"q": query} if query else {}
        answer = self._found(self._get("/sessions", limit=limit, **asked), "sessions")
        found, after = [*answer["sessions"]], answer["next"]
        while (
            query and after is not None and len(found) < limit
        ):  # the server looks for half a second at once
            rest = {**asked, "after": after}
            answer = self._found(self._get("/sessions", limit=limit - len(found), **rest), "sessions")
            found += answer["sessions"]
            after = answer["next"]
        return {**answer, "sessions": found}

    def session(self, session_id: str) -> dict[str, Any] | None:
        """Return one session, or None where the backend knows no such id."""
        return self._get(f"/sessions/{quote(session_id, safe='')}")

    def rows(self, session_id: str, after: int | None = None) -> dict[str, Any]:
        """Return the spans of a session by columns; with `after` those that changed since that revision."""
        path = f"/sessions/{quote(session_id, safe='')}/rows"
        return self._found(self._get(path) if after is None else self._get(path, after=after), path)

    def follow(self, after: str, *, session: str = "", query: str = "") -> Iterator[Event]:
        """Iterate over what changes after a place in the stream, until it ends or is cut (EndpointError)."""
        asked = {"after": after, "session": session, "q": query}
        path = "/api/v1/stream?" + urlencode({name: value for name, value in asked.items() if value})
        connection = self._connection(_SILENCE)
        try:
            response = self._request(connection, path)
            if response.status != http.client.OK:
                self._insist_on_token(response.status)
                text = response.read().decode("utf-8", "replace")
                raise EndpointError(f"{self.url} answered {response.status}: {text[:_LONGEST_WORD]}")
            yield from events(response)
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(f"the stream of {self.url} was cut ({error})") from error
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """Return how the backend is: its version, time and counters."""
        return self._found(self._get("/status"), "status")

    def span(self, trace_id: str, span_id: str) -> dict[str, Any] | None:
        """Return one span in full, or None where it is not stored."""
        return self._get(f"/spans/{trace_id}/{span_id}")

    def turns_away(self) -> str | None:
        """Return why it turns us away for want of the right token; None where it does not."""
        return self._refusal(self._exchange("/api/v1/status")[0])

    def trouble(self) -> str | None:
        """Return why the backend can't store or read now; None where it can."""
        status, text = self._exchange("/readyz")
        if status == http.client.OK:
            return None
        try:
            return str(json.loads(text)["detail"])
        except (ValueError, KeyError, TypeError):
            return f"/readyz answers {status}"

    def page(self, session_id: str | None = None) -> str:
        """Return the address of the page, or of one session on it."""
        return self.url.rstrip("/") + "/sessions" + (f"/{quote(session_id, safe='')}" if session_id else "")

    def _found(self, document: dict[str, Any] | None, what: str) -> dict[str, Any]:
        if document is None:
            raise EndpointError(f"{self.url} has no {what}: it is no otel-sessions backend")
        return document

    def _get(self, path: str, **query: object) -> dict[str, Any] | None:
        status, text = self._exchange(f"/api/v1{path}?{urlencode(query)}" if query else f"/api/v1{path}")
        try:
            document: object = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise EndpointError(
                f"{self.url} answers, but is no otel-sessions backend (status {status}, no JSON)"
            )
        answer = cast("dict[str, Any]", document)
        if status == http.client.OK:
            return answer
        if status == http.client.NOT_FOUND:
            return None
        self._insist_on_token(status)
        detail = answer.get("detail") or answer.get("title") or "no detail"
        raise EndpointError(f"{self.url} answered {status}: {detail}")

    def _insist_on_token(self, status: int) -> None:
        if (refusal := self._refusal(status)) is not None:
            own = "its own by --token" if self.token else "--token"
            raise EndpointError(f"{self.url} {refusal}; give {own} or set OTEL_SESSIONS_TOKEN")

    def _refusal(self, status: int) -> str | None:
        if status not in _REFUSED:
            return None
        return _REFUSED[status] if self.token else "asks for a token"

    def _exchange(self, path: str) -> tuple[int, str]:
        connection = self._connection(TIMEOUT)
        try:
            response = self._request(connection, path)
            return response.status, response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(
                f"no backend answers at {self.url} ({error}); start one with `otel-sessions serve`, "
                "or name another with --url"
            ) from error
        finally:
            connection.close()

    def _request(self, connection: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
        headers = {"Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection.request("GET", urlsplit(self.url).path.rstrip("/") + path, headers=headers)
        return connection.getresponse()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        try:
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{self.url} is no address: {error}") from error
        if parts.scheme not in kinds or not parts.hostname:
            raise ConfigurationError(f"{self.url} is no address of a backend; say http://127.0.0.1:4318")
        return kinds[parts.scheme](parts.hostname, port, timeout=timeout)
