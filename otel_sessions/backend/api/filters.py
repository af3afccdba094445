"""What a filter can say: its fields, and for each the values that sessions of late have; for completion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from otel_sessions.backend.api.shapes import JsonObject
from otel_sessions.backend.filter_text import SUGAR
from otel_sessions.backend.filters import FIELDS, Field, Kind, Op
from otel_sessions.backend.records import SessionRecord
from otel_sessions.backend.replies import answer
from otel_sessions.backend.services import Services
from otel_sessions.backend.store.base import SessionQuery

__all__ = ["OPERATORS", "list_fields"]

NEWEST: Final = 500
"""Sessions whose values are offered: what somebody filters by, they have just seen as a rule."""
OFFERED: Final = 50
"""Values of one field, the most frequent first."""

_REPEATED: Final = frozenset({"service", "user", "model", "agent", "tool", "name", "waiting"})
OPERATORS: Final = {
    Kind.CHOICE: (":", "!="),
    Kind.TEXT: (":", "=", "!="),
    Kind.TEXTS: (":", "=", "!="),
    Kind.NUMBER: (">", ">=", "<", "<=", "=", "!="),
    Kind.DURATION: (">", ">=", "<", "<=", "=", "!="),
    Kind.TIME: (">", ">=", "<", "<=", ":", "!="),
}
"""By kind of field, the likeliest first."""


async def list_fields(services: Services, request: web.Request) -> web.Response:
    """List the fields of a filter with what to compare them with."""
    event_id = services.live.last_event_id()

    def read() -> JsonObject:
        newest = services.store.sessions(SessionQuery(limit=NEWEST)).sessions
        named = [_field_json(field, newest) for field in FIELDS.values()]
        return {"fields": [*named, *map(_sugar_json, SUGAR)], "event_id": event_id}

    return await answer(request, read)


def _field_json(field: Field, newest: Iterable[SessionRecord]) -> JsonObject:
    return {
        "name": field.name,
        "kind": field.kind.value,
        "about": field.about,
        "operators": list(OPERATORS[field.kind]),
        "values": list(field.choices or _values(field, newest)),
        "nullable": field.nullable,
    }


def _sugar_json(name: str) -> JsonObject:
    about = "started at or after" if SUGAR[name] is Op.AT_LEAST else "started before"
    return {
        "name": name,
        "kind": Kind.TIME.value,
        "about": f"{about} a time, or so long ago",
        "operators": [":"],
        "values": ["1h", "24h", "7d"],
        "nullable": False,
    }


def _values(field: Field, sessions: Iterable[SessionRecord]) -> list[str]:
    if field.name not in _REPEATED:
        return []
    counted: Counter[str] = Counter()
    for session in sessions:
        found = field.of(session)
        counted.update(found if isinstance(found, tuple) else [found] if found else [])
    return [value for value, _ in counted.most_common(OFFERED)]
