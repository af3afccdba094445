"""Which pages may send telemetry, and how large a request may be: what is read from settings, and what is refused."""

from __future__ import annotations

import pytest

from otel_sessions.backend.origins import parse_origins
from otel_sessions.backend.settings import MAX_BODY_BYTES, read_settings
from otel_sessions.errors import ConfigurationError


@pytest.mark.parametrize(
    ("setting", "origin", "admitted"),
    [
        ("loopback", "http://localhost:3000", True),
        ("loopback", "https://app.localhost", True),
        ("loopback", "http://127.0.0.1:8080", True),
        ("loopback", "http://[::1]:8080", True),
        ("loopback", "http://localhost.evil.example", False),
        ("loopback", "http://127.0.0.1.evil.example", False),
        ("loopback", "null", False),
        ("none", "http://localhost:3000", False),
        ("*", "null", True),
        ("https://app.example", "https://app.example", True),
        ("https://App.example/", "https://app.EXAMPLE", True),
        ("https://app.example", "http://app.example", False),
        ("https://app.example", "https://app.example:8443", False),
        ("https://*.example", "https://a.b.example", True),
        ("https://*.example", "https://example", False),
        ("https://*.example", "https://evilexample", False),
        ("https://*.example", "http://a.example", False),
        ("http://host:*", "http://host:1", True),
        ("http://host:*", "http://host", True),
        ("http://host:*", "http://hostile:1", False),
        ("loopback, https://app.example", "http://localhost", True),
        ("loopback, https://app.example", "https://app.example", True),
    ],
)
def test_an_origin_is_admitted_by_what_is_named(setting: str, origin: str, admitted: bool) -> None:
    """By scheme, host and port, whatever their case; never because a name only begins or ends alike."""
    assert parse_origins(setting).admit(origin) is admitted


@pytest.mark.parametrize(
    "setting", [",", "none,loopback", "app.example", "https://a.*.example", "https://", "loop"]
)
def test_what_names_no_origin_is_refused(setting: str) -> None:
    """A setting that would silently admit nobody, or everybody, ends the command with what to write."""
    with pytest.raises(ConfigurationError, match=r"--otlp-origins=.*write loopback, none"):
        read_settings({"otlp_origins": setting}, {})


@pytest.mark.parametrize(
    ("setting", "size"),
    [(None, MAX_BODY_BYTES), ("64MiB", 2**26), ("20mb", 20_000_000), ("1 GiB", 2**30), ("65536", 2**16)],
)
def test_the_largest_request_is_read_with_its_unit(setting: str | None, size: int) -> None:
    """64 MiB unless said, as OTLP has it."""
    assert read_settings({"max_body": setting}, {}).max_body == size


@pytest.mark.parametrize("setting", ["0", "-1", "1kb", "2GiB", "64 furlongs", "1.5MB", "many"])
def test_a_size_that_makes_no_sense_is_refused(setting: str) -> None:
    """So that nobody turns OTLP off, or its limit, by a slip."""
    with pytest.raises(ConfigurationError, match="write 64KiB to 1GiB"):
        read_settings({}, {"OTEL_SESSIONS_MAX_BODY": setting})
