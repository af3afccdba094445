"""What a store says that each commit added to the sums over all sessions is what the sessions add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_requests import announced, announcing, chat, gauge, log, logs, run, span, traces
from test_store_order import arrivals, gauges

from otel_sessions.backend.records import Gauge, Request, Sums, SumsChange, Used
from otel_sessions.backend.store.base import SessionQuery, Store
from otel_sessions.lifecycle import Phase

Opener = Callable[[Path], Store]


def added(sums: Sums | None) -> Counter[str]:
    """Return the numbers of one session's sums, models together."""
    found: Counter[str] = Counter()
    if sums is not None:
        found.update({name: getattr(sums, name) for name in ("errors", "model_calls", "tool_calls")})
        for used in sums.used.values():
            kinds = {"input_tokens": used.input, "output_tokens": used.output, "cached_tokens": used.cached}
            found.update({**kinds, "cost": used.cost})
    return found


def fold(total: Counter[str], changes: tuple[SumsChange, ...]) -> None:
    """Take the differences of one commit in."""
    for before, after in changes:
        total.subtract(added(before))
        total.update(added(after))


def reckoned(store: Store) -> Counter[str]:
    """Add up what the sessions show."""
    found: Counter[str] = Counter()
    for session in store.sessions(SessionQuery(limit=1000)).sessions:
        found.update({name: getattr(session, name) for name in ("errors", "model_calls", "tool_calls")})
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            found[name] += getattr(session, name) or 0
        found["cost"] += round((session.cost or 0) * 1e9)
    return found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=arrivals(), counted=gauges, reopened=st.booleans())
def test_differences_add_up_to_what_the_sessions_show(
    open_store: Opener, batches: list[list[Request]], counted: list[Gauge], reopened: bool
) -> None:
    """After every commit: copies, calls told twice, moves between sessions and restarts included."""
    total: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        for batch in batches:
            if reopened:
                store.close()
                store = open_store(Path(folder))
            fold(total, store.append(batch, gauges=counted).sums)
            assert +total == +reckoned(store)
        assert store.append([request for batch in batches for request in batch]).sums == ()
        store.close()


def only(changes: tuple[SumsChange, ...]) -> SumsChange:
    """Return the one change there is."""
    (change,) = changes
    return change


def test_tokens_are_told_by_provider_model_and_kind(store: Store) -> None:
    """By who served which model; what no model is named for is told too."""
    before, after = only(store.append([traces(chat(1, tokens=5), chat(2, tokens=7))]).sums)
    assert before is None
    assert after is not None
    assert after.used == {("", "gpt"): Used(input=12, output=12, cached=0, cost=0)}
    usage = {"gen_ai__operation__name": "chat", "gen_ai__usage__output_tokens": 2}
    nameless = span(3, gen_ai__provider__name="ACME", **usage)
    before, after = only(store.append([traces(nameless)]).sums)
    assert before is not None
    assert after is not None
    assert after.used == {**before.used, ("acme", ""): Used(input=0, output=2, cached=0, cost=0)}


def test_a_call_that_its_outer_span_tells_too_is_told_once(store: Store) -> None:
    """Whichever comes first: the inner one counts, and what the outer one added is taken back."""
    store.append([traces(chat(1, tokens=5))])
    before, after = only(store.append([traces(chat(2, tokens=4, parent=1))]).sums)
    assert before is not None
    assert after is not None
    assert before.used["", "gpt"].input == 5
    assert after.used["", "gpt"].input == 4


def test_models_beyond_the_listed_are_one(store: Store) -> None:
    """A session of a thousand models keeps sums of a few, and loses no token."""
    spans = [
        span(
            no, gen_ai__operation__name="chat", gen_ai__request__model=f"m{no}", gen_ai__usage__input_tokens=1
        )
        for no in range(1, 1_001)
    ]
    _, after = only(store.append([traces(*spans)]).sums)
    assert after is not None
    assert len(after.used) <= 21
    assert sum(used.input for used in after.used.values()) == 1_000
    assert after.used["other", "other"].input == 980


def test_an_ended_session_tells_how_it_ended_and_how_long_it_was(store: Store) -> None:
    """The state before says that it had not."""
    store.append([], [run()])
    ended = run(phase=Phase.ENDED, ended_at=9, outcome="ok")
    before, after = only(store.append([], [ended]).sums)
    assert before is not None
    assert after is not None
    assert (before.state, before.duration) == ("running", None)
    assert (after.state, after.outcome, after.end_reason) == ("ended", "ok", "completed")
    assert after.duration == 9_000_000_000


def test_what_the_senders_gave_up_is_told(store: Store) -> None:
    """Each process's own count, added up."""
    store.append([], [run()], gauges=[gauge(5, dropped=2)])
    before, after = only(store.append([], gauges=[gauge(6, process="p-2", dropped=1)]).sums)
    assert before is not None
    assert after is not None
    assert (before.dropped, after.dropped) == (2, 3)


def test_new_spans_and_logs_are_told_from_those_that_came_again(store: Store) -> None:
    """An end after its announcement is new; a copy is not, be it the better one."""
    first = store.append([announcing(announced(1)), traces(span(2)), logs(log())])
    assert (first.new_spans, first.new_logs) == (1, 2)
    again = store.append([traces(span(1), span(2), span(2, lasting=5))])
    assert (again.new_spans, again.new_logs) == (1, 0)
    assert store.append([logs(log(), log(body="other"))]).new_logs == 1
