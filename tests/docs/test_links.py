"""No link of a page leads nowhere, and every page of docs is in the site."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT

OTHERS = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


@cache
def text_of(page: Path) -> str:
    """What is written, without its blocks of code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """What a link may name behind ``#``: headings in small letters, with hyphens for blanks."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return frozenset(re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in plain)


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / name for name in OTHERS)], ids=lambda page: page.stem
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def test_pages_of_the_site_link_to_nothing_outside_it() -> None:
    docs = ROOT / "docs"
    for page in PAGES[1:]:
        for target in LINK.findall(text_of(page)):
            if not re.match(r"[a-z]+:", target):
                there = (page.parent / target.partition("#")[0]).resolve()
                assert there.is_relative_to(docs), (page, target)


def test_every_page_is_in_the_site() -> None:
    configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    names = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]]
    in_site = set(re.findall(r"(\S+\.md)$", configuration, re.MULTILINE))
    assert [name for name in names if name not in in_site] == []
