"""Rows of runs and gauges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from otel_sessions.backend.records import Gauge, RunRecord
from otel_sessions.lifecycle import Phase, Run, Signal

__all__ = ["GAUGE_COLUMNS", "RUN_COLUMNS", "gauge_of", "run_of", "run_row"]

GAUGE_COLUMNS: Final = "process, seq, started, ended, dropped, losses"

RUN_COLUMNS: Final = (
    "root_id, child_process, trace_id, process, phase, waiting_for, signal, outcome, end_reason,"
    " started_at, ended_at, resumed, phase_seq, beat_seq, live_until, lease_until, interval, lease,"
    " previous_id, session_name, title, last_heard_at, open_spans"
)


def run_row(record: RunRecord) -> tuple[Any, ...]:
    """Return the row of a run, in the order of RUN_COLUMNS."""
    run = record.run
    return (
        record.root_id,
        record.process if record.child else "",
        record.trace_id,
        record.process,
        run.phase.value,
        run.waiting_for,
        run.signal.value,
        run.outcome,
        run.end_reason,
        run.started_at,
        run.ended_at,
        run.resumed,
        run.phase_seq,
        run.beat_seq,
        run.live_until,
        run.lease_until,
        record.interval,
        record.lease,
        record.previous_id,
        record.session_name,
        record.title,
        record.last_heard_at,
        ",".join(span.hex() for span in record.open_spans),
    )


def run_of(row: Sequence[Any], session_key: str) -> tuple[tuple[bytes, str], RunRecord]:
    """Return the run of a row of RUN_COLUMNS, with its key inside the session."""
    run = Run(
        phase=Phase(row[4]),
        waiting_for=row[5],
        signal=Signal(row[6]),
        outcome=row[7],
        end_reason=row[8],
        started_at=row[9],
        ended_at=row[10],
        resumed=bool(row[11]),
        phase_seq=row[12],
        beat_seq=row[13],
        live_until=row[14],
        lease_until=row[15],
    )
    record = RunRecord(
        session_key=session_key,
        root_id=row[0],
        trace_id=row[2],
        process=row[3],
        run=run,
        interval=row[16],
        lease=row[17],
        previous_id=row[18],
        session_name=row[19],
        title=row[20],
        last_heard_at=row[21],
        child=bool(row[1]),
        open_spans=tuple(bytes.fromhex(text) for text in row[22].split(",") if text),
    )
    return (row[0], row[1]), record


def gauge_of(row: Sequence[Any], session_key: str) -> Gauge:
    """Return the gauge of a row of GAUGE_COLUMNS."""
    process, seq, started, ended, dropped, losses = row
    return Gauge(session_key, process, seq, started, ended, dropped, losses)
