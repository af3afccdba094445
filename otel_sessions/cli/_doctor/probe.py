"""A real session of one span, sent as an agent's would be, and what the backend has of it then.

It goes by the SDK's own transports to the endpoints that the environment names, but past the spool: what is
not taken now must not arrive tomorrow. It can't be removed again, so it is named and ended.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from otel_sessions import semconv
from otel_sessions._version import __version__
from otel_sessions.cli._api import Api
from otel_sessions.cli._doctor.arrival import PROBE_NAME
from otel_sessions.cli._doctor.facts import SIGNALS, Arrived, Backend, Probe, Target
from otel_sessions.errors import ConfigurationError, EndpointError
from otel_sessions.lifecycle import EndReason, Outcome
from otel_sessions.sdk._answer import Answer, Verdict
from otel_sessions.sdk._encode import any_value, to_record, to_request, to_resource
from otel_sessions.sdk._endpoint import GRPC_PORT, HTTP_PORT, Endpoint, Signal
from otel_sessions.sdk._events import Event, Origin, Stamp
from otel_sessions.sdk._transport import open_transport

__all__ = ["find_backend", "probe_targets", "wait_for"]

_SERVICE: Final = "otel-sessions-doctor"
_EVENT: Final = "doctor looked"
_POLL: Final = 0.1
_EVENTS: Final = (semconv.EVENT_SESSION_START, semconv.EVENT_SESSION_END)
"""Those that a backend keeps; a heartbeat only says that somebody is alive."""
_MS: Final = 1_000_000


def probe_targets(endpoints: Mapping[Signal, Endpoint], environ: Mapping[str, str]) -> Probe:
    """Send the probe, spans first, and note what each endpoint answered."""
    now = time.time_ns()
    session, trace, span = f"doctor-{secrets.token_hex(6)}", secrets.token_bytes(16), secrets.token_bytes(8)
    counts = {semconv.SPANS_STARTED: 1, semconv.SPANS_ENDED: 1, semconv.SPANS_DROPPED: 0}
    end = {semconv.SESSION_OUTCOME: Outcome.OK.value, semconv.SESSION_END_REASON: EndReason.COMPLETED.value}
    attributes = {semconv.SESSION_ID: session, semconv.SESSION_NAME: PROBE_NAME, **end, **counts}
    resource = _resource(environ)
    bodies: dict[Signal, bytes] = {
        "traces": _spans(resource, trace, span, attributes, now),
        "logs": _logs(resource, session, (trace, span), {**end, **counts}, now),
    }
    answers: dict[Signal, Answer] = {
        signal: _send(endpoints[signal], signal, bodies[signal]) for signal in SIGNALS if signal in endpoints
    }
    return Probe(session, trace.hex(), span.hex(), attributes, resource, _EVENTS, answers)


def _send(endpoint: Endpoint, signal: Signal, body: bytes) -> Answer:
    try:
        transport = open_transport(endpoint, signal)
    except OSError as error:  # a certificate that can't be read
        return Answer(Verdict.REFUSED, f"{error.strerror}: {error.filename}", reached=False)
    try:
        return transport.send(body, min(endpoint.timeout, 10.0))
    finally:
        transport.close()


def _resource(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the resource of an agent in this environment: a collector may route by it."""
    from opentelemetry.util.re import parse_env_headers

    named: dict[str, Any] = dict(parse_env_headers(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""), liberal=True))
    service = environ.get("OTEL_SERVICE_NAME", "").strip() or named.get(semconv.SERVICE_NAME) or _SERVICE
    return {**named, semconv.SERVICE_NAME: service}


def _spans(
    resource: Mapping[str, Any], trace: bytes, span: bytes, attributes: Mapping[str, Any], now: int
) -> bytes:
    message = Span(
        trace_id=trace,
        span_id=span,
        name=f"session {PROBE_NAME}",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=now - 2 * _MS,
        end_time_unix_nano=now,
        attributes=[KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()],
        events=[Span.Event(name=_EVENT, time_unix_nano=now - _MS)],
    )
    scope = InstrumentationScope(name=semconv.SCOPE_NAME, version=__version__)
    spans = ResourceSpans(
        resource=to_resource(resource), scope_spans=[ScopeSpans(scope=scope, spans=[message])]
    )
    return ExportTraceServiceRequest(resource_spans=[spans]).SerializeToString()


def _logs(
    resource: Mapping[str, Any], session: str, ids: tuple[bytes, bytes], end: Mapping[str, Any], now: int
) -> bytes:
    said: list[tuple[str, dict[str, Any]]] = [
        (semconv.EVENT_SESSION_START, {semconv.SESSION_NAME: PROBE_NAME}),
        (semconv.EVENT_SESSION_HEARTBEAT, {semconv.PHASE: "running"}),
        (semconv.EVENT_SESSION_END, dict(end)),
    ]
    origin = Origin(process_id=secrets.token_hex(8), heartbeat=5.0, lease=120.0)
    events = [
        Event(
            name,
            now - (2 - number) * _MS,
            Stamp(number + 1, number * _MS, now - (2 - number) * _MS),
            session,
            int.from_bytes(ids[0], "big"),
            int.from_bytes(ids[1], "big"),
            attributes=attributes,
        )
        for number, (name, attributes) in enumerate(said)
    ]
    return to_request([to_record(event, origin) for event in events], to_resource(resource))


# --- The backend -----------------------------------------------------------------------------------------


