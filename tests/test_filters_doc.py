"""docs/filters.md is true: its examples are executed, its tables compared with the code."""

import re
from pathlib import Path

import pytest

from otel_sessions.backend.filter_text import SUGAR, FilterError, parse
from otel_sessions.backend.filters import FIELDS, Filter
from otel_sessions.backend.store.base import SearchQuery, SessionQuery
from otel_sessions.backend.store.sqlite import SqliteStore

TEXT = (Path(__file__).parent.parent / "docs/filters.md").read_text()
NOW = 1_800_000_000 * 10**9


def examples(kind: str) -> list[str]:
    """Return the lines of all blocks of a kind, and for filters the conditions of the tables."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def in_tables() -> list[str]:
    """Return what the tables and the prose show as conditions."""
    return [code for code in re.findall(r"`([^`]+)`", TEXT) if re.match(r"-?[a-z.]+(:|=|!=|<|>)[^/]", code)]


@pytest.mark.parametrize("text", [*examples("filter"), *in_tables()])
def test_every_example_is_a_filter_that_the_store_takes(text, tmp_path):
    """Whoever copies one gets an answer."""
    query = parse(text)
    assert query
    store = SqliteStore(tmp_path)
    assert store.sessions(SessionQuery(filter=query.at(NOW))).sessions == ()
    store.close()


@pytest.mark.parametrize("line", examples("wrong"))
def test_every_mistake_is_answered_as_shown(line):
    """What is said is what is said to be said."""
    text, said = line.split(" | ")
    with pytest.raises(FilterError, match=re.escape(said)):
        parse(text)


@pytest.mark.parametrize("text", examples("search"))
def test_every_search_is_one(text, tmp_path):
    """Words and conditions both."""
    query = parse(text, unknown_fields_are_text=True).at(NOW)
    assert query.words
    assert query.conditions
    store = SqliteStore(tmp_path)
    page = store.search(SearchQuery(query.words, Filter(conditions=query.conditions)))
    assert (page.hits, page.next) == ((), None)
    store.close()


def test_the_table_of_fields_is_that_of_the_code():
    """Names, kinds, choices and meanings; none missing, none invented."""
    rows = re.findall(r"^\| `([a-z.]+)` \| (\w+) \| (.*) \|$", TEXT, re.MULTILINE)
    assert [name for name, _, _ in rows] == [*FIELDS, *SUGAR]
    for name, kind, about in rows:
        if name in FIELDS:
            assert kind == FIELDS[name].kind.value
            assert FIELDS[name].about in about
            assert about.startswith(", ".join(FIELDS[name].choices))
