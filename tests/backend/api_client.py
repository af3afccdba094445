"""A reader of the API for tests: answers, and the stream as a page follows it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientResponse, ClientSession, ClientTimeout
from otlp_requests import PROTOBUF
from yarl import URL

__all__ = ["Event", "Mirror", "Reader"]

FIELDS = ("trace", "name", "category", "service", "label", "task")
WORDS = {"trace": "traces", "name": "names", "category": "categories", "service": "services"} | {
    "label": "labels",
    "task": "tasks",
}
PLACEHOLDER = 8


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    id: str
    name: str
    data: Any


class Reader:
    """Reads one backend."""

    def __init__(self, client: ClientSession, url: str) -> None:
        self._client = client
        self._url = url

    async def get(self, path: str) -> Any:
        """Return one JSON answer; anything but a 200 fails."""
        async with self._client.get(URL(self._url + path, encoded=True)) as response:
            text = await response.text()
            assert response.status == 200, text
            return json.loads(text)

    async def post_traces(self, body: bytes) -> None:
        """Send spans and wait for the ack."""
        await self._post("/v1/traces", body)

    async def post_logs(self, body: bytes) -> None:
        """Send logs and wait for the ack."""
        await self._post("/v1/logs", body)

    async def _post(self, path: str, body: bytes) -> None:
        async with self._client.post(self._url + path, data=body, headers=PROTOBUF) as response:
            assert response.status == 200, await response.text()

    @contextlib.asynccontextmanager
    async def stream(
        self,
        after: str | None = None,
        session: str | None = None,
        last_event_id: str | None = None,
        query: str | None = None,
    ) -> AsyncGenerator[AsyncIterator[Event]]:
        """Follow the stream inside the block."""
        asked = {"after": after, "session": session, "q": query}
        url = URL(f"{self._url}/api/v1/stream").with_query({k: v for k, v in asked.items() if v})
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        timeout = ClientTimeout(total=60)
        async with self._client.get(url, headers=headers, timeout=timeout) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            yield events_of(response)


async def events_of(response: ClientResponse) -> AsyncIterator[Event]:
    """Read events by the rules of server-sent events; comments are skipped."""
    fields: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if text.startswith(":"):
            continue
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {}


@dataclass
class Mirror:
    """What a page holds: sessions by id, and the rows of one of them by trace and span."""

    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        """Take one event in, as a page does."""
        if event.name == "session":
            self.sessions[event.data["id"]] = {k: v for k, v in event.data.items() if k != "now"}
        elif event.name == "gone":
            self.sessions.pop(event.data["id"], None)
        elif event.name == "rows":
            self.take_rows(event.data)

    def take_rows(self, answer: dict[str, Any]) -> None:
        """Take rows in, by times and words instead of offsets and indices."""
        columns, base = answer["columns"], int(answer["base"])
        for at in range(len(columns["id"])):
            row = {name: column[at] for name, column in columns.items() if name != "depth"}
            for name in FIELDS:
                row[name] = None if row[name] < 0 else answer[WORDS[name]][row[name]]
            row["start"] += base
            if "parent" in row:
                parent = row.pop("parent")
                row["parent_id"] = "" if parent < 0 else columns["id"][parent]
            if not row["flags"] & PLACEHOLDER:
                self.rows[row["trace"], row["id"]] = row
