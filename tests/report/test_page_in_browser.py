"""Pages in a real browser: opened from the disk, used by mouse and keyboard, seen and heard."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.command import Run
from tests.report import pages
from tests.report.browser import Opened, chromium, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.external

IMAGES = Path(__file__).parents[2] / "sample_images"
SCROLLED = """async () => {
  const list = document.getElementById("list");
  const frames = [];
  let before = await new Promise(requestAnimationFrame);
  for (let i = 0; i < 60; i++) {
    list.scrollTop += 613;
    const now = await new Promise(requestAnimationFrame);
    frames.push(now - before);
    before = now;
  }
  frames.sort((a, b) => a - b);
  return [frames[30], frames[57]];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 2,000 captions, in one file."""
    folder = tmp_path_factory.mktemp("small")
    return pages.write_page(folder / "page.html", pages.captions(2000))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 300 answers with choices, references, metrics and a reliability diagram."""
    bins = [{"confidence": (i + 0.5) / 10, "accuracy": i / 10, "count": 30} for i in range(10)]
    figure = {"value": 0.71, "low": 0.66, "high": 0.76}
    return pages.write_page(
        tmp_path_factory.mktemp("asked") / "page.html",
        pages.answers(100),
        task="ask",
        score="vqa",
        metrics=[
            {"name": "vqa"} | figure,
            {"name": "exact", "value": 0.6, "low": None, "high": None},
        ],
        reliability=bins,
        ece=0.0512,
        notes=["3 pictures were not found."],
    )


@pytest.fixture
def page(browser: Browser, small: Path) -> Iterator[Opened]:
    with opened(browser, small) as one:
        yield one


def colours(picture: bytes) -> int:
    """How many colours a screenshot has."""
    with Image.open(io.BytesIO(picture)) as image:
        return len(image.convert("RGB").getcolors(1 << 20) or ())


@pytest.mark.parametrize("rows", [2000, 100_000])
def test_a_page_opens_from_the_disk_and_scrolls(
    browser: Browser, tmp_path: Path, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pages.write_page(tmp_path / "page.html", pages.captions(rows))
    with opened(browser, path) as one:
        ready = one.page.evaluate("performance.getEntriesByName('ready')[0].startTime")
        middle, slow = one.page.evaluate(SCROLLED)
        assert one.shown() == f"{rows:,} rows"
        assert 5 <= one.options() < 60
        sheets = "blob:" if rows <= pages.INSIDE else f"{tmp_path.as_uri()}/page_files/"
        assert [url for url in one.requests if url.startswith(sheets)]
        assert colours(one.page.locator("#list .thumbnail").first.screenshot()) > 50
        one.press("End")
        assert one.current() == f"photos/{(rows - 1) % 7}/{rows - 1:06d}.jpg"
        assert 5 <= one.options() < 60
        size = path.stat().st_size / 1e6
    with capsys.disabled():
        sys.stdout.write(
            f"\n{rows:,} rows, {size:.1f} MB: first row after {ready:.0f} ms, frames while "
            f"scrolling {middle:.1f} ms (median), {slow:.1f} ms (19 of 20)\n"
        )


def test_thumbnails_are_windows_onto_sheets(page: Opened) -> None:
    style = page.page.locator("#list .thumbnail").nth(3).evaluate(
        "one => [one.style.backgroundImage, one.style.backgroundPosition, one.style.width]"
    )  # fmt: skip
    assert style[0].startswith('url("blob:')
    assert style[1:] == ["-288px 0px", "64px"]  # the fourth cell of the first line


def test_words_flags_and_confidence_filter_rows(page: Opened) -> None:
    page.page.fill("#filter-text", "umbrella SNOW")
    page.wait_for_rows(".* of 2,000")
    texts = page.page.locator("#list .row-text").all_inner_texts()
    assert texts
    assert all("umbrella" in text and "snow" in text for text in texts)
    page.page.fill("#filter-text", "")
    page.page.select_option("#filter-flag", "failed")
    page.wait_for_rows("40 of 2,000")
    assert page.page.locator("#list .row-text").first.inner_text() == (
        "DecodeError: image file is truncated"
    )
    page.page.click("#clear")
    assert page.shown() == "2,000 rows"
    page.page.fill("#filter-high", "40")
    page.press("Tab")
    shares = page.page.locator("#list .meter-text").all_inner_texts()
    assert shares
    assert all(int(share.removesuffix(" %")) <= 40 for share in shares)


def test_rows_are_sorted_by_any_column(page: Opened) -> None:
    def shares() -> list[float]:
        texts = page.page.locator("#list .meter-text").all_inner_texts()
        return [float(text.removesuffix(" %")) for text in texts if text != "–"]

    offered = page.page.locator("#order option").all_inner_texts()
    assert {"worst first", "confidence", "name", "text", "flag", "log-probability"} <= set(offered)
    page.page.select_option("#order", "confidence")
    ascending = shares()
    assert ascending == sorted(ascending)
    page.page.click("#descending")
    descending = shares()
    assert descending == sorted(descending, reverse=True)
    assert descending[0] > ascending[0]
    page.page.select_option("#order", "file_name")
    names = page.names()
    assert names == sorted(names, reverse=True)


def test_one_key_brings_the_worst_rows(browser: Browser, asked: Path) -> None:
    with opened(browser, asked) as one:
        one.press("w")
        flags = one.page.locator("#list .row").evaluate_all(
            "rows => rows.map((row) => row.querySelector('.chip')?.textContent ?? '')"
        )
        assert flags[0] == "abstained"
        one.page.select_option("#filter-flag", "good")
        scores = one.page.locator("#list .score").all_inner_texts()
        numbers = [float(text.split()[1]) for text in scores]
        assert numbers == sorted(numbers)


def test_verdicts_by_keyboard_stay_and_are_exported(browser: Browser, asked: Path) -> None:
    with opened(browser, asked) as one:
        one.press("r", "x", "c")
        assert one.page.locator("textarea").evaluate("one => one === document.activeElement")
        one.page.keyboard.type("two boats")
        one.press("Enter")
        assert one.page.locator("#verdicts").inner_text() == "1 right · 1 wrong · 1 corrected"
        one.press("r", "ArrowUp", "r")  # the same key again takes it back
        one.page.reload()
        one.wait()
        assert one.page.locator("#verdicts").inner_text() == "1 right · 1 wrong · 1 corrected"
        signs = one.page.locator("#list .row-verdict").all_inner_texts()
        assert signs[:4] == ["✓", "✕", "✎", ""]
        with one.page.expect_download() as download:
            one.press("e")
        assert download.value.suggested_filename == "asks.jsonl.verdicts.jsonl"
        lines = Path(download.value.path()).read_text("utf-8").splitlines()
        one.page.select_option("#filter-verdict", "corrected")
        assert one.shown() == "1 of 300 rows"
    rows = pages.answers(100)
    expected = []
    for i, verdict in enumerate(("right", "wrong", "corrected")):
        text = rows["text"][i] or rows["guess"][i]
        label = {"right": text, "wrong": None, "corrected": "two boats"}[verdict]
        named = {name: rows[name][i] for name in ("file_name", "question", "question_id")}
        expected.append(
            named | {"text": text, "verdict": verdict, "label": label, "output": pages.TOKEN}
        )
    assert [json.loads(line) for line in lines] == expected


def test_what_is_not_seen_is_not_judged(page: Opened) -> None:
    page.press("i", "r", "x", "c")
    assert page.page.locator("#verdicts").inner_text() == ""
    page.press("Escape", "r")
    assert page.page.locator("#verdicts").inner_text() == "1 right · 0 wrong · 0 corrected"


def test_guesses_are_judged_where_no_row_has_a_text(browser: Browser, tmp_path: Path) -> None:
    rows = {"file_name": ["a.jpg"], "guess": ["yes"], "flag": ["abstained"]}
    path = pages.write_page(tmp_path / "page.html", rows)
    with opened(browser, path) as page:
        page.press("r")
        assert page.page.locator("#export").is_enabled()
        assert page.page.locator("#export").is_visible()


def test_a_corrected_text_is_left_by_escape(page: Opened) -> None:
    page.press("c", "Escape")
    assert page.page.locator("textarea").is_hidden()
    assert page.page.locator("#verdicts").inner_text() == ""
    assert page.page.locator("#list").evaluate("one => one === document.activeElement")


def test_verdicts_of_another_window_are_seen(browser: Browser, small: Path) -> None:
    with opened(browser, small) as one:
        one.press("r")
        other = one.page.context.new_page()
        other.goto(small.as_uri())
        other.locator("#verdicts", has_text="1 right").wait_for()
        other.keyboard.press("End")
        other.keyboard.press("ArrowUp")
        other.keyboard.press("x")
        one.page.locator("#verdicts", has_text="1 right · 1 wrong").wait_for()
        one.press("x")
        other.locator("#verdicts", has_text="1 right · 2 wrong").wait_for()


def test_failed_rows_take_no_verdict(page: Opened) -> None:
    page.page.select_option("#filter-flag", "failed")
    page.page.focus("#list")
    page.press("r")
    assert page.page.locator("#verdicts").inner_text() == ""
    assert page.page.locator(".verdict-button").count() == 0


def test_two_outputs_stand_side_by_side(browser: Browser, tmp_path: Path) -> None:
    rows = pages.with_second(pages.captions(300))
    figure = {"value": 1.02, "low": 0.9, "high": 1.1}
    gained = {
        "name": "cider",
        "other": figure,
        "difference": {"value": 0.1, "low": -0.1, "high": 0.2},
    }
    first = pages.output("captions.jsonl")
    second = pages.output("second.jsonl") | {"settings": [["model", "tiny"], ["dtype", "bfloat16"]]}
    path = pages.write_page(
        tmp_path / "page.html", rows, metrics=[gained | figure], outputs=[first, second]
    )
    with opened(browser, path) as one:
        one.page.select_option("#filter-change", "changed")
        assert one.shown() == "98 of 300 rows"  # every third, less two that failed
        row = one.page.locator("#list .row").first
        assert row.locator("ins").all_inner_texts() == ["very"]
        assert row.locator("del").all_inner_texts() == []
        assert len(row.locator(".row-text").all()) == 2
        assert "change in confidence" in one.page.locator("#order option").all_inner_texts()
        one.press("i")
        differing = one.page.get_by_role("region", name="Settings that differ").inner_text()
        assert " ".join(differing.split()) == (
            "setting A B dtype float32 bfloat16 prompt a photo of –"
        )
        table = one.page.locator("#run-view table").first.inner_text()
        assert re.search(
            r"cider\s+1.02\s+0.9 to 1.1\s+1.02\s+0.9 to 1.1\s+0.1\s+-0.1 to 0.2", table
        )
        assert one.violations() == []


def test_a_click_shows_the_nearest_images(browser: Browser, tmp_path: Path) -> None:
    rows = pages.vectors(120)
    path = pages.write_page(tmp_path / "page.html", rows, task="embed")
    with opened(browser, path) as one:
        one.page.locator("#list .row").nth(2).click()
        near = one.page.locator(".neighbour-name").all_inner_texts()
        assert near == [rows["file_name"][other] for other, _ in rows["neighbours"][2]]
        one.page.locator(".neighbour").nth(4).click()
        assert one.current() == near[4]
        assert one.page.locator("#list [aria-selected=true] .row-name").inner_text() == near[4]
        assert one.page.locator("#export").is_hidden()
        assert one.violations() == []


def test_the_run_is_shown(browser: Browser, asked: Path) -> None:
    with opened(browser, asked) as one:
        assert "3 pictures were not found." in one.page.locator("#notes").inner_text()
        one.press("i")
        text = one.page.locator("#run-view").inner_text()
        for words in ("model", "tiny", "2,000", "DecodeError", "abstained", "vqa", "0.66 to 0.76"):
            assert words in text
        assert re.search(r"read 7 % .*\n?model 92 %", text)
        labels = one.page.locator("#run-view svg").evaluate_all(
            "charts => charts.map((chart) => chart.getAttribute('aria-label'))"
        )
        assert labels[0] == "Reliability diagram: expected calibration error 0.051"
        assert labels[1].startswith("Confidence: 300 rows, median ")
        assert "small copies of the pictures" in text
        one.page.select_option("#filter-question", "is there a cat?")
        assert one.page.get_by_label("Confidence: 100 rows").count() == 1  # of the rows shown


def test_without_pictures_a_page_says_so(browser: Browser, tmp_path: Path) -> None:
    path = pages.write_page(tmp_path / "page.html", pages.captions(10), pictures=False)
    with opened(browser, path) as one:
        assert one.page.locator("#list .thumbnail.missing").count() == 10
        one.press("i")
        assert "This page holds no pictures." in one.page.locator("#run-view").inner_text()


HOSTILE = (
    "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "a\u202egpj.exe",
    "line\nline\ttab", "nul\x00bell\x07", "\u2066isolate", "&lt;b&gt;", "🏳️‍🌈 שלום", "__proto__", "",
)  # fmt: skip


def test_texts_from_files_and_models_stay_texts(browser: Browser, tmp_path: Path) -> None:
    count = len(HOSTILE)
    rows = {
        "file_name": [f"{text}.jpg" for text in HOSTILE],
        "question": list(HOSTILE),
        "question_id": list(HOSTILE),
        "text": list(HOSTILE),
        "flag": list(HOSTILE),
        "confidence": [0.5] * count,
        "probabilities": [[[text, 0.5]] for text in HOSTILE],
        "references": [[text] for text in HOSTILE],
    }
    hostile = pages.output(HOSTILE[0]) | {
        "settings": [[text, text] for text in HOSTILE],
        "errors": [[text, 2] for text in HOSTILE],
    }
    path = pages.write_page(
        tmp_path / "page.html", rows, pictures=False, outputs=[hostile], notes=list(HOSTILE)
    )
    with opened(browser, path) as one:
        one.page.on("dialog", lambda dialog: one.console.append(dialog.message))
        for _ in HOSTILE:
            one.press("ArrowDown")
        one.press("i")
        elements = one.page.locator("img, iframe, object, script:not([type]), body b").count()
        assert elements == 0
        shown = one.page.locator("body").inner_text()
        assert HOSTILE[0] in shown
        assert HOSTILE[6] in shown
        assert "a⟨U+202E⟩gpj.exe" in shown
        assert "nul␀bell␇" in shown
        assert "line␊line␉tab" in shown
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x07]", shown)
        one.press("i", "r")
        assert one.page.locator("#verdicts").inner_text().startswith("1 right")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Browser, asked: Path, small: Path, scheme: str) -> None:
    with opened(browser, asked, color_scheme=scheme) as one:
        one.press("x", "ArrowUp", "c")
        assert one.violations() == []
        one.press("Escape", "i")
        assert one.violations() == []
        one.press("i", "?")
        assert one.violations() == []
        one.press("Escape")
        one.page.fill("#filter-text", "nothing of the kind")
        one.wait_for_rows("0 of 300")
        assert one.violations() == []
    with opened(browser, small, color_scheme=scheme) as one:
        one.page.select_option("#filter-flag", "failed")
        assert one.violations() == []


