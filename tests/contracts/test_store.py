"""What every store keeps, and what it makes of it: one suite over all stores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from store_requests import (
    SECOND,
    START,
    announced,
    announcing,
    chat,
    gauge,
    log,
    logs,
    rows_of,
    run,
    span,
    span_id,
    timeline,
    trace_id,
    traces,
)

from otel_sessions.backend.records import Changes, SessionDetail, SessionRecord
from otel_sessions.backend.resolve import global_key, session_id
from otel_sessions.backend.store.base import SessionQuery, Store
from otel_sessions.errors import BackendError
from otel_sessions.lifecycle import Phase
from otel_sessions.lifecycle import Signal as Heard

Opener = Callable[[Path], Store]


def only(store: Store) -> SessionRecord:
    """Return the one session there is."""
    (record,) = store.sessions(SessionQuery()).sessions
    return record


def detail(store: Store, session: str = "s-1") -> SessionDetail:
    """Return a session by the emitter's id."""
    found = store.session(session)
    assert found is not None
    return found


# --- what is kept ----------------------------------------------------------------------------------


def test_a_span_is_kept_as_it_came(store: Store) -> None:
    """Every byte of the message returns, fields that no version of the protocol knows yet included."""
    sent = span(1, name="plan", error=True, prompt="Lissabon 🌞")
    sent.MergeFromString(b"\xc2\xbb\x01\x05later")  # field 3000
    store.append([traces(sent, service="trips")])
    stored = store.span(trace_id(1), span_id(1))
    assert stored is not None
    assert stored.span is not None
    assert stored.span.SerializeToString() == sent.SerializeToString()
    assert stored.resource is not None
    assert stored.resource.attributes[0].value.string_value == "trips"
    assert stored.scope is not None
    assert (stored.scope.name, stored.schema_url) == ("tests", "https://opentelemetry.io/schemas/1.44.0")
    assert stored.session_id == session_id(global_key("s-1"))
    assert (stored.row.name, stored.row.status) == ("plan", 2)


def test_a_span_sent_as_json_is_kept_too(store: Store) -> None:
    """The encoding of a request does not change what is seen of it."""
    store.append([traces(span(1, name="plan"), json=True), logs(log(trace=1, of=1, body="hi"), json=True)])
    stored = store.span(trace_id(1), span_id(1))
    assert stored is not None
    assert stored.span == span(1, name="plan")
    assert [event.body.string_value for event in stored.events] == ["hi"]


def test_all_of_a_session_can_be_taken_out(store: Store) -> None:
    """Spans and logs of a session, from any number of requests, and of no other session."""
    store.append([traces(span(1), span(2, "s-2")), logs(log(body="one"), log("s-2"))])
    store.append([traces(span(3, parent=1)), logs(log(body="two", at=1))])
    store.append([announcing(announced(4))])
    assert [s.span.span_id for s in store.spans(only_id("s-1")) if s.span] == [span_id(1), span_id(3)]
    assert [entry.log.body.string_value for entry in store.logs(only_id("s-1"))][:2] == ["one", "two"]
    assert list(store.spans("unknown")) == []


def only_id(session: str) -> str:
    """Return our id of a global session."""
    return session_id(global_key(session))


def test_what_no_column_can_hold_is_still_kept(store: Store) -> None:
    """Times beyond the year 2262 and absurd counts neither fail a request nor spoil a sum."""
    sent = chat(1, tokens=2**62)
    sent.end_time_unix_nano = 2**64 - 1
    store.append([traces(sent, chat(2, tokens=5))])
    stored = store.span(trace_id(1), span_id(1))
    assert stored is not None
    assert stored.span == sent
    assert only(store).input_tokens == 5


def test_what_was_stored_is_there_after_a_restart(open_store: Opener, tmp_path: Path) -> None:
    """A store opened again shows the same, and goes on where it was."""
    store = open_store(tmp_path)
    store.append(
        [traces(span(1), chat(2, tokens=3, parent=1)), logs(log(trace=1))],
        [run()],
        [timeline("running", 0)],
        [gauge(2)],
    )
    store.note_process("p-1", 77)
    store.append([traces(span(3, None, trace=9))])
    before = (
        detail(store),
        rows_of(store, only_id("s-1")),
        store.totals().spans,
        store.runs(global_key("s-1")),
    )
    store.close()
    again = open_store(tmp_path)
    assert (
        detail(again),
        rows_of(again, only_id("s-1")),
        again.totals().spans,
        again.runs(global_key("s-1")),
    ) == before
    assert again.process_bases() == {"p-1": 77}
    again.append([traces(chat(4, tokens=4, parent=1))], gauges=[gauge(3, seq=2)])
    assert (detail(again).session.input_tokens, detail(again).session.spans) == (7, 3)


