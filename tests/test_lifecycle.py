"""Claims about the life cycle: one history whatever the order, and no life without a fresh heartbeat."""

import asyncio
import concurrent.futures
import sys
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from otel_sessions.lifecycle import (
    ENDINGS,
    Beat,
    Changed,
    Ended,
    EndReason,
    Extended,
    Outcome,
    Phase,
    Run,
    Signal,
    Started,
    State,
    TaskState,
    Tick,
    age_of,
    ending_for,
    last_alive,
    paced,
    shown,
    step,
    task_state_for,
)

if sys.version_info < (3, 11):  # the built-in groups came with 3.11
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

SECOND = 1_000_000_000
INTERVAL = 5 * SECOND
LEASE = 120 * SECOND

phases = st.sampled_from([(Phase.RUNNING, None), (Phase.WAITING, "approval"), (Phase.WAITING, "queue")])
ends = st.builds(
    Ended,
    at=st.integers(1, 50),
    outcome=st.sampled_from(["ok", "error", None]),
    reason=st.sampled_from(["completed", "error", None]),
    started_at=st.one_of(st.none(), st.integers(1, 9)),
)
starts = st.builds(Started, at=st.integers(1, 9), lease=st.just(LEASE), resumed=st.booleans())


@st.composite
def histories(draw):
    """Return events as one process would send them: each sequence number once, any kinds."""
    told = draw(st.lists(st.tuples(st.booleans(), phases, st.integers(0, 2 * LEASE)), max_size=8))
    events = [
        Beat(seq=seq, age=age, interval=INTERVAL, lease=LEASE, phase=phase, waiting_for=what)
        if beat
        else Changed(seq=seq, phase=phase, waiting_for=what)
        for seq, (beat, (phase, what), age) in enumerate(told, start=1)
    ]
    return events + draw(st.lists(starts, max_size=2)) + draw(st.lists(ends, max_size=2))


def fold(events, run=None, now=0):
    """Return the run after all events, all seen at one moment."""
    run = run or Run()
    for event in events:
        run = step(run, event, now)
    return run


def history(run):
    """Return what of a run is history, and so may not depend on the order of arrival."""
    return (
        run.phase,
        run.waiting_for,
        run.outcome,
        run.end_reason,
        run.started_at,
        run.ended_at,
        run.resumed,
    )


@given(histories(), st.data())
def test_any_order_and_repetition_of_the_same_events_is_the_same_history(events, data):
    """Arrival order and duplicates change nothing of what a run said of itself."""
    doubled = events + data.draw(st.lists(st.sampled_from(events), max_size=4) if events else st.just([]))
    shuffled = data.draw(st.permutations(doubled))
    assert history(fold(events)) == history(fold(shuffled))


@given(histories(), ends, histories())
def test_an_end_is_final(before, end, after):
    """Nothing that arrives after an end brings the run back to life."""
    run = fold([*before, end, *after, Tick(), Extended(9)], now=5)
    assert run.phase is Phase.ENDED
    assert run.signal is Signal.NONE


@given(
    st.lists(st.one_of(starts, st.builds(Extended, st.integers(0, LEASE)), st.just(Tick()))),
    st.integers(0, LEASE),
)
def test_without_a_heartbeat_a_run_is_never_live(events, now):
    """A start alone is stale until a heartbeat comes."""
    assert fold(events, now=now).signal is not Signal.LIVE


@given(st.integers(1, 100), st.integers(LEASE, 3 * LEASE))
def test_a_replayed_heartbeat_never_revives_the_dead(seq, age):
    """A heartbeat that travelled for longer than its lease changes no signal."""
    lost = step(fold([Started(1, LEASE)]), Tick(), LEASE)
    assert lost.signal is Signal.LOST
    assert step(lost, Beat(seq, age, INTERVAL, LEASE), 2 * LEASE).signal is Signal.LOST


def test_a_repeated_heartbeat_does_not_renew_the_lease():
    """The same sequence number again is a copy, whenever it arrives."""
    beat = Beat(1, 0, INTERVAL, LEASE)
    run = step(Run(), beat, 0)
    assert step(run, beat, 100 * SECOND).lease_until == LEASE


