"""The box in the bar over a real backend: it filters, completes, and says where it is wrong."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from backend_process import BackendProcess
from otlp_requests import LifeCycle, logs, new_trace_id, span, traces
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
Open = Callable[..., Page]

TOOL = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "search_flights"}


def post(backend: BackendProcess, path: str, body: bytes) -> None:
    """Send a request of OTLP and insist on the ack."""
    headers = {"Content-Type": "application/x-protobuf"}
    request = urllib.request.Request(backend.url + path, data=body, headers=headers)  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        assert answer.status == 200


@pytest.fixture
def backend(tmp_path) -> Iterator[BackendProcess]:
    """Start a backend with three sessions: one called a tool, one failed, one is named in Japanese."""
    server = BackendProcess(tmp_path).start()
    post(server, "/v1/traces", traces([span("one", "plan trip", **TOOL)]))
    post(server, "/v1/traces", traces([span("two", "index", error=True, user__id="Ann Lee")]))
    post(server, "/v1/traces", traces([span("three", "旅行の計画")]))
    yield server
    server.kill()


def rows(page: Page) -> Locator:
    """Return the rows of the list."""
    return page.locator(".list tbody tr")


def box(page: Page) -> Locator:
    """Return the box in the bar."""
    return page.get_by_role("searchbox")


def test_a_filter_is_written_with_the_keyboard_alone(backend: BackendProcess, open_page: Open) -> None:
    """Fields, then values that sessions have; the list follows, and the address keeps it."""
    page = open_page(backend)
    expect(rows(page)).to_have_count(3)
    page.keyboard.press("/")
    page.keyboard.type("to")
    options = page.get_by_role("listbox").get_by_role("option")
    expect(options).to_have_count(5)
    expect(options.first).to_contain_text("tool:")
    page.keyboard.type("ol")
    expect(options).to_have_count(1)
    page.keyboard.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    expect(box(page)).to_have_attribute("aria-activedescendant", "completion-0")
    page.keyboard.press("Enter")
    expect(box(page)).to_have_value("tool:")
    expect(options.first).to_have_text("search_flights")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    expect(box(page)).to_have_value("tool:search_flights ")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("plan trip")
    expect(page).to_have_url(f"{backend.url}/sessions?q=tool%3Asearch_flights")
    page.keyboard.type("use")
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_have_count(0)
    expect(box(page)).to_be_focused()
    page.keyboard.press("Escape")
    expect(box(page)).not_to_be_focused()


def test_a_value_with_spaces_is_quoted(backend: BackendProcess, open_page: Open) -> None:
    """What is completed is always a filter; so is what a pointer chooses."""
    page = open_page(backend)
    expect(rows(page)).to_have_count(3)
    box(page).click()
    page.keyboard.type("user:a")
    page.get_by_role("option", name="Ann Lee").click()
    expect(box(page)).to_have_value('user:"Ann Lee" ')
    expect(rows(page)).to_have_count(1)


def test_a_wrong_filter_is_explained_at_its_word_and_the_list_stays(
    backend: BackendProcess, open_page: Open
) -> None:
    """The word is marked below the box; mended, the fault is gone."""
    page = open_page(backend, forgiven=("400",))
    expect(rows(page)).to_have_count(3)
    page.keyboard.press("/")
    page.keyboard.type("計画 stat:lost")
    page.keyboard.press("Enter")
    fault = page.get_by_role("alert")
    expect(fault).to_contain_text("no field 'stat'")
    expect(fault.locator("mark")).to_have_text("stat")
    expect(box(page)).to_have_attribute("aria-invalid", "true")
    expect(rows(page)).to_have_count(3)
    expect(page.locator(".failure")).to_have_count(0)
    box(page).fill("計画 state:running")
    page.keyboard.press("Escape")
    expect(fault).to_have_count(0)
    expect(rows(page)).to_have_count(1)
    expect(box(page)).not_to_have_attribute("aria-invalid", "true")


def test_a_wrong_filter_in_the_address_leaves_a_way_on(backend: BackendProcess, open_page: Open) -> None:
    """Whoever follows a link sees what is wrong with it, and can mend it."""
    page = open_page(backend, "/sessions?q=tokens%3Emany", forgiven=("400",))
    fault = page.get_by_role("alert")
    expect(fault).to_have_count(1)  # in the page: nothing opens over it before the box is used
    expect(fault).to_contain_text("'many' is no value of tokens")
    expect(fault.locator("mark")).to_have_text("many")
    expect(box(page)).to_have_attribute("aria-invalid", "true")
    fault.get_by_role("button", name="Clear the filter").click()
    expect(rows(page)).to_have_count(3)
    expect(page).to_have_url(re.compile(r"/sessions$"))
    page.go_back()
    box(page).fill("errors>0")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(1)


def test_sessions_come_and_go_as_they_meet_the_filter(backend: BackendProcess, open_page: Open) -> None:
    """Live: one that comes to match appears, one that ceases to disappears, others never show."""
    page = open_page(backend, "/sessions?q=errors%3E0+-state:ended")
    expect(rows(page)).to_have_count(1)
    expect(page.locator(".health.live")).to_be_visible()
    life, trace = LifeCycle("live"), new_trace_id()
    post(backend, "/v1/logs", logs(life.start()))
    post(backend, "/v1/traces", traces([span("live", "fine", trace=trace)]))
    post(backend, "/v1/traces", traces([span("quiet", "fine")]))
    expect(page.get_by_role("button", name=re.compile("All"))).to_contain_text("5")
    expect(rows(page)).to_have_count(1)
    post(backend, "/v1/traces", traces([span("live", "wrong", trace=trace, error=True)]))
    expect(rows(page)).to_have_count(2)
    post(backend, "/v1/logs", logs([life.end()]))
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("index")
    page.reload()
    expect(rows(page)).to_have_count(1)


def test_a_row_that_ceases_to_match_stays_under_the_pointer(backend: BackendProcess, open_page: Open) -> None:
    """Nothing moves where somebody reads; it is marked, and gone with the next reading."""
    page = open_page(backend, "/sessions?q=errors=0")
    expect(rows(page)).to_have_count(2)
    expect(page.locator(".health.live")).to_be_visible()
    rows(page).first.hover()
    post(backend, "/v1/traces", traces([span("three", "wrong", error=True)]))
    expect(page.locator(".list tbody tr.off")).to_have_count(1)
    expect(rows(page)).to_have_count(2)
    page.reload()
    expect(rows(page)).to_have_count(1)


def test_the_filter_stays_while_a_session_is_looked_at(backend: BackendProcess, open_page: Open) -> None:
    """The session's page is told of its session whatever the list's filter; Back finds the list right."""
    page = open_page(backend, "/sessions?q=tool:search")
    expect(rows(page)).to_have_count(1)
    page.goto(f"{backend.url}/sessions?q=tool:search")
    rows(page).locator("a.open").first.click()
    expect(page.locator("[role=treegrid] [role=row]")).to_have_count(1)
    post(backend, "/v1/traces", traces([span("one", "more"), span("two", "none")]))
    expect(page.locator("[role=treegrid] [role=row]")).to_have_count(2)
    page.go_back()
    expect(rows(page)).to_have_count(1)