def test_a_closed_store_says_so(store: Store) -> None:
    """Closing twice is harmless; writing afterwards is refused."""
    store.close()
    store.close()
    with pytest.raises(BackendError, match="closed"):
        store.append([traces(span(1))])


def test_absurd_numbers_of_a_run_are_cut_not_refused(store: Store) -> None:
    """A sender with a broken clock must not keep others from being stored."""
    absurd = run(at=2**70, ended_at=2**71, phase=Phase.ENDED, lease=2**80)
    store.append([traces(span(1))], [absurd], [timeline("ended", 2**70)], [gauge(2**70)])
    store.append([], [replace(absurd, interval=2**66)])
    record = only(store)
    assert (record.state, record.started_at, record.ended_at) == ("ended", START, 2**63 - 1)
    assert record.missing_spans == 2**63 - 1
    assert detail(store).timeline[0].at == 2**63 - 1


# --- once, and the better copy ---------------------------------------------------------------------------


def test_the_same_request_again_changes_nothing(store: Store) -> None:
    """A client that lost the ack sends all of it again."""
    requests = [traces(span(1), chat(2, tokens=3)), logs(log(trace=1))]
    store.append(requests, [run()], [timeline("running", 0)], [gauge(2)])
    before = (only(store), store.totals())
    assert store.append(requests, [run()], [timeline("running", 0)], [gauge(2)]) == Changes()
    after = (only(store), store.totals())
    assert after[0] == before[0]
    assert (after[1].spans, after[1].logs, after[1].chunks) == (2, 1, 2)


@pytest.mark.parametrize("ended_first", [False, True])
def test_the_end_of_a_span_beats_its_announcement(store: Store, ended_first: bool) -> None:
    """In either order one row is there, with the end, and the session counts one span."""
    requests = [announcing(announced(1, name="plan")), traces(span(1, name="plan", lasting=3))]
    for request in reversed(requests) if ended_first else requests:
        store.append([request])
    (row,) = rows_of(store, only_id("s-1"))
    assert (row.end, row.flags) == (START + 3 * SECOND, 0)
    assert (only(store).spans, detail(store).open_spans) == (1, ())
    stored = store.span(trace_id(1), span_id(1))
    assert stored is not None
    assert stored.span is not None
    assert [event.event_name for event in stored.events] == ["otel_sessions.span.start"]


def test_an_announced_span_is_open_until_it_ends(store: Store) -> None:
    """It is listed as open and has no message of its own."""
    store.append([announcing(announced(1, name="plan"))])
    (opened,) = detail(store).open_spans
    assert (opened.name, opened.span_id, opened.start) == ("plan", span_id(1), START)
    stored = store.span(trace_id(1), span_id(1))
    assert stored is not None
    assert (stored.span, stored.row.end) == (None, None)
    assert len(stored.events) == 1


def test_a_body_nobody_points_at_is_dropped(store: Store) -> None:
    """A better copy of its only span makes a request's body useless."""
    store.append([traces(span(1, lasting=1))])
    store.append([traces(span(1, lasting=2))])
    assert (store.totals().chunks, store.totals().spans) == (1, 1)
    stored = store.span(trace_id(1), span_id(1))
    assert stored is not None
    assert stored.span == span(1, lasting=2)


def test_a_copy_with_another_session_takes_the_span_along(store: Store) -> None:
    """The kept copy decides; a session that lost its only span is gone."""
    store.append([traces(span(1, "s-1", lasting=1))])
    changes = store.append([traces(span(1, "s-2", lasting=2))])
    assert only(store).session_id == "s-2"
    assert changes.gone == (only_id("s-1"),)


# --- whose it is ------------------------------------------------------------------------------------------


def test_spans_without_an_id_follow_their_trace(store: Store) -> None:
    """First the trace is a session of its own; a late id takes spans and logs along and leaves nothing."""
    first = store.append([traces(span(2, None, parent=1)), logs(log(None, trace=1, of=2))])
    (own,) = first.sessions
    assert (own.session_id, own.spans) == (None, 1)
    changes = store.append([traces(span(1, "s-1"))])
    assert changes.gone == (own.id,)
    assert {row.span_id for row in changes.rows[only_id("s-1")]} == {span_id(1), span_id(2)}
    assert (only(store).session_id, only(store).spans) == ("s-1", 2)
    assert len(list(store.logs(only_id("s-1")))) == 1


