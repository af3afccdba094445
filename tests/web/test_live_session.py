"""Claims about the page beside a real agent and a real backend: what happens there is seen here, without a reload."""

import subprocess
import sys

import pytest
import readme
from backend_process import clean_environment
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_the_program_of_the_readme_is_seen_live_from_start_to_end(backend, open_page, tmp_path):
    """The empty page turns live at the first span, says what the agent waits for, and how it ended."""
    page = open_page(backend)
    expect(page.get_by_text("listening", exact=False).first).to_be_visible()
    loads: list[str] = []
    page.on("framenavigated", lambda frame: loads.append(frame.url))
    file = tmp_path / "agent.py"
    file.write_text(readme.program())
    agent = subprocess.Popen(
        [sys.executable, file],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url}),
    )
    try:
        expect(page.get_by_text("Lisbon in May")).to_be_visible()
        expect(page.get_by_text("for approval", exact=False)).to_be_visible()
        agent.communicate("\n", timeout=20)
    finally:
        agent.kill()
        agent.wait()
    expect(page.get_by_text("Completed")).to_be_visible()
    assert loads == []
