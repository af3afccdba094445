"""The root of a lost run, which never came, made of what its announcement told; pure.

It bears `otel_sessions.synthetic`, and ends when the run was last heard, or with the last span that came.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_sessions import semconv
from otel_sessions.backend.store.base import StoredSpan

__all__ = ["WARNING", "made_up"]

WARNING: Final = (
    "otel-sessions made this span up: its run was lost, so the root never came. The start is known from the "
    "run's events, the end is the last sign of life."
)

_OF_THE_EVENT: Final = frozenset(
    {semconv.SEQ, semconv.ELAPSED, semconv.HEARTBEAT_INTERVAL, semconv.LEASE, semconv.SESSION_PREVIOUS_ID}
)


def made_up(announced: StoredSpan, last_end: int) -> SpanMessage:
    """Return the span of an announced root; `last_end` is when the last span of its trace ended."""
    row = announced.row
    told = [item for event in announced.events for item in event.attributes if item.key not in _OF_THE_EVENT]
    mark = KeyValue(key=semconv.SYNTHETIC, value=AnyValue(bool_value=True))
    return SpanMessage(
        trace_id=row.trace_id,
        span_id=row.span_id,
        parent_span_id=row.parent_id,
        name=row.name,
        kind=row.kind,  # pyright: ignore[reportArgumentType] - an enum is a number
        start_time_unix_nano=row.start,
        end_time_unix_nano=max(row.start, row.end or 0, last_end),
        attributes=[*told, mark],
    )
