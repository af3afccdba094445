"""The sender: order, retrying, giving up, and deadlines, over real sockets."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from log_receivers import SLAM, Reply, await_, grpc_receiver, http_receiver, partial, read

from otel_sessions.sdk import _encode
from otel_sessions.sdk._answer import Answer, Verdict
from otel_sessions.sdk._endpoint import Endpoint
from otel_sessions.sdk._events import Event, Origin, Stamp
from otel_sessions.sdk._outbox import Outbox, Pacing
from otel_sessions.sdk._sender import Sender
from otel_sessions.sdk._transport import open_transport

ORIGIN = Origin("process", 5.0, 120.0)
ACCEPTED = Answer(Verdict.ACCEPTED)


def event(number, name="otel_sessions.session.state"):
    """Make an event that is known by its number."""
    return Event(name, number, Stamp(number, number, number), "session", 1, 2)


def numbers(events):
    """Return the numbers of events seen on the wire."""
    return [seen.attributes["otel_sessions.seq"] for seen in events]


class Quiet:
    """Work for a sender that has no runs."""

    def __init__(self):
        self.beats_due = []
        self.again_at = None

    def tick(self, now):
        return now + 10**12

    def accompany(self, _event):
        return None

    def beats(self):
        while self.beats_due:
            yield self.beats_due.pop(0)

    def beat_again(self, at):
        self.again_at = at


# --- The rules, without a socket -----------------------------------------------------------------


def make_outbox(work=None, **options):
    """Make an outbox with quick pauses that do not vary."""
    options = {"limit": 100, "request_bytes": 1 << 20, "pacing": Pacing(), "jitter": lambda: 1.0} | options
    return Outbox(work or Quiet(), lambda item: _encode.to_record(item, ORIGIN), **options)


def sequence(batch):
    """Return the numbers of a batch's events."""
    return numbers(read(_encode.to_request(batch.records, _encode.to_resource({}))))


@given(
    steps=st.lists(
        st.one_of(
            st.just("add"),
            st.just("beat"),
            st.sampled_from([ACCEPTED, Answer(Verdict.AGAIN), Answer(Verdict.AGAIN, retry_after=3.0)]),
        ),
        max_size=60,
    ),
    request_bytes=st.sampled_from([1, 600, 1 << 20]),
)
def test_events_arrive_once_and_in_order_however_often_it_fails(steps, request_bytes):
    """Every event is accepted exactly once, in order; a heartbeat that failed is never seen again."""
    work = Quiet()
    outbox = make_outbox(work, request_bytes=request_bytes)
    added, arrived, beats_failed, now, serial = [], [], [], 0, 0
    for step in [*steps, *[ACCEPTED] * 60]:
        serial += 1
        if step == "add":
            outbox.add(event(serial))
            added.append(serial)
        elif step == "beat":
            work.beats_due.append(event(serial, "otel_sessions.session.heartbeat"))
        else:
            now = max(now, outbox.not_before)
            batch = outbox.next_batch()
            if batch is None:
                continue
            carried = sequence(batch)
            if outbox.settle(batch, step, now):
                arrived += carried
            elif batch.beats:
                beats_failed += carried[-batch.beats :]
    assert [number for number in arrived if number in added] == added
    assert not set(beats_failed) & set(arrived)
    assert len(outbox) == 0


def test_a_full_queue_drops_the_oldest_and_counts_it():
    """Over the limit the youngest events stay: they tell of what is still open."""
    outbox = make_outbox(limit=3)
    for number in range(1, 6):
        outbox.add(event(number))
    assert sequence(outbox.next_batch()) == [3, 4, 5]
    assert outbox.tally.dropped == 2


def test_requests_stay_near_their_size():
    """A thousand events are split into requests that exceed the limit by no more than one record."""
    outbox = make_outbox(limit=1000, request_bytes=10_000)
    for number in range(1000):
        outbox.add(event(number))
    seen = []
    while batch := outbox.next_batch():
        body = _encode.to_request(batch.records, _encode.to_resource({}))
        assert len(body) < 10_500
        seen += sequence(batch)
        assert outbox.settle(batch, ACCEPTED, 0)
    assert seen == list(range(1000))


