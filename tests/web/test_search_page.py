"""The search page: hits as they are found, how far it came, what it says when there is nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from canned import CannedBackend
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Open = Callable[..., Page]


def a_hit(no: int, **fields: Any) -> dict[str, Any]:
    """Return a hit of span number `no`."""
    hit = {
        "session": "s",
        "session_name": "plan trip",
        "trace_id": "a" * 32,
        "span_id": f"{no:016x}",
        "name": f"chat {no}",
        "start": str(time.time_ns()),
        "snippet": "…to Lisbon, 你好 and Lisbon",
        "marks": [[4, 10], [20, 26]],
        "field": "attributes.gen_ai.output.messages",
    }
    return hit | fields


def test_first_hits_are_shown_while_the_search_goes_on(canned: CannedBackend, open_page: Open) -> None:
    """With progress, and a button that stops it; the rest comes below."""
    canned.hits = [a_hit(no) for no in range(1, 5)]
    canned.holds_after = 2
    page = open_page(canned, "/search?q=lisbon")
    expect(page.locator(".hit")).to_have_count(2)
    expect(page.locator(".progress")).to_contain_text("2 hits · 50 % searched")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    canned.let_go()
    expect(page.locator(".hit")).to_have_count(4)
    expect(page.locator(".progress")).to_contain_text("4 hits · everything searched")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_a_search_can_be_stopped_and_what_it_found_stays(canned: CannedBackend, open_page: Open) -> None:
    """Nobody has to wait for the end."""
    canned.hits = [a_hit(no) for no in range(1, 5)]
    canned.holds_after = 1
    page = open_page(canned, "/search?q=lisbon")
    expect(page.locator(".hit")).to_have_count(1)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    expect(page.locator(".hit")).to_have_count(1)


def test_matches_are_marked_and_their_place_is_named(canned: CannedBackend, open_page: Open) -> None:
    """By code points, so that a match behind an emoji is marked right; a name is marked in the title."""
    canned.hits = [
        a_hit(1, snippet="🌞🌞 to Lisbon", marks=[[6, 12]]),
        a_hit(2, name="find lisbon", field="name", snippet="find lisbon", marks=[[5, 11]]),
        a_hit(3, name="note", field="body", span_id="", trace_id=""),
    ]
    page = open_page(canned, "/search?q=lisbon")
    expect(page.locator(".hit").nth(0).locator("mark")).to_have_text(["Lisbon"])
    expect(page.locator(".hit").nth(0).locator(".tag")).to_have_text("gen_ai.output.messages")
    expect(page.locator(".hit").nth(1).locator("a.open mark")).to_have_text("lisbon")
    expect(page.locator(".hit").nth(1).locator("p")).to_have_count(0)
    expect(page.locator(".hit").nth(2).locator("a.open")).to_have_attribute("href", "/sessions/s")


def test_hits_are_walked_by_keyboard(canned: CannedBackend, open_page: Open) -> None:
    """Down, up, and into the span."""
    canned.hits = [a_hit(no) for no in range(1, 4)]
    page = open_page(canned, "/search?q=lisbon")
    expect(page.locator(".hit")).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".hit a.open").nth(1)).to_be_focused()
    page.keyboard.press("k")
    expect(page.locator(".hit a.open").nth(0)).to_be_focused()


def test_older_hits_are_a_button_away(canned: CannedBackend, open_page: Open) -> None:
    """The search goes on where it ended."""
    canned.hits = [a_hit(1)]
    canned.search_next = "77"
    page = open_page(canned, "/search?q=lisbon")
    expect(page.locator(".hit")).to_have_count(1)
    canned.hits, canned.search_next = [a_hit(2)], None
    page.get_by_role("button", name="Search older ones").click()
    expect(page.locator(".hit")).to_have_count(2)
    assert "before=77" in canned.asked[-1]
    expect(page.get_by_role("button", name="Search older ones")).to_have_count(0)


def test_no_hit_at_all_is_said_with_what_was_searched(canned: CannedBackend, open_page: Open) -> None:
    """Only once everything was looked at."""
    page = open_page(canned, "/search?q=nowhere")
    expect(page.get_by_role("heading", name=re.compile("Nothing contains"))).to_contain_text("nowhere")


def test_without_words_the_page_says_what_it_can(canned: CannedBackend, open_page: Open) -> None:
    """And asks the server nothing."""
    page = open_page(canned, "/search")
    expect(page.get_by_role("heading", name="Search every span and message")).to_be_visible()
    assert not [path for path in canned.asked if "search" in path]


def test_a_server_that_searches_enough_is_asked_again(canned: CannedBackend, open_page: Open) -> None:
    """When it said; nobody has to press a button."""
    canned.failing["search"] = 503
    canned.hits = [a_hit(1)]
    page = open_page(canned, "/search?q=lisbon", forgiven=("503",))
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    canned.failing.clear()
    expect(page.locator(".hit")).to_have_count(1)
    expect(page.locator(".failure")).to_have_count(0)


def test_a_wrong_condition_in_a_search_is_explained_at_its_word(
    canned: CannedBackend, open_page: Open
) -> None:
    """Below the box, as on the list."""
    canned.wrong = {
        "detail": "'asleep' is no value of state.",
        "parameter": "q",
        "position": 8,
        "word": "asleep",
    }
    page = open_page(canned, "/search?q=x+state:asleep", forgiven=("400",))
    expect(page.get_by_role("alert").locator("mark")).to_have_text("asleep")
    expect(page.locator(".failure")).to_have_count(0)


def test_a_search_that_fails_says_so_and_can_be_tried_again(canned: CannedBackend, open_page: Open) -> None:
    """What failed, and a button."""
    canned.failing["search"] = 500
    page = open_page(canned, "/search?q=lisbon", forgiven=("500",))
    expect(page.locator(".failure")).to_contain_text("This was told to fail")
    canned.failing.clear()
    canned.hits = [a_hit(1)]
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".hit")).to_have_count(1)
    expect(page.locator(".failure")).to_have_count(0)


def test_conditions_without_a_word_are_no_error_but_lead_to_the_list(
    canned: CannedBackend, open_page: Open
) -> None:
    """Nothing is wrong with a filter; it is the list that takes it."""
    canned.wrong = {"detail": "There is no word to find: add one.", "parameter": "q"}
    page = open_page(canned, "/search?q=state:lost+tool:x", forgiven=("400",))
    expect(page.get_by_role("heading", name="That says which sessions")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    page.get_by_role("link", name="List these sessions").click()
    expect(page).to_have_url(re.compile(r"/sessions\?q=state%3Alost"))
