"""Findings on a terminal, or as plain lines where none is. Pure but for what rich prints."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from otel_sessions.cli._doctor.facts import Facts
from otel_sessions.cli._doctor.findings import Finding, Verdict, worst
from otel_sessions.cli._drawing import clean
from otel_sessions.sdk._answer import Verdict as Taken

__all__ = ["as_json", "draw"]

_LOOKS: Final = {
    Verdict.OK: ("✓", "ok", "green"),
    Verdict.WARNING: ("!", "warning", "yellow"),
    Verdict.PROBLEM: ("✕", "problem", "red"),
    Verdict.UNKNOWN: ("?", "unknown", "bright_black"),
}

_COUNTED: Final = (Verdict.WARNING, Verdict.PROBLEM)


def draw(findings: Sequence[Finding], facts: Facts, screen: Console) -> None:
    """Print every finding, its fix below it, then how many there are of each kind."""
    screen.print(
        _table(findings) if screen.is_terminal else _lines(findings), soft_wrap=not screen.is_terminal
    )
    screen.print()
    screen.print(_sum(findings), style="bold")
    if facts.probe is not None and any(it.verdict is Taken.ACCEPTED for it in facts.probe.answers.values()):
        screen.print(_of_probe(facts.probe.session_id), style="dim", soft_wrap=True)


def _lines(findings: Sequence[Finding]) -> Text:
    """Return a line a finding, and one for its fix: for files, pipes and grep."""
    lines: list[str] = []
    for finding in findings:
        glyph, word, _ = _LOOKS[finding.verdict]
        lines.append(f"{glyph} {word:7} {finding.check:13} {clean(finding.seen)}")
        lines += [f"{'':10}$ {clean(finding.fix)}"] if finding.fix else []
    return Text("\n".join(lines))


def _table(findings: Sequence[Finding]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        glyph, word, style = _LOOKS[finding.verdict]
        said = Text(clean(finding.seen))
        if finding.fix:
            said.append("\n$ " + clean(finding.fix), style="cyan")
        table.add_row(Text(f"{glyph} {word}", style=style), Text(finding.check, style="bold"), said)
    return table


def _of_probe(session_id: str) -> str:
    return (
        f'The probe {session_id} stays as an ended session "doctor probe": it can\'t be taken back. '
        'A list leaves it out by the filter -name:"doctor probe"; --no-probe sends none.'
    )


def _sum(findings: Sequence[Finding]) -> str:
    numbers = Counter(finding.verdict for finding in findings)
    counted = [
        f"{number} {_LOOKS[verdict][1]}{'s' if number > 1 and verdict in _COUNTED else ''}"
        for verdict in (Verdict.PROBLEM, Verdict.WARNING, Verdict.UNKNOWN, Verdict.OK)
        if (number := numbers[verdict])
    ]
    return ", ".join(counted)


def as_json(findings: Sequence[Finding], facts: Facts) -> str:
    """Return the findings for programs."""
    probe, arrived = facts.probe, facts.arrived
    document: dict[str, Any] = {
        "verdict": worst(findings).value,
        "findings": [
            {"check": it.check, "verdict": it.verdict.value, "seen": it.seen, "fix": it.fix or None}
            for it in findings
        ],
        "probe": None
        if probe is None
        else {
            "session_id": probe.session_id,
            "trace_id": probe.trace_id,
            "span_id": probe.span_id,
            "arrived_after": None if arrived is None else arrived.after,
            "page": (arrived.page or None) if arrived else None,
        },
    }
    return json.dumps(document, ensure_ascii=False, indent=2)
