"""What governs tracing in this process: a frozen value made of arguments and environment, checked here.

Pure: a mapping and the arguments of `init()` in, `Settings` out. Arguments win over the environment, an
empty variable counts as unset. Whatever makes no sense raises `ConfigurationError`, which names the
variable and says what to write, before anything was changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from platformdirs import user_state_path

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._endpoint import Endpoint, Exporter, resolve_endpoint, resolve_exporter

__all__ = [
    "EXIT_DEADLINE",
    "Content",
    "Settings",
    "asks_for_export",
    "names_endpoint",
    "names_service",
    "sdk_disabled",
    "spool_root",
    "state_folder",
]

EXIT_DEADLINE: Final = 1.5
"""Seconds that all our work at process exit may take together."""

_DELAY: Final = 0.2
"""Seconds between a span's end and its departure: what a kill -9 can lose (BatchSpanProcessor: 5 s)."""

_QUEUE: Final = 16_384
"""Ended spans that wait for the exporter, about 50 MB. The specification's 2,048 drops most spans of
2,000 sessions that start at once."""

_BATCH: Final = 512
_LONGEST_DELAY: Final = 86_400_000.0
"""Milliseconds of a day; beyond the range of clocks the thread that waits would fail."""
_MOST_DIGITS: Final = 18
"""Of a whole number that is read; what counts spans or attributes has less."""

_CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

_LIMITS: Final = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
)
"""The OpenTelemetry SDK reads these while it is imported, and fails on what is no number."""


class Content(Enum):
    """What of messages, arguments and results is recorded."""

    NEVER = "never"
    EXPLICIT = "explicit"
    """Only what is passed to us as such."""
    CAPTURED = "captured"
    """Also what decorators see."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that arguments and environment decide. Durations are in seconds.

    `endpoint` is None unless `exporter` is "otlp". `spool` is the folder of spans that wait; None keeps them
    in memory.
    """

    content: Content = Content.EXPLICIT
    signals: bool = True
    trust_baggage: bool = False
    task_traces: bool = False
    thread_context: bool = False
    service_name: str | None = None
    exporter: Exporter = "otlp"
    endpoint: Endpoint | None = None
    delay: float = _DELAY
    queue: int = _QUEUE
    batch: int = _BATCH
    spool: Path | None = None

    @classmethod
    def read(
        cls,
        environ: Mapping[str, str],
        *,
        capture: bool | None = None,
        signals: bool | None = None,
        trust_baggage: bool | None = None,
        task_traces: bool | None = None,
        thread_context: bool | None = None,
        service_name: str | None = None,
    ) -> Settings:
        """Make settings of arguments and environment; raise ConfigurationError for a value without sense."""
        for variable in _LIMITS:
            _whole(environ, variable, 0, least=0)
        exporter = resolve_exporter("traces", environ)
        queue = _whole(environ, "OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE)
        if trust_baggage is None:
            trust_baggage = _flag(environ, "OTEL_SESSIONS_TRUST_BAGGAGE")
        if task_traces is None:
            task_traces = _flag(environ, "OTEL_SESSIONS_TASK_TRACES")
        if thread_context is None:
            thread_context = _flag(environ, "OTEL_SESSIONS_THREAD_CONTEXT")
        return cls(
            content=_content(environ, capture),
            signals=signals is not False,
            trust_baggage=trust_baggage,
            task_traces=task_traces,
            thread_context=thread_context,
            service_name=service_name,
            exporter=exporter,
            endpoint=resolve_endpoint("traces", environ) if exporter == "otlp" else None,
            delay=_milliseconds(environ, "OTEL_BSP_SCHEDULE_DELAY", _DELAY),
            queue=queue,
            batch=min(queue, _whole(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH)),
            spool=spool_root(environ),
        )


def asks_for_export(environ: Mapping[str, str]) -> bool:
    """Tell whether the environment asks for traces, so that they may start without `init()`."""
    variables = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
    return any(environ.get(variable, "").strip() for variable in variables)


def names_endpoint(environ: Mapping[str, str]) -> bool:
    """Tell whether the environment names an endpoint: then events may be sent without `init()`."""
    signals = ("", "TRACES_", "LOGS_")
    return any(environ.get(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT", "").strip() for signal in signals)


def names_service(environ: Mapping[str, str]) -> bool:
    """Tell whether the environment names the service."""
    attributes = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return bool(environ.get("OTEL_SERVICE_NAME", "").strip()) or "service.name=" in attributes


def sdk_disabled(environ: Mapping[str, str]) -> bool:
    """Tell whether OTEL_SDK_DISABLED switches tracing off."""
    return _flag(environ, "OTEL_SDK_DISABLED")


def _flag(environ: Mapping[str, str], variable: str) -> bool:
    return environ.get(variable, "").strip().lower() == "true"


def spool_root(environ: Mapping[str, str]) -> Path | None:
    """Return the folder of OTEL_SESSIONS_SPOOL, or the default; None for off, or without a home."""
    value = environ.get("OTEL_SESSIONS_SPOOL", "").strip()
    if value.lower() == "off":
        return None
    if not value:
        state = state_folder()
        return None if state is None else state / "spool"
    folder = Path(value)
    if not folder.is_absolute():
        raise ConfigurationError(
            f"OTEL_SESSIONS_SPOOL={value!r}: give a folder by its whole path, for programs may change "
            "theirs, or off"
        )
    return folder


def state_folder() -> Path | None:
    """Return where ours is kept for this user; None for one whom the system does not know (containers)."""
    try:
        folder = user_state_path("otel-sessions", appauthor=False)
    except RuntimeError:  # as platformdirs says it; earlier releases return a folder named "~"
        return None
    return folder if folder.is_absolute() else None


def _content(environ: Mapping[str, str], capture: bool | None) -> Content:
    value = environ.get(_CAPTURE, "").strip().upper()
    known = ("", "NO_CONTENT", "FALSE", "EVENT_ONLY", "SPAN_ONLY", "SPAN_AND_EVENT", "TRUE")
    if value not in known:
        raise ConfigurationError(
            f"{_CAPTURE}={value!r} is not known: write NO_CONTENT, SPAN_ONLY, EVENT_ONLY or SPAN_AND_EVENT"
        )
    if value == "NO_CONTENT":
        return Content.NEVER
    if capture is None:
        capture = value in ("SPAN_ONLY", "SPAN_AND_EVENT", "TRUE")
    return Content.CAPTURED if capture else Content.EXPLICIT


def _whole(environ: Mapping[str, str], variable: str, default: int, *, least: int = 1) -> int:
    value = environ.get(variable, "").strip()
    if not value:
        return default
    if not value.isascii() or not value.isdigit() or len(value) > _MOST_DIGITS or int(value) < least:
        raise ConfigurationError(
            f"{variable}={value[:80]!r} is no whole number from {least} of at most {_MOST_DIGITS} digits: "
            "correct or unset it"
        )
    return int(value)


def _milliseconds(environ: Mapping[str, str], variable: str, default: float) -> float:
    value = environ.get(variable, "").strip()
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _LONGEST_DELAY:
        raise ConfigurationError(
            f"{variable}={value[:80]!r} is no number of milliseconds up to a day: correct or unset it"
        )
    return number / 1000
