"""What the live view makes of events and of silence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from doubles import (
    ROOT,
    SECOND,
    WALL,
    HandClock,
    MemoryStore,
    beat,
    end,
    request,
    run_event,
    session_record,
    start,
)
from hypothesis import given
from hypothesis import strategies as st

from otel_sessions import semconv
from otel_sessions.backend.draft import Arrival
from otel_sessions.backend.live import Live, StreamEvent
from otel_sessions.backend.records import Changes, RunEvent, RunRecord, SpanRow
from otel_sessions.lifecycle import Phase, Signal

KEY = ("session:s-1", ROOT, "")


class World:
    """A live view over a store in memory, driven by hand the way ingest drives it."""

    def __init__(self) -> None:
        self.time = HandClock()
        self.store = MemoryStore()
        self.live = self._new()

    def _new(self) -> Live:
        live = Live("boot", idle_after=300 * SECOND)
        live.load(
            self.store.open_runs(),
            self.store.process_bases(),
            [],
            now=self.time.now,
            wall=self.time.wall,
        )
        return live

    def take(self, *events: RunEvent, away: float = 0.0, flush: bool = False) -> None:
        arrivals = [Arrival(request(*events, received_at=self.time.wall), self.time.now)] if events else []
        moment = self.live.moment(self.time.now, self.time.wall, away=round(away * SECOND), flush=flush)
        draft = self.live.fold(arrivals, moment, self.store.runs)
        for process, base in self.live.notes(draft).items():
            self.store.note_process(process, base)
        changes = Changes()
        if not draft.is_empty:
            changes = self.store.append([], draft.runs, draft.timeline, draft.gauges)
        self.live.commit(draft, changes)

    def pass_time(self, seconds: float) -> None:
        """Let time pass with a tick every quarter of a second, as ingest has it."""
        for _ in range(round(seconds * 4)):
            self.time.sleep(0.25)
            if self.live.due(self.time.now):
                self.take()

    def restart(self, after: float = 0.0) -> None:
        self.take(flush=True)
        self.time.sleep(after)
        self.time.now += 5_000 * SECOND  # another process, another monotonic clock
        self.time.wall_ahead -= 5_000 * SECOND
        self.live = self._new()

    @property
    def run(self) -> RunRecord:
        return self.store.kept[KEY]

    def states(self) -> list[str]:
        return [entry.state for entry in sorted(self.store.timeline, key=lambda entry: entry.at)]


def alive(world: World, seconds: float, seq: int = 2, elapsed: float = 0.0) -> tuple[int, float]:
    """Let the run send a heartbeat every five seconds for so long; return its next seq and elapsed."""
    for _ in range(round(seconds / 5)):
        world.take(beat(seq, elapsed, at=world.time.wall))
        world.pass_time(5)
        seq, elapsed = seq + 1, elapsed + 5
    return seq, elapsed


def test_a_run_whose_heartbeats_stop_becomes_stale_and_then_lost() -> None:
    """Three missed heartbeats make it stale, the end of its lease lost; the timeline says when."""
    world = World()
    world.take(start(lease=40 * SECOND), beat(2, 0, lease=40 * SECOND))
    world.pass_time(14)
    assert world.run.run.signal is Signal.LIVE
    world.pass_time(2)
    assert world.run.run.signal is Signal.STALE
    world.pass_time(25)
    assert world.run.run.signal is Signal.LOST
    assert world.states() == ["running", "stale", "lost"]
    stale, lost = (entry.at for entry in world.store.timeline[1:])
    assert WALL + 15 * SECOND <= stale < WALL + 16 * SECOND
    assert WALL + 40 * SECOND <= lost < WALL + 41 * SECOND


def test_a_run_that_goes_on_sending_stays_live() -> None:
    """Ten minutes of heartbeats leave nothing in the timeline but the start."""
    world = World()
    world.take(start())
    alive(world, 600)
    assert world.states() == ["running"]
    assert world.live.stats().watched_runs == 1


def test_a_lost_run_that_speaks_again_has_its_phase_back_and_the_gap_stays() -> None:
    """A machine that was cut off for longer than its lease comes back as what it is."""
    world = World()
    world.take(start(), beat(2, 0, phase="waiting", waiting_for="approval"))
    world.pass_time(130)
    assert world.run.run.signal is Signal.LOST
    world.take(beat(3, 130, phase="waiting", waiting_for="approval", at=world.time.wall))
    assert (world.run.run.signal, world.run.run.phase) == (Signal.LIVE, Phase.WAITING)
    assert world.states() == ["running", "stale", "lost", "revived"]


def test_a_late_end_turns_lost_into_ended() -> None:
    """What a run says of its own end beats what the listener believed."""
    world = World()
    world.take(start(), beat(2, 0))
    world.pass_time(130)
    world.take(end(3, 140, at=WALL + 10 * SECOND))
    assert world.run.run.phase is Phase.ENDED
    assert world.run.run.end_reason == "completed"
    assert world.live.stats().watched_runs == 0


def test_replayed_heartbeats_never_revive_the_dead() -> None:
    """The same request again, an hour later, changes nothing: its age tells."""
    world = World()
    told = [start(), beat(2, 0), beat(3, 5)]
    for event in told:
        world.take(event)
        world.time.sleep(5)
    world.pass_time(200)
    before = list(world.store.timeline)
    for event in [*told, beat(4, 10)]:  # the last one spooled, and never seen before
        world.take(event)
    assert world.run.run.signal is Signal.LOST
    assert world.store.timeline == before


def test_replayed_heartbeats_never_revive_the_dead_after_a_restart() -> None:
    """The base of a process is kept durably, so a restart forgets nobody's age."""
    world = World()
    world.take(start(), beat(2, 0))
    world.pass_time(200)
    world.restart(after=30)
    world.take(beat(3, 5))
    assert world.run.run.signal is Signal.LOST