def test_pauses_grow_and_are_bounded():
    """Ours double up to the longest and vary by half; a target's wish is obeyed up to half a lease."""
    pacing = Pacing(first=1, longest=8, obeyed=60)
    assert [pacing.pause(n, None, 1.0) for n in range(1, 7)] == [1, 2, 4, 8, 8, 8]
    assert pacing.pause(10_000, None, 0.0) == 4
    assert pacing.pause(1, 7.0, 0.5) == 7
    assert pacing.pause(1, 3600.0, 0.5) == 60


def test_heartbeats_are_made_anew_after_a_failure():
    """When a request fails, all heartbeats are due again at the end of the pause."""
    work = Quiet()
    outbox = make_outbox(work)
    work.beats_due.append(event(1, "otel_sessions.session.heartbeat"))
    batch = outbox.next_batch()
    assert not outbox.settle(batch, Answer(Verdict.AGAIN, retry_after=2.0), 10)
    assert work.again_at == outbox.not_before == 10 + 2 * 10**9
    assert (outbox.ready(outbox.not_before - 1), outbox.ready(outbox.not_before)) == (False, True)
    assert outbox.tally.unsent_beats == 1


def test_an_event_that_can_not_be_encoded_does_not_hold_up_the_others():
    """It is counted as failed and left out."""
    outbox = Outbox(
        Quiet(),
        lambda item: None if item.at == 2 else _encode.to_record(item, ORIGIN),
        limit=9,
        request_bytes=1,
        pacing=Pacing(),
    )
    for number in (1, 2, 3):
        outbox.add(event(number))
    seen = []
    while batch := outbox.next_batch():
        seen += sequence(batch)
        outbox.settle(batch, ACCEPTED, 0)
    assert seen == [1, 3]
    assert (outbox.tally.sent, outbox.tally.failed) == (2, 1)


# --- Over real sockets -----------------------------------------------------------------------------


@contextmanager
def sender(endpoint, **options):
    """Run a sender with short pauses against an endpoint."""
    options = {"pacing": Pacing(first=0.02, longest=0.05), "timeout": 5.0} | options
    subject = Sender(
        Quiet(),
        connect=lambda: open_transport(endpoint),
        resource=dict,
        origin=lambda: ORIGIN,
        address=endpoint.address,
        hint=endpoint.doubt,
        **options,
    )
    try:
        yield subject
    finally:
        subject.close(time.monotonic())


def http(receiver, **options):
    """Return the endpoint of an HTTP receiver."""
    return Endpoint(f"http://127.0.0.1:{receiver.port}/v1/logs", **options)


def rpc(receiver, **options):
    """Return the endpoint of a gRPC receiver."""
    return Endpoint(f"http://127.0.0.1:{receiver.port}", protocol="grpc", **options)


def soon(seconds=5.0):
    """Return a deadline."""
    return time.monotonic() + seconds


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_http_sends_what_the_endpoint_asks_for(compression):
    """Path, headers, media type and compression are as set, and the connection is kept."""
    with http_receiver() as receiver:
        endpoint = http(receiver, compression=compression, headers=(("authorization", "Bearer x"),))
        with sender(endpoint) as subject:
            for number in (1, 2, 3):
                subject.put(event(number))
                assert subject.flush(soon())
        assert numbers(receiver.events()) == [1, 2, 3]
        path, headers = receiver.requests[0]
        assert (path, headers["authorization"]) == ("/v1/logs", "Bearer x")
        assert headers["content-type"] == "application/x-protobuf"
        assert headers.get("content-encoding", "none") == compression
        assert headers["user-agent"].startswith("otel-sessions")
        assert len(receiver.connections) == 1


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_grpc_sends_what_the_endpoint_asks_for(compression):
    """The raw call carries the same request, with the headers as metadata."""
    with grpc_receiver() as receiver:
        endpoint = rpc(receiver, compression=compression, headers=(("Authorization", "Bearer x"),))
        with sender(endpoint) as subject:
            for number in (1, 2):
                subject.put(event(number))
                assert subject.flush(soon())
            assert subject.stats().answering
        assert numbers(receiver.events()) == [1, 2]
        assert receiver.requests[0][1]["authorization"] == "Bearer x"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_overloaded_target_gets_everything_later_and_in_order(status):
    """Retryable answers keep the events; they arrive once."""
    with http_receiver(replies=[Reply(status)] * 3) as receiver, sender(http(receiver)) as subject:
        for number in range(1, 6):
            subject.put(event(number))
        await_(lambda: len(receiver.events()) == 5)
        assert numbers(receiver.events()) == [1, 2, 3, 4, 5]
        await_(lambda: subject.stats().queued == 0)
        stats = subject.stats()
        assert (stats.sent, stats.failed, stats.dropped, stats.answering) == (5, 0, 0, True)


