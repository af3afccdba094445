"""What a store shows of real telemetry is what the person who recorded it knows to be true.

Each expectation of a `recording.json` is held against the API's shapes, in any order of requests and with
each sent twice. What nobody can know from the telemetry is listed in UNTOLD, with the reason: there the
answer has to be "unknown", not a guess.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from recorded import decoded, every_recording, expected_of
from store_oracle import reckon

from otel_sessions.backend.api.shapes import session_json
from otel_sessions.backend.records import Request, SessionRecord
from otel_sessions.backend.store.base import SessionQuery, Store
from otel_sessions.backend.transcript import transcript

Shown = dict[str, Any]
"""S of the API, and the session's transcript under "items"."""

_NOT_RECORDED: Final = "content is not recorded, and UNSET is what cancelled tools have too"
UNTOLD: Final[dict[tuple[str, int, str], str]] = {
    ("agentscope-2", 3, "tool_calls"): "the tool waits for a person's word: it was asked for, and never ran",
    ("codex-sigint", 0, "end_state"): "killed before its spans left; its logs just stop",
    ("crewai-openinference", 0, "tokens"): "never sent",
    ("google-adk", 0, "tools"): _NOT_RECORDED,
    ("google-adk", 2, "end_state"): "UNSET everywhere; a model that reports no usage looks the same",
    ("ms-agent-framework", 0, "tools"): _NOT_RECORDED,
    ("ms-agent-framework", 2, "end_state"): "UNSET everywhere; a model that reports no usage looks the same",
    ("raw-otel-sdk-grpc", 0, "tools"): _NOT_RECORDED,
}

_OUTCOMES: Final = {"completed": (None, "ok"), "error": ("error",), "cancelled": ("cancelled",)}


def shown_by(store: Store) -> list[Shown]:
    """Return all sessions as the API shows them, earliest first."""
    records = store.sessions(SessionQuery(sort="started_at", limit=500)).sessions
    return [
        {**session_json(one, idle_before=0), "items": transcript(store.spans(one.id), store.logs(one.id))}
        for one in records
    ]


def matched(
    expected: Sequence[dict[str, Any]], sessions: list[Shown]
) -> Iterator[tuple[dict[str, Any], list[Shown]]]:
    """Find what is shown of each session; one whose id was never sent is as many traces as it has turns."""
    nameless = (one for one in sessions if one["session_id"] is None)
    for session in expected:
        if session["id_in_telemetry"] is None:
            yield session, [next(nameless) for _ in range(session["turns"])]
        else:
            [one] = [one for one in sessions if one["session_id"] == session["id"]]
            yield session, [one]


def total(of: list[Shown], name: str) -> int | float | None:
    """Sum what is known."""
    known = [one[name] for one in of if one[name] is not None]
    return sum(known) if known else None


def tokens_of(tokens: dict[str, Any]) -> tuple[int | None, int | None, int | None]:
    """Return input, output and cached tokens as the conventions count them; what is 0 was never reported."""
    note = tokens.get("note", "")
    cached = tokens.get("cache_read", 0)
    asked = tokens["input"] + (cached + tokens["cache_creation"] if "excludes cache" in note else 0)
    answered = tokens["output"] + (tokens["reasoning"] if "not in output" in note else 0)
    return asked or None, answered or None, cached or None


def tools_of(of: list[Shown]) -> list[tuple[str, bool | None]]:
    """Return the calls of tools with their success; in a trace of its own a call may be told as history."""
    found: list[tuple[str, bool | None]] = []
    told: set[str | None] = set()
    for one in of:
        ids = {item["call_id"] for item in one["items"] if item["kind"] == "tool_call"} - {None}
        calls = [i for i in one["items"] if i["kind"] == "tool_call" and i["call_id"] not in told]
        results = [i for i in one["items"] if i["kind"] == "tool_result"]
        for call in calls:
            own = [r for r in results if r["call_id"] == call["call_id"] and r["at"] >= call["at"]]
            found.append((call["name"], own[0]["ok"] if own else None))
            if own:
                results.remove(own[0])
        told |= ids
    return found


def differences(expected: dict[str, Any], of: list[Shown]) -> dict[str, tuple[Any, Any]]:
    """Return what is not as expected: name -> what should be, what is."""
    cost = total(of, "cost")
    asked = [(call["name"], call["ok"]) for call in expected["tool_calls"]]
    claims = {
        "turns": (expected["turns"], total(of, "turns")),
        "llm_calls": (expected["llm_calls"], total(of, "model_calls")),
        "tool_calls": (len(asked), total(of, "tool_calls")),
        "tools": (asked, tools_of(of)),
        "tokens": (
            tokens_of(expected["tokens"]),
            tuple(total(of, f"{name}_tokens") for name in ("input", "output", "cached")),
        ),
        "models": (expected["models"], sorted({model for one in of for model in one["models"]})),
        "cost": (expected.get("cost_usd"), cost and round(cost, 9)) if "cost_usd" in expected else (0, 0),
    }
    wrong = {name: claim for name, claim in claims.items() if claim[0] != claim[1]}
    state, last = expected["end_state"], of[-1]
    if state.startswith("waiting"):
        is_right = (last["waiting_for"], last["phase"], last["outcome"]) == ("approval", "waiting", None)
    else:
        is_right = last["outcome"] in _OUTCOMES[state.split()[0]]
    if not is_right:
        wrong["end_state"] = state, (last["outcome"], last["waiting_for"])
    elif last["outcome"] == "error" and not last["error"]:
        wrong["error"] = state, last["error"]
    return wrong


