"""The one guard: our own faults never reach user code, and nothing that belongs to the program stays in it."""

from __future__ import annotations

import functools
import signal

import pytest

from otel_sessions.sdk import _guard
from otel_sessions.sdk._guard import guard, guarded


class TimeLimitError(Exception):
    """What a program's handler raises."""


class Limit:
    """Handlers of every kind that Python takes."""

    def __call__(self, *_arguments):
        raise TimeLimitError

    def method(self, *_arguments):
        """Be a bound method."""
        raise TimeLimitError


def limit(*_arguments):
    """Be a function."""
    raise TimeLimitError


@pytest.fixture
def set_handler():
    """Handle SIGUSR1 for a test."""
    before = signal.getsignal(signal.SIGUSR1)
    yield functools.partial(signal.signal, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(
    "handler",
    [limit, Limit(), Limit().method, functools.partial(limit, 1), lambda *_: limit()],
    ids=["a function", "an object", "a method", "a partial", "a lambda"],
)
@pytest.mark.parametrize("way", ["guard", "guarded"])
def test_what_a_handler_of_the_program_raises_passes_the_guard(set_handler, handler, way):
    """A time limit that strikes in the midst of ours is the program's, as a KeyboardInterrupt is."""
    set_handler(handler)

    def work():
        signal.raise_signal(signal.SIGUSR1)

    def in_a_guard():
        with guard("test"):
            work()

    with pytest.raises(TimeLimitError):
        (guarded("test")(work) if way == "guarded" else in_a_guard)()
    assert _guard.faults() == {}


def test_what_ours_raises_stays_in_the_guard_whatever_handlers_there_are(set_handler):
    """Also where a handler of the program called us."""
    set_handler(lambda *_: guarded("test")(int)("no number"))
    signal.raise_signal(signal.SIGUSR1)
    with guard("test"):
        raise ValueError
    assert _guard.faults() == {"test": 2}
    _guard._faults.clear()


def test_a_time_limit_of_the_program_always_arrives(run_program):
    """It does nothing but our calls, under an alarm that may strike anywhere in them.

    What strikes in a callback of the collector Python itself ignores, and says so.
    """
    ended = run_program(
        """
import otel_sessions, random, signal
from opentelemetry.sdk.trace import TracerProvider
class Limit(Exception): pass
def alarm(*_): raise Limit
signal.signal(signal.SIGALRM, alarm)
otel_sessions.init(tracer_provider=TracerProvider(shutdown_on_exit=False))
swallowed = 0
for number in range(1000):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-5, 4e-4))
        for _ in range(200):
            with otel_sessions.session("a"):
                with otel_sessions.step("x"):
                    pass
        swallowed += 1
    except Limit:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
print(swallowed)
print(otel_sessions.stats().faults)
""",
        {"OTEL_LOGS_EXPORTER": "none"},
    )
    swallowed, faults = ended.out.splitlines()
    assert int(swallowed) <= ended.err.count("Exception ignored in")
    assert faults == "{}"
