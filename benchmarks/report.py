"""What pages cost: ``python benchmarks/report.py [--rows N ...] [--folder DIR]``.

For each number of rows it makes a folder of photographs (hard links to a few), an output about
them, and in a process of its own the page of it. It prints how long that took, its peak memory with
that of its workers, the size of page and sheets, and that a second page has the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from photographs import photographs

KINDS = 60

MAKE = """
import resource, sys
from blip2cli.cli.app import call
code = call(["report", *sys.argv[1:]])
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(own // 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
"""


def fill(folder: Path, rows: int) -> Path:
    """Pictures in ``folder``, and an output of captions beside it; returns the output."""
    folder.mkdir(parents=True)
    bases = photographs(folder.with_name("bases"), KINDS, (640, 480))
    out = folder.with_name("captions.jsonl")
    source = random.Random(0)
    with out.open("w", encoding="utf-8") as lines:
        for number in range(rows):
            name = f"{number:07d}.jpg"
            base = bases[source.randrange(KINDS)]  # so that no two sheets are equal
            os.link(base, folder / name)
            caption = f"a photograph of number {number * 7919 % 9973} beside {number % 13} others"
            row = {
                "file_name": name, "width": 640, "height": 480, "caption": caption,
                "logprob": -(number % 997) / 300, "flag": "",
            }  # fmt: skip
            lines.write(json.dumps(row) + "\n")
    return out


def measure(place: Path, rows: int) -> None:
    """Make the page of ``rows`` rows twice, and print."""
    images = place / "images"
    out = fill(images, rows)
    pages = []
    for number in range(2):
        page = place / f"{number}" / "page.html"
        page.parent.mkdir()
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", MAKE, out, "--image-root", images, "-o", page],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        own, worker = done.stdout.split()
        sheets = sorted(page.with_name("page_files").glob("*"))
        size = sum(path.stat().st_size for path in sheets)
        pages.append(page.read_bytes())
        print(
            f"{rows} rows: {seconds:.1f} s, {rows / seconds:.0f} rows/s; peak memory {own} MiB, "
            f"of a worker {worker} MiB; page {page.stat().st_size / 1e6:.1f} MB, "
            f"{len(sheets)} sheets {size / 1e6:.1f} MB"
        )
    print(f"{rows} rows: the second page {'equals' if pages[0] == pages[1] else 'DIFFERS FROM'} "
          "the first")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what pages cost.")
    parser.add_argument("--rows", type=int, nargs="+", default=[3000, 100_000])
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary folder")
    options = parser.parse_args()
    for rows in options.rows:
        place = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            measure(place, rows)
        finally:
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