def test_retry_after_is_obeyed_even_by_flush():
    """A target that asks for a minute is left in peace, and flush says so at its deadline."""
    with http_receiver(replies=[Reply(429, {"Retry-After": "60"})]) as receiver:
        with sender(http(receiver)) as subject:
            subject.put(event(1))
            await_(lambda: subject.stats().last_error)
            subject.put(event(2))
            assert subject.flush(soon(0.7)) is False
            assert subject.stats().queued == 2
        assert len(receiver.bodies) == 1


def test_flush_does_not_sit_out_a_pause_of_ours():
    """A pause without Retry-After ends when somebody waits."""
    with http_receiver(replies=[Reply(503)]) as receiver:
        with sender(http(receiver), pacing=Pacing(first=600, longest=600)) as subject:
            subject.put(event(1))
            await_(lambda: subject.stats().last_error)
            assert subject.flush(soon())
        assert numbers(receiver.events()) == [1]


@pytest.mark.parametrize("status", [400, 401, 403, 413, 500, 302])
def test_what_is_refused_is_lost_and_said_so(status):
    """Refused events are counted, flush admits it once, and later events go on."""
    with http_receiver(replies=[Reply(status)]) as receiver, sender(http(receiver)) as subject:
        subject.put(event(1))
        assert subject.flush(soon()) is False
        subject.put(event(2))
        assert subject.flush(soon()) is True
        stats = subject.stats()
        assert (stats.sent, stats.failed, stats.stopped) == (1, 1, None)
        assert str(status) in stats.last_error
        assert numbers(receiver.events()) == [2]


@pytest.mark.parametrize("status", [404, 415])
def test_a_target_without_logs_stops_the_events_for_good(status, caplog):
    """404 and 415: no request ever again, all is counted, and one line says what is lost."""
    with http_receiver(otherwise=Reply(status)) as receiver, sender(http(receiver)) as subject:
        subject.put(event(1))
        assert subject.flush(soon()) is False
        for number in (2, 3):
            subject.put(event(number))
        assert subject.flush(soon()) is False
        stats = subject.stats()
        assert (stats.sent, stats.failed, stats.dropped) == (0, 1, 2)
        assert str(status) in stats.stopped
        assert len(receiver.bodies) == 1
    lines = [line for line in caplog.messages if "takes no logs" in line]
    assert len(lines) == 1
    assert "alive" in lines[0]
    assert "open" in lines[0]


def test_a_partial_success_is_counted():
    """Rejected records of an accepted request are failures."""
    with http_receiver(replies=[partial(1, "too old")]) as receiver, sender(http(receiver)) as subject:
        with subject_paused(subject):
            subject.put(event(1))
            subject.put(event(2))
        assert subject.flush(soon()) is False
        stats = subject.stats()
        assert (stats.sent, stats.failed) == (1, 1)
        assert "too old" in stats.last_error


@contextmanager
def subject_paused(subject):
    """Let events gather, so that they travel together."""
    real, gate = subject._outbox.ready, threading.Event()
    subject._outbox.ready = lambda now: gate.is_set() and real(now)
    yield
    subject._outbox.ready = real
    gate.set()
    subject.wake()