def test_a_start_without_any_heartbeat_is_stale_and_lost_after_one_lease() -> None:
    """Whoever only announces a session is believed for one lease, and never shown as live."""
    world = World()
    world.take(start(lease=20 * SECOND))
    assert world.run.run.signal is Signal.STALE
    world.pass_time(21)
    assert world.run.run.signal is Signal.LOST
    assert world.states() == ["running", "lost"]


def test_a_run_known_only_by_a_state_event_is_not_believed_for_ever() -> None:
    """Where start and heartbeats were lost on the way, one lease is all it gets."""
    world = World()
    world.take(
        run_event(semconv.EVENT_SESSION_STATE, seq=4, elapsed=0, phase="waiting", waiting_for="approval")
    )
    assert (world.run.run.phase, world.run.run.signal) == (Phase.WAITING, Signal.STALE)
    world.pass_time(121)
    assert world.run.run.signal is Signal.LOST


def test_a_restart_counts_against_nobody() -> None:
    """A backend that was down for longer than every lease loses no run by that."""
    world = World()
    world.take(start(), beat(2, 0))
    world.restart(after=600)
    world.take()
    assert world.run.run.signal is Signal.LIVE
    world.take(beat(3, 600, at=world.time.wall))
    world.pass_time(14)
    assert world.run.run.signal is Signal.LIVE
    world.pass_time(120)
    assert world.run.run.signal is Signal.LOST


def test_a_gap_in_its_own_ticks_counts_against_nobody() -> None:
    """A suspended backend extends the leases by as much; what was lost before stays lost."""
    world = World()
    world.take(start(), beat(2, 0))
    world.time.sleep(3600)
    world.take(away=3600)
    assert world.run.run.signal is Signal.LIVE
    world.pass_time(119)
    assert world.run.run.signal is Signal.STALE
    world.pass_time(2)
    assert world.run.run.signal is Signal.LOST
    world.take(away=3600)
    assert world.run.run.signal is Signal.LOST


