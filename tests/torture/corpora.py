"""Fuzzing the image decoders: hostile files, truncated ones and mutants. None may end a run.

``python -m tests.torture.corpora`` decodes, in the real loader's worker processes,

* the images that once crashed, hung or filled the memory of Pillow, and malformed BMPs, from the
  source distribution of Pillow 11.3.0 (fetched with pip into a cache; left out when offline);
* every prefix of small valid images, one for each format;
* bombs: pictures of some megabytes that would cost minutes or gigabytes, and mutants of them;
* mutants of the small images, drawn from ``--seed``: changed bytes and bits, slices moved between
  formats, length fields set to extremes, cuts. PNG checksums are made right again in every second
  mutant, since a wrong one would end the decoding at once.

Each has to end as pixels or as a failure with a name that the reference lists. A decoder that takes
its process down is reported, but survived: it costs the one image. What may not be: an unlisted
name, an exception nobody foresaw, a hang, workers whose memory grows. ``--full`` takes ten
thousand mutants instead of one, and the prefixes of all formats instead of three.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from blip2cli.images.batch_stream import BatchStream
from blip2cli.images.decode import FORMATS
from blip2cli.images.limits import MAX_BYTES
from blip2cli.images.preprocess import PixelSpec
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef
from blip2cli.system.cores import available_cores
from tests.torture.bombs import bomb_mutants, bombs
from tests.torture.mutants import mutants, prefixes

SPEC = PixelSpec(32, 32)
TIMEOUT = 30.0  # seconds; the slowest legal image, 179 million pixels, takes a few
# Bytes of a worker at its peak: an interpreter, a file, and what decoding may take.
MAX_PEAK = MAX_BYTES + (512 << 20)
MAX_GROWTH = 100 << 20  # bytes a worker may have gained between the first and the last mutants
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
PILLOW = "pillow==11.3.0"  # the last whose source distribution still holds the hostile images
_HOSTILE = re.compile(r"/Tests/images/(?:.*/)?(?:(?:crash|timeout|oom)-[^/]*|bmp/b/[^/]+\.bmp)$")


@dataclass
class Findings:
    """Counts of decoded and failed images of one or several corpora."""

    tried: int = 0
    rows: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # by error_type
    crashes: list[str] = field(default_factory=list)  # names; survived, but worth a report
    faults: list[str] = field(default_factory=list)  # sentences; none is allowed
    hangs: int = 0
    peak: int = 0  # bytes, of the largest worker
    saved: Path | None = None  # where the images behind crashes and faults are written

    def note(self, ref: ImageRef, error_type: str, message: str, known: frozenset[str]) -> None:
        """Count one failed image."""
        self.failures[error_type] += 1
        if error_type == "decoder_crashed":
            self.crashes.append(ref.file_name)
        elif error_type == "timeout":
            self.hangs += 1
            self.faults.append(f"{ref.file_name} hangs for more than {TIMEOUT:g} s")
        elif error_type == "decode_error":
            self.faults.append(f"{ref.file_name} was not foreseen: {message}")
        elif error_type not in known:
            self.faults.append(f"{ref.file_name} fails as {error_type}, which the page lacks")
        else:
            return
        if self.saved is not None:
            (self.saved / re.sub(r"\W+", "-", ref.file_name)).write_bytes(ref.read())

    def line(self) -> str:
        """The counts in one line."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.failures.most_common())
        return (
            f"{self.tried} images: {self.rows} rows, {self.failures.total()} failures "
            f"({kinds}); {len(self.crashes)} crashes survived, {self.hangs} hangs, "
            f"{len(self.faults)} faults; largest worker {self.peak >> 20} MiB"
        )


def documented() -> frozenset[str]:
    """The names of failures that the reference lists."""
    text = PAGE.read_text(encoding="utf-8")
    return frozenset(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))


def check(refs: Iterable[ImageRef], findings: Findings, workers: int | None = None) -> list[int]:
    """Decode all of ``refs`` in workers; return the size of the largest worker after each batch.

    Sizes are resident bytes, 0 where there is no ``/proc``.
    """
    known = documented()
    waiting: list[ImageRef] = []

    def remembered() -> Iterator[ImageRef]:
        for ref in refs:
            waiting.append(ref)
            yield ref

    sizes: list[int] = []
    options = LoaderOptions(32, workers or available_cores(), TIMEOUT)
    with BatchStream(remembered(), SPEC, options) as batches:
        for batch in batches:
            now, peak = _worker_memory()
            sizes.append(now)
            findings.peak = max(findings.peak, peak)
            for item in batch.items:
                ref = waiting.pop(0)
                assert ref.file_name == item.file_name
                findings.tried += 1
                if item.error is None:
                    findings.rows += 1
                else:
                    findings.note(ref, item.error.error_type, str(item.error), known)
            good = sum(item.error is None for item in batch.items)
            if batch.pixels.shape != (good, 3, SPEC.height, SPEC.width):
                findings.faults.append(f"pixels of shape {tuple(batch.pixels.shape)}")
    if waiting:
        findings.faults.append(f"{len(waiting)} images were lost")
    return sizes