def orders(requests: list[Request]) -> Iterator[list[list[Request]]]:
    """Yield batches: as they came, backwards, all at once twice, and seeded shuffles with each sent twice."""
    yield [[one] for one in requests]
    yield [[one] for one in requests[::-1]]
    yield [requests * 2]
    for seed in range(6):
        shuffled = requests * 2
        random.Random(seed).shuffle(shuffled)  # noqa: S311 - a test wants the same disorder again
        yield [[one] for one in shuffled]


def filled(open_store: Callable[[Path], Store], folder: Path, batches: list[list[Request]]) -> Store:
    """Store batches; each arrives a second after the one before."""
    store = open_store(folder)
    for at, batch in enumerate(batches, 1):
        store.append([replace(one, received_at=at) for one in batch])
    return store


def recount_of(record: SessionRecord, counted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return where a roll-up row differs from a recount: name -> what it says, what it should."""
    named = {name: value for name, value in counted.items() if hasattr(record, name)}
    named["cost"] = named["cost"] and round(named["cost"], 9)  # a sum of floats
    del named["last_seen_at"]  # of another delivery
    return {
        name: (getattr(record, name), value)
        for name, value in named.items()
        if getattr(record, name) != value
    }


@every_recording
def test_a_recorded_session_is_shown_as_it_was(
    folder: Path, open_store: Callable[[Path], Store], tmp_path: Path
) -> None:
    """Session, turns, calls, tools, tokens, cost, models, end: all that its emitter told, and nothing else."""
    expected = expected_of(folder)
    shown = shown_by(filled(open_store, tmp_path, [[one] for one in decoded(folder)]))
    seen: list[str] = []
    for index, (session, of) in enumerate(matched(expected["sessions"], shown)):
        untold = {name for (recording, no, name) in UNTOLD if (recording, no) == (folder.name, index)}
        wrong = differences(session, of)
        assert wrong.keys() - untold == set(), (session["id"], wrong)
        assert untold <= wrong.keys(), f"told after all: {untold - wrong.keys()}"
        for name in untold - {"tools"}:
            assert wrong[name][1] in ((None, None), (None, None, None), 0), "unknown is null, never a guess"
        seen += [one["id"] for one in of]
    assert len(seen) == len(set(seen))
    for one in shown:
        if one["id"] not in seen:  # traces of Codex' start and end: nothing in them names the thread
            assert folder.name.startswith("codex")
            assert one["session_id"] is None
            assert (one["turns"], one["model_calls"], one["tool_calls"], one["input_tokens"]) == (
                None,
                0,
                0,
                None,
            )


@every_recording
def test_a_recording_shows_the_same_in_any_order_and_sent_twice(
    folder: Path, open_store: Callable[[Path], Store], tmp_path: Path
) -> None:
    """And what is shown is what a recount of all that was sent gives."""
    requests = decoded(folder)
    expected = reckon(requests)
    first: list[Shown] | None = None
    for no, batches in enumerate(orders(requests)):
        store = filled(open_store, tmp_path / str(no), batches)
        records = store.sessions(SessionQuery(limit=500)).sessions
        assert {record.id for record in records} == expected.keys()
        for record in records:
            assert recount_of(record, expected[record.id]) == {}, (no, record.session_id)
        shown = [
            {
                name: value
                for name, value in one.items()
                if name not in ("revision", "last_seen_at", "last_alive_at")
            }
            for one in shown_by(store)
        ]
        store.close()
        if first is None:
            first = shown
        for one, other in zip(first, shown, strict=True):
            assert one == other, f"order {no}"


def test_every_untold_thing_has_its_reason() -> None:
    """No excuse without words, none for what can't be checked."""
    assert all(len(reason) > len("never") for reason in UNTOLD.values())
    assert {name for _, _, name in UNTOLD} <= {"end_state", "tokens", "tools", "tool_calls"}


def test_a_wrong_figure_would_be_noticed() -> None:
    """Each claim fails where what is shown differs from it."""
    expected = {
        "turns": 1, "llm_calls": 1, "tool_calls": [{"name": "ls", "ok": True}], "models": ["m"],
        "tokens": {"input": 10, "output": 5, "cache_read": 2}, "end_state": "error (x)", "cost_usd": 0.5,
    }  # fmt: skip
    item = {"kind": "tool_call", "name": "ls", "call_id": "1", "at": "1", "ok": None}
    right: Shown = {
        "turns": 1, "model_calls": 1, "tool_calls": 1, "models": ["m"], "cost": 0.5, "error": "x",
        "input_tokens": 10, "output_tokens": 5, "cached_tokens": 2, "outcome": "error", "waiting_for": None,
        "items": [item, item | {"kind": "tool_result", "ok": True}],
    }  # fmt: skip
    assert differences(expected, [right]) == {}
    for name, value in {"turns": 2, "model_calls": 0, "tool_calls": 3, "models": [], "cost": None, "error": None,
                        "input_tokens": None, "outcome": None, "items": [item]}.items():  # fmt: skip
        assert differences(expected, [{**right, name: value}]), name
    waiting = {**expected, "end_state": "waiting for human"}
    assert differences(waiting, [{**right, "phase": "running"}]).keys() == {"end_state"}


pytestmark = pytest.mark.timeout(300)
