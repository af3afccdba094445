"""How far a connection to an endpoint comes: name, proxy, connection, TLS, and what is spoken there."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from otel_sessions.cli._doctor.facts import Reach
from otel_sessions.sdk._endpoint import GRPC_PORT, HTTP_PORT, Endpoint

__all__ = ["reach"]

_TIMEOUT: Final = 4.0
_QUESTION: Final = b"GET /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
_SETTINGS: Final = 4  # the frame with which an HTTP/2 server begins
_FRAME: Final = 9
_PROXY_PORT: Final = 80
_ALERT: Final = b"\x15\x03"  # a TLS alert
_WANTS_TLS: Final = (b"http request to an https server", b"plain http request was sent to https")
_HTTP_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_GRPC_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""What requests and gRPC read, in their order."""


def reach(endpoint: Endpoint, environ: Mapping[str, str]) -> Reach:
    """Go to an endpoint as an exporter would, step by step, up to the first trouble."""
    host, port = _place(endpoint)
    if not host:  # unix: and other names that gRPC alone resolves
        return Reach(endpoint.address, 0, connected=True)
    proxy, variable = _proxy(endpoint, host, environ)
    at = urlsplit(proxy) if proxy else None
    to = (at.hostname or host, at.port or _PROXY_PORT) if at else (host, port)
    addresses, trouble = _resolve(*to)
    if trouble:
        return Reach(host, port, name_trouble=trouble, proxy=_bare(proxy), proxy_variable=variable)
    trouble = _connect(*to)
    if trouble:
        beside = {GRPC_PORT: HTTP_PORT, HTTP_PORT: GRPC_PORT}.get(port)
        return Reach(
            host,
            port,
            addresses,
            connection_trouble=trouble,
            proxy=_bare(proxy),
            proxy_variable=variable,
            open_beside=beside is not None and not proxy and not _connect(host, beside),
        )
    if proxy:
        return Reach(host, port, addresses, connected=True, proxy=_bare(proxy), proxy_variable=variable)
    tls_trouble = "" if endpoint.insecure else _shake_hands(endpoint, host, port, environ)
    context = _trusting() if not endpoint.insecure and not tls_trouble else None
    return Reach(
        host, port, addresses, connected=True, tls_trouble=tls_trouble, spoken=_spoken(host, port, context)
    )


def _place(endpoint: Endpoint) -> tuple[str, int]:
    url = endpoint.url
    if url.startswith("unix:"):
        return "", 0
    parts = urlsplit(url if "://" in url else f"//{url}")
    if parts.scheme not in ("http", "https", ""):
        return "", 0
    default = (443 if parts.scheme == "https" else 80) if parts.scheme else 443
    return parts.hostname or "", parts.port or default


def _proxy(endpoint: Endpoint, host: str, environ: Mapping[str, str]) -> tuple[str | None, str]:
    if endpoint.protocol == "grpc":
        if any(_matches(host, environ.get(name, "")) for name in ("no_grpc_proxy", "no_proxy")):
            return None, ""
        found = next((name for name in _GRPC_PROXIES if environ.get(name)), "")
        return (environ[found], found) if found else (None, "")
    from requests.utils import get_environ_proxies, select_proxy

    # requests reads the environment of the process, which is what an exporter would.
    proxy = select_proxy(endpoint.url, get_environ_proxies(endpoint.url))
    if not proxy:
        return None, ""
    return proxy, next(
        (name for name in _HTTP_PROXIES if environ.get(name) == proxy), "the system's settings"
    )


def _matches(host: str, listed: str) -> bool:
    names = [name.strip().lstrip(".") for name in listed.split(",") if name.strip()]
    return any(name in ("*", host) or host.endswith(f".{name}") for name in names)


def _bare(proxy: str | None) -> str | None:
    """Leave user and password out of a proxy's address."""
    if proxy is None:
        return None
    scheme, divider, rest = proxy.rpartition("://")
    return f"{scheme}{divider}{rest.rpartition('@')[2]}"


def _resolve(host: str, port: int) -> tuple[tuple[str, ...], str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that is too long for a name
        return (), getattr(error, "strerror", None) or str(error)
    return tuple(dict.fromkeys(str(address[4][0]) for address in found)), ""


def _connect(host: str, port: int) -> str:
    """Return why nobody can be reached there, "" where somebody can."""
    try:
        with socket.create_connection((host, port), _TIMEOUT):
            return ""
    except TimeoutError:
        return f"no answer within {_TIMEOUT:g} s, as behind a firewall"
    except OSError as error:
        return error.strerror or str(error)


def _shake_hands(endpoint: Endpoint, host: str, port: int, environ: Mapping[str, str]) -> str:
    try:
        context = _context(endpoint, environ)
        with (
            socket.create_connection((host, port), _TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message or str(error)
    except ssl.SSLError as error:
        return (error.reason or str(error)).lower().replace("_", " ")
    except OSError as error:  # of the connection, or of a file that is not there
        named = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{named}"


def _context(endpoint: Endpoint, environ: Mapping[str, str]) -> ssl.SSLContext:
    """Make the context that requests would: its authorities are certifi's, unless a variable names others."""
    from certifi import where

    named = (
        endpoint.certificate or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE") or where()
    )
    folder = named if Path(named).is_dir() else None
    context = ssl.create_default_context(cafile=None if folder else named, capath=folder)
    if endpoint.client_certificate:
        context.load_cert_chain(endpoint.client_certificate, endpoint.client_key)
    if endpoint.protocol == "grpc":
        context.set_alpn_protocols(["h2"])
    return context


def _trusting() -> ssl.SSLContext:
    """Make a context for a second look at who was believed at the first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _spoken(host: str, port: int, context: ssl.SSLContext | None) -> str:
    """Ask in HTTP/1, and see by the first bytes of the answer what is spoken there."""
    answer = b""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        stream = stack.enter_context(socket.create_connection((host, port), _TIMEOUT))
        stream.settimeout(_TIMEOUT)
        if context is not None:
            stream = stack.enter_context(context.wrap_socket(stream, server_hostname=host))
        stream.sendall(_QUESTION % host.encode("ascii", "replace"))
        while len(answer) < 512 and (part := stream.recv(512)):  # noqa: PLR2004 - enough for a status line
            answer += part
            if answer[:2] == _ALERT or _is_settings(answer):
                break
    named = _name_of(answer)
    # Some cut the connection without a word, or with one that never comes.
    return "tls" if not named and context is None and _takes_tls(host, port) else named


def _takes_tls(host: str, port: int) -> bool:
    try:
        with (
            socket.create_connection((host, port), _TIMEOUT) as plain,
            _trusting().wrap_socket(plain, server_hostname=host),
        ):
            return True
    except OSError:
        return False


def _is_settings(answer: bytes) -> bool:
    return len(answer) >= _FRAME and answer[3] == _SETTINGS and answer[0] == 0


def _name_of(answer: bytes) -> str:
    if answer.startswith(_ALERT) or any(said in answer.lower() for said in _WANTS_TLS):
        return "tls"
    if answer.startswith(b"HTTP/1."):
        return "http"
    return "grpc" if _is_settings(answer) else ""
