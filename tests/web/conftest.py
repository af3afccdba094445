"""The page in a real browser: Debian's Chromium, and a watch that no test may do without.

Whatever a test looks at, an error in the console, a breach of the content security policy, an unhandled
rejection or a request that leaves the origin fails it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from canned import CannedBackend
from playwright.sync_api import Browser, Page, expect, sync_playwright

BREACHES = """
window.breaches = [];
document.addEventListener("securitypolicyviolation", (e) => breaches.push(`${e.violatedDirective} ${e.blockedURI}`));
window.addEventListener("unhandledrejection", (e) => breaches.push(`unhandled: ${e.reason}`));
"""


@dataclass
class Watched:
    """A page and all that went wrong on it; `forgiven` are parts of messages that a test provokes."""

    page: Page
    origin: str
    forgiven: tuple[str, ...] = ()
    wrong: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(f"{error}"))
        self.page.on("request", lambda request: self._leaves(request.url) and self.wrong.append(request.url))

    def _leaves(self, url: str) -> bool:
        return not url.startswith((self.origin + "/", "blob:", "data:text/html"))

    def verdict(self) -> list[str]:
        breaches = self.page.evaluate("window.breaches ?? []")
        return [w for w in self.wrong + breaches if not any(part in w for part in self.forgiven)]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium once."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    expect.set_options(timeout=15_000)  # a busy machine is no fault of the page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address of a backend in a browser window of its own, under watch."""
    opened: list[Watched] = []

    def open_at(
        backend: Any,
        path: str = "/sessions",
        *,
        width: int = 1280,
        scheme: str = "light",
        forgiven: tuple[str, ...] = (),
    ) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 860}, color_scheme=scheme, reduced_motion="reduce"
        )
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.add_init_script(BREACHES)
        watched = Watched(page, backend.url, forgiven)
        watched.watch()
        opened.append(watched)
        page.goto(backend.url + path)
        return page

    yield open_at
    verdicts = [watched.verdict() for watched in opened]
    for watched in opened:
        watched.page.context.close()
    assert not any(verdicts), verdicts


@pytest.fixture
def canned() -> Iterator[CannedBackend]:
    """Serve the page with answers that the test says."""
    with CannedBackend() as backend:
        yield backend
