"""Programs that exchange what Python gives them by `patch_all()` of gevent, before and after our set-up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from outcomes import Ended
from span_collector import Collector

Run = Callable[..., Ended]

pytest.importorskip("gevent")
pytestmark = pytest.mark.slow

QUIET = {"PYTHONWARNINGS": "ignore"}

USES_REQUESTS = """
import requests, urllib3
requests.exceptions.ConnectionError
urllib3.util.ssl_.create_urllib3_context()
"""

WORK = """
with otel_sessions.session("s"), otel_sessions.step("x"):
    pass
assert otel_sessions.flush(20).complete
"""


def _arrived(collector: Collector) -> set[str]:
    return {span.name for span in collector.spans()}


@pytest.mark.parametrize("_", range(3))
def test_a_program_that_patches_after_init_finds_nothing_imported(
    run_program: Run, collector: Collector, _: int
):
    """What is half imported stays so for ever, and TLS contexts of before recurse: nothing is, before work is."""
    program = f"""
import otel_sessions
otel_sessions.init()
from gevent import monkey; monkey.patch_all()
{USES_REQUESTS}
{WORK}
"""
    ended = run_program(program, {**collector.env, **QUIET})
    assert ended.code == 0, ended.err
    assert _arrived(collector) == {"session s", "x"}


def test_tracing_that_is_set_up_anew_after_patching_does_not_hang(run_program: Run, collector: Collector):
    """Threads are greenlets then: a queue of before would hold up the whole program."""
    program = f"""
import otel_sessions
otel_sessions.init()
from gevent import monkey; monkey.patch_all()
otel_sessions.shutdown()
otel_sessions.init(export=True)
{WORK}
"""
    ended = run_program(program, {**collector.env, **QUIET})
    assert ended.code == 0, ended.err
    assert _arrived(collector) == {"session s", "x"}


def test_a_launcher_has_imported_all_before_the_program_patches(run_program: Run, collector: Collector):
    """Its session begins before the program: what our threads need must not be half imported by then."""
    program = """
import sys
from otel_sessions.sdk._auto import begin
begin()
before = set(sys.modules)
from gevent import monkey; monkey.patch_all()
import requests
requests.exceptions.ConnectionError
import otel_sessions
assert otel_sessions.flush(20).events.sent, otel_sessions.stats()
ours = ("requests", "urllib3", "google.", "opentelemetry.proto", "grpc")
assert [name for name in set(sys.modules) - before if name.startswith(ours)] == []
"""
    ended = run_program(program, {**collector.env, **QUIET})
    assert ended.code == 0, ended.err
