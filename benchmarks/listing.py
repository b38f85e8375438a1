"""What a very large folder costs: ``python benchmarks/listing.py [--files N] [--folder DIR]``.

Makes a flat folder of many small images (hard links to a few), and measures, each in a process
of its own: the time to list it all, the time from the shell to the first row, the peak memory of
both, and a ``--resume`` that finds nothing left to do. The folder is removed afterwards unless it
was given.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

COMMAND = Path(sys.executable).with_name("blip2cli")
LINKS = 30_000  # of one file; file systems allow some 65,000

LIST = """
import sys, time
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
began = time.perf_counter()
refs = open_sources(SourceOptions((sys.argv[1],)))
next(refs)
first = time.perf_counter() - began
count = 1 + sum(1 for _ in refs)
print(first, time.perf_counter() - began, count)
"""


def fill(folder: Path, files: int) -> None:
    """Fill ``folder`` up to ``files`` images."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder
    for number in range(files):
        path = folder / name(number)
        if number % LINKS == 0:
            base = path
            if not path.exists():
                Image.new("RGB", (8, 8), "red").save(path)
        elif not path.exists():
            os.link(base, path)


def name(number: int) -> str:
    """The file name of the image with this number."""
    return f"{number:09d}.png"


def peak_of_children() -> float:
    """The largest resident size of any child so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def listing(folder: Path) -> None:
    """Time to list."""
    done = subprocess.run(
        [sys.executable, "-c", LIST, folder], capture_output=True, text=True, check=True
    )
    first, everything, count = done.stdout.split()
    print(
        f"list: first image after {float(first):.2f} s, all {count} after {float(everything):.2f} s"
    )
    print(f"list: peak memory {peak_of_children():.0f} MiB")


def resume(folder: Path, files: int) -> None:
    """Time of a run that has nothing left to do."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, "out.jsonl")
        common = ["caption", folder, "--model", "tiny", "-o", out]
        subprocess.run([COMMAND, *common, "--limit", "1", "--quiet"], check=True)
        row = json.loads(out.read_text())
        with out.open("a", encoding="utf-8") as lines:
            for number in range(1, files):
                lines.write(json.dumps(row | {"file_name": name(number)}) + "\n")
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", RESUME, *map(str, common)],
            capture_output=True,
            text=True,
            check=True,
        )
        print(f"resume with nothing left: {time.perf_counter() - began:.2f} s from the shell")
        print(f"resume with nothing left: peak memory {done.stdout.strip()} MiB")


RESUME = """
import resource, sys
from blip2cli.cli.app import call
code = call([*sys.argv[1:], "--resume", "--quiet"])
print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
sys.exit(code)
"""


def first_row(folder: Path) -> None:
    """Time from the shell to the first row."""
    began = time.perf_counter()
    with subprocess.Popen(
        [COMMAND, "caption", folder, "--model", "tiny", "--quiet"], stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        print(f"first row: {time.perf_counter() - began:.2f} s from the shell")
        run.kill()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what a very large folder costs.")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the images are, or are to be made")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="listing-"))
    try:
        fill(folder, options.files)
        listing(folder)
        resume(folder, options.files)
        first_row(folder)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
