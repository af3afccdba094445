"""Claims about values on their way into attributes: any object, any size, any text."""

from __future__ import annotations

import json
import re
from collections import UserDict, deque
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_sessions
from otel_sessions.sdk import _guard, _provider
from otel_sessions.sdk._settings import Content
from otel_sessions.sdk._values import attribute_value, attribute_values, to_json

_LIMIT = 64 * 1024
_MARK = "…[cut]"
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_HALF = "caf\u00e9 \ud83d"

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Counted(Sequence[Any]):
    """A sequence of any length that counts what is taken from it."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.taken = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        self.taken += 1
        return index

    def __iter__(self) -> Iterator[Any]:
        for index in range(self.length):
            yield self[index]


class Proxy:
    """An object that has any method it is asked for, as a client of remote calls has."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


# --- Objects -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Mock, MagicMock, lambda: Mock(spec=dict), lambda: MagicMock(spec=str)])
def test_a_mock_is_told_as_one_text(make: Any):
    """It has every method and each returns another mock: asking it would have no end."""
    mock = make()
    assert re.fullmatch(r'"<(Magic)?Mock .*id=.*>"', to_json(mock))
    assert re.fullmatch(r'"<(Magic)?Mock .*id=.*>"', attribute_value(mock))
    assert mock.mock_calls == []


def test_a_proxy_is_asked_for_nothing():
    """An attribute of it may be a call of another machine."""
    assert to_json({"k": Proxy()}) == '{"k": "<Proxy>"}'
    assert _guard.faults() == {}


def test_the_forms_of_known_objects_are_kept():
    """What a type says of its objects is recorded: models, rows, mappings, sets, queues, views."""

    class Model:
        def model_dump(self) -> dict[str, Any]:
            return {"a": deque([1, 2])}

    values = [Model(), UserDict({"b": 1}), {3}, range(2), {"c": 4}.values(), b"x", object(), Model]
    told = json.loads(to_json(values))
    assert told[:7] == [{"a": [1, 2]}, {"b": 1}, [3], [0, 1], [4], "b'x'", "<object>"]
    assert told[7].startswith("<class")


def test_an_object_that_fails_hides_no_other():
    """It is told by its type, and counted."""

    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert json.loads(to_json({"a": Hostile(), "b": 1, Hostile(): 2})) == {
        "a": "<Hostile>",
        "b": 1,
        "<Hostile>": 2,
    }
    assert _guard.faults() == {"content": 2}


def test_a_vast_object_is_not_asked_for_all_of_itself():
    """A data frame of a million rows would take seconds; its repr is short."""

    class Frame:
        def __len__(self) -> int:
            return 10**6

        def to_dict(self) -> dict[str, Any]:
            raise AssertionError

        def __repr__(self) -> str:
            return "[10 rows]"

    assert to_json(Frame()) == '"[10 rows]"'


# --- Size --------------------------------------------------------------------------------------------------


@given(_json)
def test_a_value_of_json_is_written_as_json_writes_it(value: Any):
    """What fits is neither changed nor marked."""
    if not isinstance(value, str):
        assert to_json(value) == json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize(
    "value",
    [
        [0.1] * 100_000,
        list(range(100_000)),
        {str(n): n for n in range(100_000)},
        [[n] for n in range(100_000)],
        [[]] * 100_000,
        {"a": "x" * 100_000},
        ["\n" * 60_000],
        [10**4000] * 30,
        {"x" * 100_000: 1},
        [{"": {"": {}}}] * 10_000,
        [[[[[[[list(range(9))]]]]]]] * 10_000,
    ],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_too_long_is_its_beginning_and_marked(value: Any):
    """The beginning is the one that the whole would have."""
    assert to_json(value) == json.dumps(value, ensure_ascii=False)[:_LIMIT] + _MARK


@pytest.mark.parametrize("excess", [0, 1])
def test_the_mark_is_set_exactly_beyond_the_limit(excess: int):
    """64 Ki characters are recorded as they are."""
    for value in (
        "x" * (_LIMIT + excess),
        ["x" * (_LIMIT - 4 + excess)],
        {"k": "x" * (_LIMIT - 9 + excess)},
        [[[]], "x" * (_LIMIT - 10 + excess)],
    ):
        assert to_json(value).endswith(_MARK) is bool(excess)


def test_no_more_is_taken_than_is_recorded():
    """A sequence may be as long as a database, or longer."""
    counted = Counted(10**15)
    assert to_json(counted).endswith(_MARK)
    assert counted.taken < _LIMIT
    assert to_json(range(10**15)).endswith(_MARK)


def test_a_value_without_end_has_one():
    """A list that holds itself is told down to a depth."""
    endless: list[Any] = []
    endless += [endless]
    assert to_json(endless) == "[" * 64 + '"<list>"' + "]" * 64
    endless += [endless]
    assert len(to_json(endless)) == _LIMIT + len(_MARK)
    assert _guard.faults() == {}


def test_a_number_of_too_many_digits_is_told_by_its_type():
    """Python refuses to write it."""
    assert to_json([10**5000, 1, {10**5000: 1}]) == '["<int>", 1, {"<int>": 1}]'


def test_a_vast_list_is_no_attribute_of_its_own():
    """OpenTelemetry would look at each item."""
    assert attribute_value([1] * 10) == (1,) * 10
    assert attribute_value([1] * 100_000).endswith(_MARK)


# --- Text --------------------------------------------------------------------------------------------------


def test_half_a_surrogate_loses_nothing_else():
    """No exporter can send it: it becomes a question mark, wherever it stands."""
    assert to_json(_HALF) == "café ?"
    assert json.loads(to_json({_HALF: [_HALF]})) == {"café ?": ["café ?"]}
    assert attribute_values({_HALF: _HALF, "many": [_HALF, "b"]}) == {
        "café ?": "café ?",
        "many": ("café ?", "b"),
    }


# --- Without a runtime -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["NO_CONTENT", "no_content", "NOTHING"])
def test_no_content_holds_without_a_runtime(monkeypatch: pytest.MonkeyPatch, value: str):
    """Tools and calls are recorded by a provider of the program's own too; the operator's word holds there."""
    monkeypatch.setenv(_CAPTURE, value)
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(_provider._state, "unjoined", provider.get_tracer("own"))
    with otel_sessions.tool("t", arguments={"k": "secret"}) as tool:
        tool.result = "secret"
    with otel_sessions.model_call("gpt", messages="secret", system="secret") as call:
        call.record(messages="secret")
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["execute_tool t", "chat gpt"]
    assert "secret" not in str([dict(span.attributes or {}) for span in spans])


@pytest.mark.parametrize(
    ("value", "content"),
    [("", Content.EXPLICIT), ("FALSE", Content.EXPLICIT), ("SPAN_ONLY", Content.CAPTURED)],
)
def test_the_environment_rules_without_a_runtime(
    monkeypatch: pytest.MonkeyPatch, value: str, content: Content
):
    """It says what `init()` would read of it, whatever other variables say."""
    monkeypatch.setenv(_CAPTURE, value)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "many")
    assert _provider.content() is content
