"""One session, as a person meets it: rows by the thousand, live, by keyboard, and by address."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from canned import (
    OPEN,
    SECOND,
    CannedBackend,
    Span,
    a_session,
    a_span_in_full,
    an_answer_of_rows,
    in_a_row,
    now_ns,
)
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Open = Callable[..., Page]

BASE = 1_763_730_000_000_000_000
FAMILY = [
    Span("a" * 16, name="session plan", category="session", duration=100 * SECOND),
    Span("b" * 16, "a" * 16, "invoke_agent planner", SECOND, 90 * SECOND, "agent"),
    Span("c" * 16, "b" * 16, "chat gpt-5.6", 2 * SECOND, 8 * SECOND, "model", tokens=(4000, 812)),
    Span("d" * 16, "b" * 16, "execute_tool flights", 12 * SECOND, 30 * SECOND, "tool", status=2),
    Span("e" * 16, "a" * 16, "write report", 95 * SECOND, SECOND),
]


def show(canned: CannedBackend, spans: list[Span], **fields: Any) -> None:
    """Let there be one session "s" of these spans."""
    canned.sessions["s"] = a_session("s", start=BASE, **fields)
    canned.rows["s"] = an_answer_of_rows("s", spans, BASE)
    for span in spans[:50]:
        canned.spans[span.id] = a_span_in_full("s", span, BASE)


def grid(page: Page):
    """Find the waterfall."""
    return page.get_by_role("treegrid", name="Spans")


def names(page: Page) -> list[str]:
    """Read the names of the mounted rows."""
    return grid(page).locator("[role=row] em").all_inner_texts()


def selected(page: Page):
    """Find the selected row."""
    return grid(page).locator("[role=row][aria-selected=true]")


def test_thirty_steps_down_select_span_thirty_of_ten_thousand(canned: CannedBackend, open_page: Open) -> None:
    """Few rows are mounted, every row counts, and the selected one is always there."""
    show(canned, list(in_a_row(10_000)))
    page = open_page(canned, "/sessions/s")
    expect(grid(page)).to_have_attribute("aria-rowcount", "10000")
    for _ in range(31):
        page.keyboard.press("j")
    expect(selected(page)).to_contain_text("step 30")
    expect(selected(page)).to_be_in_viewport()
    expect(grid(page)).to_have_attribute("aria-activedescendant", selected(page).get_attribute("id"))
    expect(selected(page)).to_have_attribute("aria-posinset", "30")
    expect(selected(page)).to_have_attribute("aria-setsize", "9999")
    expect(selected(page)).to_have_attribute("aria-level", "2")
    assert grid(page).locator("[role=row]").count() < 60
    page.keyboard.press("End")
    expect(selected(page)).to_contain_text("step 9999")
    expect(selected(page)).to_be_in_viewport()
    assert grid(page).locator("[role=row]").count() < 60


def test_rows_far_down_are_there_when_scrolled_to(canned: CannedBackend, open_page: Open) -> None:
    """Scrolling mounts what comes into view, and the selected row stays mounted for a screen reader."""
    show(canned, list(in_a_row(10_000)))
    page = open_page(canned, "/sessions/s")
    expect(grid(page)).to_have_attribute("aria-rowcount", "10000")
    page.keyboard.press("j")
    expect(selected(page)).to_have_count(1)
    grid(page).evaluate("e => { e.scrollTop = 26 * 7000 }")
    expect(grid(page).get_by_text("step 7005", exact=True)).to_be_in_viewport()
    expect(selected(page)).to_have_count(1)
    expect(selected(page)).to_contain_text("root")


def test_rows_collapse_and_expand(canned: CannedBackend, open_page: Open) -> None:
    """By arrows, by brackets, by the little triangle."""
    show(canned, FAMILY)
    page = open_page(canned, "/sessions/s")
    expect(grid(page).locator("[role=row]")).to_have_count(5)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("ArrowLeft")
    expect(grid(page).locator("[role=row]")).to_have_count(3)
    expect(selected(page)).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowLeft")
    expect(selected(page)).to_contain_text("session plan")
    page.keyboard.press("]")
    expect(grid(page).locator("[role=row]")).to_have_count(5)
    page.keyboard.press("[")
    expect(grid(page).locator("[role=row]")).to_have_count(3)
    grid(page).locator(".tw", has_text="▸").click()
    expect(grid(page).locator("[role=row]")).to_have_count(5)


def test_the_next_error_and_the_next_hit_are_a_key_away(canned: CannedBackend, open_page: Open) -> None:
    """E finds errors, / and n find names, even inside what is collapsed."""
    show(canned, FAMILY)
    page = open_page(canned, "/sessions/s")
    expect(grid(page).locator("[role=row]")).to_have_count(5)
    page.keyboard.press("[")
    page.keyboard.press("e")
    expect(selected(page)).to_contain_text("execute_tool flights")
    page.keyboard.press("/")
    page.keyboard.type("gpt")
    page.keyboard.press("Enter")
    expect(selected(page)).to_contain_text("chat gpt-5.6")
    expect(page.locator(".wf-sum")).to_contain_text("1 hit")


def test_selection_and_detail_live_in_the_address(canned: CannedBackend, open_page: Open) -> None:
    """Reload and Back restore what was selected, what was open and which part of time was shown."""
    show(canned, FAMILY)
    page = open_page(canned, "/sessions/s")
    grid(page).get_by_text("chat gpt-5.6").click()
    panel = page.get_by_role("complementary", name="Span")
    expect(panel.get_by_role("heading", name="chat gpt-5.6")).to_be_visible()
    expect(page).to_have_url(re.compile(r"span=c{16}&detail=1"))
    page.keyboard.press("+")
    expect(page).to_have_url(re.compile(r"from=\d{19}&to=\d{19}"))
    address = page.url
    page.reload()
    expect(selected(page)).to_contain_text("chat gpt-5.6")
    expect(panel.get_by_role("heading", name="chat gpt-5.6")).to_be_visible()
    assert page.url == address
    page.go_back()
    expect(panel).to_have_count(0)
    page.go_forward()
    expect(panel).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    page.keyboard.press("Escape")
    expect(selected(page)).to_have_count(0)
    expect(page).not_to_have_url(re.compile("span="))
    page.keyboard.press("f")
    expect(page).to_have_url(f"{canned.url}/sessions/s")


def test_what_an_address_selects_is_shown_whatever_hides_it(canned: CannedBackend, open_page: Open) -> None:
    """A span far down, and one folded into its repeats, come into view; so do those that Back selects."""
    spans = [*in_a_row(300)]
    spans += [Span(f"e{i:015x}", spans[0].id, "stat", SECOND + i, 5) for i in range(20)]
    show(canned, spans)
    folded, far = spans[-3].id, spans[150].id
    page = open_page(canned, f"/sessions/s?span={folded}")
    expect(selected(page)).to_be_in_viewport()
    expect(grid(page)).to_have_attribute("aria-rowcount", "320")
    page.evaluate(f"""() => {{
        const link = document.body.appendChild(document.createElement("a"));
        link.href = "/sessions/s?span={far}";
        link.click();
    }}""")
    expect(selected(page)).to_contain_text("step 150")
    expect(selected(page)).to_be_in_viewport()
    page.go_back()
    expect(selected(page)).to_contain_text("stat")
    expect(selected(page)).to_be_in_viewport()
    page.reload()
    expect(selected(page)).to_be_in_viewport()


def test_repeats_are_one_row_until_opened(canned: CannedBackend, open_page: Open) -> None:
    """It says how many there are and how long they took; an arrow opens and closes them."""
    spans = [Span("a" * 16, name="root", category="session", duration=SECOND)]
    spans += [Span(f"{i:016x}", "a" * 16, "fs.stat", i * 1_000_000, 2_000_000) for i in range(40)]
    show(canned, spans)
    page = open_page(canned, "/sessions/s")
    row = grid(page).get_by_role("row").filter(has_text="fs.stat")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("\u00d7 40")
    expect(row).to_contain_text("Σ 80.0 ms")
    expect(page.locator(".wf-sum")).to_contain_text("41 rows")
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    expect(grid(page)).to_have_attribute("aria-rowcount", "41")
    expect(selected(page)).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(selected(page)).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowLeft")
    expect(row).to_have_count(1)


def test_what_is_unfolded_is_kept_in_the_address_whatever_arrives(
    canned: CannedBackend, open_page: Open
) -> None:
    """A click opens it, a reload and news leave it open, and closing it leaves nothing in the address."""
    root = Span("a" * 16, name="root", category="session", duration=SECOND)
    stats = [Span(f"{i:016x}", root.id, "fs.stat", i * 1_000_000, 2_000_000) for i in range(20, 40)]
    reads = [Span(f"{i:016x}", root.id, "fs.read", i * 1_000_000, 2_000_000) for i in range(50, 60)]
    show(canned, [root, *stats, *reads])
    page = open_page(canned, "/sessions/s")
    expect(grid(page)).to_have_attribute("aria-rowcount", "3")
    page.get_by_text("\u00d7 20").click()
    expect(grid(page)).to_have_attribute("aria-rowcount", "22")
    expect(page).to_have_url(f"{canned.url}/sessions/s?unfold={stats[0].id}")
    page.reload()
    expect(grid(page)).to_have_attribute("aria-rowcount", "22")
    earlier = Span(f"{1:016x}", root.id, "fs.stat", 1_000_000, 2_000_000)
    failed = Span(f"{30:016x}", root.id, "fs.stat", 30_000_000, 2_000_000, status=2)
    page.wait_for_function("document.querySelector('.health.live') !== null")
    news = an_answer_of_rows("s", [earlier, failed], BASE, revision=2, delta=True)
    canned.publish("rows", news)
    expect(page.locator(".wf-sum")).to_contain_text("1 error")
    expect(grid(page)).to_have_attribute("aria-rowcount", "23")
    expect(page.get_by_text("\u00d7 10")).to_be_visible()
    page.get_by_role("button", name="Collapse all").click()
    expect(grid(page)).to_have_attribute("aria-rowcount", "5")  # what failed parts the others in two
    expect(grid(page).locator(".r.bad")).to_have_count(1)
    expect(page).to_have_url(f"{canned.url}/sessions/s")


def test_find_and_errors_lead_into_folds(canned: CannedBackend, open_page: Open) -> None:
    """A hit inside repeats lights the row that stands for them, and opens them when it is asked for."""
    root = Span("a" * 16, name="root", category="session", duration=SECOND)
    stats = [Span(f"{i:016x}", root.id, "fs.stat", i * 1_000_000, 2_000_000) for i in range(20, 40)]
    show(canned, [root, *stats])
    page = open_page(canned, f"/sessions/s?find={stats[7].id}")
    row = grid(page).get_by_role("row").filter(has_text="fs.stat")
    expect(row).to_have_class(re.compile(r"\bhit\b"))
    page.keyboard.press("n")
    expect(selected(page)).to_have_id("row-8")
    expect(selected(page)).to_be_in_viewport()
    expect(grid(page)).to_have_attribute("aria-rowcount", "21")


def test_the_detail_follows_the_selection(canned: CannedBackend, open_page: Open) -> None:
    """The row is marked at once; the detail comes after, and of the last selection alone."""
    show(canned, FAMILY)
    canned.delay = 0.2
    page = open_page(canned, "/sessions/s?span=" + "b" * 16 + "&detail=1")
    panel = page.get_by_role("complementary", name="Span")
    expect(panel.get_by_text("Attributes")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(selected(page)).to_contain_text("flights")
    expect(panel.get_by_role("heading", name="execute_tool flights")).to_be_visible()
    expect(panel.get_by_text("Attributes")).to_be_visible()
    expect(panel).to_contain_text("! error")


def test_a_missing_parent_is_a_row(canned: CannedBackend, open_page: Open) -> None:
    """A span whose parent never came hangs below a placeholder, not beside the roots."""
    orphan = Span("2" * 16, "1" * 16, "orphan", SECOND)
    show(canned, [Span("1" * 16, flags=8, name="", duration=None, start=SECOND), orphan], missing_spans=1)
    page = open_page(canned, "/sessions/s")
    expect(grid(page).locator("[role=row]")).to_have_count(2)
    assert names(page)[0].startswith("missing span")
    expect(grid(page).get_by_role("row").nth(1)).to_have_attribute("aria-level", "2")
    expect(page.locator(".whole")).to_contain_text("1 span missing, reason unknown")


def test_a_live_session_grows_and_the_late_parent_takes_its_place(
    canned: CannedBackend, open_page: Open
) -> None:
    """Deltas build the same tree as reading afresh would, and the reader's place is kept."""
    show(canned, FAMILY[:1], state="running")
    page = open_page(canned, "/sessions/s")
    expect(page.locator(".health.live")).to_be_visible()
    child = Span("7" * 16, "6" * 16, "early child", 5 * SECOND)
    canned.publish("rows", an_answer_of_rows("s", [child], BASE, revision=2, delta=True))
    expect(grid(page).locator("[role=row]")).to_have_count(3)
    assert names(page)[1].startswith("missing span")
    parent = Span("6" * 16, "a" * 16, "late parent", 4 * SECOND)
    canned.publish("rows", an_answer_of_rows("s", [parent], BASE, revision=3, delta=True))
    expect(grid(page).get_by_text("late parent")).to_be_visible()
    assert names(page) == ["session plan", "late parent", "early child"]
    expect(grid(page).get_by_role("row").nth(2)).to_have_attribute("aria-level", "3")