def test_a_child_process_never_keeps_its_parents_run_alive() -> None:
    """A child has a record of its own, with its own signal and open spans."""
    world = World()
    world.take(start(), beat(2, 0))
    for n in range(30):
        world.take(
            beat(n + 1, n * 5.0, process="c-1", child=True, open_spans=(b"childspn",), at=world.time.wall)
        )
        world.pass_time(5)
    world.take(flush=True)
    child = world.store.kept["session:s-1", ROOT, "c-1"]
    assert (child.child, child.run.signal, child.open_spans) == (True, Signal.LIVE, (b"childspn",))
    assert world.run.run.signal is Signal.LOST
    assert world.states() == ["running", "stale", "lost"]


def test_a_childs_end_does_not_end_the_run() -> None:
    """Only the process that opened a run ends it."""
    world = World()
    world.take(start(), beat(2, 0), beat(1, 0, process="c-1", child=True))
    world.take(end(2, 1, process="c-1", child=True))
    assert world.run.run.phase is Phase.RUNNING
    assert world.states() == ["running"]


def test_heartbeats_alone_are_not_stored_each() -> None:
    """A thousand runs over a minute cost a commit every ten seconds, not one for each heartbeat."""
    world = World()
    roots = [n.to_bytes(8, "big") for n in range(1, 1001)]
    world.take(*(start(root_id=root, process=root.hex()) for root in roots))
    stored = len(world.store.appended)
    for tick in range(12):
        world.take(*(beat(tick + 2, tick * 5, root_id=root, process=root.hex()) for root in roots))
        world.pass_time(5)
    assert len(world.store.appended) - stored <= 7
    heard = world.store.kept["session:s-1", roots[0], ""].last_heard_at
    assert heard is not None
    assert world.time.wall - heard <= 20 * SECOND


def test_what_was_taken_note_of_is_stored_when_the_backend_stops() -> None:
    """The last flush has the newest sign of life, open spans and counts."""
    world = World()
    world.take(start(), beat(2, 0, started=1, ended=0, dropped=0))
    world.time.sleep(5)
    world.take(beat(3, 5, open_spans=(b"openspan",), started=4, ended=2, dropped=0))
    world.take(flush=True)
    assert world.run.open_spans == (b"openspan",)
    assert world.run.last_heard_at == world.time.wall
    gauge = world.store.gauges["session:s-1", "p-1"]
    assert (gauge.seq, gauge.started, gauge.ended) == (3, 4, 2)


def test_a_draft_that_is_not_committed_changes_nothing() -> None:
    """When the store refuses a batch, the view is as if it had never come."""
    world = World()
    world.take(start(), beat(2, 0))
    arrivals = [Arrival(request(end(3, 1)), world.time.now)]
    moment = world.live.moment(world.time.now, world.time.wall)
    first = world.live.fold(arrivals, moment, world.store.runs)
    assert world.live.stats().watched_runs == 1
    assert world.live.fold(arrivals, moment, world.store.runs) == first


def test_the_end_of_a_run_that_was_lost_before_a_restart_is_folded_into_its_history() -> None:
    """Runs that are no longer watched are read from the store when they speak."""
    world = World()
    world.take(start(title="Lisbon"), beat(2, 0))
    world.pass_time(130)
    world.restart()
    assert world.live.stats().watched_runs == 0
    world.take(end(3, 131))
    assert (world.run.title, world.run.run.phase) == ("Lisbon", Phase.ENDED)
    assert world.run.run.started_at == WALL


def test_counts_that_no_process_can_have_are_cut() -> None:
    """One sender's nonsense must not outgrow the sums that everybody's batch is stored with."""
    world = World()
    world.take(start(), beat(2, 0, started=2**63 - 1, ended=2**63 - 1, dropped=2**63 - 1))
    assert world.store.gauges["session:s-1", "p-1"].ended == 10**12


def test_the_counts_on_a_root_span_hold_against_those_of_the_last_heartbeat() -> None:
    """A root bears no number of its own; counts only grow, so the greater ones are the newer."""
    world = World()
    world.take(start(), beat(2, 0, started=1, ended=0, dropped=0))
    world.take(
        run_event(
            "root", outcome="ok", end_reason="completed", started=3, ended=3, dropped=0, started_at=WALL
        )
    )
    assert world.store.gauges["session:s-1", "p-1"].ended == 3


