"""What the races found: ``results.json``, and ``RESULTS.md`` written from it."""

from __future__ import annotations

import datetime as dt
import json
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import Machine
from peers import OTHERS

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "transformers", "pillow", "numpy")


@dataclass(frozen=True)
class Line:
    """How one peer did."""

    peer: str
    dtype: str
    setting: str  # batch size and workers, in words
    images: int  # it ran
    images_per_second: float
    ratio: float  # how many times as fast ours is: the median over the rounds


@dataclass
class Found:
    """One race's result."""

    race: str
    workload: str
    rounds: int
    lines: list[Line]
    machine: Machine
    dtype: str = "float32"  # ours
    limit_seconds: float | None = None  # the least that ours could take; None: not computed
    seconds: float = 0.0  # that ours took
    arithmetic: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fraction(self) -> float | None:
        """Of the machine's limit that ours reaches."""
        return self.limit_seconds and self.limit_seconds / self.seconds

    def as_json(self) -> dict[str, Any]:
        """Plain values, with when and from what they came."""
        return {
            "workload": self.workload,
            "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "commit": _commit(),
            "versions": {name: version(name) for name in PACKAGES},
            "machine": self.machine.as_json(),
            "rounds": self.rounds,
            "dtype": self.dtype,
            "results": [asdict(line) for line in self.lines],
            "seconds": self.seconds,
            "limit_seconds": self.limit_seconds,
            "fraction_of_limit": self.fraction,
            "arithmetic": self.arithmetic,
            "notes": self.notes,
        }

    def show(self) -> str:
        """For a terminal."""
        lines = [f"{self.race}: {self.workload}", f"  {self.machine}"]
        lines += [
            f"  {line.peer:8} {line.dtype:9} {line.setting:22} "
            f"{line.images_per_second:9.3f} images/s   ours is {line.ratio:.2f}x"
            for line in self.lines
        ]
        lines += [f"  {line}" for line in (*self.arithmetic, *self.notes)]
        if self.fraction is not None:
            lines.append(f"  ours takes {self.seconds:.3f} s: {self.fraction:.0%} of the limit")
        return "\n".join(lines)


def median_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Of seconds an image in the same round."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def record(found: Found, folder: Path) -> None:
    """Add one machine's result to ``results.json`` and write ``RESULTS.md`` anew."""
    path = folder / "results.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known.setdefault(found.machine.name, {})[found.race] = found.as_json()
    path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "RESULTS.md").write_text(page(known), encoding="utf-8")


PREFACE = (
    "Written by `make bench`; `README.md` says what is compared. Ratios say how many times as fast "
    "blip2cli is, the median over rounds run in turns. The limit is the least time that the matrix "
    "products and the reading of weights need at the rates measured in the same run."
)


def page(known: dict[str, dict[str, Any]]) -> str:
    """``RESULTS.md`` from races by machine."""
    columns = " | ".join(f"against `{column}`" for column in OTHERS)
    lines = ["# Results of the races", "", PREFACE]
    for machine, races in known.items():
        lines += ["", f"## {machine}", ""]
        lines += [f"| race | workload | blip2cli | {columns} | of the limit |"]
        lines += ["|---|---|---|" + "---|" * (len(OTHERS) + 1)]
        lines += [_row(race, one) for race, one in races.items() if one["results"]]
    for machine, races in known.items():
        for race, one in races.items():
            lines += ["", *_section(f"{race}, {machine}", one)]
    return "\n".join(lines) + "\n"


def _row(race: str, one: dict[str, Any]) -> str:
    ours = one["results"][-1]
    cells = []
    for column in OTHERS:
        line = next((each for each in one["results"] if each["peer"] == column), None)
        other = line is not None and line["dtype"] != ours["dtype"]
        dtype = f" ({line['dtype']})" if other else ""
        cells.append(f"{line['ratio']:.2f}x{dtype}" if line else "–")
    fraction = one["fraction_of_limit"]
    cells.append("–" if fraction is None else f"{fraction:.0%}")
    rate = f"{ours['images_per_second']:.3g} images/s, {ours['dtype']}"
    return f"| {race} | {one['workload']} | {rate} | {' | '.join(cells)} |"


def _section(title: str, one: dict[str, Any]) -> list[str]:
    machine = Machine(**one["machine"])
    versions = ", ".join(f"{name} {number}" for name, number in one["versions"].items())
    rounds = "1 round" if one["rounds"] == 1 else f"{one['rounds']} rounds"
    when = f"{one['date']}, commit {one['commit']}, {rounds}; {machine}; {versions}."
    lines = [f"### {title}", "", when, ""]
    lines += [
        f"- `{line['peer']}` {line['dtype']}, {line['setting']}: "
        f"{line['images_per_second']:.4g} images/s over {line['images']} images"
        for line in one["results"]
    ]
    lines += [f"- {line}" for line in (*one["arithmetic"], *one["notes"])]
    if one["fraction_of_limit"] is not None:
        lines.append(f"- ours takes {one['seconds']:.3f} s")
    return lines


def _commit() -> str:
    """The commit, with a + where the package or its benchmarks stand otherwise than in it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "../blip2cli")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")
