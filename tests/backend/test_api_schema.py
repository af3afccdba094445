"""The API against its own description: schemathesis asks whatever openapi.json allows, and more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from backend_process import BackendProcess, clean_environment
from otlp_requests import PROTOBUF, LifeCycle, logs, span, traces

pytestmark = pytest.mark.slow

EXAMPLES = 25  # of requests for each operation and kind of data
SEED = 20261121

# What no schema can tell: cursors of the list are made by the server, and filters are a language of their own.
CONFIG = """
[[operations]]
include-path-regex = "^/api/v1/(sessions|search|filters)$"
checks.positive_data_acceptance.enabled = false
"""


def fill(backend: BackendProcess) -> None:
    """Store sessions of several kinds."""
    alive, ended = LifeCycle("alive"), LifeCycle("ended")
    for path, body in [
        ("/v1/logs", logs([*alive.start(), alive.waiting("approval"), *ended.start(), ended.end()])),
        ("/v1/traces", traces([span("alive", "chat m"), span("ended"), span("guessed", error=True)])),
    ]:
        assert backend.exchange("POST", path, body, PROTOBUF)[0] == 200


@pytest.mark.timeout(240)
def test_the_api_keeps_to_its_description(
    start_backend: Callable[..., BackendProcess], tmp_path: Path
) -> None:
    """Statuses, types and shapes as described, for good and for bad parameters; no answer is a fault of ours."""
    pytest.importorskip("schemathesis")
    backend = start_backend()
    fill(backend)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"{backend.url}/api/v1/openapi.json",
            *("--max-examples", str(EXAMPLES), "--seed", str(SEED), "--request-timeout", "20"),
            *("--phases", "examples,coverage,fuzzing", "--mode", "all", "--no-color"),
            *("--exclude-path-regex", "stream$", "--suppress-health-check", "all"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,  # it keeps what it found beside it
        env=clean_environment(),
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Traceback" not in backend.stderr
