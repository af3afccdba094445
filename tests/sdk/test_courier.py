"""The courier: nothing that it took is lost while the rules allow another try, and what is lost is counted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
from log_receivers import SLAM, Reply, await_, grpc_receiver, http_receiver, partial
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from otel_sessions.sdk import _guard
from otel_sessions.sdk._courier import Courier, Destination
from otel_sessions.sdk._endpoint import Endpoint
from otel_sessions.sdk._outbox import Pacing
from otel_sessions.sdk._parcel import Parcel, parcel_to_bytes
from otel_sessions.sdk._split import split_parcel
from otel_sessions.sdk._spool import Limits, Spool
from otel_sessions.sdk._transport import open_transport

QUICK = Pacing(first=0.01, longest=0.05)


def _request(*names, session="s1"):
    attribute = KeyValue(key="session.id", value=AnyValue(string_value=session))
    spans = [Span(name=name, attributes=[attribute]) for name in names]
    resource = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="x"))])
    made = ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])
    return ExportTraceServiceRequest(resource_spans=[made]).SerializeToString()


def _parcel(*names, session="s1"):
    return Parcel(_request(*names, session=session), len(names), {session: len(names)}, time.time_ns())


def _names(bodies):
    return [
        span.name
        for body in bodies
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _destination(port, root, *, pacing=QUICK, timeout=10.0, **options):
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1/traces")
    return Destination(
        endpoint.address,
        lambda: open_transport(endpoint, "traces"),
        None if root is None else lambda: Spool(root, "traces", endpoint.address, Limits()),
        split_parcel,
        timeout=timeout,
        pacing=pacing,
        **options,
    )


@contextmanager
def _courier(port, root, **options):
    lost = []
    courier = Courier(_destination(port, root, **options), lost=lambda *told: lost.append(told))
    courier.lost_here = lost
    try:
        yield courier
    finally:
        courier.stop(time.monotonic() + 2)


def _soon():
    return time.monotonic() + 10


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path):
    """Where parcels wait: each claim holds with and without a spool."""
    return tmp_path if request.param == "disk" else None


@pytest.fixture
def free_port():
    """Name a port that nobody listens on, yet."""
    with http_receiver() as receiver:
        return receiver.port


def test_what_is_taken_arrives_once_and_in_order(root):
    """Twenty parcels: each is acknowledged, and nothing waits any more."""
    with http_receiver() as receiver, _courier(receiver.port, root) as courier:
        for number in range(20):
            courier.take(_parcel(f"span {number}"))
        assert courier.flush(_soon())
        assert _names(receiver.accepted) == [f"span {number}" for number in range(20)]
        state = courier.carried()
        assert (state.sent, state.kept, state.waiting, state.dropped, state.answering) == (20, 0, 0, {}, True)


def test_a_receiver_that_comes_back_gets_everything(root, free_port):
    """Down from before the start, then up, then down again, then up: not one is lost."""
    with _courier(free_port, root) as courier:
        courier.take(_parcel("a"))
        await_(lambda: courier.carried().trouble)
        assert courier.carried().answering is False
        with http_receiver(port=free_port) as receiver:
            assert courier.flush(_soon())
            assert _names(receiver.accepted) == ["a"]
            receiver.drop_connections()  # they are kept beyond the end of who listens
        courier.take(_parcel("b"))
        courier.take(_parcel("c"))
        await_(lambda: courier.carried().answering is False)
        with http_receiver(port=free_port) as receiver:
            assert courier.flush(_soon())
            assert _names(receiver.accepted) == ["b", "c"]
        assert courier.carried().dropped == {}


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(503),
        Reply(429, {"Retry-After": "0"}),
        Reply(502),
        Reply(504),
        Reply(SLAM),
        Reply(503, {"Retry-After": "soon"}),
    ],
    ids=["503", "429", "502", "504", "slammed", "a Retry-After without sense"],
)
def test_what_may_be_tried_again_is_tried_until_it_is_taken(root, trouble):
    """Five refusals of the moment cost nothing."""
    with http_receiver(replies=[trouble] * 5) as receiver, _courier(receiver.port, root) as courier:
        courier.take(_parcel("a"))
        courier.take(_parcel("b"))
        assert courier.flush(_soon())
        assert _names(receiver.accepted) == ["a", "b"]
        assert courier.carried().dropped == {}


def test_a_receiver_that_asks_for_time_gets_it(root):
    """Retry-After is kept although somebody waits in a flush."""
    with (
        http_receiver(replies=[Reply(429, {"Retry-After": "1"})]) as receiver,
        _courier(receiver.port, root) as courier,
    ):
        began = time.monotonic()
        courier.take(_parcel("a"))
        assert courier.flush(_soon())
        assert time.monotonic() - began >= 1
        assert len(receiver.bodies) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 501])
def test_what_is_refused_for_good_is_counted_and_holds_nothing_up(root, status):
    """The next parcel arrives; the refused one is not tried again, and told of by session."""
    with http_receiver(replies=[Reply(status)]) as receiver, _courier(receiver.port, root) as courier:
        courier.take(_parcel("a", "b", session="s1"))
        courier.take(_parcel("c", session="s2"))
        assert courier.flush(_soon())
        assert _names(receiver.accepted) == ["c"]
        assert len(receiver.bodies) == 2
        assert courier.carried().dropped == {"rejected": 2}
        assert courier.lost_here == [("s1", 2, "rejected")]
        assert courier.carried().kept == 0


def test_what_was_refused_is_kept_for_a_look(tmp_path):
    """A refused parcel lies in the folder `rejected`, with what the receiver said."""
    with http_receiver(replies=[Reply(400)]) as receiver, _courier(receiver.port, tmp_path) as courier:
        courier.take(_parcel("a"))
        assert courier.flush(_soon())
        (why,) = tmp_path.glob("traces-*/rejected/*.why")
        assert "400" in why.read_text()


def test_what_is_too_large_is_cut_until_it_fits(root):
    """413 for more than two spans: all eight arrive, one that is too large alone is refused and counted."""
    with http_receiver() as receiver, _courier(receiver.port, root) as courier:
        take = receiver.take
        receiver.take = lambda body: (
            Reply(413) if len(_names([body])) > 2 or "big" in _names([body]) else take(body)
        )
        courier.take(_parcel(*(f"span {number}" for number in range(8)), "big"))
        assert courier.flush(_soon())
        assert sorted(_names(receiver.accepted)) == [f"span {number}" for number in range(8)]
        assert courier.carried().dropped == {"rejected": 1}
        assert courier.carried().sent == 8


def test_what_can_not_be_cut_is_refused_not_sent_for_ever(root):
    """Life cycle events are not cut: a receiver for which they are too large is asked once."""
    with http_receiver(otherwise=Reply(413)) as receiver:
        destination = replace(_destination(receiver.port, root), split=lambda parcel: [parcel])
        courier = Courier(destination)
        courier.take(_parcel("a", "b"))
        assert courier.flush(_soon())
        courier.stop(_soon())
        assert len(receiver.bodies) == 1
        assert courier.carried().dropped == {"rejected": 2}


def test_a_partial_success_is_read_and_counted(root):
    """Two of three were not kept: they are told of as rejected, and not sent again."""
    with (
        http_receiver(replies=[partial(2, "no thanks")]) as receiver,
        _courier(receiver.port, root) as courier,
    ):
        courier.take(_parcel("a", "b", "c"))
        assert courier.flush(_soon())
        assert len(receiver.bodies) == 1
        state = courier.carried()
        assert (state.sent, state.dropped) == (1, {"rejected": 2})
        assert courier.lost_here == [("s1", 2, "rejected")]


def test_a_receiver_that_needs_longer_than_the_timeout_gets_it(root):
    """It takes what it is sent, but slowly: it is not sent the same for ever, and others have their turn."""
    with http_receiver() as receiver, _courier(receiver.port, root, timeout=0.2) as courier:
        take = receiver.take

        def slowly(body):
            time.sleep(0.5)
            return take(body)

        receiver.take = slowly
        courier.take(_parcel("a"))
        courier.take(_parcel("b"))
        assert courier.flush(_soon())
        assert len(receiver.bodies) <= 8
        assert {"a", "b"} == set(_names(receiver.accepted))


def test_a_header_that_http_does_not_allow_is_told_of_without_its_value(root):
    """It may be a token."""
    for value in ("secret\nsecret", "secret\N{EURO SIGN}"):
        endpoint = Endpoint("http://127.0.0.1:9/v1/traces", headers=(("authorization", value),))
        destination = replace(_destination(9, root), connect=lambda it=endpoint: open_transport(it, "traces"))
        courier = Courier(destination)
        courier.take(_parcel("a"))
        trouble = await_(lambda it=courier: it.carried().trouble)
        courier.stop(time.monotonic() + 1)
        assert "secret" not in trouble
        assert "header" in trouble or "encode" in trouble
    assert dict(_guard.faults()) == {}


@pytest.mark.parametrize(
    ("code", "said", "requests"),
    [
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (5000000 vs. 4194304)", 7),
        ("OUT_OF_RANGE", "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes", 7),
        ("RESOURCE_EXHAUSTED", "too many spans in a batch", 7),
    ],
    ids=["Go's", "Rust's", "in words of its own"],
)
def test_over_grpc_a_request_is_cut_where_its_size_may_be_the_trouble(root, code, said, requests):
    """Servers have no code of their own for it; what is refused alone is refused."""
    import grpc

    def abort(call):
        call.abort(grpc.StatusCode[code], said)

    with grpc_receiver(answer=abort) as receiver:
        endpoint = Endpoint(f"http://127.0.0.1:{receiver.port}", protocol="grpc")
        destination = replace(
            _destination(receiver.port, root), connect=lambda: open_transport(endpoint, "traces")
        )
        courier = Courier(destination)
        courier.take(_parcel("a", "b", "c", "d"))
        assert courier.flush(_soon())
        courier.stop(_soon())
        assert len(receiver.bodies) == requests
        assert courier.carried().dropped == {"rejected": 4}


def test_a_hanging_receiver_holds_up_neither_who_gives_nor_the_end(tmp_path):
    """`take` returns while a request hangs, `stop` keeps its deadline, and all is there for the next one."""
    hang = threading.Event()
    with http_receiver(hang=hang) as receiver, _courier(receiver.port, tmp_path) as courier:
        for number in range(3):
            courier.take(_parcel(f"span {number}"))
        await_(lambda: receiver.port and courier._transport is not None)
        began = time.monotonic()
        courier.stop(began + 0.5)
        assert time.monotonic() - began < 2
        state = courier.carried()
        assert (state.kept, state.dropped) == (3, {})
        port = receiver.port
    with http_receiver(port=port) as receiver, _courier(port, tmp_path) as later:
        later.start()
        await_(lambda: len(_names(receiver.accepted)) == 3)
        await_(lambda: later.carried().inherited == 3)


def test_what_waits_in_memory_is_bounded_and_its_loss_counted(free_port):
    """Without a spool the oldest goes when the memory is full, and what is left at the end is told as lost."""
    size = len(_request("span 0"))
    with _courier(free_port, None, memory=3 * size) as courier:
        for number in range(5):
            courier.take(_parcel(f"span {number}", session=f"s{number}"))
        assert courier.carried().dropped == {"no room": 2}
        courier.stop(time.monotonic() + 0.2)
        assert courier.carried().dropped == {"no room": 2, "not sent in time": 3}
        assert sorted(told[:2] for told in courier.lost_here) == [(f"s{number}", 1) for number in range(5)]
        assert Counter(why for *_, why in courier.lost_here) == {"no room": 2, "not sent in time": 3}


def test_a_folder_that_takes_no_file_is_said_once_and_costs_nothing(tmp_path, caplog):
    """The spool's folder is a file: parcels go by memory, and one line names the variable."""
    root = tmp_path / "not a folder"
    root.write_text("")
    with http_receiver() as receiver, _courier(receiver.port, root) as courier:
        for name in ("a", "b", "c"):
            courier.take(_parcel(name))
        assert courier.flush(_soon())
        assert _names(receiver.accepted) == ["a", "b", "c"]
    said = [record.getMessage() for record in caplog.records if "OTEL_SESSIONS_SPOOL" in record.getMessage()]
    assert len(said) == 1


