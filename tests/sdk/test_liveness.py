"""Liveness: what the world hears of a run, in which order, and when it falls silent."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest
from fake_runs import FakeRun
from hypothesis import given
from hypothesis import strategies as st
from log_receivers import Reply, await_, grpc_receiver, http_receiver, read

from otel_sessions.errors import ConfigurationError
from otel_sessions.lifecycle import ENDINGS, EndReason, Outcome, Phase
from otel_sessions.sdk._answer import Answer, Verdict
from otel_sessions.sdk._endpoint import Endpoint
from otel_sessions.sdk._liveness import Clocks, EventSettings, Liveness, Stamps
from otel_sessions.sdk._run import Counts, OpenSpan

START, RESUMED = "session.start", "otel_sessions.session.resumed"
BEAT, STATE = "otel_sessions.session.heartbeat", "otel_sessions.session.state"
SPAN, END = "otel_sessions.span.start", "session.end"
SECOND = 10**9


def soon(seconds=5.0):
    """Return a deadline."""
    return time.monotonic() + seconds


# --- With a clock and a wire of the test's own: one turn at a time -----------------------------------


class Wire:
    """A transport that keeps what it is given; `answers` are used up first."""

    def __init__(self):
        self.answers = []
        self.bodies = []
        self.refused = []
        self.closed = False

    def send(self, body, timeout):
        answer = self.answers.pop(0) if self.answers else Answer(Verdict.ACCEPTED)
        (self.bodies if answer.verdict is Verdict.ACCEPTED else self.refused).append(body)
        return answer

    def close(self):
        self.closed = True

    def events(self):
        return [event for n, body in enumerate(self.bodies) for event in read(body, n)]

    def names(self, run=None):
        return [event.name for event in self.events() if run is None or event.session_id == run.session_id]


class Asleep(threading.Thread):
    """A thread that is alive and does nothing: the test takes the turns."""

    def is_alive(self):
        return True

    def join(self, timeout=None):
        pass


class World:
    """A Liveness whose time passes only by `pass_`."""

    def __init__(self, **settings):
        self.now = 1000 * SECOND
        self.wire = Wire()
        clocks = Clocks(wall=lambda: self.now, monotonic=lambda: self.now, age=lambda: self.now)
        self.liveness = Liveness(
            settings=EventSettings(**settings),
            resource_attributes={"service.name": "planner"},
            clocks=clocks,
            stamps=Stamps(clocks, lambda: "process-1"),
            connect=lambda _endpoint: self.wire,
            spawn=lambda _run: Asleep(),
        )

    def run(self, **fields):
        return FakeRun(**({"started_at": self.now, "activity": self.now} | fields))

    def turn(self):
        return self.liveness._sender.turn()

    def pass_(self, seconds):
        """Let time pass as the thread would see it: it wakes whenever it asked to be woken."""
        end = self.now + int(seconds * SECOND)
        while True:
            sleep = self.turn()
            if self.now + int(sleep * SECOND) + 1 > end:
                break
            self.now += int(sleep * SECOND) + 1
        self.now = end
        self.turn()


def test_a_run_is_announced_with_its_first_heartbeat():
    """Start and heartbeat travel in one request."""
    world = World()
    run = world.run()
    world.liveness.opened(run)
    world.turn()
    assert [(event.name, event.request) for event in world.wire.events()] == [(START, 0), (BEAT, 0)]


def test_heartbeats_of_all_runs_share_a_request():
    """Every five seconds there is one request, whatever the number of runs."""
    world = World()
    for _ in range(50):
        world.liveness.opened(world.run())
    world.turn()
    world.wire.bodies.clear()
    world.pass_(15.1)
    assert [len(read(body)) for body in world.wire.bodies] == [50, 50, 50]


def test_thousands_of_heartbeats_are_split_below_the_receivers_limit():
    """No request grows beyond about the size that is set, and no run is left out or told of twice."""
    world = World(request_bytes=50_000)
    runs = [world.run() for _ in range(500)]
    for run in runs:
        world.liveness.opened(run)
    world.turn()
    world.wire.bodies.clear()
    world.pass_(5.0)
    assert len(world.wire.bodies) > 1
    assert max(map(len, world.wire.bodies)) < 52_000
    assert sorted(event.session_id for event in world.wire.events()) == sorted(run.session_id for run in runs)


def test_every_event_has_a_number_and_the_age_of_the_process():
    """Numbers count up by one from 1 over all runs; elapsed is the age of the process, on its own clock."""
    world = World()
    runs = [world.run() for _ in range(3)]
    for run in runs:
        world.liveness.opened(run)
    world.pass_(12.0)
    for run in runs:
        world.liveness.ended(run, Outcome.OK, EndReason.COMPLETED, world.now)
    world.turn()
    events = world.wire.events()
    seqs = [event.attributes["otel_sessions.seq"] for event in events]
    assert sorted(seqs) == list(range(1, len(events) + 1))
    assert events[0].attributes["otel_sessions.elapsed"] == 0
    assert events[-1].attributes["otel_sessions.elapsed"] == 12 * SECOND
    assert {event.attributes["otel_sessions.process.id"] for event in events} == {"process-1"}
    assert {event.attributes["otel_sessions.heartbeat"] for event in events} == {5.0}
    assert {event.attributes["otel_sessions.lease"] for event in events} == {120.0}


def test_an_ended_run_is_never_heard_again():
    """No heartbeat and no state follows the end."""
    world = World()
    run = world.run()
    world.liveness.opened(run)
    world.pass_(6)
    run.tally = Counts(5, 4, 1)
    world.liveness.ended(run, Outcome.ERROR, EndReason.ERROR, world.now - 7)
    world.liveness.changed(run)
    world.liveness.ended(run, Outcome.OK, EndReason.COMPLETED, world.now)
    world.pass_(60)
    assert world.wire.names() == [START, BEAT, BEAT, END]
    end = world.wire.events()[-1]
    assert end.time == world.now - 60 * SECOND - 7
    assert end.attributes["otel_sessions.session.outcome"] == "error"
    assert end.attributes["otel_sessions.session.spans.started"] == 5


def test_a_run_that_a_finaliser_ends_in_the_midst_of_an_event_stops_nobody():
    """The collector may close a suspended session anywhere, while other threads tell of theirs."""
    world = World()
    garbage, first, second = world.run(), world.run(), world.run()
    world.liveness.opened(garbage)
    world.liveness.opened(first)
    inside, blocked = threading.Event(), threading.Event()

    class Collecting(SimpleQueue):
        def qsize(self):
            if threading.current_thread() is ending and not inside.is_set():
                inside.set()
                blocked.wait(0.5)
                world.liveness.ended(garbage, Outcome.OK, EndReason.COMPLETED, world.now)
            return super().qsize()

    class Blocking(type(second)):
        @property
        def resumed(self):
            blocked.set()
            inside.wait(0.5)
            time.sleep(0.05)
            return False

        @resumed.setter
        def resumed(self, _value):
            pass

    second.__class__ = Blocking
    world.liveness._sender._inbox = Collecting()
    ending = threading.Thread(
        target=world.liveness.ended, args=(first, Outcome.OK, EndReason.COMPLETED, 1), daemon=True
    )
    ending.start()
    assert inside.wait(10)
    opening = threading.Thread(target=world.liveness.opened, args=(second,), daemon=True)
    opening.start()
    for thread in (ending, opening):
        thread.join(10)
        assert not thread.is_alive()


def test_a_resumed_run_says_so():
    """`otel_sessions.session.resumed` takes the place of the start."""
    world = World()
    world.liveness.opened(world.run(resumed=True))
    world.turn()
    assert world.wire.names() == [RESUMED, BEAT]


def test_waiting_is_told_at_once():
    """A change of phase does not wait for a heartbeat, and heartbeats repeat it."""
    world = World()
    run = world.run()
    world.liveness.opened(run)
    world.turn()
    run.phase, run.waiting_for = Phase.WAITING, "approval"
    world.liveness.changed(run)
    world.turn()
    world.pass_(5)
    state, beat = world.wire.events()[2:]
    assert (state.name, beat.name) == (STATE, BEAT)
    for event in (state, beat):
        assert event.attributes["otel_sessions.session.phase"] == "waiting"
        assert event.attributes["otel_sessions.waiting_for"] == "approval"


def span(world, number, age=0.0):
    """Return an open span that began some seconds ago."""
    return OpenSpan(number, f"span {number}", 1, None, world.now - int(age * SECOND), 77)


def test_a_span_is_announced_once_when_it_has_been_open_for_a_second():
    """Short spans are never told of; long ones once, under their own ids, within half a second more."""
    world = World()
    run = world.run()
    world.liveness.opened(run)
    world.pass_(10)
    run.open, run.tally = [span(world, 1), span(world, 2)], Counts(3, 0, 0)
    world.pass_(0.9)
    assert SPAN not in world.wire.names()
    run.open, run.tally = run.open[:1], Counts(3, 1, 0)
    world.pass_(0.7)
    run.open, run.tally = [*run.open, span(world, 3)], Counts(4, 1, 0)
    world.pass_(60)
    announced = [event for event in world.wire.events() if event.name == SPAN]
    assert [event.span_id for event in announced] == [1, 3]
    assert announced[0].trace_id == 77
    assert announced[0].attributes["otel_sessions.span.name"] == "span 1"


def test_heartbeats_tell_of_at_most_64_open_spans_and_all_are_announced():
    """The heartbeat is bounded; announcements are not."""
    world = World()
    run = world.run(open=[], tally=Counts(101, 0, 0))
    run.open = [span(world, number + 1, age=2) for number in range(100)]
    world.liveness.opened(run)
    world.pass_(1)
    beat = next(event for event in world.wire.events() if event.name == BEAT)
    assert beat.attributes["otel_sessions.open_spans"] == [f"{number + 1:016x}" for number in range(64)]
    assert world.wire.names().count(SPAN) == 100


def test_a_timeout_ends_the_run():
    """At its timeout, not before, the run is told to end, once."""
    world = World()
    run = world.run(timeout=7.25)
    world.liveness.opened(run)
    world.pass_(7.2)
    assert run.endings == []
    world.pass_(0.1)
    assert len(run.endings) == 1
    world.pass_(30)
    assert run.endings == [ENDINGS["timeout"]]


def test_an_idle_run_is_ended_but_not_a_busy_or_a_waiting_one():
    """Idle: nothing started or ended for that long, and neither model nor tool open, nor waiting."""
    world = World()
    idle, busy, active = (world.run(idle_timeout=3) for _ in range(3))
    busy.is_busy = True
    for run in (idle, busy, active):
        world.liveness.opened(run)
    world.pass_(2)
    active.activity = world.now
    world.pass_(2)
    assert (idle.endings, busy.endings, active.endings) == ([ENDINGS["idle_timeout"]], [], [])
    busy.is_busy = False
    world.pass_(2)
    assert (busy.endings, active.endings) == ([ENDINGS["idle_timeout"]], [ENDINGS["idle_timeout"]])


def test_a_run_that_fails_to_end_harms_no_other(caplog):
    """A fault in one run's answers is ours to bear: the others are looked after."""
    caplog.set_level(logging.WARNING, logger="otel_sessions")
    world = World()
    bad, good, long = world.run(timeout=1), world.run(timeout=1), world.run()
    bad.on_time_out = lambda: 1 / 0
    for run in (bad, good, long):
        world.liveness.opened(run)
    world.pass_(5)
    assert good.endings == [ENDINGS["timeout"]]
    assert world.wire.names(long) == [START, BEAT, BEAT]


