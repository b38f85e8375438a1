"""Every command, Python and SQL block of the documentation is run, or says why it is not.

Those of the README are in ``tests/test_readme.py``, which ``make test`` runs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from blip2cli.cli.app import application
from tests.docs.blocks import (
    LANGUAGES,
    PAGES,
    README,
    REASONS,
    ROOT,
    Block,
    blocks,
    check,
    examples,
)
from tests.docs.material import MORE, SAMPLES, lay_out
from tests.s3_server import S3, serve_s3

EXAMPLES = {
    f"{page.relative_to(ROOT / 'docs').with_suffix('')}-{number}": example
    for page in PAGES
    if page != README
    for number, example in enumerate(examples(page))
}
ALL = [block for page in PAGES for block in blocks(page)]
COMMAND = re.compile(r"(?:^|[\s;|&])blip2cli ((?:'[^']*'|\"[^\"]*\"|[^|;&\"'])*)")
# Marks of blocks that tests of their own run, and the languages they are in.
ELSEWHERE = {
    "search": {"python", "sql"},  # tests/test_search.py
    "nearest": {"python", "sql"},  # tests/convert/test_vectors.py
    "doctest": {"python"},  # tests/api/test_doctests.py
    "duckdb": {"sql"},  # tests/docs/test_other_tools.py
    "sqlite": {"python"},
    "lance": {"python"},
    "fiftyone": {"python"},
}
# Servers that an example may ask for beside ``MORE``: the fixtures that start them.
SERVERS = {"a bucket": "bucket", "a cluster": "cluster"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """The variables that lead to a server with the object store ``bucket``: photos and scans."""
    server: S3
    with serve_s3() as server:
        files = {
            f"photos/{path.relative_to(SAMPLES).as_posix()}": path.read_bytes()
            for path in SAMPLES.rglob("*")
            if path.is_file()
        }
        server.bucket("bucket", files | {"scans/2024/1.tif": (SAMPLES / "cats.png").read_bytes()})
        server.filesystem().chmod("bucket/photos", "public-read", recursive=True)
        yield server.environment


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The variable that leads to a Ray cluster of two nodes on this machine."""
    pytest.importorskip("ray", reason="the cluster needs the extra ray")
    from tests.pipeline.compute.ray_nodes import nodes

    with nodes(1, 1) as made:
        yield {"RAY_ADDRESS": made.address}


@pytest.mark.external
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_what_the_page_shows(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lay_out(tmp_path)
    variables: dict[str, str] = {}
    for thing in {word for block in EXAMPLES[name] for word in block.words("with ")}:
        if thing in SERVERS:
            variables |= request.getfixturevalue(SERVERS[thing])
        else:
            MORE[thing](tmp_path)
    for block in EXAMPLES[name]:
        check(block, tmp_path, **variables)


@pytest.mark.external
@pytest.mark.parametrize(
    "block", [block for block in ALL if block.mark == "not run"], ids=lambda block: block.place
)
def test_what_is_not_run_is_listed(block: Block) -> None:
    pytest.skip(f"not run here: {', '.join(block.more)}")


def test_every_block_of_commands_or_code_is_marked() -> None:
    bare = [b.place for b in ALL if b.language in LANGUAGES and b.mark is None]
    assert bare == []
    known = {"shown", "run", "not run", *ELSEWHERE}
    assert [b.place for b in ALL if b.language in LANGUAGES and b.mark not in known] == []
    # Shells have one name here, so that no block escapes by another.
    others = [b.place for b in ALL if b.language in ("bash", "shell", "zsh", "py")]
    assert others == []


def test_a_mark_asks_for_what_there_is() -> None:
    for block in ALL:
        if block.mark in ("run", "shown"):
            assert set(block.words("with ")) <= {*MORE, *SERVERS}, block.place
            known = {"then", "terminal"}
            rest = {w for w in block.more if not re.match(r"with |needs |.+ for ", w)}
            assert rest <= known, block.place


def test_a_block_that_is_not_run_has_a_reason_that_holds() -> None:
    not_run = [block for block in ALL if block.mark == "not run"]
    assert {word for block in not_run for word in block.more} <= REASONS
    assert [b.place for b in not_run if not b.more] == []


def test_blocks_of_other_tests_are_on_the_pages() -> None:
    for mark, languages in ELSEWHERE.items():
        assert {block.language for block in ALL if block.mark == mark} == languages, mark


def commands_of(block: Block) -> list[list[str]]:
    """The words of each ``blip2cli`` command of a block."""
    text = block.text.replace("\\\n", " ")
    lines = [line.removeprefix("$ ").strip() for line in text.splitlines()]
    found = []
    for line in lines:
        for command in COMMAND.findall(line):
            words = shlex.split(command.strip(), comments=True)
            if words:
                found.append(words)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_that_are_not_run_exist_with_their_options(page: Path) -> None:
    group: Any = typer.main.get_command(application())
    for block in blocks(page):
        if block.mark != "not run" or block.language not in ("sh", "console"):
            continue
        for name, *words in commands_of(block):
            if name.startswith("-"):
                continue
            assert name in group.commands, (block.place, name)
            parameters = group.commands[name].params
            known = {flag for p in parameters for flag in (*p.opts, *p.secondary_opts)}
            given = {word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
            assert given <= known | {"--help"}, (block.place, given - known)


def test_commands_are_found_in_a_block() -> None:
    text = "$ blip2cli caption a b | head\nseq 4 | xargs -I{} blip2cli ask 'x; y' --match  # no\n"
    block = Block(README, 0, "sh", text, "not run")
    assert commands_of(block) == [["caption", "a", "b"], ["ask", "x; y", "--match"]]
