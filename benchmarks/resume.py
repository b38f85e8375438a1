"""What it costs to go on with a very large output: ``python benchmarks/resume.py [--rows N]``.

Captions four images of a manifest, then lets the output, its list of failures and the manifest
grow to N rows and M failures with made-up names, as a run of weeks would leave them. Measured, each
in a process of its own: listing the manifest, and a ``--resume`` that finds nothing left to do:
seconds, and peak resident memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from work import draw_images

COMMAND = Path(sys.executable).with_name("blip2cli")
BLOCK = 100_000  # rows made at once
LIST = """
import sys
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
print(sum(1 for _ in open_sources(SourceOptions((sys.argv[1],)))))
"""


def name(number: int) -> str:
    """A made-up name of the length that names have."""
    return f"train/{number // 10_000:05d}/{number:012d}.jpg"


def blocks(count: int, first: int = 0) -> Iterator[range]:
    """``count`` numbers from ``first`` on, in blocks."""
    for start in range(first, first + count, BLOCK):
        yield range(start, min(start + BLOCK, first + count))


def grow(out: Path, manifest: Path, rows: int, failures: int) -> None:
    """Append made-up rows and failures to the output, and their names to the manifest."""
    if out.suffix == ".parquet":
        table = pq.read_table(out)
        small = out.with_name("grown.parquet")
        with pq.ParquetWriter(small, table.schema) as writer:
            writer.write_table(table)
            for block in blocks(rows):
                some = table.take(pa.array([0] * len(block)))
                place = table.schema.get_field_index("file_name")
                column = pa.array(map(name, block), table.schema.field("file_name").type)
                writer.write_table(some.set_column(place, table.schema.field(place), column))
        os.replace(small, out)
    else:
        row = json.loads(out.read_text(encoding="utf-8").splitlines()[0])
        with open(out, "a", encoding="utf-8") as file:
            for block in blocks(rows):
                file.writelines(f"{json.dumps(row | {'file_name': name(n)})}\n" for n in block)
    failure = json.loads(Path(f"{out}.errors").read_text(encoding="utf-8").splitlines()[0])
    with open(f"{out}.errors", "a", encoding="utf-8") as file:
        for block in blocks(failures, rows):
            file.writelines(f"{json.dumps(failure | {'file_name': name(n)})}\n" for n in block)
    with open(manifest, "a", encoding="utf-8") as file:
        for block in blocks(rows + failures):
            file.writelines(f"{name(n)}\n" for n in block)


def measured(command: list[str]) -> tuple[int, float, float]:
    """Exit code, seconds and peak MiB of a command."""
    began = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - began
    return os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss / 1024


def main() -> None:
    """Print a line for listing and one for each format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--failures", type=int, default=2_000_000)
    parser.add_argument("--formats", nargs="+", default=[".jsonl", ".parquet"])
    options = parser.parse_args()
    for suffix in options.formats:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            draw_images(root / "images", 4, (80, 60))
            (root / "images" / "broken.png").write_bytes(b"no picture")
            manifest, out = root / "images" / "list.txt", root / f"out{suffix}"
            names = sorted(path.name for path in (root / "images").glob("*.*"))
            manifest.write_text("".join(f"{n}\n" for n in names), encoding="utf-8")
            run = [str(COMMAND), "caption", str(manifest), "--model", "tiny", "-q", "-o", str(out)]
            measured(run)
            grow(out, manifest, options.rows, options.failures)
            _, listing, memory = measured([sys.executable, "-c", LIST, str(manifest)])
            print(f"listing: {listing:.1f} s, {memory:.0f} MiB", flush=True)
            code, seconds, memory = measured([*run, "--resume"])
            print(
                f"{suffix}: {options.rows} rows, {options.failures} failures, exit code {code}: "
                f"{seconds:.1f} s ({seconds - listing:.1f} s besides listing), {memory:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
