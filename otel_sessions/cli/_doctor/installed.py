"""Checks of what is installed: Python, OpenTelemetry's packages, and who breaks beside whom. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from otel_sessions.backend.provenance import install_command
from otel_sessions.cli._doctor.facts import Interpreter, Package
from otel_sessions.cli._doctor.findings import Finding, ok, problem, warning
from otel_sessions.sdk._instrumentors import normalised

__all__ = ["check_conflicts", "check_copies", "check_packages", "check_python"]

_OURS: Final = "otel-sessions"
_FAMILY: Final = ("opentelemetry-", "openinference-", _OURS)
"""Whose pins are looked at: theirs, for pip breaks them with no more than a warning."""
_PIN: Final = re.compile(
    r"^([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*\(?(==|~=|>=)\s*([\w.!+]+)\)?\s*(?:;(.*))?$"
)
_CORE: Final = ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-proto")


def numbers(version: str) -> tuple[int, ...]:
    """Return the release of a version as numbers: 0.66b2 is (0, 66), 1.45.2 is (1, 45, 2)."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()


def _versions(packages: Sequence[Package]) -> dict[str, str]:
    """Return what an import takes: of two copies the first on the path."""
    return {package.name: package.version for package in reversed(packages)}


def check_python(interpreter: Interpreter) -> list[Finding]:
    """Say which Python this is; whoever asks about another has to run the doctor with that."""
    said = ".".join(map(str, interpreter.version))
    if interpreter.free_threaded:
        return [
            warning(
                "python",
                f"Python {said} without the GIL ({interpreter.executable}): OpenTelemetry and we are not "
                "tested on it",
                "python -X gil=1 YOUR_PROGRAM",
            )
        ]
    return [ok("python", f"Python {said} ({interpreter.executable}); your agent's, if it runs on this one")]


def check_packages(packages: Sequence[Package]) -> list[Finding]:
    """Compare what packages of OpenTelemetry's family ask of each other with what is there."""
    versions = _versions(packages)
    broken = sorted(set(_broken_pins(packages, versions)))
    if not broken:
        core = ", ".join(f"{name.partition('-')[2]} {versions[name]}" for name in _CORE if name in versions)
        return [
            ok("packages", f"OpenTelemetry {core or 'is not installed'}; nothing asks for another version")
        ]
    wanted = " ".join(sorted({f'"{pin.wanted}"' for pin in broken}))
    said = "; ".join(f"{pin.by} wants {pin.wanted}, installed is {pin.found}" for pin in broken)
    return [problem("packages", f"versions that don't fit: {said}", f"python -m pip install {wanted}")]


@dataclass(frozen=True, slots=True, order=True)
class _Broken:
    by: str
    wanted: str
    found: str


def _broken_pins(packages: Iterable[Package], versions: dict[str, str]) -> Iterator[_Broken]:
    for package in packages:
        if not package.name.startswith(_FAMILY):
            continue
        for requirement in package.requires:
            if not (pin := _PIN.match(requirement)) or "extra" in (pin[4] or ""):
                continue
            name, how, wanted = normalised(pin[1]), pin[2], pin[3]
            found = versions.get(name)
            if name.startswith("opentelemetry-") and found and not _fits(found, how, wanted):
                yield _Broken(f"{package.name} {package.version}", f"{name}{how}{wanted}", found)


def _fits(found: str, how: str, wanted: str) -> bool:
    if how == "==":
        return found == wanted
    least = numbers(wanted)
    fits = numbers(found) >= least
    return fits and (how != "~=" or numbers(found)[: len(least) - 1] == least[:-1])


def check_copies(packages: Iterable[Package]) -> list[Finding]:
    """Name packages of OpenTelemetry and ours that lie in two places of the path."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    for package in packages:
        if package.name.startswith(_FAMILY):
            places[package.name][package.place] = package.version
    twice = {name: found for name, found in places.items() if len(found) > 1}
    if not twice:
        return [ok("copies", f"{len(places)} packages of OpenTelemetry, each installed once")]
    return [
        problem(
            "copies",
            f"{name} is installed {len(found)} times: "
            + ", ".join(f"{version} in {place}" for place, version in sorted(found.items())),
            f"python -m pip uninstall -y {name} {name}; "
            f"python -m {install_command() if name == _OURS else f'pip install {name}'}",
        )
        for name, found in sorted(twice.items())
    ]


@dataclass(frozen=True, slots=True)
class _Conflict:
    """A package up to a version that breaks beside another from a version on; "" is any version."""

    name: str
    up_to: str
    beside: str
    since: str
    what: str
    fix: str


_CONFLICTS: Final = (
    _Conflict(
        *("agentops", "0.4.21", "opentelemetry-exporter-otlp-proto-http", "1.45.0"),
        "AgentOps exports nothing with OpenTelemetry from 1.45.0 on: it reads a private field that is gone",
        "python -m pip uninstall -y agentops",
    ),
    _Conflict(
        *("openlit", "1.45.0", "opentelemetry-api", "1.45.2"),
        "OpenLIT fails on import: it takes a private name of OpenTelemetry that is gone",
        "python -m pip uninstall -y openlit",
    ),
    _Conflict(
        *("agentscope", "1.0.21", "mcp", "2.0"),
        "AgentScope 1 fails on import with mcp 2",
        'python -m pip install "mcp<2"',
    ),
    _Conflict(
        *("llama-index-core", "0.12.9", "llama-deploy", ""),
        "in one session the next task is answered with the result of the one before it, up to core 0.12.9",
        'python -m pip install "llama-index-core>=0.12.25"',
    ),
)
"""Measured with the versions named; what a later version does is for a later look."""


def check_conflicts(packages: Sequence[Package]) -> list[Finding]:
    """Name packages that are known to break with what is beside them."""
    versions = _versions(packages)
    met = [conflict for conflict in _CONFLICTS if _is_met(conflict, versions)]
    if not met:
        return [ok("conflicts", "nothing installed is known to break")]
    return [
        problem(
            "conflicts",
            f"{it.name} {versions[it.name]} beside {it.beside} {versions[it.beside]}: {it.what}",
            it.fix,
        )
        for it in met
    ]


def _is_met(conflict: _Conflict, versions: dict[str, str]) -> bool:
    found, beside = versions.get(conflict.name), versions.get(conflict.beside)
    if found is None or beside is None:
        return False
    return numbers(found) <= numbers(conflict.up_to) and numbers(beside) >= numbers(conflict.since)
