"""Secrets out of whole requests: wherever they are, and nothing else; what bears none stays as it came."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_secrets import IN_CONTEXT, SECRETS, Secret
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from recorded import bodies_of, every_recording, samples
from telemetry import any_value, key_values, log, logs, span, traces

from otel_sessions.backend.decode import DecodeError, decode, parse
from otel_sessions.backend.otlp_json import span_json
from otel_sessions.backend.records import Encoding, Signal
from otel_sessions.backend.redact import Redactor
from otel_sessions.backend.redact_own import patterns_with
from otel_sessions.backend.redact_patterns import DEFAULTS, marker

REDACTOR = Redactor(DEFAULTS)
KEY = SECRETS[0]
HIDDEN = marker("attribute")


def clean_traces(message: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """Redact a request of spans as it comes in protobuf."""
    clean = REDACTOR.redact(Signal.TRACES, Encoding.PROTOBUF, message.SerializeToString())
    return ExportTraceServiceRequest.FromString(clean.body)


def json_body(spans: list[Span]) -> bytes:
    """Encode spans in OTLP's JSON."""
    scope = {"scope": {"name": "test"}, "spans": [span_json(one) for one in spans]}
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [scope]}]}).encode()


# --- without a secret -----------------------------------------------------------------------------------------


@samples
def test_samples_stay_as_they_came(folder: Path) -> None:
    """Byte by byte: the very same object."""
    check_untouched(folder)


@every_recording
def test_what_real_emitters_sent_stays_as_it_came(folder: Path) -> None:
    """Ids, hashes, prompts, tool definitions and stack traces of nineteen emitters bear no secret."""
    check_untouched(folder)


def check_untouched(folder: Path) -> None:
    """Redact every request of a recording."""
    for signal, encoding, body in bodies_of(folder):
        clean = REDACTOR.redact(signal, encoding, body)
        assert clean.body is body
        assert not clean.counts


harmless = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="=:@")), st.binary(),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef.", max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(st.text("abcdef.", max_size=8), harmless, max_size=5), st.text("abc {}\"'\\", max_size=20)
)
def test_a_body_without_a_secret_is_the_same_byte_by_byte(attributes: dict[str, Any], name: str) -> None:
    """For every shape of value, in both encodings."""
    one = span(1, name=name, attributes=attributes)
    for encoding, body in (
        (Encoding.PROTOBUF, traces([one]).SerializeToString()),
        (Encoding.JSON, json_body([one])),
    ):
        assert REDACTOR.redact(Signal.TRACES, encoding, body).body is body


def test_a_false_alarm_of_the_scan_leaves_the_body_as_it_came() -> None:
    """What a length or a tag makes look like a secret is none for who reads the message."""
    attributes = {"a": "the password: required", "b": "Authorization: required of everybody else here"}
    body = traces([span(1, attributes=attributes)]).SerializeToString()
    assert REDACTOR.scan(body)
    assert REDACTOR.redact(Signal.TRACES, Encoding.PROTOBUF, body).body is body


@pytest.mark.parametrize("encoding", list(Encoding))
def test_what_can_not_be_read_is_refused(encoding: Encoding) -> None:
    """Rather than passed on to somebody who might read it after all."""
    with pytest.raises(DecodeError, match="the body is no ExportTraceServiceRequest"):
        REDACTOR.redact(Signal.TRACES, encoding, KEY.text.encode() + b'\xff{"')


def test_more_than_is_taken_is_not_looked_at() -> None:
    """A request of nothings, two bytes each: it is refused, and nobody waits for that."""
    body = traces([span(1, name=KEY.text)]).SerializeToString() + b"\x0a\x00" * 150_000
    with pytest.raises(DecodeError, match="more than"):
        REDACTOR.redact(Signal.TRACES, Encoding.PROTOBUF, body)


# --- with one -------------------------------------------------------------------------------------------------


def _in_span(where: Callable[[Span, str], object]) -> Callable[[str], ExportTraceServiceRequest]:
    def make(text: str) -> ExportTraceServiceRequest:
        one = span(
            1, name="work", attributes={"kept": 1, "session.id": "s"}, events=[("begun", {"kept": "x"})]
        )
        one.links.add(trace_id=b"l" * 16, span_id=b"l" * 8)
        where(one, text)
        return traces([span(2, name="before"), one, span(3, name="after")])

    return make


