"""Compare two versions of the command and print what differs; exit code 1 if anything does."""

from __future__ import annotations

import argparse
import difflib
import pickle
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.equivalence.cases import Case
from tests.equivalence.commands import COMMANDS
from tests.equivalence.deliberate import (
    DELIBERATE,
    Deliberate,
    reason,
    reword,
    without_added,
)
from tests.equivalence.material import make_material
from tests.equivalence.mistakes import MISTAKES
from tests.equivalence.other_commands import OTHER_COMMANDS
from tests.equivalence.running import Outcome, Version

CASES = COMMANDS + OTHER_COMMANDS + MISTAKES


def main() -> int:
    """Run all cases, or those whose names match, with both versions."""
    options = _parse()
    cases = [case for case in CASES if re.search(options.only, case.name)]
    if len({case.name for case in CASES}) < len(CASES):
        raise SystemExit("Two cases have one name.")
    before = time.monotonic()
    with tempfile.TemporaryDirectory() as top:
        bench, report, failed = Bench(Path(top), options), Report(), 0
        try:
            with ThreadPoolExecutor(options.jobs) as pool:
                for case, parts in zip(cases, pool.map(bench.compare, cases), strict=True):
                    failed += report.add(case, parts)
        finally:
            bench.close()
    lines = sum(len(case.lines) for case in cases)
    report.end(whole=len(cases) == len(CASES))
    minutes = (time.monotonic() - before) / 60
    print(
        f"{len(cases)} cases of {lines} commands in {minutes:.1f} minutes: {failed} differ.",
    )
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.equivalence", description=__doc__)
    parser.add_argument("old", help="checkout or executable of the version to compare with")
    parser.add_argument("new", nargs="?", default=".", help="the same of the new version")
    parser.add_argument("--only", default="", help="regular expression: cases to run")
    parser.add_argument("--jobs", type=int, default=2, help="cases run side by side")
    parser.add_argument(
        "--warm", action="store_true", help="start commands from a process with the libraries"
    )
    parser.add_argument(
        "--old-results", type=Path, help="file that keeps the old version's results for next time"
    )
    return parser.parse_args()


class Bench:
    """Runs cases with both versions, each time in a folder of the same name."""

    def __init__(self, top: Path, options: argparse.Namespace) -> None:
        self.top = top
        self.old = Version(options.old, top / "old", options.warm)
        self.new = Version(options.new, top / "new", options.warm)
        self.material = top / "material"
        self.material.mkdir()
        make_material(self.material)
        (top / "work").mkdir()
        self.warm = options.warm
        self.results: Path | None = options.old_results
        self.known: dict[str, Outcome] = {}
        if self.results is not None and self.results.is_file():
            self.known = pickle.loads(self.results.read_bytes())

    def compare(self, case: Case) -> dict[str, str]:
        """The parts of the case that differ, each as a diff."""
        folder = self.top / "work" / f"c{CASES.index(case)}"
        key = f"{case} {self.warm}"
        if key not in self.known:
            self.known[key] = self.old.run(case, self.material, folder)
        old = self.known[key].parts
        new = self.new.run(case, self.material, folder).parts
        found = {}
        for part in sorted(old.keys() | new.keys()):
            before = reword(old.get(part, "absent\n"))
            after = without_added(new.get(part, "absent\n"))
            if before != after:
                found[part] = "\n".join(_diff(before, after))
        return found

    def close(self) -> None:
        """Keep what the old version did, if that was asked for, and end what was started."""
        self.old.close()
        self.new.close()
        if self.results is not None:
            self.results.write_bytes(pickle.dumps(self.known))


def _diff(before: str, after: str) -> Iterator[str]:
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=1, lineterm=""))[
        2:
    ]
    yield from (f"      {line[:400]}" for line in lines[:24])
    if len(lines) > 24:
        yield f"      … {len(lines) - 24} lines more"


class Report:
    """Prints what differs, case by case."""

    def __init__(self) -> None:
        self._explained: set[Deliberate] = set()

    def add(self, case: Case, parts: dict[str, str]) -> bool:
        """Print what differs without a reason; whether anything does."""
        unexplained = {}
        for part, diff in parts.items():
            allowed = reason(case.name, part)
            if allowed is None:
                unexplained[part] = diff
            else:
                self._explained.add(allowed)
        if unexplained:
            print(f"\n{case.name}")
            for number, line in enumerate(case.lines, 1):
                print(f"    {number}$ {line}")
            for part, diff in unexplained.items():
                print(f"    {part}\n{diff}", flush=True)
        return bool(unexplained)

    def end(self, whole: bool) -> None:
        """Print what a run of all cases (``whole``) found of the list of deliberate changes."""
        print(f"{len(self._explained)} entries of the list of deliberate changes were met.")
        for entry in DELIBERATE:
            if whole and entry not in self._explained:
                print(f"No longer differs: {entry.case} {entry.part} ({entry.why})")


if __name__ == "__main__":
    sys.exit(main())
