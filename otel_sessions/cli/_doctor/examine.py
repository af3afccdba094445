"""Facts -> findings: every check once, in the order of `CHECKS`. Pure."""

from __future__ import annotations

from otel_sessions.cli._doctor.arrival import check_arrival, check_backend, check_clock
from otel_sessions.cli._doctor.facts import Facts
from otel_sessions.cli._doctor.findings import CHECKS, Finding
from otel_sessions.cli._doctor.installed import check_conflicts, check_copies, check_packages, check_python
from otel_sessions.cli._doctor.instrumentors import check_instrumentors
from otel_sessions.cli._doctor.reach import check_answers, check_way
from otel_sessions.cli._doctor.variables import check_effect, check_values, check_variables
from otel_sessions.cli._doctor.waiting import check_spool, check_waiting

__all__ = ["examine"]


def examine(facts: Facts) -> list[Finding]:
    """Return what follows from the facts."""
    addresses = {target.endpoint.address for target in facts.targets.values() if target.endpoint}
    found = [
        *check_python(facts.interpreter),
        *check_packages(facts.packages),
        *check_copies(facts.packages),
        *check_conflicts(facts.packages),
        *check_instrumentors(facts.installed, facts.environ),
        *check_variables(facts.environ, facts.names),
        *check_values(facts.environ),
        *check_effect(facts.environ),
        *check_way(facts.targets, facts.reaches, facts.probe.answers if facts.probe else None),
        *check_answers(facts),
        *check_backend(facts.backend),
        *check_arrival(facts),
        *check_clock(facts.backend),
        *check_spool(facts.spool),
        *check_waiting(facts.spool, addresses),
    ]
    return sorted(found, key=lambda finding: list(CHECKS).index(finding.check))