@given(st.lists(st.integers(0, 3 * LEASE), min_size=1))
def test_a_silent_run_goes_from_live_to_stale_to_lost_and_never_back(moments):
    """Time alone only ever moves the signal towards lost."""
    order = [Signal.LIVE, Signal.STALE, Signal.LOST]
    run, seen = step(Run(), Beat(1, 0, INTERVAL, LEASE), 0), [0]
    for now in sorted(moments):
        run = step(run, Tick(), now)
        seen.append(order.index(run.signal))
        expected = Signal.LOST if now >= LEASE else Signal.STALE if now >= 3 * INTERVAL else Signal.LIVE
        assert run.signal is expected
    assert seen == sorted(seen)


@given(st.integers(0, 2 * LEASE), st.integers(0, LEASE), st.integers(0, LEASE))
def test_time_in_which_the_listener_was_away_counts_against_nobody(now, by, age):
    """Extending by the gap gives the signal that there would have been without the gap."""
    run = step(Run(), Beat(1, age // 2, INTERVAL, LEASE), 0)
    before = step(run, Tick(), min(now, LEASE // 4))
    away = step(step(before, Extended(by), now), Tick(), now + by)
    assert away.signal is step(before, Tick(), now).signal


@given(phases)
def test_a_lost_run_that_speaks_again_has_its_phase_back(told):
    """Being lost says nothing about the run itself: waiting stays waiting."""
    phase, what = told
    run = step(step(Run(), Beat(1, 0, INTERVAL, LEASE, phase, what), 0), Tick(), LEASE)
    assert run.signal is Signal.LOST
    back = step(run, Beat(2, 0, INTERVAL, LEASE, phase, what), 2 * LEASE)
    assert (back.phase, back.waiting_for, back.signal) == (phase, what, Signal.LIVE)


def test_a_late_end_turns_lost_into_ended():
    """An end that arrives after the lease is still the truth."""
    lost = step(step(Run(), Beat(1, 0, INTERVAL, LEASE), 0), Tick(), LEASE)
    view = shown([step(lost, Ended(7, "ok", "completed"), LEASE)], silence=0, idle_after=1)
    assert (view.state, view.outcome, view.end_reason) == (State.ENDED, "ok", "completed")


@given(
    st.integers(-(10**18), 10**18),
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**10)), min_size=1),
)
def test_a_wrong_clock_of_the_sender_never_matters_to_the_age(skew, sent):
    """Age is measured against the fastest message of the process, so the clocks' difference cancels out."""
    base = None
    for elapsed, delay in sorted(sent):
        base, age = age_of(base, arrival=skew + elapsed + delay, elapsed=elapsed)
        assert 0 <= age <= delay


def live(seq=1, phase=Phase.RUNNING, what=None, at=1):
    """Return a run that is heard."""
    return replace(step(Run(), Beat(seq, 0, INTERVAL, LEASE, phase, what), 0), started_at=at)


def lost(at=1):
    """Return a run that was heard once and is lost."""
    return step(live(at=at), Tick(), LEASE)


def stale(at=1):
    """Return a run that missed its heartbeats."""
    return step(live(at=at), Tick(), 3 * INTERVAL)


def ended(at, outcome="ok", reason="completed"):
    """Return a run that ended."""
    return step(Run(), Ended(at, outcome, reason), 0)


@pytest.mark.parametrize(
    ("runs", "state"),
    [
        ([], State.RUNNING),
        ([live()], State.RUNNING),
        ([live(phase=Phase.WAITING, what="approval")], State.WAITING),
        ([live(), live(phase=Phase.WAITING, what="approval")], State.WAITING),
        ([lost(), live(at=2)], State.RUNNING),
        ([stale(), lost()], State.STALE),
        ([lost(), ended(5)], State.LOST),
        ([lost(at=1), replace(ended(5), resumed=True, started_at=2)], State.ENDED),
        ([replace(lost(at=1), resumed=True), replace(ended(5), started_at=0)], State.LOST),
        ([ended(5), ended(9)], State.ENDED),
    ],
)
def test_the_shown_state_is_the_first_rule_that_applies(runs, state):
    """The five rules of a session's state, in their order."""
    assert shown(runs, silence=0, idle_after=1).state is state


def test_a_session_without_any_known_run_is_idle_after_silence_and_never_ended():
    """Nobody said that it ended, so nobody may say that it did."""
    view = shown([], silence=10**18, idle_after=1, data_outcome="error")
    assert (view.state, view.outcome, view.signal) == (State.IDLE, "error", Signal.NONE)


HOUR = 3600 * SECOND
NOON = 500_000 * HOUR  # Unix time
skews = st.integers(-30 * 24 * HOUR, 30 * 24 * HOUR)


def heard(*arrived):
    """Return when a session was last alive of which these pairs of arrival and time told came, in order."""
    paces, told = (), 0
    for arrival, at in arrived:
        paces, told = paced(paces, arrival, at), max(told, at)
    return last_alive(arrived[-1][0], told, paces)


@given(
    st.integers(0, 300 * 24 * HOUR), st.lists(st.tuples(st.integers(1, HOUR), st.floats(0, 0.4)), max_size=30)
)
def test_a_backlog_is_history_however_many_requests_bring_it(age, steps):
    """What arrives faster than it happened tells when it happened, not that anybody lives."""
    arrived = [(NOON, NOON - age)]
    for told, pace in steps:
        arrival, at = arrived[-1]
        arrived.append((arrival + int(told * pace), at + told))
    arrival, at = arrived[-1]
    assert heard(*arrived) == min(arrival, at)


@given(skews, st.lists(st.tuples(st.integers(0, 4 * 60 * SECOND), st.integers(0, 10 * SECOND)), min_size=1))
def test_whoever_goes_on_speaking_is_alive_whatever_its_clock_says(skew, gaps):
    """After a minute of its own, a clock that is hours behind, or ahead, no longer matters."""
    made, arrived = NOON, []
    for gap, delay in gaps:
        made += gap
        arrived.append((max([made + delay, *(arrival for arrival, _ in arrived)]), made + skew))
    if made - NOON - gaps[0][0] >= 60 * SECOND:
        assert arrived[-1][0] - 20 * SECOND <= heard(*arrived) <= arrived[-1][0]


@given(skews, skews, skews)
def test_a_clock_that_is_set_or_another_host_is_believed_after_a_minute(first, second, third):
    """Each clock is compared with itself alone, to within a minute."""
    arrived = [
        (NOON + (90 * part + 5 * n) * SECOND, NOON + (90 * part + 5 * n) * SECOND + skew)
        for part, skew in enumerate((first, second, third))
        for n in range(13)
    ]
    assert arrived[-1][0] - 60 * SECOND <= heard(*arrived) <= arrived[-1][0]


def test_hosts_whose_clocks_are_each_behind_by_another_time_keep_their_session_alive():
    """Eight of them, one after the other, each heard every forty seconds."""
    arrived = [(NOON + 5 * n * SECOND, NOON + 5 * n * SECOND - (1 + n % 8) * HOUR) for n in range(24)]
    assert heard(*arrived) == arrived[-1][0]


@given(
    st.integers(HOUR, 300 * 24 * HOUR), st.floats(0.5, 1.5), st.lists(st.integers(0, 19 * SECOND), max_size=3)
)
def test_a_few_requests_of_history_that_come_as_slowly_as_it_happened_show_nobody_alive(age, pace, steps):
    """A late batch that is tried again, and the next behind it, have a pace too, but a short one."""
    arrived = [(NOON, NOON - age)]
    for told in steps:
        arrival, at = arrived[-1]
        arrived.append((arrival + int(told * pace), at + told))
    assert heard(*arrived) == arrived[-1][1]


@given(skews, st.integers(0, HOUR), st.integers(1, 9))
def test_a_repetition_tells_no_life(skew, later, times):
    """The same again, however much later, does not make a session that was silent alive."""
    arrived = [(NOON + n * SECOND, NOON + n * SECOND + skew) for n in range(90)]
    again = [(NOON + HOUR + later + n, arrived[-1][1]) for n in range(times)]
    before, after = heard(*arrived), heard(*arrived, *again)
    assert after == before or skew > 0  # a clock that is ahead tells no past


@given(st.lists(st.tuples(st.integers(0, HOUR), skews), min_size=1, max_size=30))
def test_nobody_is_alive_later_than_seen(steps):
    """A clock that is ahead keeps no session running."""
    arrived = [
        (NOON + sum(gap for gap, _ in steps[: n + 1]), NOON + skew) for n, (_, skew) in enumerate(steps)
    ]
    assert heard(*arrived) <= arrived[-1][0]


def test_the_outcome_is_that_of_the_run_that_ended_last():
    """A session of several runs turned out as its last one did."""
    view = shown([ended(9, "error", "error"), ended(5)], silence=0, idle_after=1)
    assert (view.outcome, view.end_reason) == ("error", "error")


@given(
    st.lists(st.sampled_from([live(), lost(), stale(), ended(3), replace(lost(2), resumed=True)]), max_size=5)
)
def test_a_session_with_an_open_unresumed_run_is_never_shown_as_ended(runs):
    """A dead session is not running, and a lost one is not done."""
    view = shown(runs, silence=0, idle_after=1)
    if any(run.signal is Signal.LIVE for run in runs):
        assert view.state is State.RUNNING
    elif view.state is State.ENDED:
        assert all(run.phase is Phase.ENDED or run.signal is Signal.LOST for run in runs)


# --- How a run ends ----------------------------------------------------------------------------------


def caught(function):
    """Return what `function` raises."""
    try:
        function()
    except BaseException as exc:  # noqa: BLE001 (the exception itself is the value under test)
        return exc
    return None


def trio_cancelled():
    """Return trio's own Cancelled, as it leaves a cancelled scope."""
    seen = []

    async def main():
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep(1)
            except trio.Cancelled as exc:
                seen.append(exc)
                raise

    trio.run(main)
    return seen[0]


@pytest.mark.parametrize(
    ("exc", "name"),
    [
        (None, "left"),
        (GeneratorExit(), "left"),
        (ValueError("x"), "exception"),
        (asyncio.CancelledError(), "cancelled"),
        (concurrent.futures.CancelledError(), "cancelled"),
        (trio_cancelled(), "cancelled"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(), "exit_ok"),
        (SystemExit(0), "exit_ok"),
        (SystemExit(3), "exit_error"),
        (SystemExit("no such file"), "exit_error"),
        (BaseExceptionGroup("g", [KeyboardInterrupt(), asyncio.CancelledError()]), "interrupted"),
        (ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [OSError()])]), "exception"),
        (
            BaseExceptionGroup("g", [asyncio.CancelledError(), BaseExceptionGroup("h", [KeyError()])]),
            "exception",
        ),
    ],
)
def test_a_block_that_is_left_by_an_exception_ends_as_the_table_says(exc, name):
    """Each way out of a block has one reason and one outcome; a group takes its worst leaf."""
    assert ending_for(exc) == ENDINGS[name]


def test_an_ending_is_an_error_exactly_where_its_outcome_is():
    """Status and outcome never contradict each other, and each reason is reachable."""
    assert all(ending.error is (ending.outcome is Outcome.ERROR) for ending in ENDINGS.values())
    assert {ending.reason for ending in ENDINGS.values()} == set(EndReason)


@pytest.mark.parametrize(
    ("exc", "state"),
    [
        (None, TaskState.DONE),
        (ValueError(), TaskState.FAILED),
        (asyncio.CancelledError(), TaskState.CANCELLED),
        (TimeoutError(), TaskState.TIMED_OUT),
        (caught(lambda: asyncio.run(asyncio.wait_for(asyncio.sleep(1), 0))), TaskState.TIMED_OUT),
        (SystemExit(2), TaskState.FAILED),
        (ExceptionGroup("g", [TimeoutError(), ValueError()]), TaskState.FAILED),
        (BaseExceptionGroup("g", [TimeoutError(), asyncio.CancelledError()]), TaskState.TIMED_OUT),
    ],
)
def test_a_task_that_is_left_by_an_exception_says_how(exc, state):
    """A task's state follows from what left its block."""
    assert task_state_for(exc) is state
