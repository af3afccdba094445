"""docs/vendors.md, done as it says: each block is run, against receivers that stand in for the addresses in it."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from log_receivers import grpc_receiver, http_receiver, read
from span_collector import spans_of
from tls import grpc_server_side, server_side

DOCUMENT = (Path(__file__).parents[2] / "docs/vendors.md").read_text()
KEYS = {"API_KEY": "k3y", "INSTANCE": "123", "PUBLIC_KEY": "pk-lf-1", "SECRET_KEY": "sk-lf-2"}
PROGRAM = """
import otel_sessions
otel_sessions.init(service_name="agent")
with otel_sessions.session("work", id="s1"):
    with otel_sessions.tool("look"):
        pass
print(otel_sessions.flush(10).complete)
"""


def block(kind: str, beside: str) -> str:
    """Return the one block of code in which something stands."""
    (found,) = [code for code in re.findall(rf"```{kind}\n(.*?)```", DOCUMENT, re.DOTALL) if beside in code]
    return found


def basic(name: str, password: str) -> str:
    """Return a header's value for a name and a password."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def run(code: str, folder: Path, program: str = PROGRAM, **more: str) -> str:
    """Run a block of shell, then a program in the environment that it made."""
    (folder / "agent.py").write_text(program)
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "NO_PROXY": "localhost,127.0.0.1",
        "OTEL_SESSIONS_SPOOL": "off",
        **KEYS,
        **more,
    }
    done = subprocess.run(
        ["sh", "-e", "-c", f"{code}\n{sys.executable} agent.py"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("endpoint", "header", "value", "logs"),
    [
        ("https://otlp.example.com\n", "authorization", "Bearer k3y", True),
        ("https://api.honeycomb.io", "x-honeycomb-team", "k3y", True),
        ("https://otlp-gateway-prod-eu-west-0.grafana.net/otlp", "authorization", basic("123", "k3y"), True),
        ("https://cloud.langfuse.com/api/public/otel", "authorization", basic("pk-lf-1", "sk-lf-2"), False),
    ],
    ids=["a key", "Honeycomb", "Grafana Cloud", "Langfuse"],
)
def test_spans_arrive_with_the_key_where_the_document_says(certificates, endpoint, header, value, logs):
    """Over TLS, at the vendor's path, with its header decoded; events only where they are taken."""
    code = block("sh", f"_ENDPOINT={endpoint}")
    address = urlsplit(endpoint.strip())
    path = address.path
    with http_receiver(tls=server_side(certificates)) as receiver:
        code = code.replace(f"//{address.netloc}", f"//localhost:{receiver.port}", 1)
        assert f":{receiver.port}" in code
        assert run(code, certificates, OTEL_EXPORTER_OTLP_CERTIFICATE="authority.pem") == "True\n"
        arrived = [(at, headers[header]) for at, headers in receiver.requests]
        expected = {(f"{path}/v1/traces", value)} | ({(f"{path}/v1/logs", value)} if logs else set())
        assert set(arrived) == expected
        bodies = [
            body
            for (at, _), body in zip(arrived, receiver.accepted, strict=True)
            if at.endswith("/v1/traces")
        ]
        assert sorted(span.name for body in bodies for span in spans_of(body)) == [
            "execute_tool look",
            "session work",
        ]


def test_grpc_arrives_with_tls_and_a_key(certificates):
    """Spans and events, each with the header."""
    with grpc_receiver(credentials=grpc_server_side(certificates)) as receiver:
        code = block("sh", "_PROTOCOL=grpc").replace("otlp.example.com:4317", f"localhost:{receiver.port}")
        assert run(code, certificates, OTEL_EXPORTER_OTLP_CERTIFICATE="authority.pem") == "True\n"
        assert {headers["api-key"] for _, headers in receiver.requests} == {"k3y"}
        assert {path for path, _ in receiver.requests} == {"TraceService", "LogsService"}


def test_certificates_of_ones_own_are_used_both_ways(certificates):
    """The receiver is known by its authority, and knows the agent by its certificate."""
    with http_receiver(tls=server_side(certificates, client=True)) as receiver:
        code = block("sh", "authority.pem").replace("collector.internal:4318", f"localhost:{receiver.port}")
        assert run(code, certificates) == "True\n"
        assert {path for path, _ in receiver.requests} == {"/v1/traces", "/v1/logs"}


def test_spans_go_to_one_and_events_to_another(certificates):
    """The vendor gets the spans with its key, the backend the events without it."""
    with http_receiver(tls=server_side(certificates)) as vendor, http_receiver() as backend:
        code = block("sh", "TRACES_ENDPOINT").replace("otlp.example.com", f"localhost:{vendor.port}")
        code = code.replace("127.0.0.1:4318", f"127.0.0.1:{backend.port}")
        assert run(code, certificates, OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE="authority.pem") == "True\n"
        assert {(path, headers["authorization"]) for path, headers in vendor.requests} == {
            ("/v1/traces", "Bearer k3y")
        }
        assert {path for path, _ in backend.requests} == {"/v1/logs"}
        assert {event.name for body in backend.accepted for event in read(body)} >= {
            "session.start",
            "session.end",
        }
        assert not any("authorization" in headers for _, headers in backend.requests)


def test_a_second_exporter_sees_every_span(certificates):
    """Both get both spans, each bearing the session's id."""
    with http_receiver() as vendor, http_receiver() as ours:
        code = block("python", "BatchSpanProcessor(vendor)")
        code = code.replace("https://otlp.example.com", f"http://127.0.0.1:{vendor.port}")
        work = PROGRAM.replace('otel_sessions.init(service_name="agent")', "")
        run("", certificates, code + work, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{ours.port}")
        for receiver in (vendor, ours):
            bodies = [
                body
                for (path, _), body in zip(receiver.requests, receiver.accepted, strict=True)
                if path == "/v1/traces"
            ]
            found = [span for body in bodies for span in spans_of(body)]
            assert sorted(span.name for span in found) == ["execute_tool look", "session work"]
            assert {span.session_id for span in found} == {"s1"}
        assert vendor.requests[0][1]["authorization"] == "Bearer KEY"


def test_flush_says_where_it_went_and_why_it_did_not_arrive(certificates):
    """The document's last program prints the endpoint and what it answered."""
    with http_receiver() as receiver:
        endpoint = f"http://127.0.0.1:{receiver.port}"
        told = run("", certificates, block("python", "does it arrive"), OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        assert "complete=True" in told
        assert f"{endpoint}/v1/traces" in told
    told = run("", certificates, block("python", "does it arrive"), OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert "complete=False" in told
    assert "refused" in told
