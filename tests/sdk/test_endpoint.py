"""Where a signal goes, as the environment says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._endpoint import Endpoint, resolve_endpoint, resolve_exporter


def test_without_a_word_http_goes_to_the_local_port():
    """An empty environment means OTLP over HTTP to localhost, without headers or compression."""
    endpoint = resolve_endpoint("logs", {})
    assert endpoint == Endpoint("http://localhost:4318/v1/logs")
    assert (endpoint.timeout, endpoint.insecure, endpoint.doubt) == (10.0, True, None)


@pytest.mark.parametrize(
    ("general", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/logs"),
        ("http://collector:4318/", "http://collector:4318/v1/logs"),
        ("https://host/prefix", "https://host/prefix/v1/logs"),
        ("https://host/prefix/?key=1", "https://host/prefix/v1/logs?key=1"),
    ],
)
def test_a_general_endpoint_gets_the_path_of_the_signal(general, url):
    """OTEL_EXPORTER_OTLP_ENDPOINT is a base."""
    assert resolve_endpoint("logs", {"OTEL_EXPORTER_OTLP_ENDPOINT": general}).url == url


def test_a_signals_own_endpoint_is_used_as_it_is():
    """OTEL_EXPORTER_OTLP_LOGS_ENDPOINT wins over the general one, and nothing is appended."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://b:2/in",
    }
    assert resolve_endpoint("logs", environ).url == "http://b:2/in"
    assert resolve_endpoint("traces", environ).url == "http://a:1/v1/traces"


def test_an_empty_variable_counts_as_unset():
    """The specification: an empty value is no value."""
    environ = {
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1",
        "OTEL_EXPORTER_OTLP_TIMEOUT": " ",
    }
    assert resolve_endpoint("logs", environ).url == "http://a:1/v1/logs"
    assert resolve_endpoint("logs", environ).timeout == 10.0


def test_every_option_of_the_signal_wins_over_the_general_one():
    """Headers, timeout, compression, protocol and certificates each have two variables."""
    general = {
        "PROTOCOL": "http/protobuf",
        "HEADERS": "a=1",
        "TIMEOUT": "3",
        "COMPRESSION": "deflate",
        "CERTIFICATE": "/general.pem",
        "CLIENT_KEY": "/general.key",
        "CLIENT_CERTIFICATE": "/general.crt",
    }
    own = {
        "PROTOCOL": "grpc",
        "HEADERS": "authorization=Bearer%20x,B = 2",
        "TIMEOUT": "0.5",
        "COMPRESSION": "gzip",
        "CERTIFICATE": "/own.pem",
        "CLIENT_KEY": "/own.key",
        "CLIENT_CERTIFICATE": "/own.crt",
    }
    environ = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in general.items()}
    environ |= {f"OTEL_EXPORTER_OTLP_LOGS_{name}": value for name, value in own.items()}
    assert resolve_endpoint("logs", environ) == Endpoint(
        url="http://localhost:4317",
        protocol="grpc",
        headers=(("authorization", "Bearer x"), ("b", "2")),
        timeout=0.5,
        compression="gzip",
        certificate="/own.pem",
        client_key="/own.key",
        client_certificate="/own.crt",
        protocol_chosen=True,
    )
    assert resolve_endpoint("traces", environ).headers == (("a", "1"),)
    assert resolve_endpoint("traces", environ).compression == "deflate"


@pytest.mark.parametrize(
    ("url", "target", "insecure"),
    [
        ("http://collector:4317", "collector:4317", True),
        ("https://user:secret@collector:4317/path", "collector:4317", False),
        ("collector:4317", "collector:4317", False),
        ("unix:/run/otlp.sock", "unix:/run/otlp.sock", False),
        ("dns:///collector:4317", "dns:///collector:4317", False),
    ],
)
def test_grpc_targets_are_what_a_channel_understands(url, target, insecure):
    """A scheme decides on TLS; without one it is on, as the specification has it."""
    endpoint = resolve_endpoint(
        "logs", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    )
    assert (endpoint.target, endpoint.insecure) == (target, insecure)


def test_insecure_speaks_for_endpoints_without_a_scheme_only():
    """OTEL_EXPORTER_OTLP_INSECURE can't take TLS from an https endpoint."""
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_INSECURE": "true"}
    assert resolve_endpoint("logs", environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}).insecure
    assert not resolve_endpoint(
        "logs", environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4317"}
    ).insecure


