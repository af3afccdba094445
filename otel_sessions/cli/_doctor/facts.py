"""What was gathered, as values: all that the doctor's checks know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_sessions.sdk._answer import Answer
from otel_sessions.sdk._endpoint import Endpoint, Signal
from otel_sessions.sdk._instrumentors import Installed

__all__ = [
    "SIGNALS",
    "Arrived",
    "Backend",
    "Facts",
    "Interpreter",
    "Package",
    "Probe",
    "Reach",
    "SpoolFacts",
    "Target",
    "Waiting",
]

SIGNALS: Final[tuple[Signal, Signal]] = ("traces", "logs")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python: version as three numbers, where it is, and whether it runs without the GIL."""

    version: tuple[int, int, int]
    executable: str
    free_threaded: bool = False


@dataclass(frozen=True, slots=True)
class Package:
    """An installed distribution: its name normalised, what it requires as its metadata has it."""

    name: str
    version: str
    place: str = ""
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """Where a signal goes: `endpoint` is None unless `exporter` is otlp and all is in order."""

    signal: Signal
    exporter: str = "otlp"
    endpoint: Endpoint | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a connection to an endpoint came; what is after the first trouble was not tried.

    `proxy` is the proxy's URL where the environment sends requests there: then name and connection are the
    proxy's, and nothing is known of TLS and protocol. `spoken` is what answers a plain question: `http`,
    `grpc`, `tls` (it wants TLS), or "" where that can't be told. `open_beside` tells whether the port of the
    other protocol (4317 or 4318) is open on the same host.
    """

    host: str
    port: int
    addresses: tuple[str, ...] = ()
    name_trouble: str = ""
    connected: bool = False
    connection_trouble: str = ""
    tls_trouble: str = ""
    proxy: str | None = None
    proxy_variable: str = ""
    spoken: str = ""
    open_beside: bool = False


@dataclass(frozen=True, slots=True)
class Backend:
    """An otel-sessions backend, or why none was found; `skew` and `uncertainty` of its clock are in seconds.

    `tried` are the URLs that were asked.
    """

    tried: tuple[str, ...] = ()
    url: str = ""
    trouble: str = ""
    version: str = ""
    not_ready: str = ""
    skew: float = 0.0
    uncertainty: float = 0.0
    token: str | None = field(default=None, repr=False)
    in_between: bool = False  # telemetry is sent elsewhere, and may come here in the end


@dataclass(frozen=True, slots=True)
class Probe:
    """A session that was sent to see what becomes of it; attributes as they were sent."""

    session_id: str
    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    events: tuple[str, ...]
    answers: Mapping[Signal, Answer]


@dataclass(frozen=True, slots=True)
class Arrived:
    """What the backend has of the probe: `after` seconds, None where nothing came within `waited`.

    `trouble` tells why it could not be asked to the end.
    """

    waited: float
    after: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    resource: Mapping[str, Any] = field(default_factory=dict[str, Any])
    span_events: int = 0
    events: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    page: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a spool holds for one address: spans or events, and seconds since the oldest of them."""

    address: str
    items: int = 0
    of_living: bool = False
    age: float = 0.0
    rejected: int = 0
    damaged: int = 0
    reasons: tuple[str, ...] = ()
    signal: str = "traces"


@dataclass(frozen=True, slots=True)
class SpoolFacts:
    """The spool: `folder` None where there is none; `free` bytes on its disk; `trouble` of a real write."""

    folder: str | None = None
    chosen_off: bool = False
    trouble: str = ""
    free: int | None = None
    waiting: tuple[Waiting, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything. `names` are the variables that mean something to OpenTelemetry's SDK or to us."""

    interpreter: Interpreter
    packages: tuple[Package, ...]
    installed: Installed
    environ: Mapping[str, str]
    names: frozenset[str]
    targets: Mapping[Signal, Target]
    reaches: Mapping[Signal, Reach]
    backend: Backend
    probe: Probe | None
    arrived: Arrived | None
    spool: SpoolFacts
    why_no_probe: str = ""