def test_what_a_killed_process_had_in_mid_send_arrives_with_the_next(tmp_path):
    """Kill -9 while a request hangs: every parcel that was taken arrives later, from another process."""
    program = """
import sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from test_courier import Courier, _destination, _parcel
courier = Courier(_destination(int(sys.argv[1]), Path(sys.argv[2])))
for number in range(10):
    courier.take(_parcel(f"span {number}"))
print("taken", flush=True)
time.sleep(600)
"""
    here = str(__import__("pathlib").Path(__file__).parent)
    with http_receiver(hang=threading.Event()) as receiver:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(receiver.port), str(tmp_path), here],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "taken\n"
        process.kill()
        process.communicate()
        port = receiver.port
    with http_receiver(port=port) as receiver, _courier(port, tmp_path) as courier:
        courier.start()
        await_(lambda: courier.carried().inherited == 10)
        assert sorted(_names(receiver.accepted)) == [f"span {number}" for number in range(10)]
    assert [path.name for path in next(tmp_path.iterdir()).iterdir()] == ["address"]


def test_new_parcels_leave_before_a_backlog(tmp_path):
    """A live span does not wait for what others left."""
    with http_receiver() as receiver:
        port = receiver.port
    left = Spool(tmp_path, "traces", f"http://127.0.0.1:{port}/v1/traces", Limits())
    for number in range(50):
        left.put(_parcel(f"old {number}"))
    left.close()
    with _courier(port, tmp_path) as courier:
        courier.take(_parcel("new"))
        await_(lambda: courier.carried().trouble)
        with http_receiver(port=port) as receiver:
            await_(lambda: len(receiver.accepted) == 51)
            assert _names(receiver.accepted)[0] == "new"


