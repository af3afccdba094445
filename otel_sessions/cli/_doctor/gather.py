"""What is true here and now, gathered at the edge: environment, packages, spool, network, backend, probe."""

from __future__ import annotations

import errno
import importlib
import os
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from importlib.resources import files
from pathlib import Path
from typing import Final

from otel_sessions.cli._doctor.facts import (
    SIGNALS,
    Facts,
    Interpreter,
    Package,
    Probe,
    Reach,
    SpoolFacts,
    Target,
    Waiting,
)
from otel_sessions.cli._doctor.network import reach
from otel_sessions.cli._doctor.probe import find_backend, probe_targets, wait_for
from otel_sessions.cli._spooled import Look, find_recipients, look
from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._endpoint import Endpoint, Signal, resolve_endpoint, resolve_exporter
from otel_sessions.sdk._instrumentors import installed, normalised
from otel_sessions.sdk._settings import sdk_disabled, spool_root
from otel_sessions.sdk._tls_files import insist_on_files

__all__ = ["Asked", "gather", "gather_targets"]

_NAMES_OF: Final = ("opentelemetry.environment_variables", "opentelemetry.sdk.environment_variables")
"""OpenTelemetry's own lists of its variables, public modules."""
_OF_INSTRUMENTATIONS: Final = (
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
    "OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    "OTEL_SEMCONV_STABILITY_OPT_IN",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for; `wait` in seconds, for how long the probe may be on its way."""

    backend: str | None = None
    token: str | None = None
    wait: float = 10.0
    probe: bool = True


def gather(environ: Mapping[str, str], asked: Asked, tell: Callable[[str], object]) -> Facts:
    """Look at everything; `tell` is called with what is looked at next."""
    tell("packages")
    found = tuple(distributions())
    targets = gather_targets(environ)
    endpoints: dict[Signal, Endpoint] = {
        signal: target.endpoint for signal, target in targets.items() if target.endpoint
    }
    reaches: dict[Signal, Reach] = {}
    for signal, endpoint in endpoints.items():
        tell(endpoint.address)
        reaches[signal] = reach(endpoint, environ)
    tell("the backend")
    backend = find_backend(asked.backend, environ, targets, asked.token)
    why = _why_no_probe(environ, asked, targets, reaches)
    probe: Probe | None = None
    if not why:
        tell("a probe")
        probe = probe_targets(endpoints, environ)
    arrived = None
    if probe is not None and backend.version:
        arrived = wait_for(probe, backend, asked.wait, tell)
    tell("the spool")
    return Facts(
        interpreter=_interpreter(),
        packages=_packages(found),
        installed=installed(found),
        environ=environ,
        names=known_names(),
        targets=targets,
        reaches=reaches,
        backend=backend,
        probe=probe,
        arrived=arrived,
        spool=gather_spool(environ),
        why_no_probe=why,
    )


def _why_no_probe(
    environ: Mapping[str, str],
    asked: Asked,
    targets: Mapping[Signal, Target],
    reaches: Mapping[Signal, Reach],
) -> str:
    if not asked.probe:
        return "--no-probe"
    if sdk_disabled(environ):
        return "OTEL_SDK_DISABLED=true"
    if targets["traces"].trouble:
        return "the settings make no sense"
    if targets["traces"].endpoint is None:
        return f"spans go to {targets['traces'].exporter}"
    if not reaches["traces"].connected:
        return "no connection"
    return ""


def _interpreter() -> Interpreter:
    return Interpreter(
        (sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        sys.executable or platform.python_implementation(),
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    )


def _packages(found: Iterable[Distribution]) -> tuple[Package, ...]:
    return tuple(
        Package(
            normalised(name),
            distribution.version,
            str(distribution.locate_file("")),
            tuple(distribution.requires or ()),
        )
        for distribution in found
        if (name := str(distribution.metadata["Name"] or ""))  # an interrupted uninstall leaves none
    )


def known_names() -> frozenset[str]:
    """Return every variable that OpenTelemetry's SDK lists, and that our own sources name.

    Our sources, so that there is no second list of them; a test compares them with docs/configuration.md.
    """
    theirs = {
        name
        for module in _NAMES_OF
        for name in vars(importlib.import_module(module))
        if name.startswith("OTEL_")
    }
    ours = {
        name
        for part in ("sdk", "backend", "cli")
        for path in Path(str(files("otel_sessions") / part)).rglob("*.py")
        for name in re.findall(r"\bOTEL_SESSIONS_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8"))
    }
    return frozenset(theirs | ours | set(_OF_INSTRUMENTATIONS))


def gather_targets(environ: Mapping[str, str]) -> dict[Signal, Target]:
    """Read where each signal goes; what makes no sense is a target with trouble."""
    return {signal: _target(signal, environ) for signal in SIGNALS}


def _target(signal: Signal, environ: Mapping[str, str]) -> Target:
    try:
        exporter = resolve_exporter(signal, environ)
        endpoint = resolve_endpoint(signal, environ) if exporter == "otlp" else None
        insist_on_files(signal, endpoint, environ)
        return Target(signal, exporter, endpoint)
    except ConfigurationError as error:
        return Target(signal, trouble=str(error))


# --- Spool -----------------------------------------------------------------------------------------------


def gather_spool(environ: Mapping[str, str]) -> SpoolFacts:
    """Look at the spool, and write a file there and remove it."""
    if environ.get("OTEL_SESSIONS_SPOOL", "").strip().lower() == "off":
        return SpoolFacts(chosen_off=True)
    try:
        root = spool_root(environ)
    except ConfigurationError as error:
        return SpoolFacts(trouble=str(error))
    if root is None:
        return SpoolFacts()
    trouble, free = _writable(root)
    try:
        waiting = tuple(_waiting(look(recipient)) for recipient in find_recipients(root))
    except ConfigurationError as error:
        return SpoolFacts(str(root), trouble=trouble or str(error), free=free)
    return SpoolFacts(str(root), trouble=trouble, free=free, waiting=waiting)


def _writable(root: Path) -> tuple[str, int | None]:
    """Return why nothing can be written there, "" where it can, and the bytes that are free."""
    there = next(path for path in (root, *root.parents) if path.exists())
    try:
        if there != root:
            return ("" if os.access(there, os.W_OK | os.X_OK) else f"{there} can't be written"), _free(there)
        with tempfile.NamedTemporaryFile(dir=root, prefix="doctor-") as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return ("the disk is full" if full else error.strerror or str(error)), _free(there)
    return "", _free(there)


def _free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def _waiting(seen: Look) -> Waiting:
    oldest = seen.waiting.oldest
    return Waiting(
        address=seen.recipient.address or seen.recipient.folder.name,
        items=seen.waiting.items.total,
        of_living=bool(seen.programs["alive"]),
        age=0.0 if oldest is None else max(0.0, (time.time_ns() - oldest) / 1e9),
        rejected=seen.rejected.items.total,
        damaged=seen.waiting.damaged + seen.rejected.damaged,
        reasons=tuple(reason for reason, _ in seen.rejected.reasons.most_common(3)),
        signal=seen.recipient.signal,
    )
