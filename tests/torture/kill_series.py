"""Command line of the programs that kill runs in trials, until enough kills were survived."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.torture.report import Report

Trial = Callable[[int, int], int]  # by a seed and a number; how many kills hit a run


def parser_of(program: str, kills: int) -> ArgumentParser:
    """The options that all of these programs have."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.torture.{program}")
    parser.add_argument("--kills", type=int, default=kills, help="over all formats")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="FORMAT/NUMBER", help="repeat one trial")
    keep = Path(tempfile.gettempdir(), f"torture-{program}")
    parser.add_argument("--keep", type=Path, default=keep)
    parser.set_defaults(
        again=shlex.join(["python", "-m", f"tests.torture.{program}", *sys.argv[1:]])
    )
    return parser


def chosen(options: Namespace, formats: Sequence[str]) -> list[str]:
    """The formats that trials are wanted of."""
    return [each for each in formats if options.only in (None, f"{each}/{_number(options)}")]


def survive_kills(title: str, options: Namespace, trials: Mapping[str, Trial], folder: Path) -> int:
    """Do trials of every format in turn; returns 1 when any failed, or no kill hit.

    ``folder`` is kept of one that failed.
    """
    report = Report(title, options.keep)
    once = options.only is not None
    for number in [_number(options)] if once else range(options.kills):
        for suffix, trial in trials.items():
            name = f"{suffix}/{number}"
            with report.trial(name, folder, f"{options.again} --only {name}"):
                report.survive(suffix, trial(options.seed, number))
        if report.survived.total() >= options.kills:
            break
    print(report.line())
    return 1 if report.failures or not (once or report.survived.total()) else 0


def _number(options: Namespace) -> int:
    return int((options.only or "0").rpartition("/")[2])