def test_a_session_that_stays_but_loses_rows_is_named(store: Store) -> None:
    """Whoever draws it must draw it afresh."""
    store.append([traces(span(3, "s-1", parent=1, at=2), span(4, None, parent=3, at=3))])
    changes = store.append([traces(span(1, "s-2"))])
    assert (changes.gone, changes.shrunk) == ((), (only_id("s-1"),))
    assert [len(store.columns(only_id(name)).span_id) for name in ("s-1", "s-2")] == [1, 2]


def test_two_ids_in_one_trace_are_two_sessions(store: Store) -> None:
    """Each span keeps its own, and both sessions list the trace."""
    store.append([traces(span(1, "s-1"), span(2, "s-2", parent=1))])
    assert detail(store, "s-1").traces == detail(store, "s-2").traces == (trace_id(1),)


def test_a_log_that_nothing_tells_of_belongs_to_no_session(store: Store) -> None:
    """It is stored and counted, and shown nowhere."""
    store.append([logs(log(None))])
    assert (store.totals().logs, store.totals().sessions) == (1, 0)


@pytest.mark.parametrize("told_late", [False, True])
def test_one_service_id_under_two_keys_is_one_session(store: Store, told_late: bool) -> None:
    """Gemini CLI has session.id on logs and gen_ai.conversation.id on spans, with one value."""
    requests = [
        logs(log("g-1"), service="gemini"),
        traces(span(1, None, gen_ai__conversation__id="g-1"), service="gemini"),
    ]
    for request in reversed(requests) if told_late else requests:
        changes = store.append([request])
    record = only(store)
    assert (record.session_id, record.spans, record.id) == ("g-1", 1, only_id("g-1"))
    assert len(changes.gone) == int(told_late)


def test_the_same_id_of_two_services_is_two_sessions(store: Store) -> None:
    """Thread ids like "1" are common; asking by such an id gives neither."""
    for no, service in enumerate(("planner", "booker"), 1):
        store.append([traces(span(no, None, trace=no, gen_ai__conversation__id="1"), service=service)])
    assert store.totals().sessions == 2
    assert store.session("1") is None


# --- the roll-up -----------------------------------------------------------------------------------------------


def test_a_roll_up_sums_what_spans_tell(store: Store) -> None:
    """Usage is summed from model calls; agents that repeat it are not."""
    store.append(
        [
            traces(
                span(1, name="invoke_agent ada", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="ada",
                     gen_ai__usage__input_tokens=30, user__id="ann"),
                chat(2, tokens=10, parent=1, at=1),
                chat(3, tokens=20, parent=1, at=2, error=True),
                span(4, name="execute_tool look", gen_ai__operation__name="execute_tool", parent=1, at=3),
            )
        ]
    )  # fmt: skip
    record = only(store)
    assert (record.spans, record.errors, record.model_calls, record.tool_calls) == (4, 1, 2, 1)
    assert (record.input_tokens, record.output_tokens, record.cached_tokens, record.cost) == (
        30,
        30,
        None,
        None,
    )
    assert (record.agents, record.models, record.user_id) == (("ada",), ("gpt",), "ann")
    assert (record.name, record.service, record.started_at) == ("invoke_agent ada", "planner", START)
    assert (record.inferred, record.ended_at, record.missing_spans) == (True, None, None)


@pytest.mark.parametrize("outer_first", [False, True])
def test_one_call_told_by_two_spans_counts_once(store: Store, outer_first: bool) -> None:
    """LlamaIndex tells `acomplete` around `complete`, both with the usage of the one call."""
    requests = [traces(chat(2, tokens=10, parent=1)), traces(chat(1, tokens=10))]
    for request in reversed(requests) if outer_first else requests:
        store.append([request])
    assert (only(store).model_calls, only(store).input_tokens) == (1, 10)


def test_a_call_that_knows_no_tokens_leaves_them_to_the_one_around_it(store: Store) -> None:
    """The pair counts once, with the tokens that are known."""
    store.append([traces(chat(1, tokens=10), chat(2, parent=1))])
    assert (only(store).model_calls, only(store).input_tokens) == (1, 10)


