"""Where a signal goes: `OTEL_EXPORTER_OTLP_*` and `OTEL_{TRACES,LOGS}_EXPORTER` as a frozen value.

Pure functions of a mapping. The rules are the specification's ("OpenTelemetry Protocol Exporter",
1.44) as the official Python exporters read them, for one set of variables governs both: a variable of
the signal wins over the general one, an empty one counts as unset, a general HTTP endpoint gets the
signal's path appended while the signal's own is used as given, and the timeout is in seconds (the
specification says milliseconds, the Python exporters say seconds). Unlike them, a value that makes no
sense raises `ConfigurationError` with the name of its variable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, cast
from urllib.parse import SplitResult, urlsplit, urlunsplit

from opentelemetry.util.re import parse_env_headers

from otel_sessions.errors import ConfigurationError

__all__ = [
    "Compression",
    "Endpoint",
    "Exporter",
    "Protocol",
    "Signal",
    "resolve_endpoint",
    "resolve_exporter",
]

Signal = Literal["traces", "logs"]
Protocol = Literal["grpc", "http/protobuf"]
Compression = Literal["none", "gzip", "deflate"]
Exporter = Literal["otlp", "console", "none"]

GRPC_PORT: Final = 4317
HTTP_PORT: Final = 4318

_DEFAULT_TIMEOUT: Final = 10.0
_EXPORTERS: Final[Mapping[str, Exporter]] = {
    "otlp": "otlp",
    "otlp_proto_http": "otlp",
    "otlp_proto_grpc": "otlp",
    "otel_sessions": "otlp",
    "console": "console",
    "none": "none",
}
"""Values of OTEL_{TRACES,LOGS}_EXPORTER; the long ones are entry points, the last one of them ours."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OTLP target of one signal. `timeout` is in seconds for a request; headers stay out of `repr`."""

    url: str
    protocol: Protocol = "http/protobuf"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout: float = _DEFAULT_TIMEOUT
    compression: Compression = "none"
    insecure: bool = True
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    protocol_chosen: bool = False

    @property
    def address(self) -> str:
        """Return the URL without user, password and query, fit for messages and logs."""
        parts = _split(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def recipient(self) -> str:
        """Return a text, full of secrets, that tells apart those who share an address.

        Behind one URL of a hosted backend the headers choose the project, or the certificate does.
        """
        return repr((self.url, sorted(self.headers), self.client_certificate))

    @property
    def target(self) -> str:
        """Return what a gRPC channel is opened to: host and port, or any other name that gRPC resolves."""
        parts = _split(self.url)
        if parts.scheme in ("http", "https"):
            return parts.netloc.rpartition("@")[2]
        return self.url

    @property
    def doubt(self) -> str | None:
        """Return a sentence on a port that belongs to the other protocol, where no protocol was chosen."""
        if self.protocol_chosen or _split(self.url).port != GRPC_PORT:
            return None
        return (
            f"port {GRPC_PORT} is OTLP/gRPC by convention, but {self.protocol} is spoken to it: "
            f"set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or send to port {HTTP_PORT}"
        )


def resolve_exporter(signal: Signal, environ: Mapping[str, str]) -> Exporter:
    """Tell which exporter the environment asks for, `otlp` where it says nothing.

    Of a list the first that sends anything wins. Raises ConfigurationError for an unknown name.
    """
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = [name.strip().lower() for name in environ.get(variable, "").split(",") if name.strip()]
    for name in names:
        if name not in _EXPORTERS:
            raise ConfigurationError(f"{variable}={name!r} is not known here: use otlp, console or none")
    if not names:
        return "otlp"
    sending: list[Exporter] = [_EXPORTERS[name] for name in names if name != "none"]
    return sending[0] if sending else "none"


def resolve_endpoint(signal: Signal, environ: Mapping[str, str]) -> Endpoint:
    """Read the target of a signal from the environment; raise ConfigurationError for a bad value."""
    read = _Reader(signal, environ)
    protocol, chosen = _protocol(signal, read, environ)
    url = _grpc_url(read) if protocol == "grpc" else _http_url(signal, read)
    return Endpoint(
        url=url,
        protocol=protocol,
        headers=_headers(read),
        timeout=_timeout(read),
        compression=_compression(read),
        insecure=_insecure(url, read),
        certificate=read.value("CERTIFICATE"),
        client_key=read.value("CLIENT_KEY"),
        client_certificate=read.value("CLIENT_CERTIFICATE"),
        protocol_chosen=chosen,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one option: the signal's own variable first, then the general one."""

    signal: Signal
    environ: Mapping[str, str]

    def variable(self, option: str) -> str:
        """Return the name of the variable that decides, for messages."""
        own = f"OTEL_EXPORTER_OTLP_{self.signal.upper()}_{option}"
        return own if self.environ.get(own, "").strip() else f"OTEL_EXPORTER_OTLP_{option}"

    def value(self, option: str) -> str | None:
        """Return the value that decides; None where it is unset or empty."""
        return self.environ.get(self.variable(option), "").strip() or None

    def own(self, option: str) -> bool:
        """Tell whether the signal's own variable decides."""
        return self.variable(option) != f"OTEL_EXPORTER_OTLP_{option}"


def _protocol(signal: Signal, read: _Reader, environ: Mapping[str, str]) -> tuple[Protocol, bool]:
    value = read.value("PROTOCOL")
    if value is None:
        exporters = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").lower()
        if "otlp_proto_grpc" in exporters:
            return "grpc", True
        return "http/protobuf", "otlp_proto_http" in exporters
    if value.lower() not in ("grpc", "http/protobuf"):
        raise ConfigurationError(f"{read.variable('PROTOCOL')}={value!r}: use grpc or http/protobuf")
    return cast("Protocol", value.lower()), True


def _http_url(signal: Signal, read: _Reader) -> str:
    url = read.value("ENDPOINT") or f"http://localhost:{HTTP_PORT}"
    parts = _checked(read.variable("ENDPOINT"), url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"{read.variable('ENDPOINT')}={url!r}: begin it with http:// or https:// and a host"
        )
    if read.own("ENDPOINT"):
        return url
    return urlunsplit(parts._replace(path=f"{parts.path.removesuffix('/')}/v1/{signal}"))


def _grpc_url(read: _Reader) -> str:
    url = read.value("ENDPOINT") or f"http://localhost:{GRPC_PORT}"
    parts = _checked(read.variable("ENDPOINT"), url)
    if parts.scheme in ("http", "https") and not parts.hostname:
        raise ConfigurationError(f"{read.variable('ENDPOINT')}={url!r} names no host")
    return url


def _checked(variable: str, url: str) -> SplitResult:
    try:
        parts = _split(url)
        parts.port  # noqa: B018 - reading it is the check: it raises for a port that is no number
    except ValueError as error:
        raise ConfigurationError(f"{variable}={url!r} is no URL: {error}") from error
    return parts


def _split(url: str) -> SplitResult:
    """Split a URL; "host:4317" has no scheme, though urlsplit takes the host for one."""
    return urlsplit(url if "://" in url or url.startswith("unix:") else f"//{url}")


def _headers(read: _Reader) -> tuple[tuple[str, str], ...]:
    value = read.value("HEADERS")
    if value is None:
        return ()
    if any(part.strip() and "=" not in part for part in value.split(",")):
        raise ConfigurationError(f"{read.variable('HEADERS')}: write name=value,name=value")
    return tuple(parse_env_headers(value, liberal=True).items())


def _timeout(read: _Reader) -> float:
    value = read.value("TIMEOUT")
    if value is None:
        return _DEFAULT_TIMEOUT
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(f"{read.variable('TIMEOUT')}={value!r}: give seconds, more than 0")
    return seconds


def _compression(read: _Reader) -> Compression:
    value = (read.value("COMPRESSION") or "none").lower()
    if value not in ("none", "gzip", "deflate"):
        raise ConfigurationError(f"{read.variable('COMPRESSION')}={value!r}: use gzip, deflate or none")
    return value


def _insecure(url: str, read: _Reader) -> bool:
    """Tell whether the connection is in clear; a scheme decides, the variable only where there is none."""
    scheme = _split(url).scheme
    if scheme in ("http", "https"):
        return scheme == "http"
    value = (read.value("INSECURE") or "false").lower()
    if value not in ("true", "false"):
        raise ConfigurationError(f"{read.variable('INSECURE')}={value!r}: use true or false")
    return value == "true"
