"""Sessions and spans as lines of a terminal: pure functions from the API's JSON to rich's values.

A state is always a glyph and a word; colour only repeats them. Names come from whoever sent telemetry,
so whatever is not printable is replaced: no span may move the reader's cursor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from otel_sessions.backend.records import Flag

__all__ = [
    "Line",
    "clean",
    "duration",
    "label",
    "lines",
    "session_list",
    "session_summary",
    "span_line",
    "span_tree",
    "state",
    "tokens",
]

_STATES: Final = {
    "running": ("●", "green"),
    "waiting": ("◔", "yellow"),
    "stale": ("◌", "yellow"),
    "lost": ("✕", "red"),
    "idle": ("–", "bright_black"),  # noqa: RUF001 - the page draws the same dash
    "ended": ("–", "default"),  # noqa: RUF001 - how it turned out is not known
}
_OUTCOMES: Final = {
    "ok": ("✓", "completed", "green"),
    "error": ("!", "failed", "red"),
    "cancelled": ("⊘", "cancelled", "yellow"),
}
_CATEGORIES: Final = {
    "session": "bold",
    "task": "cyan",
    "agent": "magenta",
    "workflow": "magenta",
    "model": "blue",
    "embedding": "blue",
    "retrieval": "yellow",
    "tool": "yellow",
}
_ERROR: Final = 2  # OTLP's STATUS_CODE_ERROR
_DEEPEST: Final = 40  # levels drawn; below that the guide stays, or a deep chain fills memory with it
_TIMELINE: Final = 8
_NS: Final = 1_000_000_000
_SETTLED: Final = 10 * _NS
"""Silence after an end, in which what its counts tell of may still be on its way."""
_REASONS: Final = {
    "process_died": "unknown, the process died",
    "not_received": "sent by nobody so far, or lost on the way",
    "missing_parents": "named as parents",
    "dropped": "given up by the sender",
}
"""What is said of a reason whose name does not say it; the page says the same."""


@dataclass(frozen=True, slots=True)
class Line:
    """One span in tree order. `end` is None while it is open; times are Unix nanoseconds."""

    parent: int
    name: str
    category: str
    start: int
    end: int | None
    status: int
    flags: Flag
    input_tokens: int | None
    output_tokens: int | None


def lines(document: Mapping[str, Any]) -> list[Line]:
    """Read the answer of `sessions/{id}/rows`; of changed rows only (`after=`) the parents are not known."""
    base = int(document["base"])
    columns: Mapping[str, Sequence[Any]] = document["columns"]
    names: list[str] = document["names"]
    categories: list[str] = document["categories"]
    parents = columns.get("parent") or [-1] * len(columns["name"])
    wanted = (
        "name",
        "category",
        "start",
        "duration",
        "status",
        "flags",
        "input_tokens",
        "output_tokens",
    )
    return [
        Line(
            parent=parent,
            name=names[name],
            category=categories[category],
            start=base + start,
            end=None if length is None else base + start + length,
            status=status,
            flags=Flag(flags),
            input_tokens=taken,
            output_tokens=given,
        )
        for parent, name, category, start, length, status, flags, taken, given in zip(
            parents, *(columns[column] for column in wanted), strict=True
        )
    ]


def clean(text: str) -> str:
    """Return `text` on one line, without anything that could steer a terminal."""
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "�" for sign in text)


def duration(nanoseconds: int) -> str:
    """Return a span of time as people say it."""
    seconds = nanoseconds / _NS
    if seconds < 0.001:  # noqa: PLR2004 - a millisecond
        return f"{nanoseconds / 1000:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def state(session: Mapping[str, Any]) -> Text:
    """Return a session's state: glyph, word, and what it waits for or why it ended."""
    word = str(session["state"])
    glyph, style = _STATES.get(word, ("?", "default"))
    detail = session.get("waiting_for") if word == "waiting" else None
    outcome = str(session.get("outcome") or "")
    if word == "ended":
        glyph, word, style = _OUTCOMES.get(outcome, (glyph, word, style))
        reason = str(session.get("end_reason") or "").replace("_", " ")
        detail = reason if reason not in ("completed", "error", word) else None
        detail = detail or ("outcome unknown" if word == "ended" and not reason else None)
    # Without life cycle events a session never ends, but its spans may tell how its last turn went.
    elif outcome:
        detail = _OUTCOMES[outcome][1] if outcome in _OUTCOMES else outcome
    elif word in ("running", "idle") and session.get("waiting_for"):
        detail = f"needs {session['waiting_for']}"
    text = Text(f"{glyph} {word}", style=style)
    return text.append(f" ({clean(str(detail))})", style="default") if detail else text


