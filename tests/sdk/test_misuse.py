"""Claims about misuse: whatever is passed to us, it works or raises an error of ours that says what to write."""

from __future__ import annotations

import inspect
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_sessions
from otel_sessions import OtelSessionsError
from otel_sessions.backend import attributes as backend_attributes
from otel_sessions.sdk import _options, _provider
from otel_sessions.sdk._runtime import Arguments, Plan

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
"""Its first two tables, of the agent, come before the backend's."""
VARIABLES = sorted(set(re.findall(r"`(OTEL_[A-Z_]+)`", DOCUMENT.read_text().split("## The backend")[0])))

SETTINGS = [
    *(
        "9" * 5000,
        "1e300",
        "-1",
        "0.0001",
        "0",
        "nan",
        "inf",
        "http://[::1",
        "http://h:99999",
        "://",
        "%",
        "=",
        ",",
    ),
    *("\udc80", "x" * 100_000, "true", "none"),
]


LISTS = {"tags", "span_processors"}
"""A list of the caller's that fails while it is read fails with the caller's own error."""


class RefusedError(LookupError):
    """What hostile values raise."""


class Hostile:
    """An object that refuses whatever is asked of it."""

    def _refuse(self, *_args: object) -> Any:
        raise RefusedError

    __repr__ = __str__ = __bool__ = __eq__ = __iter__ = __len__ = __getitem__ = __float__ = _refuse
    __hash__ = object.__hash__


class HostileMapping(Mapping[str, Any]):
    """A mapping that ends in the midst of being read."""

    def __getitem__(self, key: str) -> Any:
        raise RefusedError

    def __iter__(self) -> Iterator[str]:
        yield "first"
        raise RefusedError

    def __len__(self) -> int:
        return 2


def _failing() -> Iterator[str]:
    yield "first"
    raise RefusedError


VALUES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "true": lambda: True,
    "number": lambda: 5,
    "negative": lambda: -1,
    "huge number": lambda: 10**400,
    "fraction": lambda: 0.001,
    "nan": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "decimal": lambda: Decimal(3),
    "empty": lambda: "",
    "text": lambda: "x",
    "long text": lambda: "x" * 10_000_000,
    "half a surrogate": lambda: "\ud83d",
    "bytes": lambda: b"\xff",
    "list": lambda: [None, 5, object()],
    "mapping": lambda: {("a", 1): {1}, "b": object(), "": 2},
    "hostile mapping": HostileMapping,
    "set": lambda: {1, "a"},
    "iterator": lambda: iter([1]),
    "failing iterator": _failing,
    "object": object,
    "hostile object": Hostile,
    "mock": MagicMock,
    "class": lambda: int,
    "function": lambda: lambda: None,
    "exception": lambda: ValueError("x"),
}


def _block(made: Any) -> None:
    if not inspect.isfunction(made):  # else it was decorated
        with made:
            pass


def _call(**options: Any) -> None:
    with otel_sessions.session("s") as session:
        options["self"](session, **{name: value for name, value in options.items() if name != "self"})


def _record(**options: Any) -> None:
    with otel_sessions.model_call("m") as call:
        call.record(**options)


def _attribute(**options: Any) -> None:
    with otel_sessions.step("s") as step:
        step.set_attribute(**{"name": "n", "value": 1, **options})


def _result(**options: Any) -> None:
    with otel_sessions.tool("t") as tool, otel_sessions.task("t") as task:
        tool.result = task.result = options.get("value")


def _in_session(use: Callable[..., Any], **fixed: Any) -> Callable[..., None]:
    def call(**options: Any) -> None:
        with otel_sessions.session("s") as session:
            use(session, **{**fixed, **options})

    return call


def _started(**options: Any) -> None:
    otel_sessions.start_session(**options).end()


