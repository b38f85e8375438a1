"""Paired comparison of two checkouts of this project: is the new one as fast as the old one?

``python benchmarks/versions.py OLD NEW [WORKLOAD…]`` runs each workload with both checkouts in
turns, the order changing from pair to pair, after one run of each that is not counted. It demands
the same bytes in the output files, and prints the median over pairs of new over old with a
bootstrap 95 % interval. A checkout runs with its own ``.venv``, or with the interpreter of this
script. The exit code is 1 when an interval ends above the limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from checkout import Checkout
from models import build
from work import draw_images

MODELS = Path(__file__).resolve().parent.parent / "build" / "benchmarks"
IMPORTS = ["-c", "import typer, rich"]
RESAMPLES = 10_000


class DifferentError(Exception):
    """The two checkouts write different files."""


@dataclass(frozen=True)
class Workload:
    """A command; with ``images`` it captions them with ``model`` into a file."""

    name: str
    model: str = ""
    images: int = 0
    size: tuple[int, int] = (320, 240)  # of the images, width and height
    more: tuple[str, ...] = ()

    def arguments(self, data: Path, out: Path) -> list[str]:
        """The command line, with its images and its model below ``data``."""
        if not self.images:
            return ["--help"]
        source = data / f"images-{self.size[0]}x{self.size[1]}-{self.images}"
        draw_images(source, self.images, self.size)
        model = "tiny" if self.model == "tiny" else str(build(self.model, data))
        return ["caption", str(source), "--model", model, "-q", "-o", str(out), *self.more]


WORKLOADS = (
    Workload("startup"),
    Workload("shell-1000", "tiny", 1000, (80, 60)),
    Workload("caption-mid-opt", "mid-opt", 64, more=("--max-new-tokens", "12")),
    Workload("caption-mid-t5", "mid-t5", 64, more=("--max-new-tokens", "12")),
)


@dataclass(frozen=True)
class Comparison:
    """Seconds of each pair of runs."""

    old: tuple[float, ...]
    new: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """New over old, pair by pair."""
        return [new / old for old, new in zip(self.old, self.new, strict=True)]

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """Bootstrap 95 % interval of the median ratio (percentiles over resampled pairs)."""
        rng = np.random.default_rng(seed)
        drawn = rng.choice(self.ratios, (RESAMPLES, len(self.ratios)))
        low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval()
        return (
            f"new/old {statistics.median(self.ratios):.3f} [{low:.3f}, {high:.3f}] "
            f"in {len(self.ratios)} pairs; medians {statistics.median(self.old):.3f} s old, "
            f"{statistics.median(self.new):.3f} s new"
        )


def compare(old: Checkout, new: Checkout, workload: Workload, pairs: int, data: Path) -> Comparison:
    """Run the workload ``pairs`` times with each checkout.

    Raises DifferentError when their files differ, CalledProcessError when a run fails.
    """
    sides = (old, new)
    times: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(-1, pairs):  # the first pair warms the caches up
            written: dict[int, bytes] = {}
            for side in (0, 1) if number % 2 else (1, 0):
                folder = Path(scratch, f"{number}-{side}")
                folder.mkdir()
                out = folder / "out.jsonl"
                command = sides[side].command(workload.arguments(data, out))
                seconds = sides[side].seconds(command, folder)
                if number >= 0:
                    times[side].append(seconds)
                written[side] = out.read_bytes() if workload.images else b""
            if written[0] != written[1]:
                raise DifferentError(f"{workload.name}: the checkouts write different rows")
    return Comparison(tuple(times[0]), tuple(times[1]))


def help_over_imports(checkout: Checkout, pairs: int) -> Comparison:
    """The imports that the command line needs (old), and ``blip2cli --help`` (new)."""
    command, here = checkout.command(["--help"]), checkout.folder
    taken = [
        (checkout.seconds(IMPORTS, here), checkout.seconds(command, here)) for _ in range(pairs + 1)
    ]
    imports, helps = zip(*taken[1:], strict=True)
    return Comparison(imports, helps)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a workload."""
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(description="Compare two checkouts of this project.")
    parser.add_argument("old", type=Path, help="folder of the checkout before")
    parser.add_argument("new", type=Path, help="folder of the checkout after")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(names))
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--limit", type=float, default=1.03, help="for the end of the interval")
    parser.add_argument("--python", type=Path, help="for both checkouts, in place of their .venv")
    parser.add_argument("--models", type=Path, default=MODELS, help="where models and images lie")
    options = parser.parse_args(arguments)
    if unknown := set(options.workloads) - set(names):
        parser.error(f"there is no workload {', '.join(sorted(unknown))}")
    old, new = (Checkout.at(folder, options.python) for folder in (options.old, options.new))
    slower = []
    for workload in WORKLOADS:
        if options.workloads and workload.name not in options.workloads:
            continue
        found = compare(old, new, workload, options.pairs, options.models)
        print(f"{workload.name}: {found}", flush=True)
        if found.interval()[1] > options.limit:
            slower.append(workload.name)
        if workload.name == "startup":
            ratio = help_over_imports(new, options.pairs)
            share = statistics.median(ratio.ratios)
            print(f"startup: --help takes {share:.2f}x of `import typer, rich` in the new checkout")
    if slower:
        print(f"above {options.limit}: {', '.join(slower)}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
