"""Patterns that would slow down everybody end the start; by a clock of ours, so that no test depends on a machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from otel_sessions.backend.redact_own import patterns_with
from otel_sessions.backend.redact_pace import MOST_TIMES, check_pace
from otel_sessions.backend.redact_patterns import DEFAULTS
from otel_sessions.errors import ConfigurationError

MS = 1_000_000
SLOW = 4 * MS * MOST_TIMES + 1
OWN = patterns_with(["fast=FAST", "slow=SLOW"])


def clock(took: Sequence[int]) -> Callable[[], int]:
    """Return a clock on which the samples take so long, one after the other."""
    readings = iter([reading for one in took for reading in (0, one)])
    return lambda: next(readings)


def test_ours_alone_are_not_tried() -> None:
    """A start without patterns of a user costs nothing."""
    check_pace(DEFAULTS, clock([]))
    check_pace(patterns_with(["jwt="]), clock([]))


def test_patterns_that_keep_the_pace_are_tried_once_together() -> None:
    """However slow the machine is: ours are the measure, and no step of a clock is taken for a pattern."""
    check_pace(OWN, clock([4 * MS, SLOW - 1]))
    check_pace(OWN, clock([0, 16 * MS]))


def test_a_pattern_that_is_too_slow_is_named() -> None:
    """Not the others."""
    with pytest.raises(ConfigurationError, match=r"slow=SLOW makes the search .* 20 times slower; begin"):
        check_pace(OWN, clock([4 * MS, SLOW, 4 * MS, SLOW]))


def test_patterns_that_are_too_slow_together_are_refused_too() -> None:
    """None of them is to blame."""
    with pytest.raises(ConfigurationError, match="together; give fewer"):
        check_pace(OWN, clock([4 * MS, SLOW, 4 * MS, 4 * MS]))