def test_a_forked_child_sends_what_it_takes_and_not_what_its_parent_took(tmp_path):
    """Both processes' parcels arrive once."""
    import os

    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    program = """
import os, sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from test_courier import Courier, _destination, _parcel
courier = Courier(_destination(int(sys.argv[1]), Path(sys.argv[2])))
courier.take(_parcel("parent 1"))
courier.flush(time.monotonic() + 10)
courier.take(_parcel("parent 2"))
pid = os.fork()
if pid == 0:
    courier.after_fork_in_child()
    courier.take(_parcel("child"))
    courier.stop(time.monotonic() + 10)
    os._exit(0)
courier.take(_parcel("parent 3"))
os.waitpid(pid, 0)
courier.stop(time.monotonic() + 10)
"""
    here = str(__import__("pathlib").Path(__file__).parent)
    with http_receiver() as receiver:
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, str(receiver.port), str(tmp_path), here],
            check=True,
            timeout=60,
        )
        assert sorted(_names(receiver.accepted)) == ["child", "parent 1", "parent 2", "parent 3"]


# --- Whose spans they were --------------------------------------------------------------------------------


def _left_by_another(root, port, *parcels):
    left = Spool(root, "traces", f"http://127.0.0.1:{port}/v1/traces", Limits())
    for parcel in parcels:
        left.put(parcel)
    left.close()


