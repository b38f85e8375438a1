"""Every file that the pages for developers name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/release.md"])
def test_the_files_it_names_are_there(page: str) -> None:
    named = re.findall(
        r"`((?:blip2cli|tests|docs|training|benchmarks)/[\w./]*)`", (ROOT / page).read_text()
    )
    assert named
    assert [n for n in named if "NAME" not in n and not (ROOT / n).exists()] == []
