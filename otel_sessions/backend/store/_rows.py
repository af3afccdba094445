"""Index rows of spans and logs: between a record and its row of the database.

A row's id says where its message lies: `chunk << 24 | ordinal`. Beside the public `Flag` bits, `flags`
holds three of the store's own, above the mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from otel_sessions.backend.records import CATEGORIES, LogRecord, Position, SpanRecord, SpanRow

__all__ = [
    "LOG_COLUMNS",
    "NESTED",
    "OWN",
    "PUBLIC_FLAGS",
    "ROW_COLUMNS",
    "SPAN_COLUMNS",
    "bounded",
    "chunk_of",
    "log_record",
    "log_row",
    "nano",
    "position_of",
    "public_row",
    "row_id",
    "row_words",
    "span_record",
    "span_row",
    "stored_row",
]

PUBLIC_FLAGS: Final = 0xFFFF
OWN: Final = 1 << 16  # the span or log itself tells its session
TURN: Final = 1 << 17  # SpanRecord.turn
NESTED: Final = 1 << 18  # a model call that another one beside it in the tree already counts

SPAN_COLUMNS: Final = (
    "id, session, revision, trace_id, span_id, parent_id, name, kind, category, start, duration, status,"
    " flags, size, service, task, task_name, task_parent, task_state, agent, model, tool, input_tokens,"
    " output_tokens, cached_tokens, cost, user, conversation, session_name, title, outcome, failure,"
    " provider"
)
ROW_COLUMNS: Final = (
    "trace_id, span_id, parent_id, name, kind, category, start, duration, status, flags, service, task,"
    " agent, model, tool, input_tokens, output_tokens, revision"
)
LOG_COLUMNS: Final = (
    "id, session, digest, trace_id, span_id, time, severity, flags, category, event_name, service, model,"
    " input_tokens, output_tokens, cached_tokens, cost, user, tool, provider"
)

_CATEGORY_NO: Final = {category: no for no, category in enumerate(CATEGORIES)}
_ORDINAL_BITS: Final = 24  # decode.MAX_ITEMS allows 2**17
_MAX_TIME: Final = 2**63 - 1  # what a column holds; OTLP's times are unsigned
_MAX_COUNT: Final = 2**40  # a sum over millions of spans still fits a column
_MAX_COST: Final = 1e6
_NANO: Final = 1e9
_UNKNOWN: Final = (None, None, None)

RecordT = TypeVar("RecordT", SpanRecord, LogRecord)

Numbers = Mapping["str | None", "int | None"]
Word = Callable[[int | None], str | None]


def row_id(chunk: int, ordinal: int) -> int:
    """Return the id of the row whose message is the `ordinal`-th of `chunk`."""
    return chunk << _ORDINAL_BITS | ordinal


def chunk_of(row_id: int) -> int:
    """Return the number of the chunk that a row's message lies in."""
    return row_id >> _ORDINAL_BITS


def position_of(row_id: int) -> Position:
    """Return where the message of a row lies."""
    return Position(row_id >> _ORDINAL_BITS, row_id & (1 << _ORDINAL_BITS) - 1)


def span_row(span: SpanRecord, row_id: int, session: int, revision: int, no: Numbers) -> tuple[Any, ...]:
    """Return the row of a span, in the order of SPAN_COLUMNS."""
    (  # all at once: one by one they cost as much as all the rest here
        trace_id, span_id, parent_id, name, kind, start, end, status, category, _, size, flags,
        service, hint, session_name, title, user, conversation,
        task, task_name, task_parent, task_state, agent, model, provider, tool,
        input_tokens, output_tokens, cached_tokens, cost, turn, outcome, failure,
    ) = span  # fmt: skip
    flags &= PUBLIC_FLAGS
    if hint is not None:
        flags |= OWN
    if turn:
        flags |= TURN
    duration = None if end is None else end - start
    return (
        row_id, session, revision, trace_id, span_id, parent_id, no[name], kind, _CATEGORY_NO[category],
        start, duration, status, flags, size, no[service or None],
        no[task], no[task_name], no[task_parent], no[task_state],
        no[agent], no[model], no[tool], input_tokens, output_tokens, cached_tokens, nano(cost),
        no[user], no[conversation], no[session_name], no[title], no[outcome], no[failure], no[provider],
    )  # fmt: skip


def span_record(row: Sequence[Any], word: Word) -> SpanRecord:
    """Return the record of a row of SPAN_COLUMNS. Its hint is lost: the row's session says what it told."""
    start, duration, flags = row[9], row[10], row[12]
    return SpanRecord(
        trace_id=row[3],
        span_id=row[4],
        parent_id=row[5],
        name=word(row[6]) or "",
        kind=row[7],
        category=CATEGORIES[row[8]],
        start=start,
        end=None if duration is None else start + duration,
        status=row[11],
        flags=flags & (PUBLIC_FLAGS | NESTED),
        turn=bool(flags & TURN),
        ordinal=position_of(row[0]).ordinal,
        size=row[13],
        service=word(row[14]) or "",
        task_id=word(row[15]),
        task_name=word(row[16]),
        task_parent_id=word(row[17]),
        task_state=word(row[18]),
        agent=word(row[19]),
        model=word(row[20]),
        tool=word(row[21]),
        input_tokens=row[22],
        output_tokens=row[23],
        cached_tokens=row[24],
        cost=None if row[25] is None else row[25] / _NANO,
        user_id=word(row[26]),
        conversation_id=word(row[27]),
        session_name=word(row[28]),
        title=word(row[29]),
        outcome=word(row[30]),
        failure=word(row[31]),
        provider=word(row[32]),
    )


