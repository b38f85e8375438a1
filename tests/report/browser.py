"""A headless Chromium for tests, which notes whatever a page says or asks for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDE = {"width": 1280, "height": 800}


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that is installed; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        # Containers have no user namespaces for its sandbox, and a small /dev/shm.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page from the disk, and what it said on the way."""

    page: Page
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def wait(self) -> None:
        """Until the first rows are there."""
        self.page.locator("#opening").wait_for(state="hidden")

    def wait_for_rows(self, count: str) -> None:
        """Until the page says that it shows ``count`` rows: it looks for words with a delay."""
        self.page.locator("#shown", has_text=re.compile(f"^{count} rows$")).wait_for()

    def options(self) -> int:
        """How many rows are in the document."""
        return self.page.locator("[role=option]").count()

    def names(self) -> list[str]:
        """The names of the first rows in the document, in its order."""
        return self.page.locator("#list .row-name").all_inner_texts()

    def shown(self) -> str:
        return self.page.locator("#shown").inner_text()

    def current(self) -> str:
        return self.page.locator("#detail h2").inner_text()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def violations(self) -> list[str]:
        """What axe-core finds against the rules of accessibility."""
        script = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
        self.page.evaluate(script)
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found["violations"]
            for node in one["nodes"]
        ]


@contextmanager
def opened(browser: Browser, path: Path, **context: Any) -> Iterator[Opened]:
    """The page at ``path``, opened without a network; it must neither complain nor ask for more."""
    with browser.new_context(**{"viewport": WIDE, "offline": True} | context) as window:
        page = window.new_page()
        one = Opened(page)
        page.on("console", lambda message: one.console.append(message.text))
        page.on("pageerror", lambda error: one.console.append(str(error)))
        page.on("request", lambda request: one.requests.append(request.url))
        page.goto(path.as_uri())
        one.wait()
        yield one
        assert one.console == []
        assert not [url for url in one.requests if not url.startswith(("file:", "blob:", "data:"))]