def test_what_is_read_keeps_its_place_when_rows_come_in_above(canned: CannedBackend, open_page: Open) -> None:
    """New rows above move the scroll by as much; what is below is announced, not jumped to."""
    spans = list(in_a_row(400))
    show(canned, spans, state="running")
    page = open_page(canned, "/sessions/s")
    expect(page.locator(".health.live")).to_be_visible()
    grid(page).evaluate("e => { e.scrollTop = 26 * 200 }")
    row = grid(page).get_by_text("step 205", exact=True)
    expect(row).to_be_in_viewport()
    before = row.bounding_box()
    early = [Span(f"f{i:015x}", spans[0].id, f"early {i}", start=i, duration=10) for i in range(12)]
    canned.publish("rows", an_answer_of_rows("s", early, BASE, revision=2, delta=True))
    expect(page.get_by_role("button", name="12 new spans")).to_be_visible()
    expect(grid(page)).to_have_attribute("aria-rowcount", "412")
    assert row.bounding_box() == before
    page.get_by_role("button", name="12 new spans").click()
    expect(grid(page).get_by_text("step 399", exact=True)).to_be_in_viewport()
    expect(page.get_by_role("button", name="new spans")).to_have_count(0)


def test_an_open_span_grows_while_it_is_live(canned: CannedBackend, open_page: Open) -> None:
    """It reaches until now; when its end comes, it has that length."""
    start = now_ns() - 100 * SECOND
    canned.sessions["s"] = a_session("s", start=start, state="running")
    closed = Span("1" * 16, name="root", category="session", duration=50 * SECOND)
    open_ = Span("2" * 16, "1" * 16, "chat", SECOND, None, "model", flags=OPEN)
    canned.rows["s"] = an_answer_of_rows("s", [closed, open_], start)
    page = open_page(canned, "/sessions/s")
    bars = grid(page).locator(".track i")
    expect(bars.nth(1)).to_have_class(re.compile("open"))
    expect(grid(page).get_by_role("row").nth(1)).to_contain_text("open")
    first = bars.nth(0).evaluate("e => parseFloat(e.style.width)")
    assert 45 < first < 50
    page.wait_for_function(
        f"() => parseFloat(document.querySelector('.track i').style.width) < {first} - 0.3"
    )  # the whole grows, so the closed one takes a smaller share
    done = Span("2" * 16, "1" * 16, "chat", SECOND, 60 * SECOND, "model")
    canned.publish("rows", an_answer_of_rows("s", [done], start, revision=2, delta=True))
    expect(grid(page).get_by_role("row").nth(1)).to_contain_text("1 min")