def public_row(span: SpanRecord, revision: int) -> SpanRow:
    """Return what rows, stream and tree see of a span."""
    return SpanRow(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=span.name,
        kind=span.kind,
        category=span.category,
        start=span.start,
        end=span.end,
        status=span.status,
        flags=span.flags & PUBLIC_FLAGS,
        service=span.service,
        task_id=span.task_id,
        agent=span.agent,
        model=span.model,
        tool=span.tool,
        input_tokens=span.input_tokens,
        output_tokens=span.output_tokens,
        revision=revision,
    )


def row_words(row: Sequence[Any]) -> tuple[int | None, ...]:
    """Return the numbers of the words in a row of ROW_COLUMNS."""
    return (row[3], *row[10:15])


def stored_row(row: Sequence[Any], words: Mapping[int | None, str | None]) -> SpanRow:
    """Return what rows, stream and tree see of a row of ROW_COLUMNS."""
    start, duration = row[6], row[7]
    return SpanRow(
        trace_id=row[0],
        span_id=row[1],
        parent_id=row[2],
        name=words[row[3]] or "",
        kind=row[4],
        category=CATEGORIES[row[5]],
        start=start,
        end=None if duration is None else start + duration,
        status=row[8],
        flags=row[9] & PUBLIC_FLAGS,
        service=words[row[10]] or "",
        task_id=words[row[11]],
        agent=words[row[12]],
        model=words[row[13]],
        tool=words[row[14]],
        input_tokens=row[15],
        output_tokens=row[16],
        revision=row[17],
    )


def log_row(log: LogRecord, row_id: int, session: int | None, no: Numbers) -> tuple[Any, ...]:
    """Return the row of a log record, in the order of LOG_COLUMNS."""
    return (
        row_id,
        session,
        log.digest,
        log.trace_id,
        log.span_id,
        log.time,
        log.severity,
        (0 if log.hint is None else OWN) | (TURN if log.turn else 0),
        _CATEGORY_NO.get(log.category),
        no[log.event_name or None],
        no[log.service or None],
        no[log.model],
        log.input_tokens,
        log.output_tokens,
        log.cached_tokens,
        nano(log.cost),
        no[log.user_id],
        no[log.tool],
        no[log.provider],
    )


def log_record(row: Sequence[Any], word: Word) -> LogRecord:
    """Return the record of a row of LOG_COLUMNS, without its hint."""
    return LogRecord(
        digest=row[2],
        trace_id=row[3],
        span_id=row[4],
        time=row[5],
        severity=row[6],
        turn=bool(row[7] & TURN),
        category="" if row[8] is None else CATEGORIES[row[8]],
        event_name=word(row[9]) or "",
        ordinal=position_of(row[0]).ordinal,
        service=word(row[10]) or "",
        model=word(row[11]),
        input_tokens=row[12],
        output_tokens=row[13],
        cached_tokens=row[14],
        cost=None if row[15] is None else row[15] / _NANO,
        user_id=word(row[16]),
        tool=word(row[17]),
        provider=word(row[18]),
    )


def nano(cost: float | None) -> int | None:
    """Turn USD into 1e-9 USD, so that sums do not depend on their order."""
    return None if cost is None else round(cost * _NANO)


def bounded(record: RecordT) -> RecordT:
    """Return the record with what no column can hold, or nobody can mean, made unknown.

    Times are cut at the year 2262; counts and costs beyond all sense become None.
    """
    last = record.time if isinstance(record, LogRecord) else max(record.start, record.end or 0)
    usage = (record.input_tokens, record.output_tokens, record.cached_tokens)
    if last <= _MAX_TIME and (usage == _UNKNOWN or all(map(_is_count, usage))) and _is_cost(record.cost):
        return record
    tokens = dict(zip(("input_tokens", "output_tokens", "cached_tokens"), usage, strict=True))
    changes: dict[str, Any] = {name: value if _is_count(value) else None for name, value in tokens.items()}
    changes["cost"] = record.cost if _is_cost(record.cost) else None
    if isinstance(record, SpanRecord):
        changes["start"] = min(record.start, _MAX_TIME)
        changes["end"] = None if record.end is None else min(record.end, _MAX_TIME)
    else:
        changes["time"] = min(record.time, _MAX_TIME)
    return record._replace(**changes)


def _is_count(value: int | None) -> bool:
    return value is None or 0 <= value <= _MAX_COUNT


def _is_cost(value: float | None) -> bool:
    return value is None or (math.isfinite(value) and abs(value) <= _MAX_COST)
