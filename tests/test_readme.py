"""The README: every option is in it, and its marked examples give what it says they give.

A fenced ``console`` block after ``<!-- shown -->`` is run, command by command; after
``<!-- shown: terminal -->`` on a terminal of 80 columns, after ``<!-- shown: needs MODEL -->``
where that embedded model is there. Lines are compared with stdout (what the terminal shows);
numbers with a decimal point may differ in their third place, since processors round differently,
and a line ``...`` stands for any lines. With ``BLIP2CLI_TEST_UPDATE=1`` the blocks are written anew
instead.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from blip2cli.cli.app import application
from tests.cli.pseudo_terminal import on_terminal
from tests.command import environment, is_embedded

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(
    r"<!-- shown(: terminal)?(?:: needs ([\w-]+))? -->\n```console\n(.*?)```", re.DOTALL
)
DECIMAL = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
UPDATE = bool(os.environ.get("BLIP2CLI_TEST_UPDATE"))


def steps(block: str) -> list[tuple[str, list[str]]]:
    """Each command of a block with the lines it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def output(command: str, folder: Path, terminal: bool) -> list[str]:
    """What ``command`` prints, line by line, without what the run says about itself."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = environment(folder / "hf", PATH=path, TERM="dumb", NO_COLOR="1")
    if terminal:
        shown = on_terminal(["/bin/bash", "-c", command], folder, env, columns=80)
        assert shown.exit_code == 0, shown.raw
        first = shown.text.index("file_name")
        lines = [line.rstrip() for line in shown.text[first:].splitlines()]
        return [line for line in lines if line and "images/s" not in line]
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def alike(expected: list[str], got: list[str]) -> bool:
    """Whether the lines agree, apart from ``...`` and rounding."""
    if not expected:
        return not got
    if expected[0] == "...":
        return any(alike(expected[1:], got[skip:]) for skip in range(len(got) + 1))
    if not got or DECIMAL.sub("#", expected[0]).split() != DECIMAL.sub("#", got[0]).split():
        return False
    pairs = zip(DECIMAL.findall(expected[0]), DECIMAL.findall(got[0]), strict=True)
    close = all(float(one) == pytest.approx(float(two), abs=5e-3) for one, two in pairs)
    return close and alike(expected[1:], got[1:])


@pytest.mark.parametrize("number", range(len(BLOCK.findall(README.read_text(encoding="utf-8")))))
def test_an_example_gives_what_the_readme_shows(number: int, tmp_path: Path) -> None:
    (tmp_path / "sample_images").symlink_to(ROOT / "sample_images")
    text = README.read_text(encoding="utf-8")
    match = list(BLOCK.finditer(text))[number]
    terminal, needed, block = bool(match[1]), match[2], match[3]
    if needed and not is_embedded(needed):
        pytest.skip(f"the model {needed} is not in this installation")
    got = [(command, output(command, tmp_path, terminal)) for command, _ in steps(block)]
    if UPDATE:
        new = "".join(f"$ {command}\n" + "".join(f"{x}\n" for x in lines) for command, lines in got)
        start, end = match.span(3)
        README.write_text(text[:start] + new + text[end:], encoding="utf-8")
        return
    for (command, expected), (_, lines) in zip(steps(block), got, strict=True):
        assert alike(expected, lines), (command, expected, lines)


def test_every_command_and_option_is_in_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    group = typer.main.get_command(application())
    commands = group.commands  # type: ignore[attr-defined]
    missing = [name for name in commands if f"blip2cli {name} " not in text]
    for command in (group, *commands.values()):
        for parameter in command.params:
            names = (*parameter.opts, *parameter.secondary_opts)
            missing += [n for n in names if n.startswith("-") and f"`{n}`" not in text]
    assert missing == []


def test_no_option_of_the_readme_is_unknown() -> None:
    group = typer.main.get_command(application())
    known = {"--help"}
    for command in (group, *group.commands.values()):  # type: ignore[attr-defined]
        known.update(name for parameter in command.params for name in parameter.opts)
    in_tables = set(re.findall(r"^\|.*?`(--[a-z0-9-]+)`", README.read_text(encoding="utf-8"), re.M))
    assert in_tables <= known, in_tables - known


def test_every_make_target_exists_and_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z]+)`", README.read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:.*## ", makefile, re.M), target
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    for target in ("help", "install", "demo", "test", "lint", "tiny", "bench"):
        assert f"make {target} " in done.stdout


def test_comparison_sees_differences() -> None:
    assert alike(["a 0.501", "..."], ["a 0.502", "b", "c"])
    assert alike(["a", "..."], ["a"])
    assert not alike(["a 0.5"], ["a 0.7"])
    assert not alike(["a"], ["a", "b"])
    assert not alike(["a", "b"], ["a"])
    assert not alike(["a two"], ["a three"])