def test_an_unsampled_run_is_silent_but_keeps_its_time():
    """No event at all, yet its timeout holds."""
    world = World()
    run = world.run(sampled=False, timeout=1, open=[])
    run.open, run.tally = [span(world, 1, age=9)], Counts(2, 0, 0)
    world.liveness.opened(run)
    world.pass_(10)
    run.phase = Phase.WAITING
    world.liveness.changed(run)
    world.liveness.ended(run, Outcome.ERROR, EndReason.TIMEOUT, world.now)
    world.turn()
    assert world.wire.bodies == []
    assert run.endings == [ENDINGS["timeout"]]


def test_a_child_process_sends_heartbeats_only():
    """It took the run up: no start, no end, all marked, and its last heartbeat bears the final counts."""
    world = World()
    run = world.run(child=True, name="")
    world.liveness.opened(run)
    world.pass_(5.5)
    run.tally = Counts(9, 9, 0)
    world.liveness.ended(run, None, EndReason.PROCESS_EXIT, world.now)
    world.pass_(30)
    events = world.wire.events()
    assert [event.name for event in events] == [BEAT, BEAT, BEAT]
    assert all(event.attributes["otel_sessions.child"] is True for event in events)
    assert all(event.span_id == run.span_id for event in events)
    assert events[-1].attributes["otel_sessions.session.spans.ended"] == 9


