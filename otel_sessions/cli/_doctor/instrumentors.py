"""Check of the instrumentors: what traces the frameworks that are installed. Pure, over the SDK's table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from otel_sessions.cli._doctor.findings import Finding, ok, problem, warning
from otel_sessions.sdk import _instrumentors
from otel_sessions.sdk._instrumentors import Coverage, Installed, disabled_names, survey

__all__ = ["check_instrumentors"]

_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


def check_instrumentors(installed: Installed, environ: Mapping[str, str]) -> list[Finding]:
    """Say of each framework that is installed what traces it: one, several, itself, or nothing."""
    found = survey(installed, disabled=disabled_names(environ.get(_DISABLED, "")))
    if not found:
        return [ok("instrumentors", "no framework that we know is installed here")]
    said = [finding for it in found for finding in _of(it)]
    fine = [_fine(it) for it in found if it.coverage in (Coverage.INSTRUMENTED, Coverage.NATIVE)]
    return [*said, *([ok("instrumentors", "; ".join(fine))] if fine else [])]


def _of(it: _instrumentors.Finding) -> Iterator[Finding]:
    name = f"{it.framework.title} ({it.distribution} {it.version})"
    if it.coverage is Coverage.DOUBLED:
        kept, *others = (one.distribution for one in it.instrumentors)
        yield problem(
            "instrumentors",
            f"{name} is traced by {len(others) + 1} instrumentors ({', '.join((kept, *others))}): each "
            "call is seen as often, and its tokens counted as often",
            f"python -m pip uninstall -y {' '.join(others)}",
        )
    elif it.coverage is Coverage.DISABLED:
        yield warning(
            "instrumentors", f"{name}: its instrumentor is switched off by {_DISABLED}", f"unset {_DISABLED}"
        )
    elif it.coverage is Coverage.MISSING:
        fix = f"python -m pip install {it.suggestion}" if it.suggestion else ""
        yield warning("instrumentors", f"{name} is traced by nothing: its calls are not seen", fix)


def _fine(it: _instrumentors.Finding) -> str:
    if it.coverage is Coverage.NATIVE:
        return f"{it.framework.title} {it.version} traces itself: {it.framework.native}"
    return f"{it.framework.title} {it.version}: {it.instrumentors[0].distribution}"