def session_list(sessions: Sequence[Mapping[str, Any]], now: int) -> Table:
    """Draw the list of sessions."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("state", "session", "id", "service"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("started", "duration", "tokens", "errors"):
        table.add_column(name, justify="right", no_wrap=True)
    for session in sessions:
        table.add_row(
            state(session),
            Text(label(session)),
            Text(clean(str(session["id"])), style="dim"),
            Text(clean(str(session.get("service") or ""))),
            _ago(session.get("started_at"), now),
            _length(session, now),
            _tokens(session.get("input_tokens"), session.get("output_tokens")) or "unknown",
            Text(str(session["errors"]), style="red" if session["errors"] else "dim"),
        )
    return table


def session_summary(session: Mapping[str, Any], now: int) -> Iterator[Text]:
    """Draw what is known of a session as a whole: a line or more."""
    yield Text.assemble(state(session), "  ", (label(session), "bold"))
    if session.get("error"):
        yield Text(f"  ! {clean(str(session['error']))}", style="red")
    facts = [
        f"id {session['id']}",
        str(session.get("service") or ""),
        f"started {_clock(session.get('started_at'))}, {_ago(session.get('started_at'), now)}",
        _length(session, now),
        _silence(session, now),
        _tokens(session.get("input_tokens"), session.get("output_tokens")),
    ]
    yield Text(clean(" · ".join(fact for fact in facts if fact)), style="dim")
    counts = [
        _count(session, field, singular)
        for field, singular in (
            ("spans", "span"),
            ("tasks_count", "task"),
            ("model_calls", "model call"),
            ("tool_calls", "tool call"),
            ("errors", "error"),
            ("traces_count", "trace"),
        )
    ]
    yield Text(" · ".join(count for count in counts if count), style="dim").append_text(
        _completeness(session, now)
    )
    yield from _timeline(session)


def span_tree(spans: Sequence[Line], now: int, *, alive: bool) -> Table:
    """Draw spans as a tree with figures; `alive` tells whether what is open may still end."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    for guide, span in zip(_guides([span.parent for span in spans]), spans, strict=True):
        name = Text.assemble((guide, "bright_black"), _name(span))
        tokens = _tokens(span.input_tokens, span.output_tokens)
        table.add_row(name, _span_length(span, now, alive=alive), tokens, _marks(span))
    return table


def span_line(span: Line) -> Text:
    """Draw that a span opened, or how it ended."""
    if span.end is None:
        return Text.assemble(("▶ ", "green"), _name(span))
    facts = (duration(span.end - span.start), _tokens(span.input_tokens, span.output_tokens))
    glyph = ("! ", "red") if span.status == _ERROR else ("✓ ", "default")
    figures = "  " + "  ".join(fact for fact in facts if fact) + "  "
    return Text.assemble(glyph, _name(span), (figures, "dim"), _marks(span))


def tokens(session: Mapping[str, Any]) -> str:
    """Return the tokens that a session took and gave, nothing where they are unknown."""
    return _tokens(session.get("input_tokens"), session.get("output_tokens"))


def _guides(parents: Sequence[int]) -> Iterator[str]:
    """Yield the branches before each row, for rows in tree order."""
    last = {parent: row for row, parent in enumerate(parents)}
    stems: list[str] = []
    for row, parent in enumerate(parents):
        if not 0 <= parent < row:
            stems.append("")
            yield ""
            continue
        stem = stems[parent]
        is_last = last[parent] == row
        yield stem + ("└─ " if is_last else "├─ ")
        stems.append(stem + ("   " if is_last else "│  ") if len(stem) < 3 * _DEEPEST else stem)


