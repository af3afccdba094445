"""The hand-written encoder against the official one, and where it keeps what that one loses."""

from __future__ import annotations

import enum
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from otel_sessions.sdk._wire import attributes_of, encode_requests, encode_span

NO_LIMIT = 2**40
_UINT_64 = st.integers(0, 2**64 - 1)
_UINT_32 = st.integers(0, 2**32 - 1)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_SCALARS = st.one_of(
    _TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 20_000),  # of one, two and three bytes
    st.floats(allow_nan=False),
    st.binary(max_size=20),
    st.none(),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.dictionaries(_TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)
_STATES = st.sampled_from([None, TraceState([("a", "1")]), TraceState([("a", "1"), ("b@c", "x=y")])])


@st.composite
def _attributes(draw):
    bounded = BoundedAttributes(attributes=draw(st.dictionaries(_TEXT.filter(bool), _VALUES, max_size=5)))
    bounded.dropped = draw(st.sampled_from([0, 1, 300]))
    return bounded


_CONTEXTS = st.builds(
    SpanContext,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.integers(0, 255).map(TraceFlags),
    trace_state=_STATES,
)
_EVENTS = st.builds(Event, name=_TEXT, attributes=_attributes(), timestamp=_UINT_64)
_LINKS = st.builds(Link, _CONTEXTS, _attributes())
_RESOURCES = st.builds(
    Resource, st.dictionaries(_TEXT.filter(bool), _TEXT, max_size=2), st.sampled_from([None, "", "https://r"])
)
_SCOPES = st.one_of(
    st.none(),
    st.builds(
        InstrumentationScope,
        _TEXT,
        st.sampled_from([None, "", "1.2"]),
        st.sampled_from([None, "", "https://s"]),
        st.dictionaries(_TEXT.filter(bool), _TEXT, max_size=2),
    ),
)
_STATUSES = st.one_of(
    st.builds(Status, st.sampled_from([StatusCode.UNSET, StatusCode.OK])),
    st.builds(Status, st.just(StatusCode.ERROR), st.one_of(st.none(), _TEXT)),
)


def _bounded(items, dropped):
    made = BoundedList.from_seq(None, items)
    made.dropped = dropped
    return made


@st.composite
def _spans(draw, resources, scopes):
    return ReadableSpan(
        name=draw(_TEXT),
        context=draw(_CONTEXTS),
        parent=draw(st.one_of(st.none(), _CONTEXTS)),
        resource=draw(st.sampled_from(resources)),
        attributes=draw(_attributes()),
        events=_bounded(draw(st.lists(_EVENTS, max_size=2)), draw(st.sampled_from([0, 7]))),
        links=_bounded(draw(st.lists(_LINKS, max_size=2)), draw(st.sampled_from([0, 200]))),
        kind=draw(st.sampled_from(SpanKind)),
        status=draw(_STATUSES),
        start_time=draw(_UINT_64),
        end_time=draw(_UINT_64),
        instrumentation_scope=draw(st.sampled_from(scopes)),
    )


@st.composite
def _batches(draw):
    resources, scopes = (
        draw(st.lists(_RESOURCES, min_size=1, max_size=2)),
        draw(st.lists(_SCOPES, min_size=1, max_size=2)),
    )
    return draw(st.lists(_spans(resources, scopes), min_size=1, max_size=4))


def _parsed(spans, limit=NO_LIMIT):
    items = ((span, attributes_of(span), "") for span in spans)
    return [ExportTraceServiceRequest.FromString(body) for body, _ in encode_requests(items, limit=limit)]


def _encoded(span):
    return encode_span(span, attributes_of(span))


def _all_spans(requests):
    return {
        (of_resource.resource.SerializeToString(deterministic=True), of_resource.schema_url,
         of_scope.scope.SerializeToString(deterministic=True), of_scope.schema_url,
         span.SerializeToString(deterministic=True))
        for request in requests
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    }  # fmt: skip


def _as_the_official_one_sends(requests):
    """Take away what the official encoder leaves out: W3C flags, and the trace state of links."""
    for request in requests:
        for of_resource in request.resource_spans:
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    span.flags &= ~0xFF
                    for link in span.links:
                        link.flags &= ~0xFF
                        link.trace_state = ""
    return requests


@given(_batches())
def test_a_request_says_what_the_official_encoder_says(spans):
    """Every span with its resource, scope, ids, times, attributes, events, links, counts and status is equal."""
    assert _all_spans(_as_the_official_one_sends(_parsed(spans))) == _all_spans([encode_spans(spans)])


@given(_batches())
def test_the_w3c_flags_of_spans_and_links_are_sent(spans):
    """The sampled and random bits travel, which the official encoder leaves out."""
    for span in spans:
        sent = Span.FromString(_encoded(span))
        assert sent.flags & 0xFF == span.get_span_context().trace_flags
        assert [link.flags & 0xFF for link in sent.links] == [link.context.trace_flags for link in span.links]