def test_a_dead_endpoint_keeps_the_events_until_it_lives(caplog):
    """Connection refused: events wait, one line is logged, and all arrive in order once somebody listens."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    with sender(Endpoint(f"http://127.0.0.1:{port}/v1/logs")) as subject:
        for number in range(1, 4):
            subject.put(event(number))
        await_(lambda: subject.stats().answering is False)
        assert subject.flush(soon(0.3)) is False
        assert subject.stats().queued == 3
        with http_receiver(port=port) as receiver:
            await_(lambda: len(receiver.events()) == 3)
            assert numbers(receiver.events()) == [1, 2, 3]
            assert subject.flush(soon())
            assert subject.stats().answering is True
    assert len([line for line in caplog.messages if "does not take" in line]) == 1


def test_a_kept_connection_that_was_closed_is_replaced_at_once():
    """A server that closes idle connections costs no event and no pause."""
    with http_receiver() as receiver:
        with sender(http(receiver), pacing=Pacing(first=600, longest=600)) as subject:
            subject.put(event(1))
            assert subject.flush(soon())
            receiver.drop_connections()
            subject.put(event(2))
            await_(lambda: len(receiver.events()) == 2)
            assert subject.stats().last_error is None
        assert len(receiver.connections) == 2


def test_a_kept_connection_that_breaks_under_a_request_is_replaced_once():
    """The race that a look at the socket can't win: the request is sent again over a new connection, at once."""
    with http_receiver(replies=[Reply(), Reply(SLAM), Reply(), Reply(SLAM), Reply(SLAM)]) as receiver:
        with sender(http(receiver), pacing=Pacing(first=600, longest=600)) as subject:
            for number in (1, 2):
                subject.put(event(number))
                await_(lambda number=number: len(receiver.events()) == number)
            assert subject.stats().last_error is None
            subject.put(event(3))
            await_(lambda: subject.stats().last_error)
        assert len(receiver.bodies) == 5


def test_a_redirect_is_not_followed():
    """A redirected POST would become a GET, and its 200 would say that the events had arrived."""
    reply = Reply(302, {"Location": "/elsewhere"})
    with http_receiver(replies=[reply]) as receiver, sender(http(receiver)) as subject:
        subject.put(event(1))
        assert subject.flush(soon()) is False
        assert (subject.stats().sent, subject.stats().failed) == (0, 1)


def test_a_hanging_endpoint_delays_nobody():
    """Putting returns at once; flush and close return False or nothing at their deadline."""
    with http_receiver(hang=threading.Event()) as receiver, sender(http(receiver), timeout=30) as subject:
        subject.put(event(1))
        began = time.monotonic()
        assert subject.flush(began + 0.3) is False
        subject.close(time.monotonic() + 0.3)
        assert 0.5 < time.monotonic() - began < 10
        assert subject.put(event(2)) is False
        assert (subject.stats().queued, subject.stats().dropped) == (0, 2)


def test_a_hanging_endpoint_is_left_after_the_timeout():
    """A request is given up after its timeout, and its events are kept."""
    with http_receiver(hang=threading.Event()) as receiver, sender(http(receiver), timeout=0.2) as subject:
        subject.put(event(1))
        await_(lambda: subject.stats().answering is False)
        assert "no answer" in subject.stats().last_error
        receiver.hang, hang = None, receiver.hang
        hang.set()
        assert subject.flush(soon())
        assert numbers(receiver.events()) == [1]


def test_a_server_of_grpc_is_recognised_over_http():
    """Plain HTTP to a gRPC port fails with the advice to set the protocol."""
    with grpc_receiver() as receiver, sender(http(receiver)) as subject:
        subject.put(event(1))
        await_(lambda: subject.stats().last_error)
        assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in subject.stats().last_error


def test_an_answer_of_grpc_is_recognised_over_http():
    """Go's gRPC servers answer plain HTTP with 415 and their own media type: the events are not stopped."""
    reply = Reply(415, {"Content-Type": "application/grpc"})
    with http_receiver(replies=[reply]) as receiver, sender(http(receiver)) as subject:
        subject.put(event(1))
        await_(lambda: subject.stats().last_error)
        assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in subject.stats().last_error
        assert subject.stats().stopped is None


def test_a_certificate_that_is_not_there_is_trouble_not_a_fault(tmp_path):
    """An unreadable certificate is told in stats; the events wait."""
    missing = str(tmp_path / "missing.pem")
    with http_receiver() as receiver:
        for endpoint in (
            replace(http(receiver), url=f"https://127.0.0.1:{receiver.port}/v1/logs", certificate=missing),
            replace(rpc(receiver), insecure=False, certificate=missing),
        ):
            with sender(endpoint) as subject:
                subject.put(event(1))
                await_(lambda: subject.stats().last_error)
                assert "missing.pem" in subject.stats().last_error
                assert subject.stats().queued == 1


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Make a certificate for localhost that is its own authority, for servers and clients."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates of this test")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


