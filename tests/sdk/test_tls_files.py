"""A certificate that is not there is told by `init()`, not by silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from backend_process import clean_environment

from otel_sessions.errors import ConfigurationError
from otel_sessions.sdk._endpoint import resolve_endpoint
from otel_sessions.sdk._tls_files import insist_on_files

HTTPS = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example:4318"}


@pytest.mark.parametrize("option", ["CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"])
@pytest.mark.parametrize("own", ["", "TRACES_"])
def test_the_variable_that_names_a_missing_file_is_named(option: str, own: str, tmp_path: Path):
    """Its own variable, where a signal has one."""
    variable = f"OTEL_EXPORTER_OTLP_{own}{option}"
    environ = {**HTTPS, variable: str(tmp_path / "gone.pem")}
    with pytest.raises(ConfigurationError, match=rf"^{variable}=.*gone\.pem' is not there"):
        insist_on_files("traces", resolve_endpoint("traces", environ), environ)


@pytest.mark.parametrize(
    "environ",
    [
        HTTPS,
        {**HTTPS, "OTEL_EXPORTER_OTLP_CERTIFICATE": __file__},
        {**HTTPS, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(Path(__file__).parent)},  # a folder of authorities
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/gone.pem"},  # in clear: nobody asks for it
    ],
)
def test_what_is_there_or_not_needed_is_no_reason_to_refuse(environ: dict[str, str]):
    """Only a file that would be read has to be there."""
    insist_on_files("traces", resolve_endpoint("traces", environ), environ)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_of_somebody_else_is_told_apart_from_one_that_is_gone(tmp_path: Path):
    """Another fix: its permissions."""
    (tmp_path / "key.pem").touch(mode=0)
    environ = {**HTTPS, "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(tmp_path / "key.pem")}
    with pytest.raises(ConfigurationError, match="may not be read"):
        insist_on_files("traces", resolve_endpoint("traces", environ), environ)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("otel_sessions.init()", "ConfigurationError"),
        ("otel_sessions.init(export=False)", "ConfigurationError"),  # events still leave
        ("otel_sessions.session('s').__enter__()", "sessions are not recorded: OTEL_EXPORTER_OTLP_CERT"),
    ],
)
def test_init_raises_and_an_implicit_set_up_says_one_line(call: str, said: str):
    """A bad environment is an error for who calls `init()`, and never for who only uses a session."""
    environ = clean_environment({**HTTPS, "OTEL_EXPORTER_OTLP_CERTIFICATE": "/gone.pem"})
    source = f"import logging, otel_sessions\nlogging.basicConfig()\n{call}\n"
    done = subprocess.run(
        [sys.executable, "-c", source], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert said in done.stderr
    assert done.returncode == (0 if "session(" in call else 1), done.stderr
