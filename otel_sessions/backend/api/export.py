"""The export of a session: all its spans and logs as one OTLP JSON document, made and sent piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Final, TypeVar

from aiohttp import hdrs, web

from otel_sessions.backend.api.sessions import found
from otel_sessions.backend.api.shapes import JsonObject
from otel_sessions.backend.otlp_json import log_json, resource_json, scope_json, span_json
from otel_sessions.backend.replies import encode, merged, separated
from otel_sessions.backend.services import Services
from otel_sessions.backend.store.base import Store, StoredLog, StoredSpan

__all__ = ["export_session", "otlp_pieces"]

GROUP_ITEMS: Final = 256  # spans or logs under one resource and scope, before the group is repeated

Stored = TypeVar("Stored", StoredSpan, StoredLog)


async def export_session(services: Services, request: web.Request) -> web.StreamResponse:
    """Send a session as OTLP JSON, as an attachment: its content is whatever models and users wrote."""
    detail = await asyncio.to_thread(found, services.store, request.match_info["id"])
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: "application/json; charset=utf-8",
        hdrs.CONTENT_DISPOSITION: f'attachment; filename="session-{detail.session.id}.otlp.json"',
    }
    return await services.documents.send(request, otlp_pieces(services.store, detail.session.id), headers)


def otlp_pieces(store: Store, session_id: str) -> Iterator[bytes]:
    """Make the document in pieces of some size; blocks while it reads the store."""
    return merged(_texts(store, session_id))


def _texts(store: Store, session_id: str) -> Iterator[bytes]:
    yield b'{"resourceSpans":['
    yield from separated(_span_group(group) for group in _groups(store.spans(session_id)))
    yield b'],"resourceLogs":['
    yield from separated(_log_group(group) for group in _groups(store.logs(session_id)))
    yield b"]}\n"


def _groups(items: Iterable[Stored]) -> Iterator[list[Stored]]:
    """Gather neighbours of one resource and scope, as they came in one request."""
    for _, same in groupby(items, key=_origin):
        while group := list(islice(same, GROUP_ITEMS)):
            yield group


def _origin(item: StoredSpan | StoredLog) -> tuple[bytes, bytes, str]:
    resource = b"" if item.resource is None else item.resource.SerializeToString()
    scope = b"" if item.scope is None else item.scope.SerializeToString()
    return resource, scope, item.schema_url


def _span_group(group: list[StoredSpan]) -> bytes:
    spans = [span_json(item.span) for item in group if item.span is not None]
    return encode({**_resource(group[0]), "scopeSpans": [{**_scope(group[0]), "spans": spans}]})


def _log_group(group: list[StoredLog]) -> bytes:
    logs = [log_json(item.log) for item in group]
    return encode({**_resource(group[0]), "scopeLogs": [{**_scope(group[0]), "logRecords": logs}]})


def _resource(item: StoredSpan | StoredLog) -> JsonObject:
    return {} if item.resource is None else {"resource": resource_json(item.resource)}


def _scope(item: StoredSpan | StoredLog) -> JsonObject:
    scope = {} if item.scope is None else {"scope": scope_json(item.scope)}
    return {**scope, "schemaUrl": item.schema_url} if item.schema_url else scope
