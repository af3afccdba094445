"""Switch on the instrumentors that are installed, as `opentelemetry-instrument` does, one by one and guarded.

They are found in the entry point group of OpenTelemetry's contrib, and made to trace by the one public method
that all of them have. One whose framework is missing, too old or broken is left out, and the others go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._guard import guard, say_once
from otel_sessions.sdk._instrumentors import EVERY, GROUP, disabled_names

if TYPE_CHECKING:
    from opentelemetry import trace

__all__ = ["NONE_INSTALLED", "VARIABLE", "asked", "none_is_installed", "switch_on"]

VARIABLE: Final = "OTEL_SESSIONS_INSTRUMENT"
NONE_INSTALLED: Final = (
    "no instrumentor is installed, so no framework is traced by itself: `otel-sessions doctor` tells which "
    "one to install"
)
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


def asked(environ: Mapping[str, str]) -> bool | None:
    """Tell what the environment says of instrumentors: True, False, or None for nothing.

    Raises ConfigurationError for a value that is neither.
    """
    value = environ.get(VARIABLE, "").strip().lower()
    if value not in ("", "true", "false"):
        raise ConfigurationError(f"{VARIABLE}={value[:80]!r} is no switch: write true or false")
    return value == "true" if value else None


def switch_on(environ: Mapping[str, str], provider: trace.TracerProvider | None = None) -> tuple[str, ...]:
    """Switch on all that are installed, neither disabled nor on already; return their names.

    `provider` is what they take tracers from; None for the global one. That none is installed is said where
    the program asked for them; below a runner, where every process would say so, the runner has.
    Never raises.
    """
    with guard("instrumentors"):
        disabled = disabled_names(environ.get(_DISABLED, ""))
        found = _distinct(entry_points(group=GROUP))
        if not found and provider is None:
            say_once("instrumentors", "otel_sessions: %s", NONE_INSTALLED)
        wanted = [] if EVERY in disabled else [entry for entry in found if entry.name not in disabled]
        return tuple(entry.name for entry in wanted if _switch_on(entry, provider))
    return ()


def none_is_installed() -> bool:
    """Tell whether there is no instrumentor in this interpreter's environment."""
    return not entry_points(group=GROUP)


def _distinct(entries: Iterable[EntryPoint]) -> list[EntryPoint]:
    """Return each once: two installations of one distribution may both be on the path."""
    return list({(entry.name, entry.value): entry for entry in entries}.values())


def _switch_on(entry: EntryPoint, provider: trace.TracerProvider | None) -> bool:
    with guard(f"instrumentor {entry.name}"):
        try:
            instrumentor: Any = entry.load()()
        except ModuleNotFoundError:  # the framework's, as a rule: nothing there to trace
            return False
        if getattr(instrumentor, "is_instrumented_by_opentelemetry", False):
            return False
        more = {} if provider is None else {"tracer_provider": provider}
        return _told_to_instrument(instrumentor, more)
    return False


def _told_to_instrument(instrumentor: Any, more: Mapping[str, Any]) -> bool:
    """Have one trace; False where the framework is missing, or of a version that it does not know."""
    # An optional extra, which instrumentors bring along.
    from opentelemetry.instrumentation.dependencies import DependencyConflictError  # noqa: PLC0415

    try:
        instrumentor.instrument(raise_exception_on_conflict=True, **more)
    except DependencyConflictError as error:
        if error.conflict.found or error.conflict.found_any:  # an older or newer one than it knows
            name = type(instrumentor).__name__
            say_once(("conflict", name), "otel_sessions: %s is not switched on: %s", name, error)
        return False
    return True