def test_light_and_dark_follow_the_system_and_the_button(browser: Browser, small: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, small, color_scheme="light") as one:
        light = one.page.evaluate(paper)
        one.page.click("#theme")
        dark = one.page.evaluate(paper)
    with opened(browser, small, color_scheme="dark") as one:
        assert one.page.evaluate(paper) == dark != light


def test_the_keyboard_is_enough(page: Opened) -> None:
    page.press("ArrowDown", "j", "PageDown", "k", "Home", "ArrowDown")
    assert page.current() == "photos/1/000001.jpg"
    active = page.page.locator("#list").get_attribute("aria-activedescendant")
    assert page.page.locator(f"#{active}").get_attribute("aria-posinset") == "2"
    page.press("/")
    page.page.keyboard.type("xerox")  # letters are no keys where one types
    assert page.page.locator("#filter-text").input_value() == "xerox"
    assert page.page.locator("#verdicts").inner_text() == ""
    page.press("Escape", "?")
    page.page.locator("#single-keys").uncheck()
    page.press("Escape", "w")
    assert page.page.locator("#order").input_value() == "order"
    reached = set()
    for _ in range(40):
        page.press("Tab")
        reached.add(
            page.page.evaluate("document.activeElement.id || document.activeElement.className")
        )
    assert {"list", "detail", "verdict-button", "filter-flag", "order", "worst", "theme"} <= reached