def test_the_address_for_messages_bears_no_secret():
    """User, password, query and headers appear neither in the address nor in repr's headers."""
    endpoint = Endpoint(
        "https://user:secret@host:1/v1/logs?token=secret", headers=(("authorization", "secret"),)
    )
    assert endpoint.address == "https://host:1/v1/logs"
    assert "authorization" not in repr(endpoint)


def test_http_to_the_port_of_grpc_is_doubted():
    """Port 4317 without a chosen protocol is the commonest mistake, so it has a sentence."""
    mistaken = resolve_endpoint("logs", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"})
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in (mistaken.doubt or "")
    chosen = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    assert resolve_endpoint("logs", chosen).doubt is None


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("PROTOCOL", "http/json"),
        ("ENDPOINT", "collector:4318"),
        ("ENDPOINT", "http://"),
        ("ENDPOINT", "http://collector:port"),
        ("ENDPOINT", "http://[::1"),
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "0"),
        ("TIMEOUT", "nan"),
        ("TIMEOUT", "inf"),
        ("COMPRESSION", "brotli"),
        ("HEADERS", "no-equals-sign"),
    ],
)
@pytest.mark.parametrize("prefix", ["OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_LOGS_"])
def test_a_bad_value_names_its_variable(prefix, option, value):
    """ConfigurationError says which variable of the two is wrong."""
    with pytest.raises(ConfigurationError, match=f"{prefix}{option}"):
        resolve_endpoint("logs", {prefix + option: value})


@pytest.mark.parametrize("value", ["maybe", "1"])
def test_a_bad_insecure_names_its_variable(value):
    """INSECURE is true or false, where it is read at all."""
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "h:1"}
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_LOGS_INSECURE"):
        resolve_endpoint("logs", environ | {"OTEL_EXPORTER_OTLP_LOGS_INSECURE": value})


def test_a_bad_header_is_not_quoted():
    """A mistake in the headers must not write a token into a log."""
    with pytest.raises(ConfigurationError) as error:
        resolve_endpoint("logs", {"OTEL_EXPORTER_OTLP_HEADERS": "Bearer secret"})
    assert "secret" not in str(error.value)


@given(
    option=st.sampled_from(["ENDPOINT", "PROTOCOL", "TIMEOUT", "COMPRESSION", "INSECURE", "HEADERS"]),
    value=st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30),
    protocol=st.sampled_from(["grpc", "http/protobuf"]),
)
def test_any_value_is_taken_or_named(option, value, protocol):
    """Whatever a variable holds, the outcome is an endpoint whose parts can be read, or a ConfigurationError."""
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, f"OTEL_EXPORTER_OTLP_{option}": value}
    complaint, endpoint = "", None
    try:
        endpoint = resolve_endpoint("logs", environ)
    except ConfigurationError as error:
        complaint = str(error)
    if endpoint is None:
        assert f"OTEL_EXPORTER_OTLP_{option}" in complaint
    else:
        assert all(isinstance(part, str) for part in (endpoint.address, endpoint.target))
        assert endpoint.doubt is None


@pytest.mark.parametrize(
    ("value", "exporter"),
    [
        ("", "otlp"),
        ("otlp", "otlp"),
        (" None ", "none"),
        ("console", "console"),
        ("none,otlp", "otlp"),
        ("console,otlp", "console"),
        ("otlp_proto_grpc", "otlp"),
    ],
)
def test_the_exporter_is_otlp_console_or_none(value, exporter):
    """OTEL_LOGS_EXPORTER decides for logs alone."""
    assert resolve_exporter("logs", {"OTEL_LOGS_EXPORTER": value}) == exporter
    assert resolve_exporter("traces", {"OTEL_LOGS_EXPORTER": value}) == "otlp"


def test_an_unknown_exporter_names_its_variable():
    """A name that means nothing here is an error, not silence."""
    with pytest.raises(ConfigurationError, match="OTEL_TRACES_EXPORTER"):
        resolve_exporter("traces", {"OTEL_TRACES_EXPORTER": "zipkin"})


def test_an_exporters_name_may_choose_the_protocol():
    """`otlp_proto_grpc` says both, unless a protocol is set."""
    environ = {"OTEL_LOGS_EXPORTER": "otlp_proto_grpc"}
    assert resolve_endpoint("logs", environ).protocol == "grpc"
    assert (
        resolve_endpoint("logs", environ | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}).protocol
        == "http/protobuf"
    )
