"""Make the pictures of the README from the real page: run the demo, wait for its story, photograph it.

    .venv/bin/python docs/make_pictures.py

Needs Chromium on the path and `pip install playwright`. Writes docs/pictures/*.png.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
STORY = {"waiting": 1, "ended": 3, "lost": 1}
PATIENCE = 90
SIZE = {"width": 1280, "height": 760}


def main() -> None:
    """Run the demo and photograph both pages in both themes."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "otel_sessions.cli.main", "demo", "--no-browser"]
    command += ["--http", f"127.0.0.1:{port}", "--grpc", "127.0.0.1:0"]
    demo = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        trip = wait_for_story(base)
        photograph(base, trip)
    finally:
        demo.terminate()
        demo.wait(timeout=20)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for_story(base: str) -> str:
    """Wait until the list shows waiting, ended and lost at once; return the id of a finished trip."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(0.5)
        try:
            with urllib.request.urlopen(f"{base}/api/v1/sessions") as answer:
                listed = json.load(answer)
        except OSError:
            continue
        trips = [s for s in listed["sessions"] if s["name"] == "plan trip" and s["state"] == "ended"]
        if trips and all(listed["counts"][state] >= count for state, count in STORY.items()):
            return trips[-1]["id"]
    raise SystemExit(f"the demo did not show {STORY} within {PATIENCE} s")


def photograph(base: str, trip: str) -> None:
    """Write the four pictures."""
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for theme in ("light", "dark"):
            page = open_page(browser, theme)
            page.goto(f"{base}/sessions")
            page.get_by_text("index documents").first.wait_for()
            page.screenshot(path=PICTURES / f"sessions-{theme}.png")
            page.goto(f"{base}/sessions/{trip}")
            page.get_by_role("treegrid").wait_for()
            page.get_by_text("chat stub-large").nth(1).click()
            page.get_by_text("tool call").first.wait_for()
            page.screenshot(path=PICTURES / f"session-{theme}.png")
        browser.close()


def open_page(browser: Browser, theme: str) -> Page:
    """Return a page in one theme."""
    return browser.new_context(viewport=SIZE, color_scheme=theme, device_scale_factor=1).new_page()


if __name__ == "__main__":
    main()
