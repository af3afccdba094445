"""The language of filters: what is read, and what is said of what can't be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sessions.backend.filter_text import LONGEST, FilterError, parse
from otel_sessions.backend.filters import FIELDS, Ago, Condition, Filter, Moment, Op

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
DAY = 1440 * MINUTE
NOVEMBER_20 = 1_795_132_800 * SECOND  # of 2026, at 0:00 UTC


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("  ", ()),
        ("plan trip", ("plan", "trip")),
        ('"Plan trip"', ("plan trip",)),
        ('"say \\"hi\\""', ('say "hi"',)),
        ("GRÜßE 旅行", ("grüsse", "旅行")),
        ("plan plan", ("plan",)),
        ("10:30 -draft https://x.de/?a=b", ("10:30", "-draft", "https://x.de/?a=b")),
        ('5" wide', ('5"', "wide")),
        ('"unclosed word', ("unclosed word",)),
        ('{"city":"Rome"}', ('{"city":"rome"}',)),
        ('"state:lost"', ("state:lost",)),
        ("c\\temp", ("c\\temp",)),
        ('""', ()),
    ],
)
def test_free_words_are_text(text: str, words: tuple[str, ...]) -> None:
    """All have to occur, in any case; quotes hold a text together."""
    assert parse(text) == Filter(words)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("state:lost", Condition("state", Op.IS, ("lost",))),
        ("STATE:Lost", Condition("state", Op.IS, ("lost",))),
        ("state:lost,stale", Condition("state", Op.IS, ("lost", "stale"))),
        ("-state=lost", Condition("state", Op.IS, ("lost",), negated=True)),
        ("state!=lost", Condition("state", Op.IS, ("lost",), negated=True)),
        ("-state!=lost", Condition("state", Op.IS, ("lost",))),
        ("service:Plan", Condition("service", Op.HAS, ("plan",))),
        ("service=Plan", Condition("service", Op.IS, ("plan",))),
        ('user:"Ann B",carl', Condition("user", Op.HAS, ("ann b", "carl"))),
        ('user:"a,b"', Condition("user", Op.HAS, ("a,b",))),
        ("user:unknown", Condition("user", Op.HAS, (None,))),
        ('user:"unknown"', Condition("user", Op.HAS, ("unknown",))),
        ("tokens>10000", Condition("tokens", Op.MORE, (10_000,))),
        ("tokens:>10k", Condition("tokens", Op.MORE, (10_000,))),
        ("tokens.in<=1.5m", Condition("tokens.in", Op.AT_MOST, (1_500_000,))),
        ("cost>=$0.05", Condition("cost", Op.AT_LEAST, (0.05,))),
        ("cost:unknown,0", Condition("cost", Op.IS, (None, 0))),
        ("duration>1h30m", Condition("duration", Op.MORE, (90 * MINUTE,))),
        ("duration<0.5s", Condition("duration", Op.LESS, (SECOND // 2,))),
        ("duration=1d2h3m4s5ms6us7ns", Condition("duration", Op.IS, (93_784_005_006_007,))),
        ("since:2h", Condition("started", Op.AT_LEAST, (Ago(120 * MINUTE),))),
        ("until:2026-11-20", Condition("started", Op.LESS, (Moment(NOVEMBER_20, NOVEMBER_20 + DAY),))),
        ("started:2026-11-20", Condition("started", Op.IS, (Moment(NOVEMBER_20, NOVEMBER_20 + DAY),))),
        ("started:2026-11", Condition("started", Op.IS, (Moment(NOVEMBER_20 - 19 * DAY, NOVEMBER_20 + 11 * DAY),))),
        (
            "started>2026-11-20T01:30+01:30",
            Condition("started", Op.MORE, (Moment(NOVEMBER_20, NOVEMBER_20 + MINUTE),)),
        ),
        (
            "ended<2026-11-20T00:00:00.000000007Z",
            Condition("ended", Op.LESS, (Moment(NOVEMBER_20 + 7, NOVEMBER_20 + 8),)),
        ),
        ("seen>1800000000000000000", Condition("seen", Op.MORE, (Moment(18 * 10**17, 18 * 10**17 + 1),))),
    ],
)  # fmt: skip
def test_conditions_are_typed(text: str, condition: Condition) -> None:
    """Names, units, times and lists become values."""
    assert parse(text) == Filter((), (condition,))


@pytest.mark.parametrize(
    ("text", "position", "word", "allowed", "said"),
    [
        ("plan tol:search", 5, "tol", "tool", "no field 'tol'"),
        ("-nope=1", 1, "nope", "state", "put it in quotes"),
        ("x state:asleep", 8, "asleep", "lost", "'asleep' is no value of state"),
        ("state:lost,asleep", 11, "asleep", "lost", "asleep"),
        ("state:", 0, "state:", "lost", "needs a value"),
        ("a service: b", 2, "service:", "a text", "needs a value"),
        ("tokens>many", 7, "many", "20k", "a number"),
        ("tokens>$5", 7, "$5", "20k", "a number"),
        ("tokens>1,2", 0, "tokens>1,2", "one value", "one value"),
        ("state>lost", 0, "state>", "=", "no order"),
        ("duration>90", 9, "90", "90s", "a duration"),
        ("duration>1h30", 9, "1h30", "90s", "a duration"),
        ("started>2026-13-01", 8, "2026-13-01", "2026-11-20", "a time"),
        ("started:2026-02-30", 8, "2026-02-30", "2026-11-20", "a time"),
        ("started:2h", 8, "2h", "started>2h", "started>2h"),
        ("since>2h", 0, "since>", ":", "takes a colon"),
        ("spans:unknown", 6, "unknown", "20k", "a number"),
        ("tokens>unknown", 7, "unknown", "20k", "a number"),
        ("旅行 😀 stat:x", 5, "stat", "state", "no field"),
        ("x" * (LONGEST + 1), LONGEST, "", str(LONGEST), "are the most"),
    ],
)
def test_what_is_no_filter_is_named_with_its_place(
    text: str, position: int, word: str, allowed: str, said: str
) -> None:
    """The position is that of the word, in code points; what would do is told."""
    with pytest.raises(FilterError, match=said.replace("$", r"\$")) as caught:
        parse(text)
    error = caught.value
    assert (error.position, error.word) == (position, word)
    assert text[position : position + len(word)] == word
    assert allowed in error.allowed


def test_a_search_takes_what_names_no_field_as_text() -> None:
    """What is searched for is pasted from logs more often than it is typed."""
    query = parse('Error: refused tool:search a=b "x"', unknown_fields_are_text=True)
    assert query == Filter(("error:", "refused", "a=b", "x"), (Condition("tool", Op.HAS, ("search",)),))
    with pytest.raises(FilterError):
        parse("state:asleep", unknown_fields_are_text=True)


def test_ago_is_reckoned_from_the_readers_now() -> None:
    """Only then can a filter be put to the test."""
    assert parse("since:2h tokens>1").at(NOVEMBER_20).conditions[0] == Condition(
        "started", Op.AT_LEAST, (Moment(NOVEMBER_20 - 120 * MINUTE, NOVEMBER_20 - 120 * MINUTE + 1),)
    )


PIECES = st.sampled_from([*'state:lost tokens>1",=-!<.k$2026hé京', "\\", "since:", "cost", "unknown"])


@given(st.lists(PIECES).map("".join) | st.text())
def test_any_text_is_a_filter_or_a_named_error(text: str) -> None:
    """Nothing else is raised, and the place is in the text."""
    error = None
    try:
        query = parse(text)
    except FilterError as exc:
        error, query = exc, Filter()
    if error is not None:
        assert text[error.position : error.position + len(error.word)] == error.word
        assert error.detail
        assert error.allowed
    assert all(condition.field in FIELDS and condition.values for condition in query.conditions)
    assert all(word == word.casefold() for word in query.words)
