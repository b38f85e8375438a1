"""Every file that the pages for developers name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


PAGES = (
    "CONTRIBUTING.md",
    "docs/development/architecture.md",
    "docs/development/release.md",
    "docs/concepts/reliability.md",
    "docs/development/gpu.md",
    "docs/guides/gpu.md",
)


@pytest.mark.parametrize("page", PAGES)
def test_the_files_it_names_are_there(page: str) -> None:
    named = re.findall(
        r"`((?:blip2cli|tests|docs|training|benchmarks)/[\w./]*)`", (ROOT / page).read_text()
    )
    assert named
    assert [n for n in named if "NAME" not in n and not (ROOT / n).exists()] == []