def test_failed_heartbeats_are_replaced_not_repeated():
    """After an outage every run is heard at once, by fresh heartbeats; starts come first, in order."""
    world = World()
    first, second = world.run(), world.run()
    world.wire.answers = [Answer(Verdict.AGAIN)] * 4
    world.liveness.opened(first)
    world.turn()
    world.liveness.opened(second)
    world.pass_(30)
    before = {
        event.attributes["otel_sessions.seq"]
        for body in world.wire.refused
        for event in read(body)
        if event.name == BEAT
    }
    events = world.wire.events()
    assert [(event.name, event.session_id) for event in events[:4]] == [
        (START, first.session_id),
        (BEAT, first.session_id),
        (START, second.session_id),
        (BEAT, second.session_id),
    ]
    assert not before & {event.attributes["otel_sessions.seq"] for event in events}


def test_after_an_outage_the_open_runs_are_heard_at_once():
    """Recovery does not wait for the next regular heartbeat."""
    world = World(heartbeat=5.0)
    run = world.run()
    world.liveness.opened(run)
    world.turn()
    world.wire.answers = [Answer(Verdict.AGAIN, retry_after=2.0)]
    world.pass_(5.0)
    assert world.wire.names() == [START, BEAT]
    world.pass_(2.2)
    assert world.wire.names() == [START, BEAT, BEAT]


