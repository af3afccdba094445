"""Whether a sender keeps the session protocol (docs/protocol.md): what it sent in, broken rules out.

    python -m otel_sessions.testing.protocol -- node my_agent.js

runs a program against a receiver of its own, and tells which rules it keeps. In a test:

    with listen() as listener:
        run_my_agent(endpoint=listener.endpoint)
    assert check(listener.heard()) == []

A sender is judged by what it sent, over OTLP/HTTP in protobuf or JSON, from its start to its end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from otel_sessions import semconv
from otel_sessions.lifecycle import Outcome, Phase
from otel_sessions.testing._heard import Heard, Told, listen

__all__ = ["RULES", "Breach", "check", "listen", "main"]

_STARTS: Final = (semconv.EVENT_SESSION_START, semconv.EVENT_SESSION_RESUMED)
_COUNTED: Final = (semconv.EVENT_SESSION_HEARTBEAT, semconv.EVENT_SESSION_END)
_COUNTS: Final = (semconv.SPANS_STARTED, semconv.SPANS_ENDED, semconv.SPANS_DROPPED)
_PHASED: Final = (semconv.EVENT_SESSION_HEARTBEAT, semconv.EVENT_SESSION_STATE)
_PHASES: Final = (Phase.RUNNING.value, Phase.WAITING.value)
_OUTCOMES: Final = tuple(outcome.value for outcome in Outcome)
_INTERVALS: Final = 3  # that a lease has to outlast: so many missed make a run stale
_LATEST: Final = 2.0  # intervals between two heartbeats: twice as long is no longer the interval told
_OPEN_SPANS: Final = 64
_TRACE_ID, _SPAN_ID = 16, 8
_NS: Final = 1_000_000_000
_BROKEN: Final = 1

Rule = Callable[[Heard], Iterable[str]]


class Breach(NamedTuple):
    """A rule that was broken, and by what."""

    rule: str
    detail: str


def check(heard: Heard) -> list[Breach]:
    """Return what breaks the protocol in all that a sender sent; nothing where it keeps every rule."""
    return [Breach(name, detail) for name, rule in RULES.items() for detail in rule(heard)]


# --- Every event ----------------------------------------------------------------------------------------


def _scope(heard: Heard) -> Iterator[str]:
    if not heard.events:
        yield "no life cycle event was sent at all"
    for event in heard.events:
        if event.name not in semconv.EVENTS:
            yield f"{event.name or 'an event without a name'} is none of the protocol's events"
        elif event.scope != semconv.SCOPE_NAME:
            yield f"{event.name} is of the scope {event.scope!r}"


def _ids(heard: Heard) -> Iterator[str]:
    for event in heard.events:
        if not _valid(event.trace_id, _TRACE_ID) or not _valid(event.span_id, _SPAN_ID):
            yield f"{_one(event)} has no valid trace id and span id"
        if not event.text(semconv.SESSION_ID):
            yield f"{_one(event)} has no session.id"


def _process(heard: Heard) -> Iterator[str]:
    for event in heard.events:
        if not event.text(semconv.PROCESS_ID):
            yield f"{_one(event)} has no {semconv.PROCESS_ID}"


def _seq(heard: Heard) -> Iterator[str]:
    for process, events in _by_process(heard).items():
        numbers = [event.seq for event in events]
        if numbers[0] != 1:
            yield f"the first event of process {process} is number {numbers[0]}"
        for one, other in pairwise(numbers):
            if one == other:
                yield f"process {process} has two events of number {one}"


def _elapsed(heard: Heard) -> Iterator[str]:
    for events in _by_process(heard).values():
        for event in events:
            if _count(event, semconv.ELAPSED) is None:
                yield f"{_one(event)} does not tell its process's age in nanoseconds"
        ages = [age for event in events if (age := _count(event, semconv.ELAPSED)) is not None]
        for before, after in pairwise(ages):
            if after < before:
                yield f"a later event tells an age of {after} ns, an earlier one {before} ns"


def _lease(heard: Heard) -> Iterator[str]:
    for event in heard.events:
        interval, lease = _seconds(event, semconv.HEARTBEAT_INTERVAL), _seconds(event, semconv.LEASE)
        if interval is None or lease is None:
            yield f"{_one(event)} does not tell interval and lease in seconds"
        elif lease <= _INTERVALS * interval:
            yield f"{_one(event)}: a lease of {lease:g} s is over before three intervals of {interval:g} s"


# --- From start to end ------------------------------------------------------------------------------------


def _start(heard: Heard) -> Iterator[str]:
    for run, events in _runs(heard).items():
        starts = [event for event in events if event.name in _STARTS]
        if len(starts) != 1:
            yield f"run {run} has {len(starts)} starts"
        elif events[0] is not starts[0]:
            yield f"run {run} begins with {events[0].name}"


def _first_heartbeat(heard: Heard) -> Iterator[str]:
    signs = (semconv.EVENT_SESSION_HEARTBEAT, semconv.EVENT_SESSION_END)
    for run, events in _runs(heard).items():
        with_a_sign = {event.request for event in events if event.name in signs}
        if any(event.name in _STARTS and event.request not in with_a_sign for event in events):
            yield f"the start of run {run} came without a heartbeat in the same request"


def _pace(heard: Heard) -> Iterator[str]:
    for run, events in _runs(heard).items():
        alive = [event for event in events if event.name in (*_STARTS, *_COUNTED)]
        for one, other in pairwise(alive):
            interval = _seconds(one, semconv.HEARTBEAT_INTERVAL)
            before, after = _count(one, semconv.ELAPSED), _count(other, semconv.ELAPSED)
            if interval is None or before is None or after is None:
                continue
            silence = (after - before) / _NS
            if silence > _LATEST * interval:
                yield f"run {run} was silent for {silence:.1f} s, its interval is {interval:g} s"


def _phase(heard: Heard) -> Iterator[str]:
    for event in heard.events:
        phase, reason = event.attributes.get(semconv.PHASE), event.attributes.get(semconv.WAITING_FOR)
        if event.name in _PHASED and phase not in _PHASES:
            yield f"{_one(event)} tells the phase {phase!r}"
        if reason is not None and phase != Phase.WAITING.value:
            yield f"{_one(event)} tells what it waits for, but not that it waits"


def _counts(heard: Heard) -> Iterator[str]:
    for events in _by_process(heard).values():
        last: dict[str, list[int]] = {}
        for event in (event for event in events if event.name in _COUNTED):
            now = [count for name in _COUNTS if (count := _count(event, name)) is not None]
            if len(now) < len(_COUNTS):
                yield f"{_one(event)} does not tell the three counts"
                continue
            before = last.get(event.text(semconv.SESSION_ID), now)
            if any(one > other for one, other in zip(before, now, strict=True)):
                yield f"{_one(event)}: the counts went back from {before} to {now}"
            if now[1] > now[0]:
                yield f"{_one(event)} tells more spans ended than started"
            last[event.text(semconv.SESSION_ID)] = now


def _open_spans(heard: Heard) -> Iterator[str]:
    for event in heard.events:
        if event.name != semconv.EVENT_SESSION_HEARTBEAT:
            continue
        ids: Any = event.attributes.get(semconv.OPEN_SPANS, [])
        if not isinstance(ids, list) or len(ids) > _OPEN_SPANS or not all(map(_is_hex_id, ids)):  # pyright: ignore[reportUnknownArgumentType] - whatever was sent
            yield f"{_one(event)} names open spans by no list of at most {_OPEN_SPANS} ids of 16 hex digits"


def _end(heard: Heard) -> Iterator[str]:
    for run, events in _runs(heard).items():
        ends = [event for event in events if event.name == semconv.EVENT_SESSION_END]
        if len(ends) != 1:
            yield f"run {run} has {len(ends)} ends"
            continue
        if events[-1] is not ends[0]:
            yield f"run {run} goes on after its end with {events[-1].name}"
        if not ends[0].text(semconv.SESSION_END_REASON):
            yield f"the end of run {run} tells no reason"
        outcome = ends[0].attributes.get(semconv.SESSION_OUTCOME)
        if outcome is not None and outcome not in _OUTCOMES:
            yield f"the end of run {run} tells the outcome {outcome!r}"


# --- Spans ------------------------------------------------------------------------------------------------


def _root(heard: Heard) -> Iterator[str]:
    spans = {(span.trace_id, span.span_id): span for span in heard.spans}
    for run, events in _runs(heard).items():
        root = spans.get((events[0].trace_id, events[0].span_id))
        if root is None:
            yield f"no root span came of run {run}"
            continue
        if not root.name.startswith("session "):
            yield f"the root of run {run} is called {root.name!r}"
        end = next((event for event in events if event.name == semconv.EVENT_SESSION_END), None)
        for name in (semconv.SESSION_OUTCOME, semconv.SESSION_END_REASON):
            if end is not None and root.attributes.get(name) != end.attributes.get(name):
                yield f"root and end of run {run} differ in {name}"


def _spans(heard: Heard) -> Iterator[str]:
    traces = {event.trace_id: event.text(semconv.SESSION_ID) for event in heard.events}
    for span in heard.spans:
        if span.trace_id in traces and not span.attributes.get(semconv.SESSION_ID):
            yield f"span {span.name!r} ({span.span_id.hex()}) has no session.id"


def _complete(heard: Heard) -> Iterator[str]:
    came: dict[str, int] = defaultdict(int)
    for span in heard.spans:
        if span.attributes.get(semconv.LATE) is not True:
            came[str(span.attributes.get(semconv.SESSION_ID))] += 1
    for session, (ended, dropped) in _last_counts(heard).items():
        if came[session] + dropped < ended:
            yield f"session {session}: {ended} spans ended, {dropped} were dropped, but {came[session]} came"


def _previous(heard: Heard) -> Iterator[str]:
    for event in heard.events:
        previous = event.attributes.get(semconv.SESSION_PREVIOUS_ID)
        if previous is not None and previous == event.attributes.get(semconv.SESSION_ID):
            yield f"{_one(event)} names itself as the session before"


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "scope": _scope,
        "ids": _ids,
        "process": _process,
        "seq": _seq,
        "elapsed": _elapsed,
        "lease": _lease,
        "start": _start,
        "first heartbeat": _first_heartbeat,
        "pace": _pace,
        "phase": _phase,
        "counts": _counts,
        "open spans": _open_spans,
        "end": _end,
        "root": _root,
        "spans": _spans,
        "complete": _complete,
        "previous": _previous,
    }
)
"""Every rule for senders by its name in docs/protocol.md: all that was heard in, a sentence a breach out."""


# --- Words over what was heard ------------------------------------------------------------------------------


def _by_process(heard: Heard) -> dict[str, list[Told]]:
    """Return the events of each process in the order of their numbers."""
    found: dict[str, list[Told]] = defaultdict(list)
    for event in heard.events:
        found[event.text(semconv.PROCESS_ID)].append(event)
    return {process: sorted(events, key=lambda event: event.seq) for process, events in found.items()}


def _runs(heard: Heard) -> dict[str, list[Told]]:
    """Return the events of each run by the process whose own it is, in the order of their numbers."""
    found: dict[str, list[Told]] = defaultdict(list)
    for events in _by_process(heard).values():
        for event in events:
            if event.name != semconv.EVENT_SPAN_START and event.attributes.get(semconv.CHILD) is not True:
                found[event.span_id.hex()].append(event)
    return dict(found)


def _last_counts(heard: Heard) -> dict[str, tuple[int, int]]:
    """Return ended and dropped spans of each session, over all processes that told an end."""
    last: dict[tuple[str, str], tuple[int, int]] = {}
    for process, events in _by_process(heard).items():
        for event in (event for event in events if event.name == semconv.EVENT_SESSION_END):
            ended, dropped = _count(event, semconv.SPANS_ENDED), _count(event, semconv.SPANS_DROPPED)
            last[event.text(semconv.SESSION_ID), process] = (ended or 0, dropped or 0)
    sums: dict[str, tuple[int, int]] = {}
    for (session, _), (ended, dropped) in last.items():
        before = sums.get(session, (0, 0))
        sums[session] = (before[0] + ended, before[1] + dropped)
    return sums


def _one(event: Told) -> str:
    return f"{event.name} (number {event.seq})"


def _valid(id_: bytes, length: int) -> bool:
    return len(id_) == length and any(id_)


def _is_hex_id(value: object) -> bool:
    return isinstance(value, str) and len(value) == 2 * _SPAN_ID and set(value) <= set("0123456789abcdef")


def _count(event: Told, name: str) -> int | None:
    value = event.attributes.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _seconds(event: Told, name: str) -> float | None:
    value = event.attributes.get(name)
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        else None
    )


# --- The command line ---------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a program, listen to it, and tell which rules it keeps; exit code 0 if all, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m otel_sessions.testing.protocol", description=main.__doc__
    )
    parser.add_argument("command", nargs="+", metavar="CMD", help="the program, after --")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long it may take (%(default)s)")
    options = parser.parse_args(arguments)
    with listen() as listener:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": listener.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        _say(f"listening at {listener.endpoint}; running {' '.join(options.command)}")
        ended = subprocess.run(  # noqa: S603 - the command that was asked for
            options.command, env={**os.environ, **variables}, timeout=options.seconds, check=False
        )
        heard = listener.heard()
    _say(f"it ended with {ended.returncode}; {len(heard.events)} events and {len(heard.spans)} spans came")
    broken = check(heard)
    for name in RULES:
        details = [breach.detail for breach in broken if breach.rule == name]
        _say(f"  {'!' if details else '✓'} {name}" + "".join(f"\n      {detail}" for detail in details))
    return _BROKEN if broken else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