def test_a_narrow_window_is_enough(browser: Browser, asked: Path) -> None:
    with opened(browser, asked, viewport={"width": 360, "height": 640}) as one:
        width = "document.scrollingElement.scrollWidth"
        assert one.page.evaluate(width) == 360
        one.press("ArrowDown", "Enter")
        assert one.page.locator("#detail").is_visible()
        assert one.violations() == []
        one.page.get_by_role("button", name="Wrong").click()
        one.press("Escape")
        assert one.page.locator("#detail").is_hidden()
        assert one.page.locator("#verdicts").inner_text() == "0 right · 1 wrong · 0 corrected"
        one.page.locator("summary").first.click()
        assert one.page.evaluate(width) == 360
        one.press("Escape", "i")
        assert one.page.evaluate(width) == 360
        assert one.violations() == []


def test_a_page_prints(browser: Browser, small: Path, tmp_path: Path) -> None:
    with opened(browser, small) as one:
        paper = one.page.pdf(path=tmp_path / "page.pdf", format="A4")
        assert len(re.findall(rb"/Type /Page\b", paper)) >= 5  # two hundred rows, and the run
        assert one.options() < 60
        one.page.emulate_media(media="print")
        one.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert one.page.locator("#printed").inner_text() == "The first 200 of 2,000 rows."
        assert one.page.locator("#list .row").count() == 200
        assert one.page.locator("#run-view").is_visible()
        assert one.page.locator("#controls").is_hidden()