def test_https_knows_its_own_authority_and_shows_its_certificate(certificates):
    """CERTIFICATE, CLIENT_KEY and CLIENT_CERTIFICATE are used; without them nothing is sent."""
    key, certificate = map(str, certificates)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    tls.load_cert_chain(certificate, key)
    tls.verify_mode = ssl.CERT_REQUIRED
    with http_receiver(tls=tls) as receiver:
        url = f"https://localhost:{receiver.port}/v1/logs"
        known = Endpoint(
            url, insecure=False, certificate=certificate, client_key=key, client_certificate=certificate
        )
        for stranger in (Endpoint(url, insecure=False), replace(known, client_certificate=None)):
            with sender(stranger) as subject:
                subject.put(event(1))
                await_(lambda subject=subject: subject.stats().last_error)
        assert not receiver.bodies
        with sender(known) as subject:
            subject.put(event(2))
            assert subject.flush(soon())
        assert numbers(receiver.events()) == [2]


def test_secure_grpc_knows_its_own_authority_and_shows_its_certificate(certificates):
    """The same over a secure channel."""
    key, certificate = (path.read_bytes() for path in certificates)
    credentials = grpc.ssl_server_credentials([(key, certificate)], certificate, require_client_auth=True)
    path = str(certificates[1])
    with grpc_receiver(credentials=credentials) as receiver:
        url = f"https://localhost:{receiver.port}"
        stranger = Endpoint(url, protocol="grpc", insecure=False, certificate=path)
        with sender(stranger) as subject:
            subject.put(event(1))
            await_(lambda: subject.stats().last_error)
        assert not receiver.bodies
        with sender(replace(stranger, client_key=str(certificates[0]), client_certificate=path)) as subject:
            subject.put(event(2))
            assert subject.flush(soon())
        assert numbers(receiver.events()) == [2]


def abort(code, details="", delay=None):
    """Answer a gRPC call with a failure, once; `delay` adds google.rpc.RetryInfo."""
    used = []

    def answer(call):
        if used:
            return b""
        used.append(code)
        if delay is not None:
            info = AnyMessage()
            info.Pack(RetryInfo(retry_delay=Duration(nanos=int(delay * 10**9))))
            status = Status(code=code.value[0], message=details, details=[info])
            call.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        return call.abort(code, details)

    return answer


@pytest.mark.parametrize(
    ("code", "delay"),
    [
        (grpc.StatusCode.UNAVAILABLE, None),
        (grpc.StatusCode.UNAVAILABLE, 0.05),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.05),
        (grpc.StatusCode.ABORTED, None),
    ],
)
def test_grpc_back_pressure_keeps_the_events(code, delay):
    """Retryable codes, and RESOURCE_EXHAUSTED with RetryInfo, are tried again."""
    with grpc_receiver(abort(code, "busy", delay)) as receiver, sender(rpc(receiver)) as subject:
        subject.put(event(1))
        await_(lambda: len(receiver.accepted) == 1)
        assert numbers(receiver.events()) == [1]
        assert "busy" in subject.stats().last_error
        assert len(receiver.bodies) == 2


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED],
)
def test_grpc_refusals_are_lost_and_counted(code):
    """Other codes, and RESOURCE_EXHAUSTED alone, are for good."""
    with grpc_receiver(abort(code)) as receiver, sender(rpc(receiver)) as subject:
        subject.put(event(1))
        assert subject.flush(soon()) is False
        subject.put(event(2))
        assert subject.flush(soon()) is True
        assert (subject.stats().sent, subject.stats().failed) == (1, 1)


def test_grpc_without_logs_stops_the_events_for_good():
    """UNIMPLEMENTED is gRPC's 404."""
    server = grpc.server(grpc_pool())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with sender(Endpoint(f"http://127.0.0.1:{port}", protocol="grpc")) as subject:
            subject.put(event(1))
            assert subject.flush(soon()) is False
            assert "UNIMPLEMENTED" in subject.stats().stopped
    finally:
        server.stop(None).wait()


