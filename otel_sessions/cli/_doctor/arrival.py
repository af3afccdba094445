"""Checks of what came out at the other end: backend, probe, what was lost on its way, clocks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from otel_sessions import semconv
from otel_sessions._version import __version__
from otel_sessions.backend.provenance import install_command
from otel_sessions.cli._doctor.facts import Arrived, Backend, Facts, Probe
from otel_sessions.cli._doctor.findings import LOGS_PIPELINE, Finding, ok, problem, unknown, warning
from otel_sessions.sdk._answer import Verdict

__all__ = ["PROBE_NAME", "check_arrival", "check_backend", "check_clock"]

PROBE_NAME: Final = "doctor probe"
"""The session's name, by which lists leave it out: `-name:"doctor probe"`."""

_LATE: Final = 3.0
"""Seconds from which on a probe is late: who watches a session live sees it that much behind."""
_AT_ONCE: Final = 0.1
_SKEWED: Final = 2.0
"""Seconds from which on clocks that differ are told."""
_NEVER_LOST: Final = (semconv.SESSION_ID, semconv.SESSION_END_REASON, semconv.SESSION_OUTCOME)
"""What the backend can't do without: whose a span is, and how its session ended."""

_KEEP: Final = (
    f"# in the Collector's file, take {semconv.SESSION_ID} and otel_sessions.* out of what its processors "
    "(attributes, redaction, transform) remove; collector-config/ has examples"
)


def check_backend(backend: Backend) -> list[Finding]:
    """Say which backend is asked whether the probe arrived."""
    if not backend.url:
        tried = ", ".join(backend.tried) or "nowhere"
        why = f" ({backend.trouble})" if backend.trouble else ""
        fix = "otel-sessions doctor --backend http://127.0.0.1:4318"
        return [unknown("backend", f"no otel-sessions backend was found; asked: {tried}{why}", fix)]
    if backend.trouble:
        return [unknown("backend", f"{backend.url}: {backend.trouble}", "export OTEL_SESSIONS_TOKEN=TOKEN")]
    found: list[Finding] = []
    if backend.not_ready:
        found.append(
            problem(
                "backend",
                f"{backend.url} can't store now: {backend.not_ready}",
                "df -h; otel-sessions prune --help",
            )
        )
    if backend.version != __version__:
        found.append(
            warning(
                "backend",
                f"{backend.url} is of version {backend.version}, this is {__version__}; "
                "the line installs this one there",
                f"python -m {install_command()}",
            )
        )
    way = "; telemetry is sent elsewhere and may come through" if backend.in_between else ""
    return found or [ok("backend", f"{backend.url}, version {backend.version}, can store{way}")]


def check_arrival(facts: Facts) -> list[Finding]:
    """Say whether the probe came back, whole."""
    probe, arrived = facts.probe, facts.arrived
    if probe is None or arrived is None:
        why = facts.why_no_probe or _why_not_asked(facts)
        return [unknown(check, f"not known: {why}") for check in ("arrival", "attributes", "liveness")]
    if arrived.after is None:
        return [
            _absent(facts, arrived),
            *(unknown(check, "the probe did not come") for check in ("attributes", "liveness")),
        ]
    return [_came(arrived), *_attributes(probe, arrived), _liveness(probe, arrived)]


def _why_not_asked(facts: Facts) -> str:
    answer = facts.probe.answers.get("traces") if facts.probe else None
    taken = answer is not None and answer.verdict is Verdict.ACCEPTED
    return "no backend could be asked" if taken else "the probe was not taken: see `spans`"


def _absent(facts: Facts, arrived: Arrived) -> Finding:
    if arrived.trouble:
        return unknown("arrival", f"the backend could not be asked: {arrived.trouble}")
    waited = f"the probe was taken but did not come to {facts.backend.url} within {arrived.waited:g} s"
    if facts.backend.in_between:
        return problem(
            "arrival",
            f"{waited}: what lies in between drops it, samples it away, holds it longer, or sends elsewhere",
            "otel-sessions doctor --wait 60",
        )
    return problem("arrival", waited, "otel-sessions doctor --wait 60")


