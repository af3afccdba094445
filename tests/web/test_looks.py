"""Both themes, wide and narrow: what is there can be read and reached."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from canned import OPEN, SECOND, CannedBackend, Span, a_session, a_span_in_full, an_answer_of_rows, now_ns
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Open = Callable[..., Page]

LONG = "a title that goes on and on " * 5 + "w" * 200
PLACES = [
    "/sessions",
    "/sessions/s",
    "/sessions/s?span=bbbbbbbbbbbbbbbb&detail=1",
    "/sessions/s?view=transcript",
    "/sessions/s?view=tasks",
    "/sessions/s?view=timeline",
    "/spans/0af7651916cd43dd8448eb211c80319c/bbbbbbbbbbbbbbbb",
    "/search?q=w",
    "/status",
]


@pytest.fixture
def full(canned: CannedBackend) -> CannedBackend:
    """Serve one session that is long in every way, and one of every state."""
    start = now_ns() - 100 * SECOND
    for i, state in enumerate(("waiting", "stale", "lost", "idle", "ended")):
        canned.sessions[state] = a_session(state, state=state, start=start - i * SECOND, title=LONG)
    spans = [Span("a" * 16, name="session " + LONG, category="session", duration=None, flags=OPEN)]
    spans += [
        Span(f"{i:016x}", f"{i - 1:016x}" if i else "a" * 16, LONG, i * SECOND, SECOND, "tool")
        for i in range(30)
    ]
    spans += [Span("b" * 16, "a" * 16, "chat", SECOND, SECOND, "model", status=2)]
    canned.sessions["s"] = a_session(
        "s",
        name=LONG,
        title=LONG,
        service="w" * 80,
        user_id="u" * 90,
        state="running",
        start=start,
        models=["m" * 60] * 4,
        missing_spans=3,
    )
    canned.rows["s"] = an_answer_of_rows("s", spans, start)
    for span in spans:
        canned.spans[span.id] = a_span_in_full("s", span, start)
    canned.spans["b" * 16]["span"]["attributes"] = [{"key": "k" * 90, "value": {"stringValue": "v" * 900}}]
    task = {
        "id": "t",
        "name": LONG,
        "parent_id": None,
        "state": "running",
        "started_at": str(start),
        "ended_at": None,
    }
    canned.details["s"] = {
        "tasks": [task | {"duration": None, "spans": 1, "trace_id": "", "span_id": None}],
        "timeline": [{"at": str(start), "state": "running", "detail": LONG, "root_id": "a" * 16}],
    }
    item = dict.fromkeys(("agent", "model", "name", "call_id", "arguments", "result", "ok", "span"))
    canned.transcripts["s"] = [item | {"kind": "user", "at": str(start), "text": "w" * 900}]
    hit = {
        "session": "s",
        "session_name": LONG,
        "trace_id": spans[0].trace,
        "span_id": "b" * 16,
        "name": LONG,
    }
    canned.hits = [hit | {"start": str(start), "snippet": "w" * 900}]
    return canned


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", PLACES)
def test_no_page_is_wider_than_its_window(
    full: CannedBackend, open_page: Open, path: str, width: int
) -> None:
    """Long text without a space wraps or is cut with dots; the page never scrolls sideways."""
    page = open_page(full, path, width=width)
    expect(page.locator("main")).to_be_visible()
    expect(page.locator("main .skeleton")).to_have_count(0)
    page.wait_for_load_state("load")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_text_can_be_read_where_it_stands(
    full: CannedBackend, open_page: Open, scheme: str, width: int
) -> None:
    """The drawn contrast of every visible text is at least 4.5 to the ground behind it, in both themes."""
    for path in ("/sessions", "/sessions/s?span=" + "b" * 16 + "&detail=1"):
        page = open_page(full, path, width=width, scheme=scheme)
        expect(page.locator("main .skeleton")).to_have_count(0)
        poor = page.evaluate(CONTRAST)
        assert poor == [], poor


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility({ opacityProperty: true })) continue;
    const [a, b] = [luminance(rgba(getComputedStyle(element).color)), luminance(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.className || element.tagName} ${walker.currentNode.data.slice(0, 30)}`);
  }
  return poor;
}"""


def test_the_theme_can_be_chosen_and_is_kept(full: CannedBackend, open_page: Open) -> None:
    """System, light, dark; the choice survives a reload and reaches the canvas."""
    page = open_page(full, "/sessions/s", scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Theme: as the system").click()
    assert page.evaluate(background) == light
    page.get_by_role("button", name="Theme: light").click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(background) == dark
    page.get_by_role("button", name="Theme: dark").click()
    assert page.evaluate(background) == light


def test_every_control_has_a_name(full: CannedBackend, open_page: Open) -> None:
    """No button, link or field is nameless to a screen reader."""
    for path in PLACES:
        page = open_page(full, path)
        expect(page.locator("main .skeleton")).to_have_count(0)
        nameless = page.evaluate(
            "() => [...document.querySelectorAll('button, a[href], input')].filter((e) => e.checkVisibility() && !(e.ariaLabel || e.innerText.trim())).map((e) => e.outerHTML)"
        )
        assert nameless == []
        assert page.get_by_role("heading", level=1).count() <= 1
        assert page.locator("main").count() == 1


def test_narrow_screens_reach_the_detail_and_the_way_back(full: CannedBackend, open_page: Open) -> None:
    """On a phone the detail lies over the rows, and Back closes it."""
    page = open_page(full, "/sessions/s", width=390)
    page.get_by_role("treegrid").get_by_text("session a title").click()
    panel = page.get_by_role("complementary", name="Span")
    expect(panel).to_be_in_viewport()
    page.go_back()
    expect(panel).to_have_count(0)


def test_rows_of_a_deep_tree_stay_in_reach(full: CannedBackend, open_page: Open) -> None:
    """The indent is capped, and the depth beyond it printed."""
    page = open_page(full, "/sessions/s")
    expect(page.get_by_role("treegrid")).to_have_attribute("aria-rowcount", "32")
    page.keyboard.press("End")
    page.keyboard.press("k")
    row = page.get_by_role("treegrid").locator("[aria-selected=true]")
    expect(row).to_have_attribute("aria-level", "31")
    expect(row.locator(".deep")).to_have_text("30")
    assert row.locator("em").bounding_box()["width"] > 30