def test_an_open_span_of_a_lost_session_stops_at_its_last_sign_of_life(
    canned: CannedBackend, open_page: Open
) -> None:
    """Nobody knows what came after; nothing is drawn there."""
    heard = str(BASE + 80 * SECOND)
    root = Span("1" * 16, name="root", category="session", duration=None, flags=OPEN)
    done = Span("2" * 16, "1" * 16, "chat", 60 * SECOND, 40 * SECOND, "model")
    show(canned, [root, done], state="lost", signal="lost", last_seen_at=heard)
    page = open_page(canned, "/sessions/s")
    bar = grid(page).locator(".track i").first
    expect(bar).to_have_class(re.compile("cut"))
    assert abs(bar.evaluate("e => parseFloat(e.style.width)") - 80) < 0.5
    expect(grid(page).get_by_role("row").first).to_contain_text("lost")
    expect(page.locator(".head .state")).to_contain_text("Lost last heard")


def test_an_exception_is_shown_with_its_stack(canned: CannedBackend, open_page: Open) -> None:
    """Type, message and stack, without a click."""
    show(canned, FAMILY)
    value = {
        "exception.type": "TimeoutError",
        "exception.message": "no answer",
        "exception.stacktrace": "Traceback\n  at x",
    }
    attributes = [{"key": k, "value": {"stringValue": v}} for k, v in value.items()]
    span = canned.spans["d" * 16]["span"]
    span["events"] = [
        {"name": "exception", "timeUnixNano": str(BASE + 20 * SECOND), "attributes": attributes}
    ]
    page = open_page(canned, "/sessions/s?span=" + "d" * 16 + "&detail=1")
    panel = page.get_by_role("complementary", name="Span")
    expect(panel.locator(".exception")).to_contain_text("TimeoutError")
    expect(panel.locator(".stack")).to_have_text("Traceback\n  at x")


