"""Checks of the way to the endpoint: name, connection, TLS, proxy, protocol, and what it answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from otel_sessions.cli._doctor.facts import SIGNALS, Facts, Reach, Target
from otel_sessions.cli._doctor.findings import LOGS_PIPELINE, Finding, ok, problem, unknown, warning
from otel_sessions.cli._doctor.findings import Verdict as Said
from otel_sessions.cli._doctor.variables import blamed
from otel_sessions.sdk._answer import Answer, Verdict
from otel_sessions.sdk._endpoint import GRPC_PORT, HTTP_PORT, Endpoint, Signal

__all__ = ["check_answers", "check_way"]

_CHECKS: Final = {"traces": "spans", "logs": "events"}
_WHAT: Final = {"traces": "spans", "logs": "life cycle events"}


def check_way(
    targets: Mapping[Signal, Target],
    reaches: Mapping[Signal, Reach],
    answers: Mapping[Signal, Answer] | None = None,
) -> list[Finding]:
    """Follow the way to where spans and events go, each place once.

    Where a real request was taken, that counts for more than what a look from outside shows: one port may
    speak both protocols, and exporters may believe other authorities than this program.
    """
    seen: dict[tuple[str, int, bool], Signal] = {}
    found: list[Finding] = []
    for signal in SIGNALS:
        endpoint, reach = targets[signal].endpoint, reaches.get(signal)
        if endpoint is None or reach is None:
            continue
        if seen.setdefault((reach.host, reach.port, endpoint.insecure), signal) == signal:
            seen_here = [finding for check in _WAY for finding in check(endpoint, reach)]
            answer = (answers or {}).get(signal)
            taken = answer is not None and answer.verdict is Verdict.ACCEPTED
            found += map(_after_all, seen_here) if taken else seen_here
    if not found:
        return [unknown("name", "nothing is sent over the network, so there is no way to follow")]
    return found


def _after_all(finding: Finding) -> Finding:
    """Return a finding about a way on which a request was taken."""
    if finding.verdict is not Said.PROBLEM:
        return finding
    if finding.check == "proxy":
        return warning("proxy", finding.seen, finding.fix)
    return ok(finding.check, "a real request was taken")


def _name(endpoint: Endpoint, reach: Reach) -> Iterator[Finding]:
    if reach.proxy:
        yield _name_of_proxy(reach)
    elif reach.name_trouble:
        yield problem(
            "name", f"{reach.host} is not found: {reach.name_trouble}", f"getent hosts {reach.host}"
        )
    else:
        yield ok(
            "name", f"{reach.host} is {', '.join(reach.addresses)}" if reach.addresses else endpoint.address
        )


def _name_of_proxy(reach: Reach) -> Finding:
    if reach.name_trouble:
        said = f"the proxy {reach.proxy} is not found: {reach.name_trouble}"
        return problem("name", said, _past_proxy(reach))
    return ok("name", f"{reach.host} is left to the proxy {reach.proxy} to find")


def _connection(_endpoint: Endpoint, reach: Reach) -> Iterator[Finding]:
    where = f"{reach.host} port {reach.port}"
    if reach.proxy and not reach.name_trouble:
        yield _to_proxy(reach)
    elif reach.connected:
        yield ok("connection", f"something listens at {where}")
    elif reach.name_trouble:
        yield unknown("connection", "not tried: its name is not found")
    elif reach.open_beside:
        other = HTTP_PORT if reach.port == GRPC_PORT else GRPC_PORT
        protocol = "http/protobuf" if other == HTTP_PORT else "grpc"
        yield problem(
            "connection",
            f"nothing listens at {where} ({reach.connection_trouble}), but port {other} is open there",
            f"export OTEL_EXPORTER_OTLP_PROTOCOL={protocol} "
            f"OTEL_EXPORTER_OTLP_ENDPOINT=http://{_url_host(reach.host)}:{other}",
        )
    else:
        yield problem("connection", f"nothing listens at {where}: {reach.connection_trouble}", _start(reach))


def _to_proxy(reach: Reach) -> Finding:
    if reach.connected:
        return ok("connection", f"the proxy {reach.proxy} takes connections")
    said = f"the proxy {reach.proxy} does not answer: {reach.connection_trouble}"
    return problem("connection", said, _past_proxy(reach))


def _past_proxy(reach: Reach) -> str:
    return f'export no_proxy="$no_proxy,{reach.host}" NO_PROXY="$NO_PROXY,{reach.host}"'


def _start(reach: Reach) -> str:
    if not _is_here(reach.host):
        return f"export OTEL_EXPORTER_OTLP_ENDPOINT=http://HOST:{HTTP_PORT}"
    if reach.port in (GRPC_PORT, HTTP_PORT):
        return "otel-sessions serve"
    return f"otel-sessions serve --http {_url_host(reach.host)}:{reach.port}"


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tls(endpoint: Endpoint, reach: Reach) -> Iterator[Finding]:
    https, http = (_with_scheme(endpoint, scheme) for scheme in ("https", "http"))
    if reach.proxy or not reach.connected:
        yield unknown(
            "tls", "not looked at: " + ("a proxy is in between" if reach.proxy else "no connection")
        )
    elif endpoint.insecure and reach.spoken == "tls":
        yield problem(
            "tls", f"{reach.host}:{reach.port} wants TLS, and is spoken to in clear", _endpoint(https)
        )
    elif endpoint.insecure:
        yield _in_clear(endpoint, reach)
    elif not reach.tls_trouble:
        yield ok("tls", "TLS is spoken, and the certificate is believed")
    elif reach.spoken in ("http", "grpc"):
        yield problem(
            "tls", f"{reach.host}:{reach.port} does not speak TLS ({reach.tls_trouble})", _endpoint(http)
        )
    else:
        yield problem("tls", f"TLS fails: {reach.tls_trouble}", _certificate(endpoint, reach))


def _in_clear(endpoint: Endpoint, reach: Reach) -> Finding:
    if endpoint.headers and not _is_here(reach.host):
        return warning(
            "tls",
            "in clear, with headers: whoever listens in between reads the token",
            _endpoint(_with_scheme(endpoint, "https")),
        )
    return ok("tls", "in clear, as configured")


def _certificate(endpoint: Endpoint, reach: Reach) -> str:
    if "hostname" in reach.tls_trouble.lower() or "ip address" in reach.tls_trouble.lower():
        return _endpoint(f"https://THE-NAME-IN-ITS-CERTIFICATE:{reach.port}")
    if "No such file" in reach.tls_trouble:
        return f"ls -l {endpoint.certificate or endpoint.client_certificate or endpoint.client_key}"
    return "export OTEL_EXPORTER_OTLP_CERTIFICATE=/PATH/OF/THE/AUTHORITY.pem"


def _with_scheme(endpoint: Endpoint, scheme: str) -> str:
    rest = endpoint.address.partition("://")[2] or endpoint.address.lstrip("/")
    base = rest.rpartition("/v1/")[0] or rest
    return f"{scheme}://{base}"


def _endpoint(url: str) -> str:
    return f"export OTEL_EXPORTER_OTLP_ENDPOINT={url}"


def _proxy(endpoint: Endpoint, reach: Reach) -> Iterator[Finding]:
    if not reach.proxy:
        yield ok("proxy", "no proxy variable applies")
        return
    said = f"requests to {endpoint.address} go through the proxy {reach.proxy} ({reach.proxy_variable})"
    fix = _past_proxy(reach)
    if _is_here(reach.host):
        yield problem("proxy", f"{said}, though the endpoint is this machine", fix)
    else:
        yield warning("proxy", f"{said}: it may buffer, refuse or time out", fix)


def _protocol(endpoint: Endpoint, reach: Reach) -> Iterator[Finding]:
    wanted = "grpc" if endpoint.protocol == "grpc" else "http"
    if reach.proxy or not reach.connected or reach.spoken in ("", "tls"):
        yield unknown("protocol", "what is spoken there could not be seen")
    elif reach.spoken == wanted:
        yield ok("protocol", f"{endpoint.protocol} is spoken to it, and it speaks that")
    elif wanted == "http":
        yield problem(
            "protocol",
            f"{reach.host}:{reach.port} speaks HTTP/2, as gRPC does, and http/protobuf is sent to it",
            "export OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        )
    else:
        yield problem(
            "protocol",
            f"{reach.host}:{reach.port} speaks HTTP/1, and gRPC is sent to it",
            "export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        )


_WAY: Final[tuple[Callable[[Endpoint, Reach], Iterator[Finding]], ...]] = (
    _name,
    _connection,
    _tls,
    _proxy,
    _protocol,
)


# --- Answers ---------------------------------------------------------------------------------------------


def check_answers(facts: Facts) -> list[Finding]:
    """Say what the endpoint answered to a real request of each signal."""
    return [_answered(facts, signal) for signal in SIGNALS]


def _answered(facts: Facts, signal: Signal) -> Finding:
    check, target = _CHECKS[signal], facts.targets[signal]
    answer = facts.probe.answers.get(signal) if facts.probe else None
    if target.trouble:
        fix = f"unset {blamed(target.trouble, facts.environ)}"
        return problem(check, f"{_WHAT[signal]} are not sent: {target.trouble}", fix)
    if target.exporter != "otlp":
        return unknown(check, f"{_WHAT[signal]} go to {target.exporter}, not to an endpoint")
    if answer is None or target.endpoint is None:
        return unknown(check, f"not sent: {facts.why_no_probe or 'see above'}")
    if answer.verdict is Verdict.ACCEPTED:
        return _taken(check, signal, answer, target.endpoint)
    blocked = _first_problem(target.endpoint, facts.reaches.get(signal))
    if blocked is not None and not answer.reached:
        return problem(check, f"{_WHAT[signal]} don't get there: see `{blocked.check}`", blocked.fix)
    return _refused(check, signal, answer, target.endpoint, alone=_takes_spans(facts))


def _takes_spans(facts: Facts) -> bool:
    answer = facts.probe.answers.get("traces") if facts.probe else None
    return answer is not None and answer.verdict is Verdict.ACCEPTED


def _first_problem(endpoint: Endpoint, reach: Reach | None) -> Finding | None:
    """Return what blocks the way, which is why no answer came."""
    found = (finding for check in _WAY if reach for finding in check(endpoint, reach))
    return next((finding for finding in found if finding.verdict is Said.PROBLEM), None)


def _taken(check: str, signal: Signal, answer: Answer, endpoint: Endpoint) -> Finding:
    if answer.rejected:
        return problem(
            check,
            f"{endpoint.address} took the request but rejected {answer.rejected} of its {_WHAT[signal]}: "
            f"{answer.detail or 'it does not say why'}",
            "otel-sessions doctor --json",
        )
    warned = f", and says: {answer.detail}" if answer.detail else ""
    return ok(check, f"{endpoint.address} takes {_WHAT[signal]}{warned}")


def _refused(check: str, signal: Signal, answer: Answer, endpoint: Endpoint, *, alone: bool) -> Finding:
    """Say why a signal is not taken; `alone` tells whether spans are, so that only events are missing."""
    said = f"{endpoint.address} does not take {_WHAT[signal]}: {answer.detail}"
    detail = answer.detail.upper()
    if any(word in detail for word in _UNAUTHORIZED):
        given = "the token that is sent is not believed" if endpoint.headers else "no header is sent"
        return problem(
            check, f"{said}; {given}", 'export OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20TOKEN"'
        )
    if "HTTP 404" in detail and (bent := _bent_path(signal, endpoint.address)) is not None:
        why, fix = bent
        return problem(check, f"{said}: {why}", fix)
    if answer.verdict is Verdict.UNSUPPORTED and signal == "logs" and alone:
        return _spans_alone(check, said)
    if "HTTP 404" in detail:
        return _no_receiver(check, signal, said, endpoint.address)
    if answer.reached and answer.verdict is Verdict.AGAIN:
        later = f"{said}; it asks to be tried again, so they wait"
        return problem(check, later, "otel-sessions spool list")
    return problem(check, said, _instead(detail, endpoint))


def _instead(detail: str, endpoint: Endpoint) -> str:
    """Say what to try where an answer is of no known kind."""
    if "HTTP 415" in detail or ("GRPC" in detail and endpoint.protocol != "grpc"):
        return "export OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
    return f"otel-sessions doctor --endpoint http://127.0.0.1:{HTTP_PORT}"


def _spans_alone(check: str, said: str) -> Finding:
    return warning(
        check, f"{said}. Spans alone arrive: nobody sees what is alive, waits, or was lost", LOGS_PIPELINE
    )


_UNAUTHORIZED: Final = ("HTTP 401", "HTTP 403", "UNAUTHENTICATED", "PERMISSION_DENIED")


def _bent_path(signal: Signal, address: str) -> tuple[str, str] | None:
    """Return what is wrong with the path of an address, and what mends it; None where nothing is."""
    path = f"/v1/{signal}"
    if not address.endswith(path):
        variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
        return f"the path is not {path}", f"export {variable}={address.rstrip('/')}{path}"
    base = address.removesuffix(path)
    if base.endswith(("/v1/traces", "/v1/logs")):
        return "a path was appended to one that had it", _endpoint(base.rpartition("/v1/")[0])
    return None


def _no_receiver(check: str, signal: Signal, said: str, address: str) -> Finding:
    base = address.removesuffix(f"/v1/{signal}")
    return problem(
        check,
        f"{said}: it is no OTLP receiver, or receives below another path",
        _endpoint(f"{base}/PATH-OF-ITS-RECEIVER"),
    )
