"""Why spans are missing: one table of reasons, told by agents and heard by the backend."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from otel_sessions.backend.store._losses import losses_by_reason
from otel_sessions.losses import OTHER, REASONS, heard, merged, told

LOSSES = st.dictionaries(st.sampled_from(sorted(REASONS)), st.integers(1, 10**9), max_size=len(REASONS))
SDK = Path(__file__).parent.parent / "otel_sessions/sdk"


@given(LOSSES)
def test_what_is_told_is_heard(losses: dict[str, int]):
    """Whatever was lost, and however much."""
    assert heard(told(losses)) == losses


@given(st.text())
def test_anything_can_be_heard(text: str):
    """What comes over the wire may be anything; every count is a count."""
    assert all(number > 0 and (why in REASONS or why == OTHER) for why, number in heard(text).items())


@given(st.lists(LOSSES, min_size=1))
def test_tellings_may_come_in_any_order_and_again(tellings: list[dict[str, int]]):
    """Counts only grow: the greatest of each reason is the newest."""
    forwards = backwards = ""
    for losses in tellings:
        forwards = merged(forwards, told(losses))
    for losses in (*reversed(tellings), *tellings):
        backwards = merged(backwards, told(losses))
    assert heard(forwards) == heard(backwards)
    assert heard(forwards) == {
        why: max(losses.get(why, 0) for losses in tellings) for losses in tellings for why in losses
    }


def test_a_reason_of_another_version_is_heard_as_other():
    """Its number counts; its word is not ours to repeat."""
    assert heard("queue full=2,eaten by a goat=3,stolen=1") == {"queue full": 2, OTHER: 4}


def test_every_reason_that_the_sdk_counts_is_in_the_table():
    """Nothing is lost for a reason that a reader can't look up, and none is listed that nobody counts."""
    counted = set()
    for source in SDK.glob("*.py"):
        text = source.read_text()
        counted |= set(re.findall(r'(?:_lose|_drop)\([^"\n]*"([a-z ]+)"', text))
        counted |= set(re.findall(r'_lose\(batch, "([a-z ]+)" if way is None else "unsendable"', text))
        counted |= set(re.findall(r'"unsendable" if [\w.]+ else "([a-z ]+)"', text))
    assert counted | {"unsendable"} == set(REASONS)


@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(0, 10**6), LOSSES.map(told))), st.booleans())
def test_reasons_sum_up_to_what_is_missing(missing: int, gauges: list[tuple[int, str]], lost: bool):
    """Over any number of processes, whatever they claim: nothing is missing twice, or for no reason."""
    assert sum(losses_by_reason(missing, gauges, lost=lost).values()) == missing


def test_what_nobody_gave_up_was_not_received_or_died_with_its_process():
    """The senders' own reasons come first; an older sender gives none."""
    gauges = [(3, "queue full=2,rejected=1"), (1, "")]
    expected = {"dropped": 1, "queue_full": 2, "rejected": 1}
    assert losses_by_reason(6, gauges, lost=False) == {**expected, "not_received": 2}
    assert losses_by_reason(6, gauges, lost=True) == {**expected, "process_died": 2}
    assert losses_by_reason(2, [], lost=False) == {"missing_parents": 2}
    assert losses_by_reason(0, gauges, lost=False) == {}