def _deep(text: str) -> Any:
    value: Any = text
    for _ in range(15):
        value = [{"inner": value, "n": 1}, 2.5]
    return value


PLACES: dict[str, Callable[[str], Any]] = {
    "value": _in_span(lambda one, text: one.attributes.extend(key_values({"a": text}))),
    "list": _in_span(lambda one, text: one.attributes.extend(key_values({"a": ["x", text, "y"]}))),
    "map": _in_span(lambda one, text: one.attributes.extend(key_values({"a": {"b": {"c": text}, "d": 1}}))),
    "deep": _in_span(lambda one, text: one.attributes.extend(key_values({"a": _deep(text)}))),
    "key of a map": _in_span(lambda one, text: one.attributes.extend(key_values({"a": {text: 1}}))),
    "name of an attribute": _in_span(lambda one, text: one.attributes.extend(key_values({text: 1}))),
    "JSON in a value": _in_span(
        lambda one, text: one.attributes.extend(key_values({"a": json.dumps([{"content": f"say {text} twice"}])}))
    ),
    "JSON in JSON": _in_span(
        lambda one, text: one.attributes.extend(key_values({"a": json.dumps({"b": json.dumps({"c": text})})}))
    ),
    "name of the span": _in_span(lambda one, text: setattr(one, "name", text)),
    "status": _in_span(lambda one, text: setattr(one.status, "message", f"401 for {text}")),
    "trace state": _in_span(lambda one, text: setattr(one, "trace_state", text)),
    "name of an event": _in_span(lambda one, text: setattr(one.events[0], "name", text)),
    "stack trace": _in_span(
        lambda one, text: one.events[0].attributes.extend(
            key_values({"exception.stacktrace": f'  File "x.py", line 1\n    call("{text}")\nValueError: {text}'})
        )
    ),
    "link": _in_span(lambda one, text: one.links[0].attributes.extend(key_values({"a": text}))),
    "session": _in_span(lambda one, text: setattr(one.attributes[1].value, "string_value", text)),
    "resource": lambda text: traces([span(1)], given={"service.name": text}),
    "scope": lambda text: traces([span(1)], scope=text),
    "body of a log": lambda text: logs([log("x", body=text)]),
    "structured body": lambda text: logs([log("x", body={"a": [text]})]),
    "name of an event log": lambda text: logs([log(text)]),
}  # fmt: skip
"""Where a text can be in a request."""


def _survives_nesting(one: Secret) -> bool:
    """Tell whether JSON writes it as it is; its escapes are told by examples of their own.

    And a key that is cut takes the next word with it.
    """
    return one is not SECRETS[-1] and json.dumps(one.text) == f'"{one.text}"'


@pytest.mark.parametrize(
    ("place", "one"),
    [
        pytest.param(place, one, id=f"{place}-{one.kind}-{number}")
        for place in PLACES
        for number, one in enumerate((*SECRETS, *IN_CONTEXT))
        if not place.startswith("JSON") or _survives_nesting(one)
    ],
)
def test_a_secret_is_gone_from_wherever_it_was(place: str, one: Secret) -> None:
    """And all else is what it would be had somebody written the marker there."""
    message = PLACES[place](one.text)
    signal = Signal.TRACES if isinstance(message, ExportTraceServiceRequest) else Signal.LOGS
    clean = REDACTOR.redact(signal, Encoding.PROTOBUF, message.SerializeToString())
    assert one.secret.encode() not in clean.body
    assert clean.counts.keys() == {one.kind}
    assert type(message).FromString(clean.body) == PLACES[place](one.redacted)
    again = REDACTOR.redact(signal, Encoding.PROTOBUF, clean.body)
    assert again.body is clean.body