HISTORY = (
    start(1, 0, at=WALL, title="Lisbon"),
    beat(2, 0, at=WALL),
    run_event(
        semconv.EVENT_SESSION_STATE,
        seq=3,
        elapsed=SECOND,
        at=WALL + SECOND,
        phase="waiting",
        waiting_for="approval",
    ),
    beat(4, 2, at=WALL + 2 * SECOND, phase="waiting", waiting_for="approval"),
    run_event(semconv.EVENT_SESSION_STATE, seq=5, elapsed=3 * SECOND, at=WALL + 3 * SECOND, phase="running"),
    end(6, 4, at=WALL + 4 * SECOND),
    run_event("root", at=WALL + 4 * SECOND, outcome="ok", end_reason="completed", started_at=WALL),
)


@given(st.lists(st.sampled_from(HISTORY), max_size=10), st.permutations(HISTORY), st.data())
def test_any_order_and_repetition_of_the_same_events_leaves_the_same_history(
    repeated: list[RunEvent], order: list[RunEvent], data: st.DataObject
) -> None:
    """The run's state and its timeline depend on what was told, not on when or how often it came."""
    shuffled = data.draw(st.permutations([*order, *repeated]))
    plain, mixed = World(), World()
    for event in HISTORY:
        plain.take(event)
    for event in shuffled:
        mixed.take(event)
    assert mixed.run.run == plain.run.run
    assert mixed.run.title == plain.run.title
    assert {*mixed.store.timeline} == {*plain.store.timeline}


# --- what is told of it -------------------------------------------------------------------------------


async def collect(live: Live, after: str | None, session: str | None = None) -> list[StreamEvent]:
    """Close the view and return all that a reader still gets."""
    events = live.subscribe(after, session)
    live.close()
    return [event async for event in events]


def publish(live: Live, changes: Changes) -> None:
    """Publish changes that a batch without events made."""
    moment = live.moment(0, 0)
    live.commit(live.fold([], moment, lambda _: []), changes)


def row(n: int) -> SpanRow:
    """Build a row that is told apart by its number."""
    fields = dict.fromkeys(SpanRow.__dataclass_fields__)
    return SpanRow(**{**fields, "span_id": n.to_bytes(8, "big"), "revision": n})  # type: ignore[arg-type]


def names(events: Iterable[StreamEvent]) -> list[str]:
    """Return the names of events."""
    return [event.name for event in events]


@given(st.integers(0, 9))
def test_a_stream_resumed_anywhere_is_the_unbroken_stream(at: int) -> None:
    """Whoever comes back with the id of any event gets exactly what followed it."""

    async def scenario() -> None:
        live = Live("boot", idle_after=SECOND)
        first = live.last_event_id()
        ids = [first]
        for n in range(9):
            publish(live, Changes(sessions=(session_record(f"s{n}"),)))
            ids.append(live.last_event_id())
        resumed = live.subscribe(ids[at], None)
        whole = await collect(live, first)
        assert [event async for event in resumed] == whole[at:]
        assert [event.id for event in whole] == ids[1:]

    asyncio.run(scenario())


def test_a_reader_with_an_id_of_another_backend_is_told_to_load_afresh() -> None:
    """After a restart old ids mean nothing, and garbage never does."""

    async def scenario() -> None:
        for stale in ("other-3", "boot-999", "boot-", "boot-" + "9" * 5000, "garbage", ""):
            live = Live("boot", idle_after=SECOND)
            publish(live, Changes(sessions=(session_record(),)))
            events = await collect(live, stale)
            assert names(events) == ["reset"], stale
            assert events[0].id == live.last_event_id()

    asyncio.run(scenario())


def test_a_reader_that_the_ring_has_passed_by_is_told_to_load_afresh() -> None:
    """A slow reader costs no memory: it loses its place and goes on from the newest."""

    async def scenario() -> None:
        live = Live("boot", idle_after=SECOND)
        slow = live.subscribe(None, None)
        publish(live, Changes(sessions=(session_record("first"),)))
        assert (await slow.__anext__()).name == "session"
        for n in range(6_000):
            publish(live, Changes(sessions=(session_record(f"s{n}"),)))
        assert (await slow.__anext__()).name == "reset"
        publish(live, Changes(sessions=(session_record("last"),)))
        assert (await slow.__anext__()).data == session_record("last")
        assert live.stats().readers == 1

    asyncio.run(scenario())


