"""The list of sessions, as a person meets it: live, filtered, and honest when it is not live."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from canned import SECOND, CannedBackend, a_session, a_status, now_ns
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Open = Callable[..., Page]


def rows(page: Page):
    """Find the rows of the list."""
    return page.locator(".list tbody tr")


def test_the_empty_page_turns_live_at_the_first_span(canned: CannedBackend, open_page: Open) -> None:
    """Nothing yet: the page says what to do, with its own address, and becomes the list by itself."""
    page = open_page(canned)
    expect(page.get_by_text("Listening on")).to_be_visible()
    expect(page.locator("pre").first).to_contain_text(f"OTEL_EXPORTER_OTLP_ENDPOINT={canned.url}")
    expect(page.get_by_role("button", name="Copy the environment")).to_be_visible()
    expect(page.locator(".health.live")).to_be_visible()
    canned.publish("session", a_session("first", state="running", name="hello"))
    expect(rows(page)).to_have_count(1, timeout=2000)
    expect(rows(page)).to_contain_text("hello")
    expect(page.get_by_text("Listening on")).to_have_count(0)


def test_every_state_is_glyph_word_and_colour(canned: CannedBackend, open_page: Open) -> None:
    """No state is told by colour alone."""
    glyphs = dict(zip(("running", "waiting", "stale", "lost", "idle"), "●◔◌✕\u2013", strict=True))
    for state, glyph in glyphs.items():
        canned.sessions[state] = a_session(state, state=state, waiting_for="approval")
        canned.sessions[state]["name"] = f"a {glyph} one"
    page = open_page(canned)
    colours = set()
    for state, glyph in glyphs.items():
        row = rows(page).filter(has_text=f"a {glyph} one")
        expect(row.locator(".state i")).to_have_text(glyph)
        expect(row.locator(".state")).to_contain_text(state.capitalize())
        colours.add(row.locator(".state").evaluate("e => getComputedStyle(e).color"))
    assert len(colours) == 5


def test_a_new_session_comes_in_at_the_top_where_nobody_reads(canned: CannedBackend, open_page: Open) -> None:
    """It is there within a second, without a reload."""
    canned.sessions["old"] = a_session("old", name="old one")
    page = open_page(canned)
    expect(rows(page)).to_have_count(1)
    canned.publish("session", a_session("new", state="running", name="new one", start=now_ns()))
    expect(rows(page).first).to_contain_text("new one", timeout=1000)


def test_nothing_moves_under_the_pointer(canned: CannedBackend, open_page: Open) -> None:
    """While the list is under the pointer, what is new waits behind a button and a key."""
    canned.sessions["old"] = a_session("old", name="old one")
    page = open_page(canned)
    rows(page).first.hover()
    for i in range(3):
        canned.publish("session", a_session(f"new-{i}", state="running", start=now_ns()))
    expect(page.get_by_role("button", name=re.compile("3 new sessions"))).to_be_visible()
    expect(rows(page)).to_have_count(1)
    page.keyboard.press("r")
    expect(rows(page)).to_have_count(4)
    expect(page.get_by_role("button", name=re.compile("new session"))).to_have_count(0)


def test_a_row_changes_in_place(canned: CannedBackend, open_page: Open) -> None:
    """An end is shown in the row that is there; the counts follow."""
    start = now_ns() - 5 * SECOND
    canned.sessions["a"] = a_session("a", state="running", start=start)
    page = open_page(canned)
    expect(rows(page).locator(".state")).to_contain_text("Running")
    element = rows(page).first.element_handle()
    canned.publish(
        "session", a_session("a", start=start, outcome="error", end_reason="error", errors=2, revision=9)
    )
    expect(rows(page).locator(".state")).to_contain_text("Failed")
    expect(rows(page).locator(".c-errors")).to_have_text("2")
    assert element.evaluate("e => e.isConnected")
    expect(page.get_by_role("button", name=re.compile("Ended"))).to_contain_text("1")
    expect(page.get_by_role("button", name=re.compile("Running"))).to_contain_text("0")


def test_columns_sort_by_click_and_the_address_keeps_it(canned: CannedBackend, open_page: Open) -> None:
    """The server sorts; what is new waits, for only the server knows its place."""
    for name, errors in (("a", 1), ("b", 5), ("c", 3)):
        canned.sessions[name] = a_session(name, name=f"session {name}", errors=errors)
    page = open_page(canned)
    head = page.get_by_role("columnheader", name="Errors")
    expect(page.get_by_role("columnheader", name="Started")).to_have_attribute("aria-sort", "descending")
    head.get_by_role("button").click()
    expect(page).to_have_url(f"{canned.url}/sessions?sort=-errors")
    expect(rows(page).locator(".name b")).to_have_text(["session b", "session c", "session a"])
    expect(head).to_have_attribute("aria-sort", "descending")
    head.get_by_role("button").click()
    expect(rows(page).locator(".name b")).to_have_text(["session a", "session c", "session b"])
    page.reload()
    expect(rows(page).locator(".name b")).to_have_text(["session a", "session c", "session b"])
    page.wait_for_function("document.querySelector('.health.live') !== null")
    canned.publish("session", a_session("d", name="session d", errors=2, start=now_ns()))
    page.get_by_role("button", name=re.compile("1 new session")).click()
    expect(rows(page).locator(".name b")).to_have_text(["session a", "session d", "session c", "session b"])
    page.get_by_role("columnheader", name="Started").get_by_role("button").click()
    expect(page).to_have_url(f"{canned.url}/sessions")


def test_traces_without_an_agent_take_one_line(canned: CannedBackend, open_page: Open) -> None:
    """They name no session and tell of nothing; a click shows each, the address keeps it, another hides them."""
    nothing = {
        "session_id": None,
        "runs_count": 0,
        "model_calls": 0,
        "tool_calls": 0,
        "outcome": None,
        "models": [],
    }
    for i in range(5):
        canned.sessions[f"t{i}"] = a_session(
            f"t{i}", **nothing, state="idle", inferred=True, name=("auth", "fs.read")[i % 2], service="codex",
            start=now_ns() - i * SECOND,
        )  # fmt: skip
    canned.sessions["work"] = a_session("work", name="real work", start=now_ns() - 90 * SECOND)
    page = open_page(canned)
    expect(rows(page)).to_have_count(2)
    line = page.get_by_role("button", name=re.compile("5 traces of codex"))
    expect(line).to_contain_text("auth, fs.read")
    line.click()
    expect(rows(page)).to_have_count(6)
    expect(page).to_have_url(f"{canned.url}/sessions?traces=all")
    page.reload()
    expect(rows(page)).to_have_count(6)
    page.get_by_role("button", name="Fold traces without an agent").click()
    expect(rows(page)).to_have_count(2)
    page.wait_for_function("document.querySelector('.health.live') !== null")
    canned.publish("session", canned.sessions["t2"] | {"errors": 1, "revision": 9})
    expect(rows(page)).to_have_count(6)  # one that failed is no longer bare, and two beside it are too few
    expect(rows(page).filter(has_text="1").locator(".c-errors.err")).to_have_count(1)


def test_a_failed_session_says_why(canned: CannedBackend, open_page: Open) -> None:
    """In the list as far as it fits, on its page in full; and those that failed can be had alone."""
    failed = {"state": "ended", "outcome": "error", "end_reason": "error"}
    canned.sessions["a"] = a_session("a", **failed, error="RuntimeError: <b>model</b> backend\n  at x.py:3")
    canned.sessions["b"] = a_session("b")
    page = open_page(canned)
    expect(rows(page).locator(".why")).to_have_text("RuntimeError: <b>model</b> backend")
    chip = page.get_by_role("button", name="Failed")
    chip.click()
    expect(page).to_have_url(f"{canned.url}/sessions?q=outcome%3Aerror")
    expect(chip).to_have_attribute("aria-pressed", "true")
    chip.click()
    expect(page).to_have_url(f"{canned.url}/sessions")
    rows(page).locator("a.open", has_text="RuntimeError").click()
    expect(page.locator(".why-failed")).to_contain_text("at x.py:3")


def test_filters_live_in_the_address(canned: CannedBackend, open_page: Open) -> None:
    """State and text are in the URL; reload and Back bring them back."""
    canned.sessions["a"] = a_session("a", state="running", name="alpha")
    canned.sessions["b"] = a_session("b", name="beta")
    page = open_page(canned)
    page.get_by_role("button", name=re.compile("Ended")).click()
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(f"{canned.url}/sessions?state=ended")
    page.keyboard.press("/")
    page.keyboard.type("beta")
    expect(page).to_have_url(f"{canned.url}/sessions?state=ended&q=beta")
    page.reload()
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_role("searchbox")).to_have_value("beta")
    page.go_back()
    expect(rows(page)).to_have_count(2)


def test_a_filter_without_hits_shows_itself_and_a_way_out(canned: CannedBackend, open_page: Open) -> None:
    """The filter is named, and one button clears it."""
    canned.sessions["a"] = a_session("a")
    page = open_page(canned, "/sessions?q=nowhere&state=lost")
    expect(page.get_by_role("heading", name="No session matches")).to_be_visible()
    expect(page.locator(".empty")).to_contain_text("nowhere")
    page.get_by_role("button", name="Clear the filter").click()
    expect(rows(page)).to_have_count(1)


def test_unknown_is_never_nought(canned: CannedBackend, open_page: Open) -> None:
    """Tokens and cost that nobody told are called unknown; known noughts are noughts."""
    canned.sessions["a"] = a_session("a", input_tokens=None, output_tokens=None, cost=None)
    canned.sessions["b"] = a_session("b", input_tokens=0, output_tokens=0, cost=0, start=1)
    page = open_page(canned)
    expect(rows(page).nth(0).locator(".unknown:visible")).to_have_text(["unknown", "unknown"])
    expect(rows(page).nth(1)).to_contain_text("$0.00")


def test_older_sessions_are_a_button_away(canned: CannedBackend, open_page: Open) -> None:
    """The list is read in pages; nothing is cut silently."""
    for i in range(7):
        canned.sessions[f"s{i}"] = a_session(f"s{i}", start=now_ns() - i * SECOND)
    canned.page_size = 3
    page = open_page(canned)
    expect(rows(page)).to_have_count(3)
    for n in (6, 7):
        page.get_by_role("button", name="Show older sessions").click()
        expect(rows(page)).to_have_count(n)
    expect(page.get_by_role("button", name="Show older sessions")).to_have_count(0)


def test_a_cut_stream_says_since_when_and_heals(canned: CannedBackend, open_page: Open) -> None:
    """States then read "as of"; after the cut the page catches up without a reload."""
    canned.sessions["a"] = a_session("a", state="running", start=now_ns() - SECOND)
    page = open_page(canned, forgiven=("503", "ERR_"))
    expect(page.locator(".health.live")).to_be_visible()
    canned.cut()
    expect(page.locator(".banner")).to_contain_text(re.compile(r"Not live since \d\d:\d\d, retrying"))
    expect(rows(page).locator(".state")).to_contain_text(re.compile(r"as of \d\d:\d\d"))
    canned.publish("session", a_session("a", revision=5))
    expect(rows(page).locator(".state")).to_contain_text("Running")
    canned.mend()
    page.get_by_role("button", name="Retry now").click()
    expect(page.locator(".banner")).to_have_count(0)
    expect(rows(page).locator(".state")).to_contain_text("Completed")


def test_a_reset_reads_everything_afresh(canned: CannedBackend, open_page: Open) -> None:
    """A stream that can't be resumed is no reason to show what is gone."""
    canned.sessions["a"] = a_session("a", name="before")
    page = open_page(canned)
    expect(rows(page)).to_contain_text("before")
    expect(page.locator(".health.live")).to_be_visible()
    canned.sessions.clear()
    canned.sessions["b"] = a_session("b", name="after")
    canned.publish("reset", {})
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("after")
    canned.publish("session", a_session("c", name="later", start=now_ns()))
    expect(rows(page)).to_have_count(2)


