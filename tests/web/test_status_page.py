"""The page at /status: how a backend does, live, in words; over a canned one and a real one."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from backend_process import BackendProcess
from canned import CannedBackend, a_status, an_emitter
from otlp_requests import PROTOBUF, span, traces
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Open = Callable[..., Page]

LONG = "w" * 120


def figure(page: Page, label: str):
    """Return the card of one large figure."""
    return page.locator(".figure", has_text=label)


def test_where_all_is_well_it_says_so_plainly(canned: CannedBackend, open_page: Open) -> None:
    """No table of zeros: one line says that nothing was lost, another that nobody sent."""
    page = open_page(canned, "/status")
    expect(page.get_by_text("Nothing was refused or dropped")).to_be_visible()
    expect(page.get_by_role("heading", name="Nobody has sent anything")).to_be_visible()
    expect(page.locator("main")).to_contain_text("otel-sessions doctor")
    expect(figure(page, "A commit takes")).to_contain_text("unknown")
    expect(page.locator(".lost-table")).to_have_count(0)


def test_what_was_refused_is_told_with_what_to_do(canned: CannedBackend, open_page: Open) -> None:
    """Each reason in plain words, and spans that never came lead to their sessions."""
    canned.status = a_status(receivers={"http": {"stored": 5, "unauthenticated": 3}, "grpc": {"busy": 1200}})
    canned.status["store"] |= {"missing_spans": 4, "incomplete_sessions": 2}
    page = open_page(canned, "/status")
    rows = page.locator(".lost-table tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("Told to come back")
    expect(rows.nth(0)).to_contain_text("1,200")
    expect(rows.nth(1)).to_contain_text("OTEL_EXPORTER_OTLP_HEADERS")
    expect(page.get_by_text("Nothing was refused")).to_have_count(0)
    rows.nth(2).get_by_role("link").click()
    expect(page).to_have_url(re.compile(r"/sessions\?q=missing%3E0"))


def test_figures_change_by_themselves(canned: CannedBackend, open_page: Open) -> None:
    """The page asks again every few seconds, and nothing moves but the figures."""
    page = open_page(canned, "/status")
    expect(figure(page, "Spans a second").locator("b")).to_have_text("0")
    canned.status = a_status(
        rates={"seconds": 60, "requests": 4, "spans": 1234.5, "logs": 0.01},
        commits={"count": 3, "p50": "4300000", "p99": "12000000", "max": "15000000"},
        emitters=[an_emitter("travel"), an_emitter(None, sessions=0, sdk=None, sdk_version=None)],
    )
    canned.status["ingest"] |= {"waiting_requests": 2, "waiting_bytes": 2**26}
    expect(figure(page, "Spans a second").locator("b")).to_have_text("1,235")
    expect(figure(page, "Logs a second").locator("b")).to_have_text("< 0.1")
    expect(figure(page, "A commit takes")).to_contain_text("4.30 ms")
    expect(page.get_by_role("meter", name="Share of the queue")).to_have_attribute("aria-valuenow", "50")
    rows = page.locator(".emitters tbody tr")
    expect(rows.nth(0)).to_contain_text("opentelemetry, python 1.45.2")
    expect(rows.nth(1)).to_contain_text("no service name")
    expect(rows.nth(1)).to_contain_text("no id sent")


def test_a_hidden_tab_asks_nothing_and_asks_at_once_when_it_is_seen_again(
    canned: CannedBackend, open_page: Open
) -> None:
    """Nobody looks, so nothing is read; who looks again sees no old figures."""
    page = open_page(canned, "/status")
    expect(figure(page, "Spans a second")).to_be_visible()
    hide = """(state) => {
        Object.defineProperty(document, 'visibilityState', {configurable: true, get: () => state});
        Object.defineProperty(document, 'hidden', {configurable: true, get: () => state === 'hidden'});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(hide, "hidden")
    page.wait_for_timeout(300)  # an answer that was asked for before may still come
    asked = [path for path in canned.asked if path.startswith("/api/v1/status")]
    page.wait_for_timeout(5_000)  # two rounds and a half: that nothing happens has no event to wait for
    assert [path for path in canned.asked if path.startswith("/api/v1/status")] == asked
    canned.status = a_status(rates={"seconds": 60, "requests": 1, "spans": 77.0, "logs": 0})
    page.evaluate(hide, "visible")
    expect(figure(page, "Spans a second").locator("b")).to_have_text("77.0", timeout=1_500)


def test_trouble_is_an_alert_with_the_reason_and_its_end_takes_it_away(
    canned: CannedBackend, open_page: Open
) -> None:
    """What can't be stored is the first thing on the page."""
    canned.status = a_status(trouble="commits fail: the disk is full")
    page = open_page(canned, "/status")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Nothing can be stored now")
    expect(alert).to_contain_text("the disk is full")
    canned.status = a_status(disk={"folder": "/data", "size": 10**12, "free": 10**8})
    expect(alert).to_have_count(0)
    expect(page.locator(".note")).to_contain_text("nearly full")


def test_a_server_that_does_not_answer_leaves_the_old_figures_dimmed(
    canned: CannedBackend, open_page: Open
) -> None:
    """What failed is said; it is not taken for zero."""
    canned.status = a_status(rates={"seconds": 60, "requests": 1, "spans": 77.0, "logs": 0})
    page = open_page(canned, "/status", forgiven=("500",))
    expect(figure(page, "Spans a second").locator("b")).to_have_text("77.0")
    canned.failing["status"] = 500
    expect(page.get_by_role("alert")).to_contain_text("This was told to fail")
    expect(page.locator(".dimmed .figure").first).to_contain_text("77.0")
    canned.failing.clear()
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_fit_and_every_heading_can_be_reached(
    canned: CannedBackend, open_page: Open, width: int, scheme: str
) -> None:
    """The page never scrolls sideways, with whatever names senders made up."""
    canned.status = a_status(
        receivers={"http": {"invalid": 3, LONG: 2}},
        emitters=[an_emitter(LONG, sdk=LONG)],
        metrics_seen={LONG: 3},
        redacted={LONG: 2},
        disk={"folder": "/" + LONG, "size": 10**12, "free": 10**11},
    )
    page = open_page(canned, "/status", width=width, scheme=scheme)
    expect(page.get_by_role("heading", name="Storage")).to_be_visible()
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
    for name in ("What is removed", "Secrets replaced", "Server"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_text("What to do" if width > 700 else "rewrites it")).to_be_visible()


def test_metrics_are_listed_by_name_and_by_session_and_what_is_too_much_is_counted(
    canned: CannedBackend, open_page: Open
) -> None:
    """A session's id leads to it; nothing is cut in silence."""
    canned.status = a_status(
        metrics_seen={f"metric.{number}": 100 - number for number in range(60)},
        metric_sessions={"s/1": 7, "(other)": 3},
    )
    page = open_page(canned, "/status")
    by_name, by_session = page.locator(".points").nth(0), page.locator(".points").nth(1)
    expect(by_name.locator("tbody tr")).to_have_count(51)
    expect(by_name.locator("tbody tr").last).to_contain_text("and 10 more")
    expect(by_name.locator("tbody tr").last).to_contain_text(str(sum(100 - n for n in range(50, 60))))
    expect(by_session.get_by_role("link")).to_have_count(1)
    expect(by_session.get_by_role("link")).to_have_attribute("href", re.compile(r"^/sessions/s%2F1"))


def test_a_real_backend_is_shown_as_it_counts(
    start_backend: Callable[..., BackendProcess], open_page: Open
) -> None:
    """What was sent a moment ago is on the page, and what was refused too."""
    backend = start_backend("--retention", "30d,10GB")
    backend.exchange("POST", "/v1/traces", traces([span("a"), span("b")], service="travel"), PROTOBUF)
    backend.exchange("POST", "/v1/traces", b"\xff\xff\xff", PROTOBUF)
    page = open_page(backend, "/status")
    row = page.locator(".emitters tbody tr").first
    expect(row).to_contain_text("travel")
    expect(row.locator("td").nth(1)).to_have_text("2")
    expect(row.locator("td").nth(3)).to_have_text("2")
    expect(page.locator(".lost-table tbody tr")).to_have_count(1)
    expect(page.locator(".lost-table")).to_contain_text("No OTLP")
    expect(page.locator(".group", has_text="What is removed")).to_contain_text("30 d")
    expect(page.locator(".group", has_text="Server")).to_contain_text("SQLite")
    backend.exchange("POST", "/v1/traces", traces([span("c")], service="mail"), PROTOBUF)
    expect(page.locator(".emitters tbody tr").first).to_contain_text("mail")