def test_a_failed_panel_leaves_the_rest_alone(canned: CannedBackend, open_page: Open) -> None:
    """The detail can't be read: the waterfall stays, and one button tries again."""
    show(canned, FAMILY)
    canned.failing["spans/"] = 500
    page = open_page(canned, "/sessions/s", forgiven=("500",))
    grid(page).get_by_text("chat gpt-5.6").click()
    panel = page.get_by_role("complementary", name="Span")
    expect(panel.get_by_role("alert")).to_contain_text("This was told to fail")
    expect(grid(page).locator("[role=row]")).to_have_count(5)
    canned.failing.clear()
    panel.get_by_role("button", name="Try again").click()
    expect(panel.get_by_text("Attributes")).to_be_visible()


def test_a_session_that_is_not_there_says_so(canned: CannedBackend, open_page: Open) -> None:
    """The problem's own words, and the way back to the list."""
    page = open_page(canned, "/sessions/nobody", forgiven=("404",))
    expect(page.get_by_role("alert")).to_contain_text("No such session")
    expect(page.get_by_role("navigation").get_by_role("link", name="Sessions").last).to_be_visible()


def test_tabs_are_in_the_address_and_turn_by_arrows(canned: CannedBackend, open_page: Open) -> None:
    """Each view has its address."""
    show(canned, FAMILY)
    page = open_page(canned, "/sessions/s?view=tasks")
    expect(page.get_by_role("tab", name="Tasks")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_text("No tasks")).to_be_visible()
    page.get_by_role("tab", name="Tasks").press("ArrowLeft")
    expect(page.get_by_role("tab", name="Transcript")).to_be_focused()
    expect(page).to_have_url(f"{canned.url}/sessions/s?view=transcript")
    expect(page.get_by_text("No messages recorded")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("tab", name="Tasks")).to_have_attribute("aria-selected", "true")