CALLS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "session": (otel_sessions.session, lambda **o: _block(otel_sessions.session(**o))),
    "start_session": (otel_sessions.start_session, _started),
    "end_session": (
        otel_sessions.end_session,
        _in_session(lambda _session, **o: otel_sessions.end_session(**o)),
    ),
    "Session.end": (otel_sessions.Session.end, _in_session(otel_sessions.Session.end)),
    "Session.waiting": (
        otel_sessions.Session.waiting,
        _in_session(lambda session, **o: _block(session.waiting(**o))),
    ),
    "Session.task": (
        otel_sessions.Session.task,
        _in_session(lambda session, **o: _block(session.task(**{"name": "t", **o}))),
    ),
    "Session()": (otel_sessions.Session.__init__, otel_sessions.Session),
    "Session decorates": (
        otel_sessions.Session.__call__,
        otel_sessions.session("s"),
    ),
    "task": (otel_sessions.task, lambda **o: _block(otel_sessions.task(**{"name": "t", **o}))),
    "Task decorates": (otel_sessions.Task.__call__, otel_sessions.task("t")),
    "agent": (otel_sessions.agent, lambda **o: _block(otel_sessions.agent(**{"name": "a", **o}))),
    "tool": (otel_sessions.tool, lambda **o: _block(otel_sessions.tool(**{"name": "t", **o}))),
    "step": (otel_sessions.step, lambda **o: _block(otel_sessions.step(**{"name": "s", **o}))),
    "Work decorates": (otel_sessions.Work.__call__, otel_sessions.tool("t")),
    "model_call": (
        otel_sessions.model_call,
        lambda **o: _block(otel_sessions.model_call(**{"model": "m", **o})),
    ),
    "ModelCall.record": (otel_sessions.ModelCall.record, _record),
    "set_attribute": (otel_sessions.Work.set_attribute, _attribute),
    "result": (lambda value: value, _result),
    "wrap": (otel_sessions.wrap, otel_sessions.wrap),
    "flush": (otel_sessions.flush, otel_sessions.flush),
}
OPTIONS = [
    (call, option)
    for call, (signature, _) in CALLS.items()
    for option in inspect.signature(signature).parameters
    if option != "self"
]


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Set tracing up in this process, as if for the first time."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")

    def anew(**options: Any) -> None:
        if (runtime := _provider.current()) is not None:
            runtime.finish(0.0)
        monkeypatch.setattr(_provider, "_state", _provider._State())
        provider = TracerProvider(shutdown_on_exit=False)
        known = {"tracer_provider": provider, "exporter": InMemorySpanExporter(), "signals": False}
        otel_sessions.init(**{**known, **options})

    yield anew
    otel_sessions.shutdown(0)


def _outcome(call: Callable[..., Any], option: str, value: Any) -> BaseException | None:
    try:
        call(**{option: value})
    except RefusedError as error:
        return None if option in LISTS else error
    except BaseException as error:  # noqa: BLE001 - which it is, is the question
        return error
    return None


@pytest.mark.parametrize(("call", "option"), OPTIONS, ids=str)
def test_any_value_works_or_is_refused_by_an_error_of_ours(
    call: str, option: str, set_up: Callable[..., None]
):
    """For each option of each public call; what is said is short, whatever was passed."""
    set_up()
    outcomes = {name: _outcome(CALLS[call][1], option, make()) for name, make in VALUES.items()}
    errors = {name: error for name, error in outcomes.items() if error is not None}
    assert {name: error for name, error in errors.items() if not isinstance(error, OtelSessionsError)} == {}
    assert {name: str(error) for name, error in errors.items() if not 10 < len(str(error)) < 400} == {}


@pytest.mark.parametrize("option", list(inspect.signature(otel_sessions.init).parameters))
def test_any_value_of_init_works_or_is_refused_before_anything_is_set_up(
    option: str, set_up: Callable[..., None]
):
    """What works lets sessions work, too."""

    def init_and_work(**options: Any) -> None:
        set_up(**options)
        with otel_sessions.session("s") as session, session.task("t"), otel_sessions.tool("x"):
            pass

    outcomes = {
        name: _outcome(init_and_work, option, make())
        for name, make in VALUES.items()
        # Without one it would set the provider of the whole test run.
        if (option, name) != ("tracer_provider", "nothing")
    }
    errors = {name: error for name, error in outcomes.items() if error is not None}
    assert {name: error for name, error in errors.items() if not isinstance(error, OtelSessionsError)} == {}
    assert {name: str(error) for name, error in errors.items() if option not in str(error)} == {}


