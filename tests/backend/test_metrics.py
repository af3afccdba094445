"""`/metrics`: bounded, true after a restart and after late knowledge, and what its table says."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import threading
from pathlib import Path

import pytest
import telemetry
from aiohttp import ClientSession
from api_client import Reader
from backend_process import BackendProcess
from hypothesis import given
from hypothesis import strategies as st
from otlp_requests import PROTOBUF, LifeCycle, logs, new_span_id, span, traces
from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from otel_sessions.backend.counts import MODELS, Distribution, Growing, Labels, SessionCounts
from otel_sessions.backend.metrics import METRICS
from otel_sessions.backend.records import Request, Sums, SumsChange, Used
from otel_sessions.backend.store.sqlite import SqliteStore

DOCUMENTED = Path(__file__).parents[2] / "docs" / "metrics.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0, text/plain; q=0.5"
CHAT = {"gen_ai__operation__name": "chat"}


# --- reading --------------------------------------------------------------------------------------------


def scraped(backend: BackendProcess, accept: str = "", token: str = "") -> str:
    """Return what a scrape gets."""
    headers = {"Accept": accept} if accept else {}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    status, _, body = backend.exchange("GET", "/metrics", headers=headers)
    assert status == 200
    return body.decode()


def samples(text: str) -> dict[str, float]:
    """Return the values by name and labels, in the order of their names."""
    return {
        sample.name
        + "".join(f",{name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in families(text)
        for sample in family.samples
    }


def send(backend: BackendProcess, path: str, body: bytes, headers: dict[str, str] = PROTOBUF) -> int:
    """Send one request; return the status of the answer."""
    status, _, _ = backend.exchange("POST", path, body, headers)
    return status


# --- the exposition ---------------------------------------------------------------------------------------


def test_every_metric_is_shown_as_it_is_declared(backend: BackendProcess) -> None:
    """Names, types, meanings and labels, from the first scrape on, in both formats."""
    send(backend, "/v1/traces", traces([span("s", gen_ai__usage__cost=0.5, **_usage("gpt", 7, cached=3))]))
    text, open_text = scraped(backend), scraped(backend, OPENMETRICS)
    assert open_text.endswith("# EOF\n")
    for found in (families(text), open_families(open_text)):
        ours = {family.name: family for family in found if family.name.startswith("otel_sessions_")}
        assert set(ours) == {metric.name.removesuffix("_total") for metric in METRICS}
        for metric in METRICS:
            family = ours[metric.name.removesuffix("_total")]
            assert (family.type, family.documentation) == (metric.kind, metric.meaning)
            assert family.samples, metric.name
            assert _labels(family) == set(metric.labels)


def _labels(family: Family) -> set[str]:
    return {label for sample in family.samples for label in sample.labels} - {"le"}


def test_the_documentation_lists_what_there_is() -> None:
    """Name, type, labels and meaning, in the same order, and nothing else."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", DOCUMENTED.read_text(), re.MULTILINE)
    declared = [
        (metric.name, metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning)
        for metric in METRICS
    ]
    assert [tuple(cell.strip() for cell in row[:3]) for row in rows] == [row[:3] for row in declared]
    for (*_, documented), (name, *_, meaning) in zip(rows, declared, strict=True):
        assert documented.startswith(meaning), name


def test_any_accept_header_gets_an_answer(backend: BackendProcess) -> None:
    """What nobody can make sense of is answered as text."""
    for accept in ("*/*", "text/plain;version=x.y", "text/plain;escaping=;version=1e9", ";;,", "image/png"):
        assert "otel_sessions_build_info" in scraped(backend, accept)


def test_with_a_token_only_who_shows_it_scrapes(start_backend) -> None:
    """As for the API; and who was turned away is counted."""
    backend = start_backend("--token", "very-secret-token")
    assert backend.exchange("GET", "/metrics")[0] == 401
    assert send(backend, "/v1/traces", b"") == 401
    values = samples(scraped(backend, token="very-secret-token"))
    assert values["otel_sessions_requests_total,result=unauthenticated,signal=traces,transport=http"] == 1
    assert values["otel_sessions_requests_total,result=stored,signal=traces,transport=http"] == 0


