"""The page over a real backend: what arrives is seen, and a cut loses nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from backend_process import BackendProcess, clean_environment
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Open = Callable[..., Page]

RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "otlp-recordings"

AGENT = """
import sys
import otel_sessions as os_
os_.init(service_name="steps", capture=True)
def wait(word):
    print(word, flush=True)
    sys.stdin.readline()
with os_.session("climb", title="<img src=x onerror=alert(1)>") as session:
    with session.task("first") as task, os_.agent("guide"):
        with os_.tool("rope", arguments={"metres": 30}):
            wait("roped")
    wait("first done")
    with session.task("second"):
        with os_.tool("axe"):
            raise_later = True
    with session.waiting("weather"):
        wait("waiting")
print("ended", flush=True)
"""


class Agent:
    """A real program that does one step at a time, when told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    def until(self, word: str) -> None:
        line = self._out.readline()
        assert line.strip() == word, line

    def go_on(self) -> None:
        self._in.write("\n")
        self._in.flush()


@contextmanager
def agent(backend: BackendProcess) -> Iterator[Agent]:
    """Run the agent against a backend; it does not outlive the test."""
    env = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url, "OTEL_SESSIONS_HEARTBEAT": "1"})
    with subprocess.Popen(
        [sys.executable, "-c", AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            yield Agent(process)
        finally:
            process.kill()


def grid_rows(page: Page) -> list[tuple[str, str]]:
    """Level and name of every row."""
    rows = page.get_by_role("treegrid", name="Spans").locator("[role=row]")
    return rows.evaluate_all("all => all.map((r) => [r.ariaLevel, r.querySelector('em').innerText])")


def test_a_session_grows_before_the_eyes_and_reads_the_same_afresh(
    backend: BackendProcess, open_page: Open
) -> None:
    """Open spans are seen before they end, states as they change; a reload shows the very same rows."""
    page = open_page(backend)
    expect(page.get_by_text("Listening on")).to_be_visible()
    with agent(backend) as steps:
        steps.until("roped")
        row = page.locator(".list tbody tr")
        expect(row.locator(".state")).to_contain_text("Running")
        expect(row).to_contain_text("<img src=x onerror=alert(1)>")
        row.locator("a.open").click()
        grid = page.get_by_role("treegrid", name="Spans")
        expect(grid.get_by_text("execute_tool rope")).to_be_visible()
        expect(grid.get_by_role("row").filter(has_text="execute_tool rope")).to_contain_text("open")
        steps.go_on()
        steps.until("first done")
        expect(grid.get_by_role("row").filter(has_text="execute_tool rope")).not_to_contain_text("open")
        steps.go_on()
        steps.until("waiting")
        expect(page.locator(".head .state")).to_contain_text("Waiting for weather")
        expect(grid.get_by_text("execute_tool axe")).to_be_visible()
        steps.go_on()
        steps.until("ended")
        expect(page.locator(".head .state")).to_contain_text("Completed")
    expect(page.locator(".whole")).to_contain_text("Complete")
    expect(grid.locator(".track i.open")).to_have_count(0)
    grown = grid_rows(page)
    page.reload()
    expect(grid.get_by_text("execute_tool axe")).to_be_visible()
    assert grid_rows(page) == grown
    assert len(grown) == 6
    page.get_by_role("tab", name="Timeline").click()
    expect(page.locator(".changes .state")).to_contain_text(["Running", "Waiting", "Running", "Completed"])
    page.get_by_role("tab", name="Tasks").click()
    expect(page.locator(".tasks tbody tr")).to_have_count(2)


def test_a_session_is_kept_by_a_click(backend: BackendProcess, open_page: Open) -> None:
    """Pressed it stays, on a reload too; a second click lets it go. A backend that is away is told."""
    with agent(backend) as steps:
        steps.until("roped")
        page = open_page(backend, forgiven=("ERR_", "Failed to load"))
        page.locator(".list tbody tr a.open").click()
        page.get_by_role("button", name="Keep", exact=True).click()
        kept = page.get_by_role("button", name="Kept", exact=True)
        expect(kept).to_have_attribute("aria-pressed", "true")
        page.reload()
        kept.click()
        expect(page.get_by_role("button", name="Keep", exact=True)).to_be_visible()
        backend.stop()
        page.get_by_role("button", name="Keep", exact=True).click()
        expect(page.locator("span.err[role=alert]")).to_have_text(re.compile("The server cannot be reached"))


def test_a_backend_that_restarts_is_missed_and_found_again(backend: BackendProcess, open_page: Open) -> None:
    """While it is away the page says since when; what happened meanwhile is there after."""
    with agent(backend) as steps:
        steps.until("roped")
        page = open_page(backend, forgiven=("ERR_", "503", "Failed to load"))
        row = page.locator(".list tbody tr")
        expect(row.locator(".state")).to_contain_text("Running")
        expect(page.locator(".health.live")).to_be_visible()
        backend.stop()
        expect(page.locator(".banner")).to_contain_text("Not live since")
        expect(row.locator(".state")).to_contain_text(re.compile(r"as of \d\d:\d\d"))
        for word in ("first done", "waiting"):
            steps.go_on()
            steps.until(word)
        backend.start()
        expect(page.locator(".banner")).to_have_count(0, timeout=30_000)
        expect(row.locator(".state")).to_contain_text("Waiting for weather", timeout=30_000)
        steps.go_on()
        steps.until("ended")
        expect(row.locator(".state")).to_contain_text("Completed", timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_whoever_is_turned_away_can_say_the_token_there(
    start_backend: Callable[..., BackendProcess], open_page: Open, scheme: str
) -> None:
    """The page of the 401 looks like the others, takes the token, and leads to where one wanted to go."""
    backend = start_backend("--token", "open-sesame")
    page = open_page(backend, "/search?q=a", scheme=scheme, forgiven=("401",))
    expect(page.get_by_role("heading", name="Unauthorized")).to_be_visible()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(247, 247, 245)", "dark": "rgb(19, 20, 22)"}[scheme]
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="Unauthorized")).to_be_visible()
    page.get_by_label("Token").fill("open-sesame")
    page.get_by_role("button", name="Open").click()
    expect(page).to_have_url(f"{backend.url}/search")
    expect(page.locator(".health.live")).to_be_visible()
    assert "sesame" not in page.content()


@pytest.fixture
def replayed(backend: BackendProcess) -> BackendProcess:
    """Send every recording there is to a backend."""
    if not RECORDINGS.is_dir():
        pytest.skip("no recordings beside the repository")
    command = [sys.executable, "-m", "otel_sessions.cli.main", "replay", "--asap", str(RECORDINGS)]
    where = ["--endpoint", backend.url, "--grpc", backend.grpc]
    subprocess.run([*command, *where], check=True, capture_output=True, timeout=100, env=os.environ)
    return backend


@pytest.mark.recordings
def test_sessions_of_all_recorded_programs_are_drawn(replayed: BackendProcess, open_page: Open) -> None:
    """Every view of every recorded session shows without a fault: the watch over the page would tell."""
    with urllib.request.urlopen(f"{replayed.url}/api/v1/sessions?limit=200") as answer:  # noqa: S310 - our own backend
        sessions = json.load(answer)["sessions"]
    told = [s for s in sessions if s["session_id"] is not None]
    assert len(told) >= 20
    page = open_page(replayed)
    expect(page.locator(".list tbody tr").first).to_be_visible()
    for session in told:
        page.goto(f"{replayed.url}/sessions/{session['id']}")
        if session["spans"]:
            rows = page.locator("[role=treegrid] [role=row]")
            expect(rows.first, f"session {session['session_id']}").to_be_visible()
            rows.first.click()
            expect(page.locator(".panel .section").first).to_be_visible()
        for view in ("Transcript", "Tasks", "Timeline"):
            page.get_by_role("tab", name=view).click()
            expect(page.locator(".view .skeleton")).to_have_count(0)
        expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.recordings
def test_search_leads_from_a_word_to_its_span(replayed: BackendProcess, open_page: Open) -> None:
    """A word that a model said is found, marked, and one click away from its place."""
    page = open_page(replayed, "/search")
    page.keyboard.press("/")
    page.keyboard.type("weather")
    page.keyboard.press("Enter")
    hit = page.locator(".hit").first
    expect(hit.locator("mark").first).to_have_text(re.compile("weather", re.IGNORECASE))
    hit.locator("a.open").click()
    page.get_by_role("link", name="Show in the waterfall").click()
    expect(page.locator("[role=treegrid] [aria-selected=true]")).to_have_count(1)
    expect(page.locator(".panel .section").first).to_be_visible()