def test_a_run_whose_start_was_dropped_is_heard_by_its_heartbeats():
    """A full queue costs the start, which is counted, and not the run's life."""
    world = World(queue=1)
    runs = [world.run() for _ in range(3)]
    for run in runs:
        world.liveness.opened(run)
    world.pass_(5)
    assert world.liveness.stats().dropped == 2
    assert {event.session_id for event in world.wire.events() if event.name == BEAT} == {
        run.session_id for run in runs
    }


def test_a_run_whose_start_fell_off_a_full_queue_is_heard_by_its_heartbeats():
    """The same for a start that was queued, and made way for younger events while the target asked to wait."""
    world = World(queue=1)
    runs = [world.run() for _ in range(3)]
    world.wire.answers = [Answer(Verdict.AGAIN, retry_after=30.0)]
    for run in runs:
        world.liveness.opened(run)
        world.turn()
    world.pass_(31)
    assert world.wire.names().count(START) == 1
    assert world.liveness.stats().dropped == 2
    assert {event.session_id for event in world.wire.events()} == {run.session_id for run in runs}


def test_a_childs_last_heartbeat_is_not_repeated_either():
    """No heartbeat is ever sent twice, the last one of a child process included."""
    world = World()
    run = world.run(child=True)
    world.liveness.opened(run)
    world.turn()
    world.wire.answers = [Answer(Verdict.AGAIN)]
    world.liveness.ended(run, None, None, world.now)
    world.pass_(30)
    assert world.wire.names() == [BEAT]
    assert (world.liveness.stats().unsent_heartbeats, world.liveness.stats().queued) == (1, 0)