def test_a_million_rows_are_no_longer_than_a_browser_takes(
    browser: Browser, tmp_path: Path
) -> None:
    rows = {"file_name": [str(i) for i in range(1_000_000)], "text": ["a cat"] * 1_000_000}
    path = pages.write_page(tmp_path / "page.html", rows, pictures=False)
    with opened(browser, path) as one:
        one.press("End")
        assert one.current() == "999999"
        assert one.page.locator("#list [aria-selected=true]").is_visible()
        one.press("ArrowUp", "PageUp")
        assert one.page.locator("#list [aria-selected=true]").is_visible()


def test_pages_of_runs_are_looked_at_and_judged(
    browser: Browser, tmp_path: Path, blip2cli: Run
) -> None:
    rows, other, vectors = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "v.parquet"))
    page, compared, near = (tmp_path / f"{name}.html" for name in ("page", "compared", "near"))
    for args in (
        ("caption", IMAGES, "--model", "tiny", "-o", rows, "--report", page),
        ("caption", IMAGES, "--model", "tiny", "--prompt", "a photo of", "-o", other),
        ("embed", IMAGES, "--model", "tiny", "--kind", "qformer", "-o", vectors, "--report", near),
        ("report", rows, "--compare", other, "--source", IMAGES, "-o", compared),
    ):
        done = blip2cli(*args)
        assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    with opened(browser, page) as one:
        assert one.names() == [row["file_name"] for row in written][: one.options()]
        assert one.page.locator("#detail .row-text").inner_text() == written[0]["caption"]
        assert colours(one.page.locator("#detail .thumbnail").screenshot()) > 50
        assert one.violations() == []
        one.press("r", "x")
        with one.page.expect_download() as download:
            one.press("e")
        verdicts = Path(download.value.path()).read_text("utf-8").splitlines()
        one.press("i")
        run_panel = one.page.locator("#run-view").inner_text()
        assert "tiny" in run_panel
        assert "read " in run_panel
        assert str(tmp_path) not in one.page.content()
        assert one.violations() == []
    assert [json.loads(line)["text"] for line in verdicts] == [
        row["caption"] for row in written[:2]
    ]
    with opened(browser, compared) as one:
        assert one.page.locator("#list .row").first.locator(".row-text").count() == 2
        assert one.violations() == []
    with opened(browser, near) as one:
        first = one.current()
        one.page.locator(".neighbour").first.click()
        assert one.current() != first