@pytest.mark.parametrize("value", VALUES)
def test_a_shutdown_takes_any_number_of_seconds(value: str, set_up: Callable[..., None]):
    """It ends in time, or says that it was told none."""
    set_up()
    error = _outcome(otel_sessions.shutdown, "timeout", VALUES[value]())
    assert error is None or (isinstance(error, OtelSessionsError) and "timeout" in str(error))


@pytest.mark.parametrize(
    ("call", "option"),
    [
        ("session", "id"),
        ("session", "name"),
        ("session", "resume"),
        ("session", "user_id"),
        ("session", "conversation_id"),
        ("task", "id"),
        ("task", "name"),
        ("Session.waiting", "reason"),
    ],
)
def test_what_every_span_bears_is_bounded(call: str, option: str, set_up: Callable[..., None]):
    """An id of ten megabytes would leave the process with each span of its session."""
    set_up()
    fits, beyond = "x" * _options.LONGEST_NAME, "x" * (_options.LONGEST_NAME + 1)
    assert _outcome(CALLS[call][1], option, fits) is None
    refused = _outcome(CALLS[call][1], option, beyond)
    assert isinstance(refused, otel_sessions.ConfigurationError)
    assert "write at most 1,000" in str(refused)


def test_the_backend_keeps_whole_what_the_sdk_lets_through():
    """One bound on both sides: an id that was accepted here is not cut there."""
    assert _options.LONGEST_NAME == backend_attributes.MAX_WORD


@pytest.mark.parametrize("value", ["", 5, None, b"approval", ["approval"]])
def test_what_a_session_waits_for_is_a_text(value: Any, set_up: Callable[..., None]):
    """It is shown to people."""
    set_up()
    with (
        otel_sessions.session("s") as session,
        pytest.raises(otel_sessions.ConfigurationError, match="reason"),
    ):
        session.waiting(value)


@pytest.mark.parametrize(
    ("told", "recorded"),
    [
        ("stop", ("stop",)),
        (["stop", None, 5], ("stop", "5")),
        (5, ("5",)),
        ({"reason": "stop"}, ('{"reason": "stop"}',)),
        (itertools.repeat("stop"), ("stop",) * 128),
    ],
)
def test_finish_reasons_of_any_form_are_kept(
    told: Any, recorded: tuple[str, ...], set_up: Callable[..., None]
):
    """They come from the model's answer; no answer may break the agent."""
    exporter = InMemorySpanExporter()
    set_up(exporter=exporter)
    with otel_sessions.model_call("m") as call:
        call.record(finish_reasons=told)
    assert otel_sessions.flush(10).complete
    (span,) = exporter.get_finished_spans()
    assert span.attributes["gen_ai.response.finish_reasons"] == recorded


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"span_processors": SimpleSpanProcessor(InMemorySpanExporter())}, "write \\[<.*SimpleSpanProcessor"),
        ({"span_processors": [SimpleSpanProcessor]}, r"is a class: write SimpleSpanProcessor\(…\)"),
        ({"exporter": InMemorySpanExporter}, r"is a class: write InMemorySpanExporter\(…\)"),
        ({"export": "no"}, "export='no' is no switch: write True or False"),
        ({"auto_session": "false"}, "auto_session='false' is no switch"),
        ({"signals": 0}, "signals=0 is no switch"),
    ],
)
def test_an_init_that_is_almost_right_says_what_to_write(options: dict[str, Any], said: str):
    """And sets nothing up."""
    with pytest.raises(otel_sessions.ConfigurationError, match=said):
        otel_sessions.init(**options)
    assert _provider.current() is None


@pytest.mark.parametrize("variable", VARIABLES)
def test_any_value_of_a_variable_works_or_is_refused(variable: str, monkeypatch: pytest.MonkeyPatch):
    """What the environment says is checked where it is read, and named."""
    wrong: list[object] = []
    for value in SETTINGS:
        monkeypatch.setenv(variable, value)
        error = _outcome(lambda arguments: Plan.make(arguments, os.environ), "arguments", Arguments())
        if error is not None and not (isinstance(error, OtelSessionsError) and variable in str(error)):
            wrong.append((value[:50], error))
    assert wrong == []
