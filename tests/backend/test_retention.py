"""The words in which a retention is written."""

from __future__ import annotations

import pytest

from otel_sessions.backend.retention import KEEP_ALL, Retention, parse_retention
from otel_sessions.backend.settings import read_settings
from otel_sessions.errors import ConfigurationError

DAY = 86_400 * 10**9


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("none", KEEP_ALL),
        ("", KEEP_ALL),
        ("30d", Retention(age=30 * DAY)),
        ("1.5h", Retention(age=5_400 * 10**9)),
        ("2w", Retention(age=14 * DAY)),
        ("10GB", Retention(size=10**10)),
        ("1 gib", Retention(size=2**30)),
        ("30d, 10gb", Retention(30 * DAY, 10**10)),
        ("500MB,90m", Retention(5_400 * 10**9, 5 * 10**8)),
    ],
)
def test_a_retention_is_an_age_a_size_or_both(text: str, means: Retention) -> None:
    """In any order and case."""
    assert parse_retention(text) == means


@pytest.mark.parametrize(
    "text", ["30", "d", "30d,40d", "1GB,2GB", "-1d", "0d", "30d,", "1e9GB", "10B", "99999999999w", "½d", "1y"]
)
def test_what_is_no_retention_is_refused_with_the_units_and_an_example(text: str) -> None:
    """By the name that it was given under; nobody's data goes by a misunderstanding."""
    with pytest.raises(
        ConfigurationError, match=r"OTEL_SESSIONS_RETENTION=.* 30d, 10GB or 30d,10GB"
    ) as refused:
        read_settings({}, {"OTEL_SESSIONS_RETENTION": text})
    for units in ("s, m, h, d or w", "MB, GB, TB, MiB, GiB or TiB"):
        assert units in str(refused.value)
    with pytest.raises(ConfigurationError, match="--retention="):
        read_settings({"retention": text}, {})