def test_a_run_in_which_nothing_starts_is_not_searched_again():
    """Once all its open spans are told of, a quiet run costs a comparison, whatever is open in it."""
    world = World()
    run = world.run(tally=Counts(3, 0, 0))
    run.open = [span(world, 1), span(world, 2)]
    searched = []
    run.open_spans = lambda limit=64: searched.append(limit) or run.open[:limit]
    world.liveness.opened(run)
    world.pass_(3)
    searched.clear()
    run.open, run.tally = run.open[1:], Counts(3, 1, 0)
    world.pass_(1.9)
    assert searched == []
    run.open, run.tally = [*run.open, span(world, 3)], Counts(4, 1, 0)
    world.pass_(30)
    assert world.wire.names().count(SPAN) == 3


def test_a_child_leaves_its_parents_connection_alone():
    """A forked child opens its own; closing the parent's here could end it there."""
    world = World()
    world.liveness.opened(world.run())
    world.turn()
    world.liveness.after_fork_in_child()
    parents, world.wire = world.wire, Wire()
    world.liveness.opened(world.run())
    world.turn()
    assert parents.names() == world.wire.names() == [START, BEAT]
    assert not parents.closed


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["opened", "waiting", "running", "ended", "turn", "pass", "fail", "busy"]),
        st.integers(0, 3),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_on_the_wire_every_run_starts_changes_and_ends_in_this_order(actions):
    """Whatever is called in whatever order, with failures between: start <= (beat, state)* <= end, each once."""
    world = World()
    runs = [world.run() for _ in range(4)]
    opened, ended = set(), set()
    for action, which in actions:
        run = runs[which]
        if action == "opened":
            world.liveness.opened(run)
            if which not in ended:
                opened.add(which)
        elif action in ("waiting", "running"):
            if run.phase is not Phase.ENDED:
                run.phase = Phase(action)
            world.liveness.changed(run)
        elif action == "ended":
            if which in opened:
                run.phase = Phase.ENDED
                ended.add(which)
            world.liveness.ended(run, Outcome.OK, EndReason.COMPLETED, world.now)
        elif action == "turn":
            world.turn()
        elif action == "pass":
            world.pass_(which * 2.5)
        else:
            world.wire.answers.append(Answer(Verdict.AGAIN, retry_after=None if action == "fail" else 1.0))
    world.wire.answers.clear()
    world.pass_(70)
    for which, run in enumerate(runs):
        names = world.wire.names(run)
        assert names.count(START) == (which in opened)
        assert names.count(END) == (which in ended)
        assert names[:1] == [START] * (which in opened)
        assert not names or (END in names[:-1]) is False
        if which in opened - ended:
            assert names[-1] == BEAT
    seqs = [event.attributes["otel_sessions.seq"] for event in world.wire.events()]
    assert len(seqs) == len(set(seqs))


def test_a_run_that_is_ending_is_not_said_to_be_alive():
    """Between a run's end and its telling, a heartbeat that is due is left out."""
    world = World()
    run = world.run()
    world.liveness.opened(run)
    world.turn()
    run.phase = Phase.ENDED
    world.pass_(6)
    world.liveness.changed(run)
    world.liveness.ended(run, Outcome.OK, EndReason.COMPLETED, world.now)
    world.turn()
    assert world.wire.names() == [START, BEAT, END]


def test_a_second_set_up_goes_on_counting():
    """Whatever is set up anew in a process: under its id no number comes twice, and its age goes on."""
    with http_receiver() as receiver:
        for _ in range(2):
            with reporter(receiver.port) as subject:
                subject.opened(FakeRun())
                assert subject.flush(soon())
        events = receiver.events()
    seqs = [event.attributes["otel_sessions.seq"] for event in events]
    ages = [event.attributes["otel_sessions.elapsed"] for event in events]
    assert len({event.attributes["otel_sessions.process.id"] for event in events}) == 1
    assert seqs == sorted(set(seqs))
    assert ages == sorted(ages)


