"""Whose session a span or log is: names of sessions, and the choice of a trace's home; pure.

The order of the search, first usable value first:

1. an id on the span or log itself (`vocabulary.SESSION` lists the keys);
2. `session.id` on its resource;
3. its trace's home: what 1 and 2 gave for the trace's root, else for the span that started first, else
   for the first log (`home_rank`: the least rank wins, whatever the order of arrival);
4. its trace, which then is a session of its own.

Every session has a key. An id under `session.id` is global; an id found under any other key belongs to
the service that sent it, unless that service also sends the same value as `session.id`
(`SessionHint.service` and `scoped_twin` tell).
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from otel_sessions.backend.records import LogRecord, SessionHint, SpanRecord

__all__ = [
    "HomeRank",
    "global_key",
    "hint_of",
    "home_rank",
    "scoped_twin",
    "service_scope",
    "session_id",
    "session_key",
    "told_id",
    "trace_key",
]

_GLOBAL: Final = "session:"
_ID_LENGTH: Final = 20  # hex digits: 80 bits, so one collision in a million sessions is below 1e-12


def service_scope(namespace: str, name: str) -> str:
    """Name a service as the owner of ids: "namespace/name", "/name" without a namespace."""
    return f"{namespace}/{name}"


def hint_of(own: str | None, *, is_global: bool, resource: str | None, service: str) -> SessionHint | None:
    """Return what a span or log says of its session; None where neither it nor its resource says anything.

    `own` is the id on the record itself, `is_global` whether it stood under `session.id`, `resource` the
    `session.id` of the resource, `service` the service's scope. An id that equals the resource's
    `session.id` is that session, whatever key it was found under.
    """
    if own is None:
        return None if resource is None else SessionHint(resource, "", service)
    if is_global or own == resource:
        return SessionHint(own, "", service)
    return SessionHint(own, service, service)


def session_key(hint: SessionHint) -> str:
    """Return the key of the session that a hint names."""
    return _scoped_key(hint.scope, hint.value) if hint.scope else global_key(hint.value)


def global_key(value: str) -> str:
    """Return the key of the session with this `session.id`."""
    return f"{_GLOBAL}{value}"


def told_id(key: str) -> str | None:
    """Return the `session.id` that a key was made of; None for any other key."""
    return key[len(_GLOBAL) :] if key.startswith(_GLOBAL) else None


def trace_key(trace_id: bytes) -> str:
    """Return the key of the session that a trace is by itself."""
    return f"trace:{trace_id.hex()}"


def scoped_twin(hint: SessionHint) -> str | None:
    """Return the key that the same id has where its service sends it under another key than `session.id`.

    What lives under that key is the same session as the hint's. None for a hint that is not global.
    """
    return None if hint.scope or not hint.service else _scoped_key(hint.service, hint.value)


def session_id(key: str) -> str:
    """Return the public id of the session with this key: 20 lower-case hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()[:_ID_LENGTH]


def _scoped_key(scope: str, value: str) -> str:
    # The length keeps scope and value apart, whatever characters they hold.
    return f"service:{len(scope)}:{scope}:{value}"


class HomeRank(NamedTuple):
    """How much weight a record's session has for its whole trace: the least rank of a trace wins."""

    kind: int  # 0 a root span, 1 another span, 2 a log
    time: int  # start of the span, time of the log
    id: bytes  # span id; digest of a log


def home_rank(record: SpanRecord | LogRecord) -> HomeRank:
    """Rank a record that says which session it belongs to, among all records of its trace that do."""
    if isinstance(record, SpanRecord):
        return HomeRank(1 if record.parent_id else 0, record.start, record.span_id)
    return HomeRank(2, record.time, record.digest)
