"""What the doctor says: findings, and the checks that they are of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["CHECKS", "LOGS_PIPELINE", "Finding", "Verdict", "ok", "problem", "unknown", "warning", "worst"]

CHECKS: Final = {
    "python": "the Python that the agent runs on, and that this is it",
    "packages": "versions of OpenTelemetry's packages: pins among them, and what is too old for us",
    "copies": "packages that are installed twice, of which an import takes either",
    "conflicts": "packages known to break with what is installed beside them",
    "instrumentors": "frameworks that nothing traces, or two instrumentors at once, which doubles spans",
    "variables": "which variables are set, and names that look misspelt",
    "values": "values without sense, in quotes, or of the wrong kind",
    "effect": "variables that contradict each other, switch something off, cut what the page needs, or are "
    "ignored",
    "name": "the endpoint's host is found (DNS)",
    "connection": "something listens there (TCP)",
    "tls": "its certificate is believed; and TLS is spoken where, and only where, it is expected",
    "proxy": "no proxy variable takes the telemetry elsewhere",
    "protocol": "gRPC or HTTP, as configured",
    "spans": "the endpoint takes spans, by its own answer",
    "events": "the endpoint takes life cycle events (OTLP logs), by its own answer",
    "backend": "the backend behind it is found, can store, and is of our version",
    "arrival": "a real probe came back out of the backend, and how late",
    "attributes": "nothing between us and the backend takes attributes away, session.id above all",
    "liveness": "the life cycle events came too: without them nobody sees what is alive",
    "clock": "this machine's clock agrees with the backend's",
    "spool": "spans that wait have a folder that can be written, on a disk with room",
    "waiting": "what programs could not deliver, and what receivers refused for good",
}
"""Every check, in the order in which it is said; docs/doctor.md lists the same, which a test compares."""

LOGS_PIPELINE: Final = (
    "service: {pipelines: {logs: {receivers: [otlp], exporters: [otlp]}}}  # the Collector's file"
)
"""The fix for whatever takes spans and no logs."""


class Verdict(Enum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen, and what it means; `fix` is a line to paste, "" where there is nothing to do."""

    check: str
    verdict: Verdict
    seen: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"{self.check!r} is no check")


def ok(check: str, seen: str) -> Finding:
    """Make a finding of something that is as it should be."""
    return Finding(check, Verdict.OK, seen)


def warning(check: str, seen: str, fix: str = "") -> Finding:
    """Make a finding of something that costs something, or may."""
    return Finding(check, Verdict.WARNING, seen, fix)


def problem(check: str, seen: str, fix: str) -> Finding:
    """Make a finding of something that keeps telemetry from arriving whole; it always has a fix."""
    return Finding(check, Verdict.PROBLEM, seen, fix)


def unknown(check: str, seen: str, fix: str = "") -> Finding:
    """Make a finding of something that could not be looked at, and why."""
    return Finding(check, Verdict.UNKNOWN, seen, fix)


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the most serious verdict; what could not be looked at is less than a warning."""
    order = (Verdict.OK, Verdict.UNKNOWN, Verdict.WARNING, Verdict.PROBLEM)
    return max((finding.verdict for finding in findings), key=order.index, default=Verdict.OK)