def test_there_is_one_stream_and_none_in_a_hidden_tab(canned: CannedBackend, open_page: Open) -> None:
    """Going to a session moves the one stream; hiding closes it; coming back catches up."""
    canned.sessions["a"] = a_session("a", state="running")
    page = open_page(canned)
    expect(page.locator(".health.live")).to_be_visible()
    rows(page).locator("a.open").click()
    expect(page.get_by_role("heading", name="plan trip")).to_be_visible()
    expect(page.locator(".health.live")).to_be_visible()
    _until(lambda: canned.listening == ["a"])
    hide = "Object.defineProperty(document, 'visibilityState', { value: '%s', configurable: true }); document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(hide % "hidden")
    _until(lambda: canned.listening == [])
    canned.publish("session", a_session("a", revision=9))
    page.evaluate(hide % "visible")
    expect(page.locator(".head .state")).to_contain_text("Completed")
    assert canned.listening == ["a"]


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_failure_names_itself_and_can_be_retried(canned: CannedBackend, open_page: Open) -> None:
    """The problem's title and request id, what to do, and a button that does it."""
    canned.failing["sessions"] = 500
    page = open_page(canned, forgiven=("500",))
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This was told to fail")
    expect(alert).to_contain_text("r-1")
    canned.failing.clear()
    canned.sessions["a"] = a_session("a")
    alert.get_by_role("button", name="Try again").click()
    expect(rows(page)).to_have_count(1)


