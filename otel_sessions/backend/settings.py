"""What the backend is told: by the command line, else by `OTEL_SESSIONS_*`, else by default."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from platformdirs import user_data_path

from otel_sessions.backend.origins import LOOPBACK_ORIGINS, Origins, parse_origins
from otel_sessions.backend.redact_own import patterns_with
from otel_sessions.backend.redact_patterns import Pattern
from otel_sessions.backend.retention import KEEP_ALL, Retention, parse_retention
from otel_sessions.errors import ConfigurationError

__all__ = ["ENVIRONMENT", "MAX_BODY_BYTES", "Address", "Settings", "read_settings"]

ENVIRONMENT: Final = {
    "grpc": "OTEL_SESSIONS_GRPC",
    "http": "OTEL_SESSIONS_HTTP",
    "data": "OTEL_SESSIONS_DATA",
    "store": "OTEL_SESSIONS_STORE",
    "retention": "OTEL_SESSIONS_RETENTION",
    "idle_after": "OTEL_SESSIONS_IDLE_AFTER",
    "token": "OTEL_SESSIONS_TOKEN",
    "read_token": "OTEL_SESSIONS_READ_TOKEN",
    "send_token": "OTEL_SESSIONS_SEND_TOKEN",
    "host_name": "OTEL_SESSIONS_HOST_NAME",
    "redact": "OTEL_SESSIONS_REDACT",
    "redact_pattern": "OTEL_SESSIONS_REDACT_PATTERN",
    "redact_file": "OTEL_SESSIONS_REDACT_FILE",
    "max_body": "OTEL_SESSIONS_MAX_BODY",
    "otlp_origins": "OTEL_SESSIONS_OTLP_ORIGINS",
}
"""Setting -> the environment variable that gives it where the command line does not."""

DEFAULT_GRPC: Final = "127.0.0.1:4317"
DEFAULT_HTTP: Final = "127.0.0.1:4318"
DEFAULT_IDLE_AFTER: Final = "300"
DEFAULT_MAX_BODY: Final = "64MiB"
DEFAULT_OTLP_ORIGINS: Final = "loopback"
PORT_MAX: Final = 65535
TOKEN_MIN: Final = 8  # shorter ones can be guessed at the speed of a local network

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Greatest request, as sent and inflated, where nothing else is asked for: the default of OTLP 1.11."""