def test_the_transcript_pairs_calls_with_results_and_leads_to_spans(
    canned: CannedBackend, open_page: Open
) -> None:
    """Order is kept, JSON is laid out, and a long text opens on demand."""
    show(canned, FAMILY)
    place = {"trace_id": FAMILY[2].trace, "span_id": "c" * 16}
    item = dict.fromkeys(("agent", "model", "text", "name", "call_id", "arguments", "result", "ok")) | {
        "span": place,
        "at": str(BASE),
    }
    canned.transcripts["s"] = [
        item | {"kind": "user", "text": "word " * 1000},
        item | {"kind": "tool_call", "name": "flights", "call_id": "1", "arguments": '{"to":"LIS"}'},
        item | {"kind": "tool_result", "call_id": "1", "result": {"price": 120}, "ok": False},
    ]
    page = open_page(canned, "/sessions/s?view=transcript")
    cards = page.locator("article.msg")
    expect(cards).to_have_count(2)
    expect(cards.nth(1)).to_contain_text('{"to": "LIS"}')
    expect(cards.nth(1)).to_contain_text("! failed")
    expect(cards.nth(1).locator(".result")).to_contain_text('{"price": 120}')
    assert len(cards.nth(0).locator(".body").inner_text()) < 2000
    cards.nth(0).get_by_role("button", name="all 5,000 characters").click()
    assert len(cards.nth(0).locator(".body").inner_text()) > 4900
    cards.nth(0).get_by_role("link", name="span").click()
    expect(selected(page)).to_contain_text("chat gpt-5.6")


