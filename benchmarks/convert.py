"""JSONL to Parquet and back beside DuckDB: rows per second, and the most memory used.

``python benchmarks/convert.py [--rows N] [--runs N] [--folder DIR]`` writes a file of N rows of
captions, converts it with ``blip2cli convert`` and with DuckDB's ``COPY`` in turns, each in a
process of its own, start-up included, and prints medians of rows per second and peak memory, and
the ratios of rows per second (above 1: we are faster), by the clock and by processor time, which
means more on a busy machine. What comes back is compared with what was written. DuckDB is in the
extra ``dev``.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from blip2cli.storage.text_encoding import to_json

OURS = "from blip2cli.cli.app import main; main()"
THEIRS = """
import sys, duckdb
source, out = sys.argv[1:]
form = "FORMAT parquet, COMPRESSION zstd" if out.endswith(".parquet") else "FORMAT json"
duckdb.sql(f"COPY (FROM '{source}') TO '{out}' ({form})")
"""
# fmt: off
WORDS = (
    "a", "the", "two", "old", "red", "boat", "cat", "table", "on", "under", "next", "to", "river",
    "photograph", "of", "“quoted”", "naïve",
)
# fmt: on


def write(path: Path, rows: int) -> None:
    """A file of ``rows`` captions, as the sink writes it."""
    draw = random.Random(0)
    with open(path, "wb") as file:
        for number in range(rows):
            row = {
                "file_name": f"{number // 1000:06d}/{number:09d}.jpg",
                "width": draw.randrange(200, 4000),
                "height": draw.randrange(200, 4000),
                "caption": " ".join(draw.choices(WORDS, k=draw.randrange(5, 16))),
                "logprob": round(-draw.random(), 6),
            }
            file.write(to_json(row) + b"\n")


def measured(command: list[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds, most MiB of resident memory. Raises CalledProcessError."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    # Kilobytes, but bytes on macOS.
    memory = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return seconds, usage.ru_utime + usage.ru_stime, memory


def ours(source: Path, out: Path) -> list[str]:
    """The command of this package."""
    return [sys.executable, "-c", OURS, "convert", str(source), str(out), "--overwrite"]


def theirs(source: Path, out: Path) -> list[str]:
    """The same with DuckDB."""
    return [sys.executable, "-c", THEIRS, str(source), str(out)]


def compare(name: str, rows: int, runs: int, one: list[str], other: list[str]) -> None:
    """Run both in turns and print a line."""
    taken = [(measured(one), measured(other)) for _ in range(runs)]
    (mine, _, peak), (base, _, base_peak) = (
        [statistics.median(run[side][i] for run in taken) for i in range(3)] for side in (0, 1)
    )
    clock, processor = (statistics.median(b[i] / a[i] for a, b in taken) for i in (0, 1))
    print(
        f"{name}  blip2cli {rows / mine:9.0f} rows/s {peak:5.0f} MiB   "
        f"DuckDB {rows / base:9.0f} rows/s {base_peak:5.0f} MiB   "
        f"ratio {clock:.2f}, of processor time {processor:.2f}",
        flush=True,
    )


def main() -> None:
    """Print two lines, and whether the rows came back."""
    parser = argparse.ArgumentParser(description="Measure conversions beside DuckDB.")
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each")
    parser.add_argument("--folder", type=Path, help="where the files go; they are removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        source, back = folder / "in.jsonl", folder / "back.jsonl"
        write(source, options.rows)
        print(f"{options.rows} rows, {source.stat().st_size >> 20} MiB, {os.cpu_count()} cores")
        made: dict[Callable[[Path, Path], list[str]], Path] = {
            ours: folder / "ours.parquet",
            theirs: folder / "theirs.parquet",
        }
        pair = (make(source, out) for make, out in made.items())
        compare("JSONL → Parquet", options.rows, options.runs, *pair)
        other = folder / "theirs.jsonl"
        compare(
            "Parquet → JSONL",
            options.rows,
            options.runs,
            ours(made[ours], back),
            theirs(made[ours], other),
        )
        same = filecmp.cmp(source, back, shallow=False)
        print("back byte for byte" if same else "WHAT CAME BACK DIFFERS")


if __name__ == "__main__":
    main()