def test_open_runs_move_to_a_new_target():
    """After a change of settings the new target learns of every open run, and the old one of no more."""
    with http_receiver() as old, http_receiver() as new, reporter(old.port) as subject:
        ended, open_ = FakeRun(), FakeRun()
        subject.opened(ended)
        subject.opened(open_)
        subject.ended(ended, Outcome.OK, EndReason.COMPLETED, 1)
        endpoint = Endpoint(f"http://127.0.0.1:{new.port}/v1/logs")
        subject.change(EventSettings(endpoint=endpoint, heartbeat=0.1, lease=5), soon())
        await_(lambda: len(new.events(BEAT)) >= 3)
        subject.ended(open_, Outcome.OK, EndReason.COMPLETED, 1)
        assert subject.flush(soon())
        assert {event.session_id for event in old.events(END)} == {ended.session_id}
        assert {event.session_id for event in new.events()} == {open_.session_id}
        assert new.events()[0].name == START
        assert new.events()[-1].name == END
        assert subject.stats().sent == len(old.events()) + len(new.events())


def test_a_target_that_was_left_gets_no_heartbeat_any_more():
    """While the former target is asked to take what was meant for it, it learns of nothing else."""
    with http_receiver(otherwise=Reply(503)) as old, http_receiver() as new, reporter(old.port) as subject:
        subject.opened(FakeRun())
        await_(lambda: old.bodies)
        endpoint = Endpoint(f"http://127.0.0.1:{new.port}/v1/logs")
        asked = len(old.bodies) + 1
        subject.change(EventSettings(endpoint=endpoint, heartbeat=0.02, lease=5), soon(1.2))
        later = [event.name for body in old.bodies[asked:] for event in read(body)]
        assert later
        assert set(later) == {START}
        await_(lambda: len(new.events(BEAT)) >= 3)


def test_a_lease_must_outlast_a_heartbeat():
    """Settings that would lose every run between two heartbeats are refused."""
    for heartbeat, lease in ((5, 5), (0, 120), (-1, 120), (float("nan"), 120), (5, float("inf"))):
        with pytest.raises(ConfigurationError, match="OTEL_SESSIONS_LEASE"):
            EventSettings(heartbeat=heartbeat, lease=lease)


def test_settings_are_read_from_the_environment():
    """Interval, lease, exporter and endpoint; a bad number names its variable."""
    settings = EventSettings.from_environ(
        {
            "OTEL_SESSIONS_HEARTBEAT": "2.5",
            "OTEL_SESSIONS_LEASE": "60",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        }
    )
    assert (settings.heartbeat, settings.lease, settings.exporter) == (2.5, 60.0, "otlp")
    assert settings.endpoint.url == "http://collector:4318/v1/logs"
    assert EventSettings.from_environ({"OTEL_SESSIONS_SPOOL": "off"}) == EventSettings()
    with pytest.raises(ConfigurationError, match="OTEL_SESSIONS_LEASE"):
        EventSettings.from_environ({"OTEL_SESSIONS_LEASE": "long"})


# --- With threads, sockets and processes ----------------------------------------------------------------


@contextmanager
def reporter(port, *, protocol="http/protobuf", **settings):
    """Run a Liveness against a receiver."""
    path = "/v1/logs" if protocol == "http/protobuf" else ""
    endpoint = Endpoint(f"http://127.0.0.1:{port}{path}", protocol=protocol)
    subject = Liveness(
        settings=EventSettings(endpoint=endpoint, **settings), resource_attributes={"service.name": "planner"}
    )
    try:
        yield subject
    finally:
        subject.close(time.monotonic())


