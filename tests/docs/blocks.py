"""The code blocks of README and docs, by the marks that stand before them.

A mark is a comment of HTML on the line before the fence, so that no reader sees it:

- ``<!-- shown -->``: a ``console`` block that is run, command by command, and compared with what it
  prints. ``<!-- shown: terminal -->`` runs it on a terminal of 80 columns. Numbers with a decimal
  point may differ in their third place, since processors round differently, and a line ``...``
  stands for any lines.
- ``<!-- run -->``: commands, Python or SQL that have to end without an error. The model is ``tiny``
  unless they name another.
- ``<!-- file: NAME -->``: is written to that file, for the block after it.
- ``<!-- doctest -->``, ``<!-- search -->`` and so on: run by a test of their own, see
  ``tests/docs/test_blocks.py``.
- ``<!-- not run: REASON -->``: what needs a GPU, the hub, or a program that is not here. Its
  commands and options have to exist.

Behind the colon stand, by commas: ``then``, for a block that is run in the folder of the block
before it (such blocks are one example; each example begins with the files of ``material``);
``with THING``, for what the folder holds besides, by ``material.MORE``, or a server that a test
starts; ``needs NAME``, an embedded model or a package; and ``USED for NAMED``, what stands in for
what the reader has and the test has not: ``tiny-itm for Salesforce/blip2-itm-vit-g``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from blip2cli.model.checkpoint.embedded import EMBEDDED
from tests.cli.pseudo_terminal import on_terminal
from tests.command import environment, is_embedded

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").rglob("*.md")))
UPDATE = bool(os.environ.get("BLIP2CLI_TEST_UPDATE"))
LANGUAGES = ("console", "sh", "python", "sql")
REASONS = {
    "a GPU",
    "the hub",  # a model or data set that is not here
    "the network",  # installs something, or asks a server
    "other weights",  # checkpoints of LAVIS
    "another program",
}
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z]+(?: run)?)(?:: (?P<more>[^>]*?))? -->\n)?"
    r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
DECIMAL = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    start: int  # where its text begins in the page, in characters
    language: str
    text: str
    mark: str | None  # shown, run, file, not run, search, nearest, found; None: it has none
    more: tuple[str, ...] = ()  # behind the colon, by commas

    @property
    def line(self) -> int:
        return self.page.read_text(encoding="utf-8")[: self.start].count("\n") + 1

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def needs(self) -> list[str]:
        """Embedded models and packages that it cannot be run without."""
        stand_ins = (used for used, _ in self._stand_ins if used in EMBEDDED)
        return [*self.words("needs "), *stand_ins]

    @property
    def as_run(self) -> str:
        """Its text, with what the test has in place of what the reader has."""
        text = self.text
        for used, named in self._stand_ins:
            assert named in text, (self.place, named)
            text = text.replace(named, used)
        return text

    def words(self, prefix: str) -> list[str]:
        """What stands behind ``prefix`` in its mark."""
        return [word.removeprefix(prefix) for word in self.more if word.startswith(prefix)]

    @property
    def _stand_ins(self) -> list[tuple[str, str]]:
        pairs = (word.split(" for ") for word in self.more if " for " in word)
        return [(used, named) for used, named in pairs]


def blocks(page: Path) -> list[Block]:
    """Every fenced block of ``page``, in order."""
    return [
        Block(
            page,
            found.start("text"),
            found["language"],
            found["text"],
            found["mark"],
            tuple((found["more"] or "").split(", ")) if found["more"] else (),
        )
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def examples(page: Path) -> list[list[Block]]:
    """Blocks that are run, those together that share a folder."""
    together: list[list[Block]] = []
    for block in blocks(page):
        if block.mark not in ("shown", "run", "file"):
            continue
        if "then" in block.more:
            together[-1].append(block)
        else:
            together.append([block])
    return together


def steps(block: str) -> list[tuple[str, list[str]]]:
    """Each command of a ``console`` block with the lines it is shown to print."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def surroundings(folder: Path, **more: str) -> dict[str, str]:
    """The environment of an example that runs in ``folder``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return environment(folder / "hf", PATH=path, TERM="dumb", NO_COLOR="1", **more)


def output(command: str, folder: Path, terminal: bool) -> list[str]:
    """What ``command`` prints, line by line, without what the run reports of itself."""
    env = surroundings(folder)
    if terminal:
        shown = on_terminal(["/bin/bash", "-c", command], folder, env, columns=80)
        assert shown.exit_code == 0, shown.raw
        first = shown.text.index("file_name")
        lines = [line.rstrip() for line in shown.text[first:].splitlines()]
        return [line for line in lines if line and "images/s" not in line]
    return _run(["bash", "-c", command], folder, env).splitlines()


def _run(words: list[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        words, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, (words[-1], done.stdout, done.stderr)
    return done.stdout


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


def check(block: Block, folder: Path, **more: str) -> None:
    """Run ``block`` in ``folder``; with ``UPDATE`` write what it prints into its page.

    ``more`` are further variables of its environment.
    """
    for name in block.needs:
        if not is_embedded(name) and importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not in this installation")
    if block.mark == "file":
        (folder / block.more[0]).write_text(block.as_run, encoding="utf-8")
        return
    if block.mark == "run":
        text = block.as_run
        start = {
            "python": [sys.executable, "-c", text],
            "sql": [sys.executable, "-c", f"import duckdb; print(duckdb.sql({text!r}))"],
        }.get(block.language, ["bash", "-euo", "pipefail", "-c", text])
        _run(start, folder, surroundings(folder, BLIP2CLI_MODEL="tiny", **more))
        return
    terminal = "terminal" in block.more
    got = [(command, output(command, folder, terminal)) for command, _ in steps(block.text)]
    pairs = list(zip(steps(block.text), got, strict=True))
    if UPDATE and not all(alike(lines, found) for (_, lines), (_, found) in pairs):
        new = "".join(f"$ {command}\n" + "".join(f"{x}\n" for x in lines) for command, lines in got)
        text = block.page.read_text(encoding="utf-8")
        # Blocks before it may have grown since it was read: it is found by its text.
        start = text.index(block.text)
        block.page.write_text(
            text[:start] + new + text[start + len(block.text) :], encoding="utf-8"
        )
        return
    for (command, expected), (_, found) in pairs:
        assert alike(expected, found), (command, expected, found)