def test_no_metric_names_a_session_or_anything_else_that_strangers_chose(backend: BackendProcess) -> None:
    """Ids, users, names of spans, sessions, services, tools: none is a label."""
    life = LifeCycle("private-of-session")
    send(
        backend,
        "/v1/logs",
        logs([*life.start("private-of-name"), life.end("private-of-outcome", "private-of-reason")]),
    )
    told = {
        "user__id": "private-of-user",
        "gen_ai__tool__name": "private-of-tool",
        "gen_ai__agent__name": "private-of-a",
    }
    tool = span("private-of-session", "private-of-span", gen_ai__operation__name="execute_tool", **told)
    send(backend, "/v1/traces", traces([tool], service="private-of-service"))
    text = scraped(backend)
    assert "private-of-" not in text
    assert samples(text)["otel_sessions_sessions_ended_total,end_reason=other,outcome=other"] == 1


def test_a_stream_of_model_names_makes_no_stream_of_series(backend: BackendProcess) -> None:
    """Of 10,000 names, odd ones among them, a hundred are shown; no token is lost."""
    odd = ["", "x" * 5_000, 'quote"d\\', "line\nbreak", "\x00", "\u202e", "🦊", " "]
    names = [*odd, *(f"model-{number}" for number in range(10_000))]
    for begin in range(0, len(names), 1_000):
        calls = [
            span(f"s-{begin + no}", **_usage(name, 3)) for no, name in enumerate(names[begin : begin + 1_000])
        ]
        assert send(backend, "/v1/traces", traces(calls)) == 200
    found = {family.name: family for family in families(scraped(backend))}["otel_sessions_tokens"]
    inputs = {one.labels["model"]: one.value for one in found.samples if one.labels["direction"] == "input"}
    assert len(inputs) <= MODELS + 2
    assert sum(inputs.values()) == 3 * len(names)
    assert inputs["other"] >= 3 * (10_000 - MODELS)
    assert all(len(name) <= 100 and name.isprintable() for name in inputs)


def test_a_scrape_is_no_longer_with_more_sessions(backend: BackendProcess) -> None:
    """Two thousand sessions add no line."""
    send(backend, "/v1/traces", traces([span("first", **_usage("gpt", 1))]))
    before = scraped(backend)
    send(backend, "/v1/traces", traces([span(f"s-{no}", **_usage("gpt", 1)) for no in range(2_000)]))
    after = scraped(backend)
    assert samples(after)["otel_sessions_sessions,state=running"] == 2_001
    assert list(samples(after)) == list(samples(before))


def _usage(model: str, tokens: int, cached: int = 0) -> dict[str, object]:
    used = {"gen_ai__usage__input_tokens": tokens, "gen_ai__usage__output_tokens": tokens}
    if cached:
        used["gen_ai__usage__cache_read__input_tokens"] = cached
    return {**CHAT, "gen_ai__request__model": model, "gen_ai__provider__name": "OpenAI", **used}


# --- what the numbers say -----------------------------------------------------------------------------------


def test_what_is_stored_survives_a_restart_and_what_is_counted_begins_anew(start_backend) -> None:
    """Gauges tell of the store, counters of this process."""
    backend = start_backend()
    life = LifeCycle("s-ended")
    send(backend, "/v1/logs", logs([*life.start(), life.end()]))
    orphan = span("s-orphan", parent=new_span_id(), **_usage("gpt", 7))
    send(backend, "/v1/traces", traces([orphan, span("s-orphan", error=True)]))
    before = samples(scraped(backend))
    assert before["otel_sessions_sessions_ended_total,end_reason=completed,outcome=ok"] == 1
    assert before["otel_sessions_session_duration_seconds_count"] == 1
    assert before["otel_sessions_tokens_total,direction=input,model=gpt,provider=openai"] == 7
    assert before["otel_sessions_span_errors_total"] == 1
    backend.stop()
    backend.start()
    after = samples(scraped(backend))
    stored = (
        *(f"otel_sessions_sessions,state={state}" for state in ("running", "ended", "lost")),
        *("otel_sessions_sessions_incomplete", "otel_sessions_spans_missing", "otel_sessions_store_spans"),
        "otel_sessions_store_logs",
    )
    assert {name: after[name] for name in stored} == {name: before[name] for name in stored}
    assert after["otel_sessions_spans_missing"] == after["otel_sessions_sessions_incomplete"] == 1
    assert after["otel_sessions_sessions_ended_total,end_reason=completed,outcome=ok"] == 0
    assert after["otel_sessions_span_errors_total"] == 0
    send(backend, "/v1/logs", logs([life.end()]))  # the same end once more is no second end
    send(backend, "/v1/traces", traces([orphan]))
    again = samples(scraped(backend))
    assert again["otel_sessions_sessions_ended_total,end_reason=completed,outcome=ok"] == 0
    assert "otel_sessions_tokens_total,direction=input,model=gpt,provider=openai" not in again
    assert again["otel_sessions_spans_duplicate_total"] == 1