_BODY_RANGE: Final = range(64 * 1024, 2**30 + 1)  # gRPC counts in 31 bits
_BODY_UNITS: Final = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"(\d+) ?([a-z]*)")

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a backend, checked."""

    grpc: Address
    http: Address
    data: Path
    idle_after: int  # ns
    token: str | None = None  # for everything
    host_names: tuple[str, ...] = ()  # further names under which the page may be opened
    retention: Retention = KEEP_ALL
    read_token: str | None = None  # for reading alone
    send_token: str | None = None  # for sending telemetry alone
    redaction: tuple[Pattern, ...] = ()  # what is replaced before it is stored; nothing where it is off
    max_body: int = MAX_BODY_BYTES  # of one OTLP request, as sent and inflated
    otlp_origins: Origins = LOOPBACK_ORIGINS  # whose pages may send telemetry


def read_settings(arguments: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """Read and check the settings; keys of `arguments` are those of ENVIRONMENT, arguments win.

    Raises ConfigurationError that names the option or variable at fault and what to write instead.
    """
    read = _Reader(arguments, environ)
    _check_store(*read("store", "sqlite"))
    settings = Settings(
        grpc=_address(*read("grpc", DEFAULT_GRPC)),
        http=_address(*read("http", DEFAULT_HTTP)),
        data=_folder(read("data", "")[0]),
        idle_after=_duration(*read("idle_after", DEFAULT_IDLE_AFTER)),
        token=_token(*read("token", "")),
        read_token=_token(*read("read_token", "")),
        send_token=_token(*read("send_token", "")),
        host_names=_names(read("host_name", "")[0]),
        retention=_retention(*read("retention", "none")),
        redaction=_redaction(read),
        max_body=_max_body(*read("max_body", DEFAULT_MAX_BODY)),
        otlp_origins=_origins(*read("otlp_origins", DEFAULT_OTLP_ORIGINS)),
    )
    _check_reach(settings)
    _check_tokens(settings)
    return settings


class _Reader:
    def __init__(self, arguments: Mapping[str, str | None], environ: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._environ = environ

    def __call__(self, name: str, default: str) -> tuple[str, str]:
        """Return the value, and where it came from for messages. An empty variable counts as unset."""
        argument = self._arguments.get(name)
        if argument is not None:
            return argument.strip(), f"--{name.replace('_', '-')}"
        variable = ENVIRONMENT[name]
        return self._environ.get(variable, "").strip() or default, variable


def _address(value: str, source: str) -> Address:
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= len(str(PORT_MAX)) else -1
    if not colon or not host or not 0 <= number <= PORT_MAX or "/" in host:
        raise ConfigurationError(
            f"{source}={value} is not an address; write HOST:PORT, as in 127.0.0.1:4318 or [::1]:0."
        )
    return Address(host, number)


def _folder(value: str) -> Path:
    return Path(value).expanduser().absolute() if value else user_data_path("otel-sessions", appauthor=False)


def _duration(value: str, source: str) -> int:
    match = _DURATION.fullmatch(value)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds < 2**31:
        raise ConfigurationError(f"{source}={value} is not a duration; write seconds, or as in 90s, 5m, 1h.")
    return round(seconds * 1e9)


def _retention(value: str, source: str) -> Retention:
    try:
        return parse_retention(value)
    except ValueError as error:
        raise ConfigurationError(f"{source}={value} is not a retention; {error}.") from error


def _max_body(value: str, source: str) -> int:
    match = _SIZE.fullmatch(value.lower())
    size = int(match[1]) * _BODY_UNITS.get(match[2], 0) if match else 0
    if size not in _BODY_RANGE:
        raise ConfigurationError(
            f"{source}={value} is not a usable size; write 64KiB to 1GiB, as in 20MB or 64MiB."
        )
    return size


def _origins(value: str, source: str) -> Origins:
    try:
        return parse_origins(value)
    except ValueError as error:
        raise ConfigurationError(f"{source}={value} names no origins; {error}.") from error


def _redaction(read: _Reader) -> tuple[Pattern, ...]:
    switch, source = read("redact", "on")
    if switch.lower() not in ("on", "off"):
        raise ConfigurationError(f"{source}={switch} is neither on nor off.")
    own, file = read("redact_pattern", ""), read("redact_file", "")
    if switch.lower() == "off":
        if own[0] or file[0]:
            asked = (own if own[0] else file)[1]
            raise ConfigurationError(f"{asked} asks for redaction, and {source} switches it off.")
        return ()
    lines = [(line, own[1]) for line in own[0].splitlines()]
    lines += [(line, f"{file[1]}={file[0]}") for line in _lines_of(file[0], f"{file[1]}={file[0]}")]
    source = " and ".join(dict.fromkeys(source for _, source in lines))
    try:
        return patterns_with(line for line, _ in lines)
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}.") from error


def _lines_of(file: str, told: str) -> list[str]:
    """Read a file of settings; no file, no lines. Raises ConfigurationError that begins as `told`."""
    try:
        return Path(file).expanduser().read_text("utf-8").splitlines() if file else []
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{told} can't be read: {error.strerror if isinstance(error, OSError) else error}."
        ) from error


def _token(value: str, source: str) -> str | None:
    """Check a token; one that begins with @ names the file that holds it."""
    if not value:
        return None
    if value.startswith("@"):
        value = "\n".join(_lines_of(value[1:], f"{source}={value}")).strip()
    if len(value) < TOKEN_MIN or not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigurationError(
            f"{source} is not a usable token; it needs at least {TOKEN_MIN} printable ASCII characters "
            'without spaces, as made by: python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return value


def _names(value: str) -> tuple[str, ...]:
    return tuple(name for part in value.split(",") if (name := part.strip().rstrip(".").lower()))


def _check_store(value: str, source: str) -> None:
    if value != "sqlite":
        raise ConfigurationError(f"{source}={value} is not a store that this version knows; write sqlite.")


def _check_tokens(settings: Settings) -> None:
    """Raise ConfigurationError where a lesser token would give no less than the others."""
    tokens = [token for token in (settings.token, settings.read_token, settings.send_token) if token]
    if tokens and settings.token is None:
        raise ConfigurationError(
            "--read-token and --send-token give a part of what --token gives: set that one too "
            "(or OTEL_SESSIONS_TOKEN); without it everybody may do everything."
        )
    if len(set(tokens)) < len(tokens):
        raise ConfigurationError("--token, --read-token and --send-token have to differ from each other.")


def _check_reach(settings: Settings) -> None:
    for option, address in (("--grpc", settings.grpc), ("--http", settings.http)):
        if settings.token is None and not address.is_loopback:
            raise ConfigurationError(
                f"{option}={address} can be reached from other machines, and without a token anybody there "
                "could read and write all sessions. Set OTEL_SESSIONS_TOKEN (or --token), or listen on "
                "127.0.0.1."
            )