@given(
    st.dictionaries(st.text("abcdef.", max_size=8), harmless, max_size=4),
    st.sampled_from(SECRETS[:-1]),
    st.sampled_from(["plain", "list", "map", "bytes", "key"]),
    st.sampled_from(list(Encoding)),
    st.text('xyz \n"\\é旅', max_size=200),
)  # fmt: skip
@settings(max_examples=60)
def test_a_secret_among_anything_is_gone_and_all_else_equal(
    attributes: dict[str, Any], one: Secret, shape: str, encoding: Encoding, around: str
) -> None:
    """For every shape of value, in both encodings, whatever its length makes of the bytes beside it."""

    def put(text: str) -> Span:
        text = f"{around} {text} {around}"
        shaped: dict[str, Any] = {
            "plain": text, "list": [text, attributes], "map": {"a": {"b": text}},
            "bytes": b"\xff\x00 " + text.encode(), "key": {text: 1},
        }  # fmt: skip
        return span(1, attributes={**attributes, "there": shaped[shape]})

    def body(text: str) -> bytes:
        made = put(text)
        return json_body([made]) if encoding is Encoding.JSON else traces([made]).SerializeToString()

    clean = REDACTOR.redact(Signal.TRACES, encoding, body(one.text))
    expected = body(one.redacted)
    if encoding is Encoding.JSON:
        assert json.loads(clean.body) == json.loads(expected)
    else:
        assert clean.body == expected
    assert clean.counts == {one.kind: 1}


