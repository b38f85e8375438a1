"""The man pages: every option is there, and the programs that show them find no fault."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from blip2cli.cli.app import COMMANDS, application
from tests.docs.scripts import load_script

PAGES: dict[str, str] = load_script("make_man").pages()
GROUP: Any = typer.main.get_command(application())


def test_each_command_has_a_page() -> None:
    assert [*PAGES] == ["blip2cli.1", *(f"blip2cli-{name}.1" for name in COMMANDS)]
    for name in COMMANDS:
        assert rf"\fBblip2cli\-{name}\fR(1)" in PAGES["blip2cli.1"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_the_page_of_its_command(name: str) -> None:
    page = PAGES[f"blip2cli-{name}.1"]
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES"):
        assert f"\n.SH {section}\n" in page
    for parameter in GROUP.commands[name].params:
        if not parameter.opts[0].startswith("-"):
            assert rf"\fI{parameter.metavar}\fR" in page
            continue
        for flag in (*parameter.opts, *parameter.secondary_opts):
            escaped = flag.replace("-", r"\-")
            assert rf"\fB{escaped}\fR" in page
    shown = page.split("\n.EX\n")[1].split("\n.EE\n")[0].replace(r"\-", "-").replace(r"\(aq", "'")
    examples = GROUP.commands[name].epilog.splitlines()[1:]
    assert examples
    assert shown.splitlines() == [each.strip() for each in examples]


def test_a_page_is_of_plain_lines() -> None:
    for name, page in PAGES.items():
        assert page.isascii(), name
        requests = {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))}
        assert requests <= {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".I", ".br", ".EX", ".EE"}
        assert "``" not in page
        assert not re.search(r"(?<!\\)-", page.partition("\n")[2]), name
        assert not re.search(r"\[(default|env var):", page), name


@pytest.mark.external
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    "program",
    [
        ["groff", "-man", "-ww", "-z", "-Tutf8"],
        ["mandoc", "-Tlint", "-Wwarning"],
        ["man", "--warnings", "-l"],
    ],
    ids=lambda program: program[0],
)
def test_programs_that_show_pages_find_no_fault(
    name: str, program: list[str], tmp_path: Path
) -> None:
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not here")
    (tmp_path / name).write_text(PAGES[name], encoding="ascii")
    done = subprocess.run(
        [*program, str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    if program[0] == "man":
        assert "SEE ALSO" in done.stdout
    else:
        assert done.stdout == ""
