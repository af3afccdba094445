"""Checks of the environment: what is set, misspelt, without sense, contradictory, or of no effect. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from otel_sessions.cli._doctor.findings import Finding, ok, problem, warning
from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._endpoint import GRPC_PORT, HTTP_PORT, resolve_endpoint
from otel_sessions.sdk._liveness import EventSettings
from otel_sessions.sdk._resume import SECRET, key_for_reading
from otel_sessions.sdk._settings import Settings

__all__ = ["blamed", "check_effect", "check_values", "check_variables", "shown_value"]

_OF_INTEREST: Final = re.compile(
    r"^_?(?:OTEL|OTLP|OPENTELEMETRY)(?:_|$)|^OTELSESSIONS|^OTELP?_", re.IGNORECASE
)
_SECRET: Final = re.compile(r"HEADERS|TOKEN|SECRET|PASSWORD|API_KEY", re.IGNORECASE)
_ALIKE: Final = 0.87
"""How alike two names have to be (difflib's ratio) to take one for a slip of the other."""
_LONGEST: Final = 80


def shown_value(name: str, value: str) -> str:
    """Return a value as it may be shown: no token, no password."""
    if _SECRET.search(name):
        return "***"
    hidden = re.sub(r"(?<=//)[^/@\s]*@", "***@", value)
    return hidden if len(hidden) <= _LONGEST else hidden[: _LONGEST - 1] + "…"


def check_variables(environ: Mapping[str, str], names: frozenset[str]) -> list[Finding]:
    """List what is set, and name what looks like a slip of one of `names`."""
    ours = {name: value for name, value in environ.items() if _OF_INTEREST.match(name)}
    slips = {name: meant for name in sorted(ours) if (meant := _meant(name, names))}
    known = [
        f"{name}={shown_value(name, value)}" for name, value in sorted(ours.items()) if name not in slips
    ]
    return [
        *(
            problem(
                "variables",
                f"{name} is read by nobody; {meant} is meant?",
                f'export {meant}="${name}"; unset {name}',
            )
            for name, meant in slips.items()
        ),
        ok("variables", "set: " + ", ".join(known) if known else "none is set: the defaults hold"),
    ]


def _meant(name: str, names: frozenset[str]) -> str | None:
    """Return the name that is meant by one that nobody reads; None where there is none like it."""
    if name in names:
        return None
    upper = name.upper()
    if upper in names:
        return upper
    # Other languages, frameworks and agents have OTEL_* of their own: only what is close is a slip.
    close = difflib.get_close_matches(upper, names, n=1, cutoff=_ALIKE)
    return close[0] if close else None


# --- Values ----------------------------------------------------------------------------------------------


def check_values(environ: Mapping[str, str]) -> list[Finding]:
    """Name every value that makes no sense, each by itself: one must not hide the next."""
    found = [*_quoted(environ), *_senseless(environ)]
    return found or [ok("values", "every value makes sense")]


def _quoted(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name, value in sorted(environ.items()):
        bare = value.strip()
        if name.startswith("OTEL_") and len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
            yield problem(
                "values",
                f"{name} is in quotes, which are part of its value (env files of containers keep them)",
                f"{name}={shown_value(name, bare[1:-1])}",
            )


def _resume_secret(environ: Mapping[str, str]) -> None:
    """Read the secret of resume tokens, where there is one; else a key file would be made."""
    if environ.get(SECRET, "").strip():
        key_for_reading(environ)


_READERS: Final[tuple[Callable[[Mapping[str, str]], object], ...]] = (
    Settings.read,
    EventSettings.from_environ,
    lambda environ: resolve_endpoint("traces", environ),
    lambda environ: resolve_endpoint("logs", environ),
    _resume_secret,
)


def _senseless(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Name what the readers complain of; each time without what they complained of before."""
    left = {name: value for name, value in environ.items() if name.startswith("OTEL_")}
    for read in _READERS:
        while left and (message := _complaint(read, left)):
            blame = blamed(message, left)
            yield problem("values", message, f"unset {blame}")
            del left[blame]


def _complaint(read: Callable[[Mapping[str, str]], object], environ: Mapping[str, str]) -> str:
    try:
        read(environ)
    except ConfigurationError as error:
        return str(error)
    return ""


def blamed(message: str, some: Mapping[str, str]) -> str:
    """Return the variable that a message names and that is set; else one that is set, to begin with."""
    named = re.findall(r"OTEL_[A-Z_]+", message)
    return next((name for name in named if name in some), next(iter(some)))


# --- Effect ----------------------------------------------------------------------------------------------


def check_effect(environ: Mapping[str, str]) -> list[Finding]:
    """Name what switches something off, contradicts something else, or has no effect."""
    said = {name: value.strip() for name, value in environ.items() if value.strip()}
    found = [
        *_switched_off(said),
        *_paths(said),
        *_ports(said),
        *_apart(said),
        *_identity(said),
        *_limits(said),
        *_ignored(said),
    ]
    return found or [ok("effect", "nothing is switched off, contradictory or ignored")]


def _switched_off(said: Mapping[str, str]) -> Iterator[Finding]:
    if said.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield problem(
            "effect", "OTEL_SDK_DISABLED=true: nothing is recorded at all", "unset OTEL_SDK_DISABLED"
        )
    for variable, lost in (
        ("OTEL_TRACES_EXPORTER", "no span leaves"),
        ("OTEL_LOGS_EXPORTER", "no life cycle event leaves: nobody sees what is alive, waits, or was lost"),
    ):
        names = [name.strip().lower() for name in said.get(variable, "").split(",")]
        if variable in said and set(names) <= {"none", "console", ""}:
            yield problem("effect", f"{variable}={said[variable]}: {lost}", f"export {variable}=otlp")
    sampler = said.get("OTEL_TRACES_SAMPLER", "").lower()
    if sampler and "always_on" not in sampler:
        yield warning(
            "effect",
            f"OTEL_TRACES_SAMPLER={sampler}: sessions that are not sampled are not seen at all",
            "export OTEL_TRACES_SAMPLER=parentbased_always_on",
        )


def _split(url: str) -> SplitResult:
    """Split a URL; one that is none has no parts, which `values` tells."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _paths(said: Mapping[str, str]) -> Iterator[Finding]:
    general = said.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    for signal in ("traces", "logs"):
        path = f"/v1/{signal}"
        if general.rstrip("/").endswith(path):
            base = general.rstrip("/").removesuffix(path)
            yield problem(
                "effect",
                f"OTEL_EXPORTER_OTLP_ENDPOINT ends in {path}, and {path} is appended to it over HTTP",
                f"export OTEL_EXPORTER_OTLP_ENDPOINT={base}",
            )
        variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
        own = said.get(variable, "")
        if own and not _grpc(said, signal) and _split(own).path in ("", "/"):
            yield problem(
                "effect",
                f"{variable} has no path, and is used as given: nothing is appended to it",
                f"export {variable}={own.rstrip('/')}{path}",
            )


def _grpc(said: Mapping[str, str], signal: str) -> bool:
    """Tell whether a signal leaves over gRPC."""
    own = said.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL")
    protocol = own or said.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol is None:
        return "otlp_proto_grpc" in said.get(f"OTEL_{signal.upper()}_EXPORTER", "").lower()
    return protocol.lower() == "grpc"


def _ports(said: Mapping[str, str]) -> Iterator[Finding]:
    """Look for the port of the other protocol; `protocol` sees what answers there, if anything does."""
    for name, signal in (
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "traces"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "logs"),
    ):
        url = said.get(name, "")
        wrong, right = (HTTP_PORT, GRPC_PORT) if _grpc(said, signal) else (GRPC_PORT, HTTP_PORT)
        if re.search(rf":{wrong}(?:/|$)", url):
            spoken = "gRPC" if wrong == HTTP_PORT else "HTTP"
            yield warning(
                "effect",
                f"{spoken} is spoken to port {wrong}, which by convention is that of the other protocol",
                f"export {name}={url.replace(f':{wrong}', f':{right}')}",
            )


def _apart(said: Mapping[str, str]) -> Iterator[Finding]:
    traces, logs = (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT" for signal in ("TRACES", "LOGS"))
    for one, other, lost in (
        (traces, logs, "life cycle events go elsewhere: {}"),
        (logs, traces, "spans go elsewhere: {}"),
    ):
        if one in said and other not in said:
            default = f"http://localhost:{HTTP_PORT}"
            where = said.get("OTEL_EXPORTER_OTLP_ENDPOINT", default)
            path = "/v1/logs" if other == logs else "/v1/traces"
            same = said[one].rpartition("/v1/")[0] or said[one]
            if _split(where).netloc != _split(said[one]).netloc:
                yield warning(
                    "effect",
                    f"{one} is set and {other} is not, so " + lost.format(where),
                    f"export {other}={same.rstrip('/')}{path}",
                )


def _identity(said: Mapping[str, str]) -> Iterator[Finding]:
    resource = said.get("OTEL_RESOURCE_ATTRIBUTES", "")
    keys = {part.partition("=")[0].strip() for part in resource.split(",")}
    if "OTEL_SERVICE_NAME" in said and "service.name" in keys:
        yield warning(
            "effect",
            f"OTEL_RESOURCE_ATTRIBUTES has service.name; OTEL_SERVICE_NAME={said['OTEL_SERVICE_NAME']} wins",
            "unset OTEL_SERVICE_NAME",
        )
    if "service.instance.id" in keys:
        yield warning(
            "effect",
            "OTEL_RESOURCE_ATTRIBUTES fixes service.instance.id: all processes with it look like one",
            "export OTEL_RESOURCE_ATTRIBUTES=" + _without(resource, "service.instance.id"),
        )
    if any(part.strip() and "=" not in part for part in resource.split(",")):
        yield problem(
            "effect",
            "OTEL_RESOURCE_ATTRIBUTES has a part without =, which is left out: write a comma as %2C",
            "export OTEL_RESOURCE_ATTRIBUTES=name=value,name=value",
        )


_ID_LENGTH: Final = 36
"""Characters of a session id that is made up: a UUID."""
_ATTRIBUTES: Final = 64
"""Attributes that are more than any span needs of what the page shows; half of the default of 128."""


def _limits(said: Mapping[str, str]) -> Iterator[Finding]:
    """Look for limits of attributes that cut what the page needs; what is no number `values` tells."""
    for own, general, least, lost in (
        (
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
            "OTEL_ATTRIBUTE_COUNT_LIMIT",
            _ATTRIBUTES,
            "the first attributes of a span are dropped beyond it: names, models and tokens may be missing",
        ),
        (
            "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            _ID_LENGTH,
            "longer values are cut, session ids among them",
        ),
    ):
        name = own if own in said else general
        if said.get(name, "").isdecimal() and int(said[name]) < least:
            yield problem("effect", f"{name}={said[name]}: {lost}", f"export {name}=128")


def _without(resource: str, key: str) -> str:
    return ",".join(part for part in resource.split(",") if part.partition("=")[0].strip() != key)


_NO_EFFECT: Final = {
    "OTEL_CONFIG_FILE": "is read by opentelemetry-instrument alone, and where it is, OTEL_* are not",
    "OTEL_BSP_EXPORT_TIMEOUT": "is used by no Python exporter: OTEL_EXPORTER_OTLP_TIMEOUT is",
    "OTEL_PYTHON_ID_GENERATOR": "has no effect on a provider that init() makes",
}
"""Variables that are easily believed to do something here. (opentelemetry-python #4555 for the second.)"""


def _ignored(said: Mapping[str, str]) -> Iterator[Finding]:
    for name, why in _NO_EFFECT.items():
        if name in said:
            yield warning("effect", f"{name} {why}", f"unset {name}")
    for name in sorted(said):
        if re.match(r"OTEL_EXPORTER_(?:JAEGER|ZIPKIN)_", name):
            yield warning(
                "effect", f"{name} is read by nobody any more: what it named takes OTLP", f"unset {name}"
            )
    endpoint = said.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if "OTEL_EXPORTER_OTLP_INSECURE" in said and "://" in endpoint:
        scheme, value = endpoint.partition("://")[0], said["OTEL_EXPORTER_OTLP_INSECURE"]
        if (value.lower() == "true") != (scheme == "http"):
            yield warning(
                "effect",
                f"OTEL_EXPORTER_OTLP_INSECURE={value} has no effect: {scheme}:// decides",
                "unset OTEL_EXPORTER_OTLP_INSECURE",
            )