def test_what_others_left_and_is_refused_is_no_loss_of_this_process(tmp_path):
    """A backlog that is refused, rejected in part or too old: the counts here are of what was taken here."""
    with http_receiver(replies=[Reply(200), Reply(400), partial(1, "no thanks")]) as receiver:
        old = replace(_parcel("z", "y", session="old"), at=1)
        _left_by_another(
            tmp_path,
            receiver.port,
            old,
            _parcel("a", "b", session="old"),
            _parcel("c", "d", session="old"),
        )
        with _courier(receiver.port, tmp_path) as courier:
            courier.take(_parcel("own", session="new"))
            await_(lambda: courier.carried().inherited == 1)
            state = courier.carried()
            assert (state.sent, state.kept, state.dropped, courier.lost_here) == (1, 0, {}, [])


def test_what_others_left_and_is_too_large_is_never_on_the_way_without_a_file(tmp_path):
    """It is cut in two; while the parts wait they are on disk, for this process may die too."""
    with http_receiver() as receiver:
        _left_by_another(tmp_path, receiver.port, _parcel("a", "b", "c", "d", session="old"))
        receiver.take = lambda body: Reply(413) if len(_names([body])) > 2 else Reply(503)
        with _courier(receiver.port, tmp_path) as courier:
            courier.start()
            await_(lambda: courier.carried().trouble and "503" in courier.carried().trouble)
            assert (courier.carried().waiting, courier.carried().dropped) == (0, {})
            courier.stop(_soon())
            assert courier.carried().dropped == {}
            port = receiver.port
    with http_receiver(port=port) as receiver, _courier(port, tmp_path) as later:
        later.start()
        await_(lambda: later.carried().inherited == 4)
        assert sorted(_names(receiver.accepted)) == ["a", "b", "c", "d"]
        assert later.carried().sent == 0