def test_what_came_is_told_from_what_came_again(backend: BackendProcess) -> None:
    """The same request twice is two requests, each span once stored and once a duplicate."""
    body = traces([span("s"), span("s")])
    for _ in range(2):
        assert send(backend, "/v1/traces", body) == 200
    values = samples(scraped(backend))
    assert values["otel_sessions_spans_stored_total"] == 2
    assert values["otel_sessions_spans_duplicate_total"] == 2
    assert values["otel_sessions_requests_total,result=stored,signal=traces,transport=http"] == 2
    assert values["otel_sessions_commit_requests_sum"] == 2
    assert (
        values["otel_sessions_commit_duration_seconds_count"] == values["otel_sessions_commit_requests_count"]
    )


def test_what_was_refused_is_counted_by_its_reason(backend: BackendProcess) -> None:
    """A request that can't be read, one of a strange type, and one with a span that has no id."""
    bad = span("s")
    bad.span_id = b""
    assert send(backend, "/v1/traces", b"\xff\xff") == 400
    assert send(backend, "/v1/logs", b"x", {"Content-Type": "text/html"}) == 415
    assert send(backend, "/v1/traces", traces([bad, span("s")])) == 200
    values = samples(scraped(backend))
    by = "otel_sessions_requests_total,result={},signal={},transport=http"
    assert values[by.format("invalid", "traces")] == 1
    assert values[by.format("media_type", "logs")] == 1
    assert values[by.format("partial", "traces")] == 1
    assert values["otel_sessions_rejected_items_total,signal=traces"] == 1


def test_agents_losses_are_counted_and_what_is_missing_is_shown(backend: BackendProcess) -> None:
    """What heartbeats say was given up; a repeated heartbeat adds nothing."""
    life = LifeCycle("s")
    beats = [life.beat(SPANS_ENDED=9, SPANS_DROPPED=4), life.beat(SPANS_ENDED=12, SPANS_DROPPED=6)]
    send(backend, "/v1/logs", logs([*life.start(), beats[0], life.waiting("approval")]))
    assert samples(scraped(backend))["otel_sessions_spans_dropped_total"] == 4
    send(backend, "/v1/logs", logs([*beats, life.waiting("money")]))
    values = samples(scraped(backend))
    assert values["otel_sessions_spans_dropped_total"] == 6
    assert values["otel_sessions_spans_missing"] == 6
    assert values["otel_sessions_sessions,state=waiting"] == 1


def test_who_reads_the_stream_is_counted(backend: BackendProcess) -> None:
    """While it reads, and no longer."""

    async def claim() -> None:
        async with ClientSession() as client:
            async with Reader(client, backend.url).stream():
                await _until(lambda: _readers(backend) == 1)
            await _until(lambda: _readers_after_news(backend) == 0)

    asyncio.run(claim())


async def _until(true) -> None:
    for _ in range(200):
        if await asyncio.to_thread(true):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came true")


def _readers(backend: BackendProcess) -> float:
    return samples(scraped(backend))["otel_sessions_stream_readers"]


def _readers_after_news(backend: BackendProcess) -> float:
    """Tell the readers something first: who has gone is noticed then."""
    send(backend, "/v1/traces", traces([span("s")]))
    return _readers(backend)


def test_scrapes_at_once_do_not_disturb_each_other(backend: BackendProcess) -> None:
    """Nothing is held from one to the other."""
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(scraped(backend))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tuple(samples(text)) for text in texts}) == 1