@pytest.mark.parametrize(
    ("given_value", "left"),
    [
        ("anything", HIDDEN), (["Bearer x", "y"], [HIDDEN]), ({"a": 1}, HIDDEN), (b"\x00\x01", HIDDEN),
        (1234, HIDDEN), (1.5, HIDDEN), (True, True), ("", ""), ([], []), (None, None), (HIDDEN, HIDDEN),
        ([HIDDEN], [HIDDEN]), ("****", "****"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_value_of_an_attribute_named_as_a_secret_is_hidden_whole(
    given_value: Any, left: Any, encoding: Encoding
) -> None:
    """Where there is anything to hide; what is redacted already counts no more."""
    name = "http.request.header.authorization"
    attributes = {name: given_value, "a": {"password": given_value, "n": 1}}
    expected = {name: left, "a": {"password": left, "n": 1}}
    if encoding is Encoding.JSON:
        clean = REDACTOR.redact(Signal.TRACES, encoding, json_body([span(1, attributes=attributes)]))
        assert json.loads(clean.body) == json.loads(json_body([span(1, attributes=expected)]))
    else:
        made = traces([span(1, attributes=attributes)]).SerializeToString()
        clean = REDACTOR.redact(Signal.TRACES, encoding, made)
        assert clean.body == traces([span(1, attributes=expected)]).SerializeToString()
    assert clean.counts == ({} if left == given_value else {"attribute": 2})


def test_json_is_read_before_it_is_searched() -> None:
    """Escapes hide nothing, and numbers, ids and fields that nobody knows stay as they are."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY.secret)
    ids = '"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"00f067aa0ba902b7"'
    body = (
        f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{ids},"name":"{escaped}","startTimeUnixNano":"18","x":'
        f'[1e3,{{"{escaped}":9007199254740993}}]}}]}}]}}]}}'
    ).encode()
    clean = REDACTOR.redact(Signal.TRACES, Encoding.JSON, body)
    assert clean.counts == {KEY.kind: 2}
    assert json.loads(clean.body) == json.loads(body.decode().replace(escaped, KEY.redacted))
    assert decode(Signal.TRACES, Encoding.JSON, clean.body, 1).spans[0].name == KEY.redacted


def test_bytes_in_json_are_searched_as_what_they_are() -> None:
    """Base64 is only how JSON writes them."""
    one = span(1, attributes={"a": b"\xff" + KEY.secret.encode()})
    clean = REDACTOR.redact(Signal.TRACES, Encoding.JSON, json_body([one]))
    expected = span(1, attributes={"a": b"\xff" + KEY.redacted.encode()})
    assert json.loads(clean.body) == json.loads(json_body([expected]))


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", ["", "="])
def test_bytes_are_searched_however_their_base64_is_written(
    encode: Callable[[bytes], bytes], padding: str
) -> None:
    """In either alphabet, with its padding and without: as it is read later."""
    secret = b"\xff\xfe" + KEY.secret.encode()
    text = encode(secret).decode().rstrip("=") + padding * (-len(encode(secret).rstrip(b"=")) % 4)
    value = {"key": "a", "value": {"bytesValue": text}}
    body = json.dumps({"resourceSpans": [{"resource": {"attributes": [value]}}]}).encode()
    clean = REDACTOR.redact(Signal.TRACES, Encoding.JSON, body)
    assert clean.counts == {KEY.kind: 1}


@given(
    st.text("\ufeff \n\t\0", max_size=3),
    st.sampled_from(
        [repr, json.dumps, lambda text: '"' + "".join(f"\\u{ord(one):04x}" for one in text) + '"']
    ),
    st.text("\ufeff \n}", max_size=2),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_what_decode_accepts_was_looked_at(
    before: str, quoted: Callable[[str], str], after: str, charset: str
) -> None:
    """Whatever is around the JSON: it is refused, or clean."""
    span_id = '"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"00f067aa0ba902b7"'
    text = f'{before}{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{span_id},"name":{quoted(KEY.secret)}}}]}}]}}]}}'
    try:
        clean = REDACTOR.redact(Signal.TRACES, Encoding.JSON, (text + after).encode(charset))
        request = decode(Signal.TRACES, Encoding.JSON, clean.body, 1)
    except DecodeError:
        return
    assert clean.counts == {KEY.kind: 1}
    assert [one.name for one in request.spans] == [marker(KEY.kind)]
    assert KEY.secret.encode() not in clean.body


def test_what_stands_in_the_place_of_an_id_is_looked_at() -> None:
    """Its span is rejected, but the body is kept for the others."""
    one = span(1)
    one.trace_id, one.parent_span_id = KEY.secret.encode(), KEY.secret.encode()
    body = traces([one, span(2)]).SerializeToString()
    assert KEY.secret.encode() not in REDACTOR.redact(Signal.TRACES, Encoding.PROTOBUF, body).body
    for wrong in (KEY.secret, [KEY.secret], {"a": KEY.secret}):
        spans = [{"traceId": wrong, "spanId": "00f067aa0ba902b7"}, span_json(span(2))]
        in_json = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
        assert KEY.secret.encode() not in REDACTOR.redact(Signal.TRACES, Encoding.JSON, in_json).body


def test_ids_times_and_numbers_stay_whatever_a_pattern_of_the_user_finds() -> None:
    """Who redacts all digits, as of credit cards, still has spans."""
    redactor = Redactor(patterns_with(["digits=[0-9a-f]{8,}"]))
    one = span(1, 2, attributes={"a": "0123456789abcdef", "b": 1234567890123456, "c": "4242424242424242"})
    for encoding, body in (
        (Encoding.JSON, json_body([one])),
        (Encoding.PROTOBUF, traces([one]).SerializeToString()),
    ):
        clean = redactor.redact(Signal.TRACES, encoding, body)
        assert b"0123456789abcdef" not in clean.body
        assert b"4242424242424242" not in clean.body
        [stored] = decode(Signal.TRACES, encoding, clean.body, 1).spans
        assert (stored.trace_id, stored.span_id, stored.parent_id) == (
            one.trace_id,
            one.span_id,
            one.parent_span_id,
        )
        assert (stored.start, stored.end) == (one.start_time_unix_nano, one.end_time_unix_nano)


def test_a_pattern_that_cuts_a_letter_in_two_leaves_text() -> None:
    """One byte is `C` behind a backslash, for RE2."""
    redactor = Redactor(patterns_with([r"half=x\C"]))
    clean = redactor.redact(
        Signal.TRACES, Encoding.PROTOBUF, traces([span(1, name="xé")]).SerializeToString()
    )
    [stored] = decode(Signal.TRACES, Encoding.PROTOBUF, clean.body, 1).spans
    assert stored.name == "[redacted:half]\N{REPLACEMENT CHARACTER}"


# --- what is overridden ---------------------------------------------------------------------------------------


def field(number: int, data: bytes) -> bytes:
    """Encode a field of protobuf that has a length below 128."""
    return bytes([number << 3 | 2, len(data)]) + data


def around(attribute: bytes) -> bytes:
    """Put an encoded attribute into an otherwise empty resource of a request, before another one."""
    other = key_values({"n": 1})[0].SerializeToString()
    return traces([]).SerializeToString() + field(1, field(1, field(1, attribute) + field(1, other)))


@pytest.mark.parametrize(
    "value",
    [
        field(1, KEY.secret.encode()) + field(1, b"ok"),
        field(1, KEY.secret.encode()) + b"\x18\x01",
        field(7, KEY.secret.encode()) + field(1, b"ok"),
    ],
)
def test_a_value_that_is_overridden_in_protobuf_is_not_stored(value: bytes) -> None:
    """It is in no message, and would stay in the body; also beside what only looks like a secret."""
    alarm = key_values({"a": "the password: required"})[0].SerializeToString()
    for attribute in (field(1, b"k") + field(2, value), alarm + field(1, b"k") + field(2, value)):
        body = around(attribute)
        clean = REDACTOR.redact(Signal.TRACES, Encoding.PROTOBUF, body)
        assert KEY.secret.encode() not in clean.body
        ExportTraceServiceRequest.FromString(clean.body)


def test_a_value_before_its_name_is_hidden_all_the_same() -> None:
    """The order of fields is the encoder's."""
    body = around(field(2, field(1, b"unguessable")) + field(1, b"db.password"))
    clean = REDACTOR.redact(Signal.TRACES, Encoding.PROTOBUF, body)
    assert b"unguessable" not in clean.body
    assert clean.counts == {"attribute": 1}


@pytest.mark.parametrize("name", ["stringValue", "later", "half\\ud800"])
def test_a_member_that_is_overridden_in_json_is_not_stored(name: str) -> None:
    """However it is escaped, and whether or not anybody knows it; two halves of letters come to the same."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY.secret)
    for secret in (KEY.secret, escaped):
        value = f'{{"{name}":"{secret}","{name.replace("d800", "d801")}":"ok"}}'
        attributes = f'{{"attributes":[{{"key":"a","value":{value}}}]}}'
        body = f'{{"resourceSpans":[{{"resource":{attributes}}}]}}'.encode()
        clean = REDACTOR.redact(Signal.TRACES, Encoding.JSON, body)
        assert secret.encode() not in clean.body
        decode(Signal.TRACES, Encoding.JSON, clean.body, 1)


# --- fields of a later protocol --------------------------------------------------------------------------------


def _with_unknown(data: bytes) -> bytes:
    """Make a span with a secret in its name, and an unknown field 1000 with `data`."""
    one = span(1, name=KEY.text).SerializeToString() + b"\xc2\x3e" + bytes([len(data)]) + data
    return ExportTraceServiceRequest.FromString(
        traces([Span.FromString(one)], scope="kept").SerializeToString()
    ).SerializeToString()


def test_fields_that_are_not_known_survive() -> None:
    """What a later protocol adds is stored as it came, though a text beside it was written again."""
    clean = REDACTOR.redact(Signal.TRACES, Encoding.PROTOBUF, _with_unknown(b"\x0a\x05later"))
    assert b"\xc2\x3e\x07\x0a\x05later" in clean.body
    assert KEY.secret.encode() not in clean.body


def test_a_field_that_is_not_known_goes_where_a_secret_is_in_it() -> None:
    """Nobody knows where it begins; its message stays, and what else is in it."""
    data = b"\x0a" + bytes([len(KEY.secret)]) + KEY.secret.encode()
    clean = REDACTOR.redact(Signal.TRACES, Encoding.PROTOBUF, _with_unknown(data))
    assert KEY.secret.encode() not in clean.body
    assert clean.counts == {KEY.kind: 2}
    [one] = ExportTraceServiceRequest.FromString(clean.body).resource_spans[0].scope_spans[0].spans
    assert one == span(1, name=KEY.redacted)


# --- ids ---------------------------------------------------------------------------------------------------------

IDENTITIES = ("session.id", "gen_ai.conversation.id", "user.id", "thread_id", "otel_sessions.task.id")
TOKENS = [one.text for one in SECRETS if one.kind == "openai-key"]


def ids_of(key: bytes, encoding: Encoding, name: str, values: list[str]) -> list[str]:
    """Redact a request whose spans bear an id each; return what became of the ids."""
    spans = [span(n + 1, attributes={name: value}) for n, value in enumerate(values)]
    body = json_body(spans) if encoding is Encoding.JSON else traces(spans).SerializeToString()
    clean = Redactor(DEFAULTS, key).redact(Signal.TRACES, encoding, body)
    message = parse(Signal.TRACES, encoding, clean.body)
    assert isinstance(message, ExportTraceServiceRequest)
    return [one.attributes[0].value.string_value for one in message.resource_spans[0].scope_spans[0].spans]


@pytest.mark.parametrize("name", IDENTITIES)
def test_ids_that_are_secrets_stay_as_many_as_they_were(name: str) -> None:
    """The same one becomes the same, in both encodings; without the key nobody can try which one it was."""
    first, second, *_ = TOKENS
    found = ids_of(b"k", Encoding.PROTOBUF, name, [first, second, first])
    assert found[0] == found[2] != found[1]
    assert found == ids_of(b"k", Encoding.JSON, name, [first, second, first])
    assert not set(found) & set(ids_of(b"other", Encoding.PROTOBUF, name, [first, second]))
    assert all(re.fullmatch(r"\[redacted:openai-key#[0-9a-f]{12}\]", one) for one in found)


def test_only_ids_are_told_apart() -> None:
    """A hash of a password says which of two spans used the same one: elsewhere nothing is kept of a secret."""
    for name in ("input.value", "http.url"):
        assert ids_of(b"k", Encoding.PROTOBUF, name, TOKENS[:2]) == [marker("openai-key")] * 2


@pytest.mark.parametrize("one", [*SECRETS, *IN_CONTEXT], ids=lambda one: one.kind)
def test_a_marker_that_tells_ids_apart_is_not_redacted_again(one: Secret) -> None:
    """By a second backend behind the first, with a key of its own."""
    for encoding in Encoding:
        [found] = ids_of(b"k", encoding, "session.id", [one.text])
        assert one.secret not in found
        assert ids_of(b"other", encoding, "session.id", [found]) == [found]


# --- what follows from it ---------------------------------------------------------------------------------------


def test_the_same_request_again_is_the_same_after_redaction() -> None:
    """So a span or log that is sent twice is still stored once."""
    message = logs([log("x", body=f"use {KEY.text}"), log("y", body="z")])
    first, second = (
        decode(Signal.LOGS, Encoding.PROTOBUF, REDACTOR.redact(Signal.LOGS, Encoding.PROTOBUF, body).body, 1)
        for body in (message.SerializeToString(), message.SerializeToString())
    )
    assert [one.digest for one in first.logs] == [one.digest for one in second.logs]


def test_names_of_metrics_are_clean_too() -> None:
    """They are shown in the status."""
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name=f"calls {KEY.text}")
    metric.sum.data_points.add(as_int=1).attributes.add(key="k", value=any_value(KEY.text))
    clean = REDACTOR.redact(Signal.METRICS, Encoding.PROTOBUF, message.SerializeToString())
    assert decode(Signal.METRICS, Encoding.PROTOBUF, clean.body, 1).metrics == {f"calls {KEY.redacted}": 1}
    assert KEY.secret.encode() not in clean.body


def test_both_encodings_come_to_the_same() -> None:
    """Every secret there is, in one request."""
    draw = random.Random(3)  # noqa: S311 - noise
    values = {f"a{n}": one.text for n, one in enumerate([*SECRETS, *IN_CONTEXT])}
    one = span(1, attributes={**values, "noise": draw.randbytes(100).hex(), "x-api-key": ["k"]})
    protobuf = REDACTOR.redact(Signal.TRACES, Encoding.PROTOBUF, traces([one]).SerializeToString())
    in_json = REDACTOR.redact(Signal.TRACES, Encoding.JSON, json_body([one]))
    assert protobuf.counts == in_json.counts
    [from_protobuf] = (
        ExportTraceServiceRequest.FromString(protobuf.body).resource_spans[0].scope_spans[0].spans
    )
    [from_json] = json.loads(in_json.body)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span_json(from_protobuf)["attributes"] == from_json["attributes"]
    assert MessageToDict(from_protobuf)["name"] == from_json["name"]


def test_only_the_spans_with_a_secret_are_written_anew() -> None:
    """Their neighbours keep every byte."""
    quiet = span(2, attributes={"a": "b" * 1000})
    clean = clean_traces(traces([quiet, span(1, name=KEY.text), quiet]))
    spans = clean.resource_spans[0].scope_spans[0].spans
    assert [one.name for one in spans] == ["work", KEY.redacted, "work"]
    assert spans[0].SerializeToString() == quiet.SerializeToString()


def test_logs_of_json_are_redacted_too() -> None:
    """Their bodies may be any value."""
    body = (
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"kvlistValue":{"values":[{"key":"api_key",'
    )
    body += b'"value":{"stringValue":"x1y2"}}]}}}]}]}]}'
    clean = REDACTOR.redact(Signal.LOGS, Encoding.JSON, body)
    assert b"x1y2" not in clean.body
    message = decode(Signal.LOGS, Encoding.JSON, clean.body, 1)
    assert len(message.logs) == 1