@given(_batches(), st.integers(1, 2000))
def test_requests_under_a_limit_hold_every_span_once(spans, limit):
    """Split at any size, nothing is lost or doubled, and only a span that is too big alone goes over."""
    items = [(span, attributes_of(span), f"session {number % 2}") for number, span in enumerate(spans)]
    encoded = list(encode_requests(items, limit=limit))
    counted: Counter[str] = Counter()
    for _, sessions in encoded:
        counted.update(sessions)
    assert counted == Counter(session for _, _, session in items)
    whole = _all_spans(_parsed(spans))
    assert _all_spans([ExportTraceServiceRequest.FromString(body) for body, _ in encoded]) == whole
    assert all(len(body) <= limit + 2048 or sum(sessions.values()) == 1 for body, sessions in encoded)


def _span(**changes):
    given = {
        "name": "n",
        "context": SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)),
        "resource": Resource({}),
        "start_time": 1,
        "end_time": 2,
        **changes,
    }
    return ReadableSpan(**given)


def _attribute(value):
    (pair,) = Span.FromString(_encoded(_span(attributes={"k": value}))).attributes
    return pair


class _Colour(enum.IntEnum):
    RED = 7


class _Name(str):
    __slots__ = ()


class _Odd:
    def __str__(self):
        return "an odd thing"


class _Broken:
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (2**63, AnyValue(string_value=str(2**63))),
        (-(2**63) - 1, AnyValue(string_value=str(-(2**63) - 1))),
        ("half \ud83d an emoji", AnyValue(string_value="half \\ud83d an emoji")),
        (_Colour.RED, AnyValue(int_value=7)),
        (_Name("ada"), AnyValue(string_value="ada")),
        (_Odd(), AnyValue(string_value="an odd thing")),
        (_Broken(), AnyValue(string_value="<_Broken: ValueError>")),
    ],
    ids=[
        "beyond 64 bits",
        "below 64 bits",
        "half a surrogate",
        "an enum",
        "a str subclass",
        "an object",
        "no text",
    ],
)
def test_a_value_that_otlp_has_no_place_for_is_sent_as_its_text(value, sent):
    """The official encoder drops the attribute, or with a lone surrogate in a name the whole batch."""
    assert _attribute(value) == KeyValue(key="k", value=sent)


def test_half_a_surrogate_in_a_name_or_a_key_costs_nothing():
    """Names of spans, events and attributes are made sendable, and the span arrives."""
    span = _span(name="a\udc00", attributes={"k\ud800": 1}, events=[Event("e\ud800", timestamp=1)])
    sent = Span.FromString(_encoded(span))
    assert (sent.name, sent.attributes[0].key, sent.events[0].name) == ("a\\udc00", "k\\ud800", "e\\ud800")


def test_a_name_or_a_kind_that_is_none_costs_no_span():
    """Nobody checks what an instrumentation gives: a number for a name, nothing for a kind."""
    sent = Span.FromString(_encoded(_span(name=5, kind=None)))
    assert (sent.name, sent.kind) == ("5", Span.SPAN_KIND_INTERNAL)


def test_nesting_deeper_than_a_parser_goes_is_sent_as_text():
    """A list in a list, 5,000 times, and one that holds itself arrive as requests that can be parsed."""
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    round_trip: list = []
    round_trip.append(round_trip)
    for value in (deep, round_trip):
        assert _attribute(value).value.WhichOneof("value") == "array_value"


@pytest.mark.parametrize("at", [None, -5, 2**70, 1.5], ids=["none", "before 1970", "too late", "a float"])
def test_a_time_that_makes_no_sense_costs_no_span(at):
    """Times are unsigned 64 bits: what is beyond is brought to the nearest."""
    expected = {None: 0, -5: 0, 2**70: 2**64 - 1, 1.5: 1}[at]
    assert Span.FromString(_encoded(_span(start_time=at))).start_time_unix_nano == expected


def test_a_span_is_sent_with_the_attributes_that_are_given():
    """What a limit evicted or cut is restored by who knows it: each attribute is said once."""
    sent = Span.FromString(
        encode_span(_span(attributes={"session.id": "a cut i"}), {"session.id": "a cut id"})
    )
    assert [(pair.key, pair.value) for pair in sent.attributes] == [
        ("session.id", AnyValue(string_value="a cut id"))
    ]


def test_a_resource_is_corrected_where_it_says_something_else():
    """The pid of a forked child takes the place of its parent's; a resource that says none is left alone."""
    spans = [_span(resource=Resource({"process.pid": 1, "a": "b"})), _span(resource=Resource({"a": "b"}))]
    (encoded,) = encode_requests(
        ((span, attributes_of(span), "") for span in spans), limit=NO_LIMIT, resource={"process.pid": 2}
    )
    told = [
        {pair.key: pair.value for pair in of_resource.resource.attributes}
        for of_resource in ExportTraceServiceRequest.FromString(encoded.body).resource_spans
    ]
    b = AnyValue(string_value="b")
    assert told == [{"process.pid": AnyValue(int_value=2), "a": b}, {"a": b}]
