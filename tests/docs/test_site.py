"""The site of the documentation is built without a warning, and read in a browser."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT
from tests.report.browser import chromium

pytestmark = pytest.mark.external
WIDTHS = (1280, 360)  # pixels


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of the base class
        """Say nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def html(page: Path) -> str:
    """Where a page of docs lies in the site."""
    return page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()


def test_every_page_is_built(site: Path) -> None:
    assert [html(page) for page in PAGES[1:] if not (site / html(page)).is_file()] == []
    assert (site / "search" / "search_index.json").is_file()


def test_pages_are_read_at_any_width_without_an_error_or_another_server(address: str) -> None:
    wrong: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((address, "data:", "blob:"))
                else wrong.append(f"{page.url} asks for {request.url}")
            ),
        )
        page.on(
            "response",
            lambda answer: (
                wrong.append(f"{page.url}: {answer.status} for {answer.url}")
                if answer.status >= 400
                else None
            ),
        )
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            for one in PAGES[1:]:
                page.goto(f"{address}/{html(one)}")
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > width:
                    wrong.append(f"{html(one)} is {wide} pixels wide at {width}")
    assert wrong == []


def test_words_are_found(address: str) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"{address}/index.html")
        page.locator("input[name=query]").fill("choice_mass")
        page.locator(".md-search-result__link").first.wait_for()