# --- counting -------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-50, 100)))
def test_a_growing_sum_never_falls_and_is_never_below_the_truth(amounts: list[int]) -> None:
    """It is the greatest that the sum has been."""
    growing, shown, total = Growing(), [0], [0]
    for amount in amounts:
        growing.add(amount)
        shown.append(growing.shown)
        total.append(total[-1] + amount)
    assert shown == sorted(shown)
    assert shown[-1] == max(total)


@given(st.lists(st.floats(0, 20)), st.lists(st.integers(1, 15), min_size=1, unique=True))
def test_a_distribution_counts_each_value_in_the_first_bucket_that_holds_it(
    values: list[float], bounds: list[int]
) -> None:
    """Each once, and beyond all bounds too."""
    spread = Distribution(sorted(bounds))
    for value in values:
        spread.observe(value)
    for number, bound in enumerate(spread.bounds, 1):
        assert sum(spread.counts[:number]) == sum(value <= bound for value in values)
    assert sum(spread.counts) == len(values)


@given(st.lists(st.tuples(st.text(max_size=3), st.text()), max_size=40))
def test_labels_are_few_and_always_the_same(values: list[tuple[str, str]]) -> None:
    """Whatever comes, values that were taken once stay what they were."""
    labels = Labels(5)
    first = {value: labels.shown(value) for value in values}
    assert len(set(first.values()) - {("other", "other")}) <= 5
    for value, shown in first.items():
        if shown != ("other", "other"):
            assert shown == (value[0] or "unknown", value[1] or "unknown")
            assert labels.shown(value) == shown


def sums(state: str = "running", tokens: int = 0, **more: object) -> Sums:
    """Make the sums of a session that used one model."""
    values = {"outcome": None, "end_reason": None, "duration": None}
    numbers = dict.fromkeys(("errors", "model_calls", "tool_calls", "dropped"), 0)
    return Sums(
        **{**values, **numbers, "state": state, "used": {("openai", "gpt"): Used(tokens, 0, 0, 0)}, **more}
    )


@pytest.mark.parametrize("order", [1, -1])
def test_what_moves_from_session_to_session_is_counted_once(order: int) -> None:
    """In whatever order one commit tells of the two."""
    counts = SessionCounts()
    counts.note([SumsChange(None, sums(tokens=5))])
    counts.note([SumsChange(sums(tokens=5), None), SumsChange(None, sums(tokens=6))][::order])
    assert counts.sums["tokens", "openai", "gpt", "input"].shown == 6


def test_an_end_is_counted_once_however_much_is_learned_of_it_later() -> None:
    """A session that is resumed and ends again has ended twice; one that is found lost was lost once."""
    counts = SessionCounts()
    ended = sums("ended", outcome="ok", end_reason="completed", duration=3_000_000_000)
    counts.note([SumsChange(None, ended)])
    counts.note([SumsChange(ended, sums("ended", 9, outcome="ok", end_reason="completed", duration=4))])
    assert counts.ended["ok", "completed"] == 1
    assert counts.durations.sum == 3
    counts.note(
        [SumsChange(ended, sums()), SumsChange(sums(), sums("lost")), SumsChange(sums("lost"), ended)]
    )
    assert (counts.ended["ok", "completed"], counts.lost) == (2, 1)


def test_what_an_older_version_stored_is_not_counted_as_new(tmp_path: Path) -> None:
    """It left sessions without a tally; that is made up for before the first difference."""

    def call(number: int) -> Request:
        usage = {"gen_ai.usage.input_tokens": 5, "gen_ai.operation.name": "chat", "session.id": "s"}
        return telemetry.decoded(telemetry.traces([telemetry.span(number, attributes=usage)]))

    store = SqliteStore(tmp_path)
    store.append([call(1)])
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db")) as conn:
        conn.execute("UPDATE sessions SET tally = ''")
        conn.commit()
    store = SqliteStore(tmp_path)
    counts = SessionCounts()
    counts.note(store.append([call(2)]).sums)
    store.close()
    assert counts.sums["tokens", "unknown", "unknown", "input"].shown == 5
    assert counts.sums["model_calls",].shown == 1