def test_a_span_has_an_address_of_its_own(canned: CannedBackend, open_page: Open) -> None:
    """From the panel to its page, and from there to its place in the waterfall."""
    show(canned, FAMILY)
    page = open_page(canned, f"/spans/{FAMILY[2].trace}/{'c' * 16}")
    expect(page.get_by_role("heading", name="chat gpt-5.6")).to_be_visible()
    page.get_by_role("link", name="Show in the waterfall").click()
    expect(selected(page)).to_contain_text("chat gpt-5.6")
    page.get_by_role("link", name="own page").click()
    expect(page).to_have_url(f"{canned.url}/spans/{FAMILY[2].trace}/{'c' * 16}")


def test_idle_time_can_be_squeezed(canned: CannedBackend, open_page: Open) -> None:
    """Long waits squash the work to slivers; one click opens it up again."""
    spans = [
        Span("1" * 16, name="root", category="session", duration=1000 * SECOND),
        Span("2" * 16, "1" * 16, "first", 0, 10 * SECOND),
        Span("3" * 16, "1" * 16, "last", 990 * SECOND, 10 * SECOND),
    ]
    show(canned, spans)
    page = open_page(canned, "/sessions/s")
    width = "e => parseFloat(e.style.width)"
    bar = grid(page).locator(".track i").nth(1)
    expect(page.locator(".idle-note")).to_contain_text("98 % idle")
    assert bar.evaluate(width) < 1.1
    page.get_by_role("button", name="compress").click()
    expect(page.get_by_role("button", name="show true time")).to_be_visible()
    assert bar.evaluate(width) > 40


def test_dragging_over_the_map_chooses_a_part_of_time(canned: CannedBackend, open_page: Open) -> None:
    """The window is in the address, and a double click shows all again."""
    show(canned, FAMILY)
    page = open_page(canned, "/sessions/s")
    box = page.locator(".minimap").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20, steps=4)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"from=17637300(2[45])\d+&to=17637300(7[456])\d+"))
    expect(page.locator(".minimap .shade")).to_have_count(2)
    page.locator(".minimap").dblclick()
    expect(page.locator(".minimap .shade")).to_have_count(0)
    expect(page).to_have_url(f"{canned.url}/sessions/s")
