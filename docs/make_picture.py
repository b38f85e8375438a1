"""The picture of README, a page of ``sample_images`` in Chromium: ``python docs/make_picture.py``.

It needs what ``make test-slow`` installs.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent
PICTURE = FOLDER / "images" / "report.png"
SIZE = {"width": 1280, "height": 720}  # pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def screenshot(page: Path) -> bytes:
    """What a reader sees first, as PNG."""
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = window.new_page(viewport=SIZE)
        tab.goto(page.as_uri())
        tab.locator("#opening").wait_for(state="hidden")
        tab.locator("[role=option]").nth(4).click()
        shot = tab.screenshot()
        window.close()
    return shot


def main() -> None:
    """Label the images, and take the picture of the page."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        command = [
            *(sys.executable, "-m", "blip2cli", "caption", FOLDER.parent / "sample_images"),
            *("--model", "tiny", "--num-beams", "3", "--num-captions", "3"),
            *("-o", page.with_name("captions.jsonl"), "--report", page, "--quiet"),
        ]
        subprocess.run(command, check=True)
        image = Image.open(io.BytesIO(screenshot(page)))
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
