"""The README: it is one page, and its examples give what it says they give.

Its blocks are marked as those of docs are, see ``tests/docs/blocks.py``. With
``BLIP2CLI_TEST_UPDATE=1`` what they show is written anew instead of compared.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from blip2cli.cli.app import application
from tests.docs.blocks import PAGES, README, ROOT, alike, check, examples, steps
from tests.docs.material import lay_out

LONGEST = 130  # lines that somebody reads
EXAMPLES = examples(README)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_gives_what_the_readme_shows(number: int, tmp_path: Path) -> None:
    lay_out(tmp_path)
    for block in EXAMPLES[number]:
        check(block, tmp_path)


def test_it_is_one_page() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_every_page_of_docs_for_users_is_linked() -> None:
    text = README.read_text(encoding="utf-8")
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES} - {"README.md", "docs/index.md"}
    for_users = {page for page in pages if not page.startswith("docs/development/")}
    found_from_a_guide = {"docs/guides/laion.md"}
    assert [page for page in sorted(for_users - found_from_a_guide) if f"({page}" not in text] == []


def test_every_command_is_shown_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    group: Any = typer.main.get_command(application())
    assert [name for name in group.commands if f"\nblip2cli {name} " not in text] == []


def test_no_option_of_a_page_is_unknown() -> None:
    group: Any = typer.main.get_command(application())
    known = {"--help"}
    for command in (group, *group.commands.values()):
        for parameter in command.params:
            known.update((*parameter.opts, *parameter.secondary_opts))
    for page in PAGES:
        in_tables = set(
            re.findall(r"^\|.*?`(--[a-z0-9-]+)`", page.read_text(encoding="utf-8"), re.MULTILINE)
        )
        assert in_tables <= known, (page, in_tables - known)


def test_every_make_target_exists_and_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"`make ([a-z-]+)`", page.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), (page, target)
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    for target in ("help", "install", "demo", "test", "lint", "docs", "tiny", "bench"):
        assert f"make {target} " in done.stdout


def test_comparison_sees_differences() -> None:
    assert alike(["a 0.501", "..."], ["a 0.502", "b", "c"])
    assert alike(["a", "..."], ["a"])
    assert not alike(["a 0.5"], ["a 0.7"])
    assert not alike(["a"], ["a", "b"])
    assert not alike(["a", "b"], ["a"])
    assert not alike(["a two"], ["a three"])


def test_a_block_is_taken_apart_into_commands() -> None:
    assert steps("$ a b\nc\n$ d\n") == [("a b", ["c"]), ("d", [])]