def _came(arrived: Arrived) -> Finding:
    after = arrived.after or 0.0
    said = f"the probe came back {'at once' if after < _AT_ONCE else f'after {after:.1f} s'}: {arrived.page}"
    if after < _LATE:
        return ok("arrival", said)
    return warning(
        "arrival",
        f"{said}. What lies in between holds telemetry: sessions are seen that much later, and look stale",
        "processors: {batch: {timeout: 200ms}}  # the Collector's file",
    )


def _attributes(probe: Probe, arrived: Arrived) -> Iterator[Finding]:
    lost = _lost(probe.attributes, arrived.attributes)
    resource = _lost(probe.resource, arrived.resource)
    changed = _changed(probe.attributes, arrived.attributes)
    if semconv.SESSION_ID in (*lost, *changed):
        done = "taken off" if semconv.SESSION_ID in lost else "changed"
        consequence = "spans are then of other sessions, or of none"
        yield problem("attributes", f"session.id is {done} on the way: {consequence}", _KEEP)
    vital = [name for name in (*lost, *changed) if name in _NEVER_LOST and name != semconv.SESSION_ID]
    if vital:
        yield problem("attributes", f"lost or changed on the way: {', '.join(vital)}", _KEEP)
    said = [
        *(f"{name} is gone" for name in lost if name not in _NEVER_LOST),
        *(f"{name} is changed" for name in changed if name not in _NEVER_LOST),
        *(f"resource attribute {name} is gone" for name in resource),
    ]
    if not arrived.span_events:
        said.append("the event of the span is gone")
    if said:
        yield warning("attributes", "on the way " + ", ".join(said), _KEEP)
    if not (lost or changed or said):
        yield ok("attributes", "all attributes came as they were sent, session.id among them")


def _lost(sent: Mapping[str, Any], came: Mapping[str, Any]) -> list[str]:
    return [name for name in sent if name not in came]


def _changed(sent: Mapping[str, Any], came: Mapping[str, Any]) -> list[str]:
    return [name for name, value in sent.items() if name in came and came[name] != value]


def _liveness(probe: Probe, arrived: Arrived) -> Finding:
    answer = probe.answers.get("logs")
    if answer is None or answer.verdict is not Verdict.ACCEPTED:
        return unknown("liveness", "no life cycle event was taken, so none could come: see `events`")
    missing = [name for name in probe.events if name not in arrived.events]
    if missing == list(probe.events):
        return problem(
            "liveness",
            "the span came, the life cycle events did not: a traces-only pipeline. Nobody sees what "
            "is alive, waits or was lost, nor what is open",
            LOGS_PIPELINE,
        )
    if missing:
        return problem("liveness", f"events were lost on the way: {', '.join(missing)}", LOGS_PIPELINE)
    orphans = [name for name, attributes in arrived.events.items() if semconv.SESSION_ID not in attributes]
    if orphans:
        return problem("liveness", f"session.id is taken off events on the way: {', '.join(orphans)}", _KEEP)
    return ok("liveness", "the life cycle events came too")


def check_clock(backend: Backend) -> list[Finding]:
    """Compare clocks; a difference within what the request took is none."""
    if not backend.version:
        return [unknown("clock", "no backend tells its time")]
    off = abs(backend.skew) - backend.uncertainty
    if off < _SKEWED:
        return [ok("clock", f"agrees with the backend's within {max(abs(backend.skew), 0.001):.3f} s")]
    which = "behind" if backend.skew > 0 else "ahead of"
    return [
        warning(
            "clock",
            f"this machine's clock is {abs(backend.skew):.1f} s {which} the backend's: spans are drawn at "
            "wrong times (what is alive is told by other means, and stays right)",
            "timedatectl set-ntp true",
        )
    ]
