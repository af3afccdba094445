"""Certificates for the tests of the SDK, made by openssl: an authority that signs for the receiver and for the agent."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any


def make_certificates(folder: Path) -> Path:
    """Write `agent.pem` with its key, `authority.pem`, which knows it, and `stranger.pem`, which knows nobody here."""
    for name in ("agent", "stranger"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", f"{name}-key.pem", "-out", f"{name}.pem"],
            cwd=folder,
            check=True,
            capture_output=True,
        )  # fmt: skip
    shutil.copy(folder / "agent.pem", folder / "authority.pem")
    return folder


def server_side(folder: Path, *, client: bool = False) -> ssl.SSLContext:
    """Return what an HTTP receiver shows, and whether it asks who the agent is."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "authority.pem"))
    tls.load_cert_chain(folder / "agent.pem", folder / "agent-key.pem")
    tls.verify_mode = ssl.CERT_REQUIRED if client else ssl.CERT_NONE
    return tls


def grpc_server_side(folder: Path, *, client: bool = False) -> Any:
    """Return the same for a gRPC receiver."""
    import grpc

    pair = ((folder / "agent-key.pem").read_bytes(), (folder / "agent.pem").read_bytes())
    authority = (folder / "authority.pem").read_bytes() if client else None
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=client)
