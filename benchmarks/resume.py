"""What it costs to go on with a very large output: ``python benchmarks/resume.py [--rows N]``.

Captions four images of a manifest, then lets the output, its list of failures and the manifest
grow to N rows and M failures with made-up names, as a run of weeks would leave them. Measured, each
in a process of its own: a reference to each image of the manifest, which a resume does not make,
and a ``--resume`` that finds nothing left to do: seconds, and peak resident memory of the process.
``--formats folder`` is a folder of parts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import Process
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from work import draw_images

from blip2cli.sinks.row_groups import row_groups

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


def tables(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    """``table``, then ``rows`` copies of its first row with made-up names, in blocks."""
    place = table.schema.get_field_index("file_name")
    field = table.schema.field(place)
    yield table
    for block in blocks(rows):
        some = table.take(pa.array([0] * len(block)))
        yield some.set_column(place, field, pa.array(map(name, block), field.type))


def grow_folder(out: Path, rows: int) -> None:
    """Add made-up rows to a folder of parts of ``BLOCK`` rows."""
    first = out / "part-00000.parquet"
    batches = (b for t in tables(pq.read_table(first), rows) for b in t.to_batches())
    schema = pq.read_schema(first)
    for number, part in enumerate(row_groups(batches, schema, BLOCK)):
        pq.write_table(part, out / f"part-{number:05d}.parquet", compression="zstd")


def grow(out: Path, manifest: Path, rows: int, failures: int) -> None:
    """Append made-up rows and failures to the output, and their names to the manifest."""
    if out.is_dir():
        grow_folder(out, rows)
    elif out.suffix == ".parquet":
        table = pq.read_table(out)
        small = out.with_name("grown.parquet")
        with pq.ParquetWriter(small, table.schema) as writer:
            for some in tables(table, rows):
                writer.write_table(some)
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
    """Print a line for references and one for each format."""
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
            run = [str(COMMAND), "caption", str(manifest), "--model", "tiny", "-q", "-o"]
            run.append(f"{out}{'/' if suffix == 'folder' else ''}")
            measured(run)
            # In a process of its own: the memory of this one counts for those it starts.
            growing = Process(target=grow, args=(out, manifest, options.rows, options.failures))
            growing.start()
            growing.join()
            _, seconds, memory = measured([sys.executable, "-c", LIST, str(manifest)])
            print(f"a reference of each: {seconds:.1f} s, {memory:.0f} MiB", flush=True)
            # The first run reads all names, and notes of a folder that nothing is left to do.
            for what in ("", " again", " again")[: 3 if suffix == "folder" else 1]:
                code, seconds, memory = measured([*run, "--resume"])
                print(
                    f"{suffix}{what}: {options.rows} rows, {options.failures} failures, exit code "
                    f"{code}: {seconds:.1f} s, {memory:.0f} MiB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