def test_waiting_shows_a_skeleton_at_once(canned: CannedBackend, open_page: Open) -> None:
    """The shell is there before the data, and says that it is busy."""
    canned.delay = 1.0
    canned.sessions["a"] = a_session("a")
    page = open_page(canned)
    expect(page.locator(".bar")).to_be_visible()
    expect(page.locator(".skeleton")).to_be_visible()
    expect(rows(page)).to_have_count(1)


def test_back_finds_the_list_as_it_was_left(canned: CannedBackend, open_page: Open) -> None:
    """Scroll and rows are kept over the visit to a session; nothing is read again."""
    for i in range(60):
        canned.sessions[f"s{i}"] = a_session(f"s{i}", start=now_ns() - i * SECOND, name=f"number {i}")
    page = open_page(canned)
    expect(rows(page)).to_have_count(60)
    rows(page).nth(50).scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    assert before > 0
    rows(page).nth(50).locator("a.open").click()
    expect(page.get_by_role("heading", name="number 50")).to_be_visible()
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(rows(page)).to_have_count(60)
    page.wait_for_function(f"() => Math.abs(scrollY - {before}) < 2")


def test_the_keyboard_walks_the_list(canned: CannedBackend, open_page: Open) -> None:
    """J and k move, Enter opens, g s comes back, ? explains, and keys rest in an input."""
    for i in range(3):
        canned.sessions[f"s{i}"] = a_session(f"s{i}", start=now_ns() - i * SECOND, name=f"number {i}")
    page = open_page(canned)
    expect(rows(page)).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(rows(page).nth(1).locator("a.open")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="number 1")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("s")
    expect(rows(page)).to_have_count(3)
    page.keyboard.press("/")
    page.keyboard.type("j?")
    expect(page.get_by_role("searchbox")).to_have_value("j?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Next error")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("key", ["a/b", "what?", "#1", "50%", "%2F", "two words", "😀", "a&b=c"])
def test_any_id_leads_to_its_session(canned: CannedBackend, open_page: Open, key: str) -> None:
    """Ids are percent-encoded in addresses, links and requests."""
    canned.sessions[key] = a_session(key, name="strange id")
    page = open_page(canned)
    rows(page).locator("a.open").click()
    expect(page.get_by_role("heading", name="strange id")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="strange id")).to_be_visible()


def test_the_empty_page_names_the_command_that_installs_what_runs_here(
    canned: CannedBackend, open_page: Open
) -> None:
    """A clone is on no index, and the server knows where it came from."""
    page = open_page(canned)
    expect(page.locator(".welcome")).to_contain_text("pip install /home/ann/clone")
    canned.status = a_status(install=None)
    page.reload()
    expect(page.locator(".welcome")).to_contain_text("From Python")
    expect(page.locator(".welcome")).not_to_contain_text("pip install")