def growth(sizes: list[int]) -> int:
    """Bytes by which the largest worker of the last fifth exceeds that of the second fifth."""
    fifth = len(sizes) // 5
    return max(sizes[-fifth:]) - max(sizes[fifth : 2 * fifth]) if fifth else 0


def _worker_memory() -> tuple[int, int]:
    """Resident and peak bytes of the largest worker, a child of this process."""
    now = peak = 0
    for entry in Path("/proc").glob("[0-9]*/status"):
        try:
            status = entry.read_text()
        except OSError:
            continue
        found = dict(re.findall(r"^(PPid|VmHWM|VmRSS):\s+(\d+)", status, re.MULTILINE))
        if found["PPid"] == str(os.getpid()):
            now = max(now, int(found.get("VmRSS", 0)) << 10)
            peak = max(peak, int(found.get("VmHWM", 0)) << 10)
    return now, peak


def hostile(cache: Path, fetch: bool = True) -> list[ImageRef]:
    """The hostile images of Pillow's source distribution, unpacked below ``cache``.

    Raises LookupError, with the reason, when they are not there and cannot be had.
    """
    folder = cache / "hostile"
    if not folder.is_dir():
        archive = cache / f"{PILLOW.replace('==', '-')}.tar.gz"
        if not archive.exists():
            if not fetch:
                raise LookupError("make torture fetches them")
            _download(archive)
        _unpack(archive, folder)
    return [ImageRef(path.name, str(path)) for path in sorted(folder.iterdir())]


def _download(archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-binary", "pillow", "--dest", str(archive.parent), PILLOW],
        capture_output=True,
        text=True,
        check=False,
    )
    if not archive.exists():
        errors = re.findall(r"^ERROR: (.+)$", done.stderr, re.MULTILINE)
        raise LookupError(errors[-1] if errors else f"pip ended with {done.returncode}")


def _unpack(archive: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary, tarfile.open(archive) as tar:
        unpacked = Path(temporary) / "unpacked"
        unpacked.mkdir()
        for member in tar:
            if member.isfile() and _HOSTILE.search(member.name):
                file = tar.extractfile(member)
                assert file is not None
                (unpacked / Path(member.name).name).write_bytes(file.read())
        unpacked.rename(folder)  # all or nothing


def cache_folder() -> Path:
    """Where the hostile images stay between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "blip2cli-torture"


def main() -> int:
    """Command line: run all corpora and print the counts; returns 1 when there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.corpora")
    parser.add_argument("--full", action="store_true", help="ten times the mutants, all prefixes")
    parser.add_argument("--seed", type=int, default=1, help="what mutants are drawn from")
    parser.add_argument("--cache", type=Path, default=cache_folder())
    given = parser.parse_args()
    began = time.monotonic()
    saved = Path(tempfile.mkdtemp(prefix="blip2cli-corpora-"))
    findings = Findings(saved=saved)
    try:
        refs = hostile(given.cache)
        check(refs, findings)
        print(f"hostile: {len(refs)} images; so far {findings.line()}", flush=True)
    except LookupError as reason:
        print(f"hostile: skipped, {PILLOW} cannot be had as a source: {reason}", flush=True)
    kinds = FORMATS if given.full else tuple(islice(FORMATS, 3))
    check(prefixes(kinds), findings)
    print(f"prefixes of {', '.join(kinds)}; so far {findings.line()}", flush=True)
    check(bombs(), findings)
    check(bomb_mutants(600 if given.full else 60, given.seed), findings)
    if findings.peak > MAX_PEAK:
        findings.faults.append(f"a worker took {findings.peak >> 20} MiB")
    print(f"bombs; so far {findings.line()}", flush=True)
    sizes = check(mutants(10_000 if given.full else 1_000, given.seed), findings)
    if growth(sizes) > MAX_GROWTH:
        findings.faults.append(f"workers grew by {growth(sizes) >> 20} MiB")
    for name in findings.crashes:
        print(f"crash, survived: {name}")
    for fault in findings.faults:
        print(f"FAULT: {fault}")
    if any(saved.iterdir()):
        print(f"their images are kept in {saved}")
    print(
        f"corpora, seed {given.seed}: {findings.line()}, growth {growth(sizes) >> 20} MiB; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