def test_logs_tell_usage_only_where_spans_do_not(store: Store) -> None:
    """Claude Code sends each call as a span and as a log."""
    scope = "com.anthropic.claude_code.events"
    told = log(
        trace=1,
        name="",
        event__name="api_request",
        input_tokens=5,
        output_tokens=6,
        cost_usd=0.25,
        model="opus",
    )
    store.append([logs(told, service="claude-code", scope=scope)])
    assert (only(store).input_tokens, only(store).cost, only(store).models) == (5, 0.25, ("opus",))
    store.append([traces(chat(1, tokens=7))])
    assert (only(store).input_tokens, only(store).cost) == (7, 0.25)


def test_the_list_names_a_bounded_number_of_agents(store: Store) -> None:
    """The first twenty by their first start, whatever the order of arrival."""
    spans = [
        span(no, gen_ai__agent__name=f"a{no:02}", gen_ai__operation__name="invoke_agent", at=no)
        for no in range(1, 31)
    ]
    for sent in reversed(spans):
        store.append([traces(sent)])
    assert only(store).agents == tuple(f"a{no:02}" for no in range(1, 21))


def test_counts_of_the_sender_tell_what_is_missing(store: Store) -> None:
    """Ended by its count, stored here: the difference, and why, as far as it is known.

    While the run is heard, what it counted may still be on its way.
    """
    store.append([traces(span(1), span(2, otel_sessions__late=True))], [run()], gauges=[gauge(4, dropped=1)])
    assert (only(store).missing_spans, detail(store).losses) == (1, {"dropped": 1})
    store.append([], [run(phase=Phase.ENDED, ended_at=9)])
    assert only(store).missing_spans == 3
    assert detail(store).losses == {"dropped": 1, "not_received": 2}
    store.append([traces(span(3), span(4), span(5))], gauges=[gauge(2, seq=0)])
    assert (only(store).missing_spans, detail(store).losses) == (0, {})


def test_counts_of_a_sender_only_grow(store: Store) -> None:
    """A root span bears no number of its own: its counts hold against those of an earlier heartbeat."""
    store.append([traces(span(1))], [run(phase=Phase.ENDED, ended_at=9)], gauges=[gauge(2, seq=9)])
    store.append([], gauges=[gauge(10, seq=0)])
    store.append([], gauges=[gauge(3, seq=10)])
    assert only(store).missing_spans == 9


def test_parents_that_are_named_and_absent_are_missing(store: Store) -> None:
    """Without a sender's counts nothing else tells; that all are there proves nothing."""
    store.append([traces(span(2, parent=1), span(3, parent=1))])
    assert (only(store).missing_spans, detail(store).losses) == (1, {"missing_parents": 1})
    store.append([traces(span(1))])
    assert (only(store).missing_spans, detail(store).losses) == (None, {})


# --- runs ---------------------------------------------------------------------------------------------------------


def test_a_run_gives_the_session_its_state(store: Store) -> None:
    """Running, waiting for something, ended with an outcome; the first name, the latest title."""
    store.append([], [run(session_name="plan trip", title="Lisbon")])
    assert (only(store).state, only(store).signal, only(store).inferred) == ("running", "live", False)
    store.append([], [run(phase=Phase.WAITING)])
    assert (only(store).state, only(store).waiting_for) == ("waiting", "approval")
    ended = run(phase=Phase.ENDED, ended_at=9, outcome="ok", session_name="plan trip", title="Lisbon")
    store.append(
        [], [ended, run(root=2, phase=Phase.ENDED, at=10, ended_at=12, outcome="error", title="Porto")]
    )
    record = only(store)
    assert (record.state, record.outcome, record.end_reason) == ("ended", "error", "completed")
    assert (record.name, record.title, record.runs_count) == ("plan trip", "Porto", 2)
    assert (record.started_at, record.ended_at, record.session_id) == (START, START + 12 * SECOND, "s-1")


def test_a_child_process_keeps_no_run_alive(store: Store) -> None:
    """Its signal is stored beside the run, and the session ends with the run."""
    store.append([], [run(phase=Phase.ENDED, ended_at=9), run(child=True, process="p-2")])
    assert (only(store).state, only(store).runs_count) == ("ended", 1)
    assert [(r.process, r.child) for r in store.runs(global_key("s-1"))] == [("p-1", False), ("p-2", True)]