def test_rows_go_to_the_readers_of_their_session_only() -> None:
    """Whoever looks at one session gets its rows; all others would drown in them."""

    async def scenario() -> None:
        live = Live("boot", idle_after=SECOND)
        since = live.last_event_id()
        publish(
            live,
            Changes(
                sessions=(session_record("a"), session_record("b")),
                rows={"a": (row(1),), "b": (row(2),)},
                gone=("c",),
            ),
        )
        everything = live.subscribe(since, None)
        only_a = live.subscribe(since, "a")
        live.close()
        assert names([event async for event in everything]) == ["gone", "session", "session"]
        with_rows = [event async for event in only_a]
        assert names(with_rows) == ["gone", "session", "session", "rows"]
        assert with_rows[-1].data == ("a", (row(1),))

    asyncio.run(scenario())


def test_a_reader_that_waits_is_woken() -> None:
    """An event reaches a reader who came before it."""

    async def scenario() -> None:
        live = Live("boot", idle_after=SECOND)
        events = live.subscribe(None, None)
        waiting = asyncio.ensure_future(events.__anext__())
        await asyncio.sleep(0)
        publish(live, Changes(gone=("x",)))
        assert (await asyncio.wait_for(waiting, 5)).data == "x"

    asyncio.run(scenario())


@pytest.mark.parametrize("at_start", [True, False])
def test_a_session_without_a_run_is_told_to_be_idle_once(at_start: bool) -> None:
    """Nobody announces the end of a plain trace, so silence is what there is to tell."""

    async def scenario() -> None:
        live = Live("boot", idle_after=300 * SECOND)
        live.load([], {}, [session_record("quiet")] if at_start else [], now=0, wall=WALL)
        if not at_start:
            publish(live, Changes(sessions=(session_record("quiet"),)))
        since = live.last_event_id()
        live.tell_idle(WALL + 299 * SECOND)
        live.tell_idle(WALL + 300 * SECOND)
        live.tell_idle(WALL + 301 * SECOND)
        events = await collect(live, since)
        assert [event.data for event in events] == [session_record("quiet", state="idle")]

    asyncio.run(scenario())


def test_a_session_that_spoke_again_or_got_a_run_is_not_told_to_be_idle() -> None:
    """Silence is counted from the last word, and a run speaks for its session."""

    async def scenario() -> None:
        live = Live("boot", idle_after=300 * SECOND)
        publish(
            live,
            Changes(sessions=(session_record("talks"), session_record("runs"), session_record("merged"))),
        )
        publish(
            live,
            Changes(
                sessions=(
                    session_record("talks", last_seen_at=WALL + 200 * SECOND),
                    session_record("runs", runs_count=1),
                ),
                gone=("merged",),
            ),
        )
        since = live.last_event_id()
        live.tell_idle(WALL + 400 * SECOND)
        assert await collect(live, since) == []

    asyncio.run(scenario())


def test_a_run_of_a_removed_session_is_forgotten_and_is_new_when_it_speaks_again() -> None:
    """Lost runs stay watched, so that they may come back; with their session they go."""
    world = World()
    world.take(start(1), beat(2, 0))
    world.pass_time(130)
    assert world.store.kept[KEY].run.signal is Signal.LOST
    began = world.store.kept.pop(KEY).run.started_at
    world.live.forget({KEY[0]}, Changes(gone=("s-1",)))
    assert world.live.stats().watched_runs == 0
    world.take(flush=True)
    assert KEY not in world.store.kept  # nothing of it was still waiting to be stored
    world.take(beat(3, 130, at=world.time.wall))
    again = world.store.kept[KEY].run
    assert (again.signal, again.started_at == began) == (Signal.LIVE, False)