# --- What happens while a request is under way -----------------------------------------------------------


def _slow(receiver):
    """Have each request wait for a sign; return what is told that one is there, and the sign."""
    there, go = threading.Event(), threading.Event()
    take = receiver.take

    def wait(body):
        there.set()
        assert go.wait(20)
        return take(body)

    receiver.take = wait
    return there, go


def test_what_is_under_way_is_not_lost_for_lack_of_memory(tmp_path):
    """The oldest is being sent while the memory overflows: it is counted once, and a flush waits for the rest."""
    size = len(_request("span 0"))
    with http_receiver() as receiver, _courier(receiver.port, None, memory=2 * size) as courier:
        there, go = _slow(receiver)
        courier.take(_parcel("span 0"))
        assert there.wait(10)
        for number in range(1, 4):
            courier.take(_parcel(f"span {number}"))
        go.set()
        assert courier.flush(_soon())
        state = courier.carried()
        assert "span 3" in _names(receiver.accepted)
        assert (state.sent, state.waiting) == (len(_names(receiver.accepted)), 0)
        assert state.sent + sum(state.dropped.values()) == 4


def test_what_is_under_way_is_not_lost_for_lack_of_disk(tmp_path):
    """The same where the spool is full: nothing that arrives is told of as lost."""
    size = len(parcel_to_bytes(_parcel("span 0")))
    with http_receiver() as receiver:
        destination = replace(
            _destination(receiver.port, tmp_path),
            open_spool=lambda: Spool(tmp_path, "traces", "x", Limits(size=2 * size + size // 2)),
        )
        there, go = _slow(receiver)
        courier = Courier(destination)
        courier.take(_parcel("span 0"))
        assert there.wait(10)
        for number in range(1, 4):
            courier.take(_parcel(f"span {number}"))
        go.set()
        assert courier.flush(_soon())
        courier.stop(_soon())
        state = courier.carried()
        assert state.sent == len(_names(receiver.accepted))
        assert state.sent + sum(state.dropped.values()) == 4


@pytest.mark.parametrize("first", [Reply(400), Reply(413)], ids=["refused", "too large"])
def test_at_the_end_an_answer_is_no_silence(root, first):
    """One request is refused or cut just as the program ends: there is time, and what can arrive does."""
    with http_receiver(replies=[first]) as receiver, _courier(receiver.port, root) as courier:
        there, go = _slow(receiver)
        courier.take(_parcel("a", "b"))
        assert there.wait(10)
        courier.take(_parcel("c"))
        threading.Timer(0.2, go.set).start()
        courier.stop(_soon())
        assert "c" in _names(receiver.accepted)
        state = courier.carried()
        assert (state.sent, sum(state.dropped.values()), state.kept) == (
            (1, 2, 0) if first.status == 400 else (3, 0, 0)
        )


def test_what_arrives_after_the_deadline_is_not_told_of_twice():
    """It was given up for lost, in memory, and the answer came after that: one count has it."""
    with http_receiver() as receiver, _courier(receiver.port, None) as courier:
        there, go = _slow(receiver)
        courier.take(_parcel("a"))
        assert there.wait(10)
        courier.stop(time.monotonic() + 0.1)
        go.set()
        courier._thread.join(10)
        state = courier.carried()
        assert state.sent + sum(state.dropped.values()) == 1


def test_a_disk_that_hangs_holds_up_nobody_who_asks(tmp_path):
    """While a file is being written `carried` answers at once, and `flush` and `stop` keep their deadlines."""
    there, go = threading.Event(), threading.Event()

    class Hanging(Spool):
        def put(self, parcel, **options):
            there.set()
            assert go.wait(20)
            return super().put(parcel, **options)

    with http_receiver() as receiver:
        destination = replace(
            _destination(receiver.port, tmp_path),
            open_spool=lambda: Hanging(tmp_path, "traces", "x", Limits()),
        )
        courier, another = Courier(destination), Courier(destination)
        taking = [threading.Thread(target=lambda it=it: it.take(_parcel("a"))) for it in (courier, another)]
        for thread in taking:
            thread.start()
        assert there.wait(10)
        asked = []

        def ask():
            asked.append(courier.carried().kept)
            asked.append(courier.flush(time.monotonic() + 0.1))
            another.stop(time.monotonic() + 0.1)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(5)
        go.set()
        for thread in taking:
            thread.join()
        assert asked == [1, False]
        assert courier.flush(_soon())
        courier.stop(_soon())
        assert courier.carried().sent == 1


def test_what_waited_in_memory_is_on_disk_at_the_end_where_that_is_possible_again(tmp_path, free_port):
    """The disk was full, or no file could be opened, for a moment: nothing is lost for that."""
    full = True

    class Full(Spool):
        def put(self, parcel, **options):
            if full:
                raise OSError(28, "No space left on device")
            return super().put(parcel, **options)

    destination = replace(
        _destination(free_port, tmp_path), open_spool=lambda: Full(tmp_path, "traces", "x", Limits())
    )
    courier = Courier(destination)
    courier.take(_parcel("a"))
    await_(lambda: courier.carried().trouble)
    full = False
    courier.stop(time.monotonic() + 0.5)
    assert (courier.carried().kept, courier.carried().waiting, courier.carried().dropped) == (1, 0, {})
    left = Spool(tmp_path, "traces", "x", Limits())
    courier._thread.join(10)
    left.take_over(time.monotonic())
    assert len(left) == 1
    left.close()


def test_what_comes_after_the_end_is_on_disk_and_keeps_no_file_open(tmp_path, free_port):
    """As the last events do that another thread still had: the next program sends them."""
    with _courier(free_port, tmp_path) as courier:
        courier.take(_parcel("a"))
        courier.stop(time.monotonic() + 0.1)
        courier._thread.join(10)
        courier.take(_parcel("b"))
        assert courier.carried().kept == 2
        left = Spool(tmp_path, "traces", courier._destination.address, Limits())
        assert left.take_over(time.monotonic()) == 2
        left.close()