def test_runs_return_as_they_were_stored(store: Store) -> None:
    """The live view starts from them after a restart."""
    lost = run("s-2", heard=Heard.LOST, previous_id="s-0", session_name="n", title="t")
    store.append([], [lost, run("s-3", phase=Phase.ENDED, ended_at=1)])
    assert store.runs(global_key("s-2")) == [lost]
    assert store.open_runs() == [lost]
    assert store.runs(global_key("unknown")) == []


def test_bases_of_processes_with_an_open_run_are_kept(store: Store) -> None:
    """The smallest counts, durable with the next append."""
    store.note_process("p-1", 70)
    store.note_process("p-1", 80)
    store.note_process("p-9", 5)
    store.append([], [run()])
    store.note_process("p-1", 60)
    store.append([])
    assert store.process_bases() == {"p-1": 60}


def test_a_timeline_is_in_order_and_without_repeats(store: Store) -> None:
    """Entries come in any order, and the same entry is one entry."""
    store.append([], [run()], [timeline("ended", 9, detail="completed"), timeline("running", 0)])
    store.append([], [], [timeline("running", 0), timeline("waiting", 4, detail="approval")])
    assert [(entry.state, entry.detail) for entry in detail(store).timeline] == [
        ("running", None),
        ("waiting", "approval"),
        ("ended", "completed"),
    ]


def test_tasks_are_folded_from_their_spans(store: Store) -> None:
    """The task's own span knows its state and times; spans inside tell of a task without one."""
    inside = {"otel_sessions__task__id": "t-1", "otel_sessions__task__name": "ask"}
    store.append(
        [
            traces(
                span(1, name="task ask", otel_sessions__task__state="done", lasting=5, **inside),
                span(2, parent=1, at=1, **inside),
                span(3, otel_sessions__task__id="t-2", otel_sessions__task__parent__id="t-1", at=2),
            )
        ]
    )
    first, second = detail(store).tasks
    assert (first.id, first.name, first.state, first.spans, first.span_id) == (
        "t-1",
        "ask",
        "done",
        2,
        span_id(1),
    )
    assert (first.started_at, first.ended_at) == (START, START + 5 * SECOND)
    assert (second.id, second.parent_id, second.state, second.span_id) == ("t-2", "t-1", None, None)
    assert only(store).tasks_count == 2


# --- commits -------------------------------------------------------------------------------------------------------


def test_changes_tell_what_a_commit_changed(store: Store) -> None:
    """Sessions with their new roll-ups, and the new rows by session."""
    changes = store.append([traces(span(1, "s-1"), span(2, "s-2"))])
    assert {record.session_id for record in changes.sessions} == {"s-1", "s-2"}
    assert [row.span_id for row in changes.rows[only_id("s-2")]] == [span_id(2)]
    assert set(changes.rows) == {only_id("s-1"), only_id("s-2")}
    again = store.append([traces(span(3, "s-1"))])
    assert [record.session_id for record in again.sessions] == ["s-1"]
    assert again.sessions[0] == detail(store).session


def test_rows_after_a_revision_are_the_changed_ones(store: Store) -> None:
    """What a reader missed, and nothing else."""
    (before,) = store.append([traces(span(1), span(2))]).sessions
    store.append([traces(span(3)), announcing(announced(4))])
    changed = rows_of(store, only_id("s-1"), before.revision)
    assert {row.span_id for row in changed} == {span_id(3), span_id(4)}
    assert rows_of(store, only_id("s-1"), max(row.revision for row in changed)) == []


def test_readers_see_whole_commits(store: Store) -> None:
    """Each commit brings ten spans; no reader in any thread ever counts another number."""
    stop, seen, wrong = threading.Event(), set[int](), list[int]()

    def read() -> None:
        while not stop.is_set():
            count = len(store.columns(only_id("s-1")).span_id)
            seen.add(count)
            if count % 10:
                wrong.append(count)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for batch in range(40):
        store.append([traces(*(span(batch * 10 + no + 1) for no in range(10)))])
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(seen) > 1


def test_a_session_counts_itself_the_same_as_one_commit_or_many(
    store: Store, open_store: Opener, tmp_path: Path
) -> None:
    """Batches are the ingest's business and leave no trace."""
    requests = [traces(chat(no, tokens=no, parent=no // 2, at=no)) for no in range(1, 20)]
    store.append(requests)
    other = open_store(tmp_path / "other")
    for request in requests:
        other.append([request])
    assert replace(only(store), revision=0) == replace(only(other), revision=0)
