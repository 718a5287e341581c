"""Headless Chromium for the page, or a visible skip: Debian's `chromium`, driven by Playwright."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

from tests.page.served import ServedPage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
WAIT_MS = 120_000

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs chromium (Debian: apt-get install chromium)")


@contextmanager
def chromium() -> Iterator[Browser]:
    """With a profile of its own, which is deleted."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS.split())
        try:
            yield browser
        finally:
            browser.close()


class OpenPage:
    """The page in a window. `problems`: what a browser complains about, and requests to elsewhere."""

    def __init__(self, browser: Browser, served: ServedPage, **options: Any) -> None:
        self.served = served
        self.problems: list[str] = []
        self.context: BrowserContext = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.context.set_default_timeout(WAIT_MS)
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda said: self.problems.append(said.text) if said.type != "log" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog {dialog.message}"))
        self.page.on("request", self._request)
        self.page.add_init_script(
            "window.shifts = []; new PerformanceObserver((list) => { for (const one of list.getEntries())"
            " if (!one.hadRecentInput) shifts.push(one.value) }).observe({type: 'layout-shift', buffered: true});"
        )

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"http://{self.served.host}{self.served.place}", "data:", "blob:", "file:")):
            self.problems.append(f"request to {request.url}")

    def open(self, address: str = "") -> Page:
        self.page.goto(address or self.served.server.url)
        self.page.wait_for_selector("#link[data-state=good]")
        return self.page

    def watched(self) -> Page:
        """Open, and the console of the device is seen."""
        page = self.open()
        page.wait_for_selector("#device-name:has-text('bench')")
        return page

    def until(self, expression: str, wanted: Any = True) -> None:
        """Ask again and again, from outside: the page's policy lets nobody evaluate texts inside it."""
        end_s = time.monotonic() + WAIT_MS / 1000
        while (found := self.page.evaluate(expression)) != wanted:
            assert time.monotonic() < end_s, f"{expression} is {found!r}, not {wanted!r}"
            self.page.wait_for_timeout(10)

    def text_of(self, selector: str, wanted: str) -> None:
        """Wait until the text of an element is this."""
        self.until(f"document.querySelector({selector!r})?.textContent ?? ''", wanted)

    def view(self, name: str) -> None:
        self.page.click(f"#tab-{name}")

    @property
    def shift(self) -> float:
        """The sum of layout shifts that no input explains."""
        return float(self.page.evaluate("shifts.reduce((sum, one) => sum + one, 0)"))

    @property
    def too_wide(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    def close(self) -> None:
        self.context.close()