def _name(span: Line) -> Text:
    if Flag.PLACEHOLDER in span.flags:
        return Text("(a span that never arrived)", style="dim italic")
    return Text(
        clean(span.name), style="red" if span.status == _ERROR else _CATEGORIES.get(span.category, "default")
    )


def _span_length(span: Line, now: int, *, alive: bool) -> Text:
    if Flag.PLACEHOLDER in span.flags:
        return Text("")
    if span.end is not None:
        return Text(duration(span.end - span.start))
    if alive:
        return Text(f"{duration(max(0, now - span.start))} ▶ open", style="green")
    return Text("open, no end known", style="red")


def _marks(span: Line) -> Text:
    marks: list[tuple[str, str]] = []
    if span.status == _ERROR:
        marks.append(("! error", "red"))
    for flag, word in (
        (Flag.LATE, "late"),
        (Flag.FORCED, "ended by force"),
        (Flag.SYNTHETIC, "made up"),
        (Flag.PLACEHOLDER, "missing"),
    ):
        if flag in span.flags:
            marks.append((word, "yellow"))
    return Text("  ").join(Text(word, style=style) for word, style in marks)


def label(session: Mapping[str, Any]) -> str:
    """Return a session's name and title, or its id where it has neither."""
    parts = [clean(str(part)) for part in (session.get("name"), session.get("title")) if part]
    return " · ".join(parts) or clean(str(session["id"]))


def _length(session: Mapping[str, Any], now: int) -> str:
    if session.get("duration") is not None:
        return duration(int(session["duration"]))
    # Only of a session that is heard is it known that it still goes on.
    if session["signal"] == "live" and session.get("started_at") is not None:
        return f"{duration(max(0, now - int(session['started_at'])))} so far"
    return ""


def _silence(session: Mapping[str, Any], now: int) -> str:
    if session["state"] not in ("stale", "lost", "idle"):
        return ""
    alive = session.get("last_alive_at") or session.get("last_seen_at")  # of an older backend
    return f"last heard {_clock(alive)}, {_ago(alive, now)}"


def _tokens(taken: int | None, given: int | None) -> str:
    if taken is None and given is None:
        return ""
    return " → ".join("?" if count is None else f"{count:,}" for count in (taken, given)) + " tokens"


def _count(session: Mapping[str, Any], field: str, singular: str) -> str:
    count = session.get(field)
    return f"{count:,} {singular}{'' if count == 1 else 's'}" if count else ""


def _completeness(session: Mapping[str, Any], now: int) -> Text:
    missing = session.get("missing_spans")
    if missing is None:
        return Text("")
    if not missing:  # of what still runs, or was lost, nobody can say that all of it is here
        return Text(" · complete" if session["state"] == "ended" else "", style="green")
    losses: Mapping[str, int] = session.get("losses") or {}
    coming = 0
    if session["state"] == "ended" and now - int(session.get("last_seen_at") or 0) < _SETTLED:
        coming = losses.get("not_received", 0)
    if coming >= missing:
        return Text(f" · {coming} on the way", style="yellow")
    reasons = ", ".join(
        f"{_REASONS.get(reason) or clean(reason).replace('_', ' ')}: {count}"
        for reason, count in losses.items()
        if not (coming and reason == "not_received")
    )
    least = "at least " if session["state"] in ("lost", "stale") else ""
    return Text(f" · {least}{missing - coming} missing{f' ({reasons})' if reasons else ''}", style="red bold")


def _timeline(session: Mapping[str, Any]) -> Iterator[Text]:
    entries: Sequence[Mapping[str, Any]] = session.get("timeline") or ()
    if not entries:
        return
    told = [
        f"{_clock(entry['at'])} {entry['state']}" + (f" ({entry['detail']})" if entry.get("detail") else "")
        for entry in entries[-_TIMELINE:]
    ]
    yield Text(clean("… → " * (len(entries) > _TIMELINE) + " → ".join(told)), style="dim")


def _clock(at: str | None) -> str:
    if at is None:
        return "at an unknown time"
    return datetime.fromtimestamp(int(at) / _NS, timezone.utc).astimezone().strftime("%H:%M:%S")


def _ago(at: str | None, now: int) -> str:
    return "" if at is None else f"{duration(max(0, now - int(at)))} ago"
