"""The files that TLS needs, looked at before anything is set up: a path that is wrong stays wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._endpoint import Endpoint, Signal

__all__ = ["insist_on_files"]

_OPTIONS: Final = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")


def insist_on_files(signal: Signal, endpoint: Endpoint | None, environ: Mapping[str, str]) -> None:
    """Raise ConfigurationError, with the variable's name, for a file of TLS that can't be read.

    An endpoint in clear needs none, and neither does what is not sent (None).
    """
    if endpoint is None or endpoint.insecure:
        return
    named = (endpoint.certificate, endpoint.client_key, endpoint.client_certificate)
    for option, path in zip(_OPTIONS, named, strict=True):
        if path and not os.access(path, os.R_OK):
            own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}"
            variable = own if environ.get(own, "").strip() else f"OTEL_EXPORTER_OTLP_{option}"
            why = "may not be read by this user" if Path(path).exists() else "is not there"
            raise ConfigurationError(f"{variable}={path!r} {why}: name a file that can be read, or unset it")