def grpc_pool():
    """Return threads for a gRPC server."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1)


def test_a_dead_grpc_endpoint_keeps_the_events_until_it_lives():
    """UNAVAILABLE for lack of a listener: the events arrive when there is one."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    with sender(Endpoint(f"http://127.0.0.1:{port}", protocol="grpc")) as subject:
        subject.put(event(1))
        await_(lambda: subject.stats().answering is False)
        with grpc_receiver(port=port) as receiver:
            await_(lambda: len(receiver.events()) == 1)


def test_nothing_is_sent_where_the_environment_says_none():
    """Events are counted as dropped, but nothing was lost that anybody wanted: flush is content."""

    def refuse():
        raise AssertionError("no connection is to be opened")

    subject = Sender(
        Quiet(),
        connect=refuse,
        resource=dict,
        origin=lambda: ORIGIN,
        address=None,
        stopped="OTEL_LOGS_EXPORTER=none",
    )
    subject.put(event(1))
    assert subject.flush(soon()) is True
    assert (subject.stats().dropped, subject.stats().stopped) == (1, "OTEL_LOGS_EXPORTER=none")
    subject.close(soon())


def test_a_fault_in_the_thread_neither_ends_it_nor_loses_an_event(caplog):
    """A bug in a transport is logged once, and the next try goes through."""

    class Buggy:
        def __init__(self, inner):
            self.inner, self.calls = inner, 0

        def send(self, body, timeout):
            self.calls += 1
            if self.calls < 3:
                raise KeyError("a bug")
            return self.inner.send(body, timeout)

        def close(self):
            self.inner.close()

    with http_receiver() as receiver:
        buggy = Buggy(open_transport(http(receiver)))
        with sender(http(receiver)) as subject:
            subject._connect = lambda: buggy
            subject.put(event(1))
            await_(receiver.events)
        assert numbers(receiver.events()) == [1]


def test_a_burst_is_sent_in_few_requests():
    """Events that gather while a request is under way go together."""
    with http_receiver() as receiver, sender(http(receiver)) as subject:
        for number in range(1, 5001):
            subject.put(event(number))
        assert subject.flush(soon(30))
        assert numbers(receiver.events()) == list(range(1, 5001))
        assert len(receiver.bodies) < 500


def test_the_senders_own_requests_are_no_spans():
    """The contrib instrumentations are told, by the context key they share, to leave the sender alone."""
    from opentelemetry import context

    seen = []
    with http_receiver() as receiver, sender(http(receiver)) as subject:
        connect = subject._connect
        subject._connect = lambda: (seen.append(context.get_value("suppress_instrumentation")), connect())[1]
        subject.put(event(1))
        assert subject.flush(soon())
    assert seen == [True]


def test_closing_does_not_wait_for_nobody():
    """Connection refused: close tries once and gives up, though its deadline is far; flush is patient."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    with sender(Endpoint(f"http://127.0.0.1:{port}/v1/logs")) as subject:
        subject.put(event(1))
        began = time.monotonic()
        subject.close(began + 60)
        assert time.monotonic() - began < 30
        stats = subject.stats()
        assert (stats.queued, stats.dropped, stats.answering) == (0, 1, False)


def test_closing_waits_out_a_short_overload():
    """A target that answers 503 is asked again until the deadline."""
    with http_receiver(replies=[Reply(503)] * 2) as receiver, sender(http(receiver)) as subject:
        subject.put(event(1))
        subject.close(soon())
        assert numbers(receiver.events()) == [1]


def test_closing_twice_or_unstarted_is_harmless():
    """Closing ends the thread if there is one; what comes later is dropped and counted."""
    with http_receiver() as receiver, sender(http(receiver)) as subject:
        subject.close(soon())
        subject.close(soon())
        assert subject.put(event(1)) is False
        assert subject.flush(soon()) is False
        assert subject.stats().dropped == 1
        assert not receiver.bodies


@pytest.fixture(autouse=True)
def _warnings_are_heard(caplog):
    caplog.set_level(logging.WARNING, logger="otel_sessions")