def find_backend(
    named: str | None, environ: Mapping[str, str], targets: Mapping[Signal, Target], token: str | None
) -> Backend:
    """Find the backend: the one named, else the one behind the endpoint, else one on this machine.

    Behind an endpoint of others only what the environment sends there anyway is shown as a token.
    """
    behind = _behind(targets)
    named = named or environ.get("OTEL_SESSIONS_URL", "").strip() or None
    here = f"http://127.0.0.1:{HTTP_PORT}"
    candidates = {named: token} if named else {**behind, here: behind.get(here)}
    if not named:  # what sends may be no token to read with
        candidates = {url: (token if _is_local(url) else None) or sent for url, sent in candidates.items()}
    places, trouble = set(map(_place, behind)), ""
    for number, (url, shown) in enumerate(candidates.items(), 1):
        tried = tuple(candidates)[:number]
        try:
            if (refusal := Api(url, shown).turns_away()) is not None:
                return Backend(tried, url, trouble=f"it {refusal}")
            return _ask(url, shown, tried, in_between=_place(url) not in places)
        except (EndpointError, ConfigurationError) as error:
            trouble = str(error)
    return Backend(tuple(candidates), trouble=trouble if named else "")


def _is_local(url: str) -> bool:
    return _place(url).startswith(("127.", "[::1]"))


def _behind(targets: Mapping[Signal, Target]) -> dict[str, str | None]:
    """Return where a backend's page would be that takes telemetry itself, with the token sent there."""
    found: dict[str, str | None] = {}
    for signal in SIGNALS:
        endpoint = targets[signal].endpoint
        if endpoint is None:
            continue
        parts = urlsplit(endpoint.address if "://" in endpoint.address else f"//{endpoint.address}")
        if endpoint.protocol == "grpc":
            scheme = "http" if endpoint.insecure else "https"
            url = f"{scheme}://{_with_port(parts.hostname or '', HTTP_PORT)}"
        elif parts.port == GRPC_PORT:  # by mistake: a page would be at the other port
            url = f"{parts.scheme}://{_with_port(parts.hostname or '', HTTP_PORT)}"
        else:
            url = urlunsplit((parts.scheme, parts.netloc, _above_otlp(parts.path), "", ""))
        found.setdefault(url, _token_of(endpoint))
    return found


def _above_otlp(path: str) -> str:
    """Take the paths of signals off, also one that was named by mistake and had another appended."""
    return re.sub(r"(/v1/(traces|logs)/*)*$", "", path).rstrip("/")


def _token_of(endpoint: Endpoint) -> str | None:
    for name, value in endpoint.headers:
        scheme, _, bearer = value.partition(" ")
        if name.lower() == "authorization" and scheme.lower() == "bearer":
            return bearer.strip()
    return dict(endpoint.headers).get("x-otel-sessions-token")


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _place(url: str) -> str:
    return urlsplit(url).netloc.replace("localhost", "127.0.0.1")


def _ask(url: str, token: str | None, tried: tuple[str, ...], *, in_between: bool) -> Backend:
    api = Api(url, token)
    before = time.time()
    status = api.status()
    after = time.time()
    if not isinstance(status.get("version"), str) or not str(status.get("now", "")).isdigit():
        raise EndpointError(f"{url} answers, but is no otel-sessions backend")
    return Backend(
        tried=tried,
        url=url,
        version=status["version"],
        not_ready=api.trouble() or "",
        token=token,
        skew=int(status["now"]) / 1e9 - (before + after) / 2,
        uncertainty=(after - before) / 2,
        in_between=in_between,
    )


def wait_for(probe: Probe, backend: Backend, seconds: float, tell: Callable[[str], object]) -> Arrived | None:
    """Ask the backend for the probe until all of it is there; None where no span was taken at all."""
    answer = probe.answers.get("traces")
    if answer is None or answer.verdict is not Verdict.ACCEPTED:
        return None
    api, began = Api(backend.url, backend.token), time.monotonic()
    logs = probe.answers.get("logs")
    wanted = len(probe.events) if logs is not None and logs.verdict is Verdict.ACCEPTED else 0
    arrived = Arrived(seconds)
    while True:
        gone = time.monotonic() - began
        tell(f"the probe, {gone:.0f} of {seconds:g} s")
        try:
            found = api.span(probe.trace_id, probe.span_id)
        except EndpointError as error:
            return Arrived(seconds, arrived.after, trouble=str(error))
        if found is not None and found.get("span"):
            first = gone if arrived.after is None else arrived.after
            arrived = _read(found, seconds, first, api)
        if gone >= seconds or (arrived.after is not None and len(arrived.events) >= wanted):
            return arrived
        time.sleep(_POLL)


def _read(found: Mapping[str, Any], waited: float, after: float, api: Api) -> Arrived:
    span = cast("dict[str, Any]", found["span"])
    logs = cast("list[dict[str, Any]]", found.get("logs") or [])
    return Arrived(
        waited,
        after,
        _plain(span.get("attributes")),
        _plain((found.get("resource") or {}).get("attributes")),
        len(span.get("events") or ()),
        {str(log.get("eventName", "")): _plain(log.get("attributes")) for log in logs},
        api.page(str(found["session"])),
    )


def _plain(pairs: Any) -> dict[str, Any]:
    """Read OTLP JSON's attributes, those of scalar values."""
    return {pair["key"]: _scalar(pair.get("value") or {}) for pair in pairs or ()}


def _scalar(value: Mapping[str, Any]) -> Any:
    kind, content = next(iter(value.items()), ("", None))
    return int(content) if kind == "intValue" and content is not None else content