def test_a_session_is_heard_from_start_to_end():
    """A real thread sends start, heartbeats at their pace, and the end."""
    with http_receiver() as receiver, reporter(receiver.port, heartbeat=0.1, lease=5) as subject:
        run = FakeRun()
        subject.opened(run)
        await_(lambda: len(receiver.events(BEAT)) >= 4)
        subject.ended(run, Outcome.OK, EndReason.COMPLETED, time.time_ns())
        assert subject.flush(soon())
        names = [event.name for event in receiver.events()]
        assert (names[0], names[-1]) == (START, END)
        assert set(names[1:-1]) == {BEAT}
        assert subject.stats().sent == len(names)


def test_ten_thousand_short_sessions_take_few_requests():
    """Events that are queued together travel together, and none is lost."""
    with http_receiver() as receiver, reporter(receiver.port) as subject:
        for _ in range(10_000):
            run = FakeRun()
            subject.opened(run)
            subject.ended(run, Outcome.OK, EndReason.COMPLETED, time.time_ns())
        assert subject.flush(soon(60))
        assert len(receiver.events(START)) == len(receiver.events(END)) == 10_000
        assert len(receiver.bodies) < 500


def test_threads_agree_on_one_order_for_each_run():
    """Racing openers, changers and enders never put a state or heartbeat behind an end."""
    with http_receiver() as receiver, reporter(receiver.port, heartbeat=0.01, lease=5) as subject:
        runs = [FakeRun() for _ in range(200)]

        def act(end):
            for run in runs:
                subject.opened(run)
                subject.changed(run)
                if end:
                    subject.ended(run, Outcome.OK, EndReason.COMPLETED, time.time_ns())
                    run.phase = Phase.ENDED

        threads = [threading.Thread(target=act, args=(end,)) for end in (True, False, True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for run in runs:
            subject.ended(run, Outcome.OK, EndReason.COMPLETED, time.time_ns())
        assert subject.flush(soon(30))
        by_run = {}
        for event in receiver.events():
            by_run.setdefault(event.session_id, []).append(event.name)
        for names in by_run.values():
            # A thread that opens a run while another ends it may open it again, as a run of its own.
            assert names[0] == START
            assert names[-1] == END
            assert names.count(START) == names.count(END)


def test_a_timeout_can_end_the_run_from_the_senders_own_thread():
    """What time_out calls comes back to Liveness while its thread is at work."""
    with http_receiver() as receiver, reporter(receiver.port) as subject:
        run = FakeRun(timeout=0.1)
        run.on_time_out = lambda: (
            subject.ended(run, Outcome.ERROR, EndReason.TIMEOUT, time.time_ns()),
            subject.flush(soon(30)),
        )
        subject.opened(run)
        await_(lambda: receiver.events(END))
        assert receiver.events(END)[0].attributes["otel_sessions.session.end_reason"] == "timeout"


def test_callers_never_wait_for_an_endpoint_that_hangs():
    """Every call but flush and close returns while the thread sits in a request."""
    with (
        http_receiver(hang=threading.Event()) as receiver,
        reporter(receiver.port, heartbeat=0.05, lease=100) as subject,
    ):
        subject.opened(FakeRun())
        await_(lambda: subject.stats().queued == 1)
        slowest = 0.0
        for _ in range(1000):
            run = FakeRun()
            began = time.thread_time()
            subject.opened(run)
            subject.changed(run)
            subject.ended(run, None, None, 1)
            subject.stats()
            slowest = max(slowest, time.thread_time() - began)
        assert subject.stats().queued == 3001
        began = time.monotonic()
        assert subject.flush(began + 0.2) is False
        subject.close(time.monotonic() + 0.2)
        assert time.monotonic() - began < 10


def in_child(work):
    """Run `work` in a forked child and return its exit code: 0 if it returned True."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_is_another_process():
    """It has a new id, counts from 1, says nothing of its parent's runs, and sends its own; the parent goes on."""
    with http_receiver() as receiver, reporter(receiver.port, heartbeat=0.05, lease=5) as subject:
        mine, its = FakeRun(), FakeRun(child=True)
        subject.opened(mine)
        await_(lambda: receiver.events(BEAT))

        def child():
            subject.after_fork_in_child()
            subject.ended(mine, Outcome.OK, EndReason.COMPLETED, 1)
            subject.opened(its)
            return subject.flush(soon()) and await_(lambda: subject.stats().sent >= 2)

        parents = receiver.events()[0].attributes["otel_sessions.process.id"]
        assert in_child(child) == 0
        seen = len(receiver.events())
        await_(lambda: len(receiver.events()) > seen)
        by_process = {}
        for event in receiver.events():
            by_process.setdefault(event.attributes["otel_sessions.process.id"], []).append(event)
        (childs,) = set(by_process) - {parents}
        assert {event.session_id for event in by_process[parents]} == {mine.session_id}
        assert {event.session_id for event in by_process[childs]} == {its.session_id}
        assert END not in {event.name for event in receiver.events()}
        for events in by_process.values():
            seqs = [event.attributes["otel_sessions.seq"] for event in events]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        assert by_process[childs][0].attributes["otel_sessions.seq"] == 1


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_fork_in_the_midst_of_use_never_hangs_the_child():
    """Locks and queues that other threads held at the fork are not the child's."""
    with http_receiver() as receiver, reporter(receiver.port, heartbeat=0.01, lease=5) as subject:
        stop = threading.Event()

        def churn():
            while not stop.is_set():
                run = FakeRun()
                subject.opened(run)
                subject.ended(run, Outcome.OK, EndReason.COMPLETED, 1)
                time.sleep(0)

        threads = [threading.Thread(target=churn) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):

                def child():
                    subject.after_fork_in_child()
                    run = FakeRun(session_id="of the child")
                    subject.opened(run)
                    subject.ended(run, Outcome.OK, EndReason.COMPLETED, 1)
                    return subject.flush(soon())

                assert in_child(child) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert len([event for event in receiver.events(END) if event.session_id == "of the child"]) == 10


@pytest.mark.parametrize("module", ["requests", "netrc", "opentelemetry.proto.logs.v1.logs_pb2"])
def test_a_fork_waits_until_the_thread_has_imported(module):
    """A child that is forked while the sender's thread imports can import the same, and send."""
    code = f"""
import os, sys, threading, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_runs import FakeRun
from otel_sessions.sdk._endpoint import Endpoint
from otel_sessions.sdk._liveness import EventSettings, Liveness

reached = threading.Event()

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and threading.current_thread() is not threading.main_thread():
            reached.set()
            time.sleep(0.3)

sys.meta_path.insert(0, Slow())
settings = EventSettings(endpoint=Endpoint("http://127.0.0.1:9/"))
Liveness(settings=settings, resource_attributes={{}}).opened(FakeRun())
assert reached.wait(10)
pid = os.fork()
if pid == 0:
    import {module}
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=20)


def test_heartbeats_go_over_grpc_too():
    """The same over a channel."""
    with (
        grpc_receiver() as receiver,
        reporter(receiver.port, protocol="grpc", heartbeat=0.1, lease=5) as subject,
    ):
        run = FakeRun()
        subject.opened(run)
        await_(lambda: len(receiver.events(BEAT)) >= 2)
        subject.ended(run, Outcome.OK, EndReason.COMPLETED, time.time_ns())
        assert subject.flush(soon())
        assert receiver.events()[-1].name == END


def test_a_dead_endpoint_costs_no_event():
    """What was told while nobody listened arrives when somebody does, in order, and heartbeats resume."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    with reporter(port, heartbeat=0.1, lease=5) as subject:
        gone, alive = FakeRun(), FakeRun()
        subject.opened(gone)
        subject.opened(alive)
        subject.ended(gone, Outcome.OK, EndReason.COMPLETED, time.time_ns())
        await_(lambda: subject.stats().answering is False)
        with http_receiver(port=port) as receiver:
            await_(lambda: len(receiver.events(BEAT)) >= 3)
            of_gone = [event.name for event in receiver.events() if event.session_id == gone.session_id]
            of_alive = [event.name for event in receiver.events() if event.session_id == alive.session_id]
        assert of_gone == [START, END]
        assert of_alive[:2] == [START, BEAT]
