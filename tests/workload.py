"""One caption command for durability tests, and checks of its output at every moment."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fork_server import Child, Completed, ForkServer

FORMATS = (".jsonl", ".jsonl.gz", ".parquet", "/")

# Set before every run, so that a run of a second has as many commits as one of hours.
CONSTANTS: dict[str, dict[str, object]] = {
    ".jsonl": {
        "blip2cli.sinks.jsonl.SYNC_SECONDS": 0.0,
        "blip2cli.sinks.failure_list.SYNC_SECONDS": 0.0,
    },
    ".jsonl.gz": {
        "blip2cli.sinks.jsonl.SYNC_SECONDS": 0.0,
        "blip2cli.sinks.failure_list.SYNC_SECONDS": 0.0,
        "blip2cli.sinks.jsonl.MEMBER_BYTES": 600,
    },
    ".parquet": {
        "blip2cli.sinks.failure_list.SYNC_SECONDS": 0.0,
        "blip2cli.sinks.row_groups.PART_SECONDS": 0.0,
        "blip2cli.sinks.row_groups.GROUP_ROWS": 8,
    },
    "/": {
        "blip2cli.sinks.failure_list.SYNC_SECONDS": 0.0,
        "blip2cli.sinks.row_groups.PART_SECONDS": 0.0,
        "blip2cli.sinks.row_groups.GROUP_ROWS": 3,
    },
}
FLAGS = {"/": ("--rows-per-part", "5")}

GOOD_CODES = (0, 3)  # finished: with every image, or without some


class Violation(AssertionError):  # noqa: N818 - a finding, not an error of the test
    """A promise of durability does not hold."""


@dataclass(frozen=True)
class Workload:
    """One caption command; its output folder holds nothing but what the command writes."""

    source: Path
    suffix: str
    extra: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the output."""
        return f"out{self.suffix}".rstrip("/")

    def arguments(self, folder: Path, *flags: str, batch_size: int = 3) -> list[str]:
        """The whole command line."""
        fixed = ["--model", "tiny", "--workers", "0", "--max-new-tokens", "4", "--quiet"]
        size = ["--batch-size", str(batch_size)]
        out = ["-o", f"{folder}/out{self.suffix}", *FLAGS.get(self.suffix, ())]
        return ["caption", str(self.source), *fixed, *size, *out, *self.extra, *flags]

    def start(
        self,
        fork_server: ForkServer,
        folder: Path,
        *flags: str,
        batch_size: int = 3,
        file_size: int | None = None,
    ) -> Child:
        """Start it in the fork server; the child waits for ``go``."""
        arguments = self.arguments(folder, *flags, batch_size=batch_size)
        return fork_server.start(arguments, folder.parent, CONSTANTS[self.suffix], file_size)

    def unbroken(self, fork_server: ForkServer, folder: Path) -> Reference:
        """Run it to its end in the new ``folder``."""
        folder.mkdir()
        return Reference.of(self.start(fork_server, folder).wait(), folder, self.name)


@dataclass(frozen=True)
class Reference:
    """What an unbroken run leaves in its folder."""

    name: str
    files: dict[str, bytes]

    @classmethod
    def of(cls, ended: Completed, folder: Path, name: str) -> Reference:
        """Take it from the folder of a run that was not interrupted."""
        if ended.code not in GOOD_CODES or ended.stderr:
            raise Violation(f"the unbroken run ended with {ended}")
        return cls(name, contents(folder))

    def check_same_rows(self, other: Reference) -> None:
        """Raise ``Violation`` unless the other holds the same rows, in whatever order."""
        mine, others = self.table.sort_by("file_name"), other.table.sort_by("file_name")
        if not mine.equals(others) or self.errors != other.errors:
            raise Violation(f"there are other rows or failures than in {other.name}")

    @property
    def table(self) -> pa.Table:
        """The output's rows."""
        if parts := parts_of(self.name, self.files):
            return pa.concat_tables(pq.read_table(io.BytesIO(data)) for data in parts.values())
        if self.name.endswith(".parquet"):
            return pq.read_table(io.BytesIO(self.files[self.name]))
        return pa.Table.from_pylist([json.loads(line) for line in self.rows.splitlines()])

    @property
    def rows(self) -> bytes:
        """The output, without compression where that may differ."""
        return readable(self.name, self.files[self.name])

    @property
    def errors(self) -> bytes:
        """The file of failed images."""
        return self.files.get(self.name + ERRORS, b"")


ERRORS = ".errors"  # behind the whole name of the output


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder and below it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def parts_of(name: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files in the folder ``name``, in order."""
    return {path: files[path] for path in sorted(files) if path.startswith(f"{name}/")}


def readable(name: str, data: bytes) -> bytes:
    """What can be read of a file's ``data``: of gzip, as far as it can be unpacked.

    The inode number and the token, which settings hold, are left out.
    """
    if name.endswith(".meta.json"):
        return json.dumps(json.loads(data) | {"inode": 0, "token": ""}).encode()
    if not name.endswith(".gz"):
        return data
    text = b""
    while data:
        member = zlib.decompressobj(wbits=31)
        try:
            text += member.decompress(data)
        except zlib.error as error:
            raise Violation(f"{name} is no gzip after {len(text)} characters: {error}") from error
        if not member.eof:
            break
        data = member.unused_data
    return text


def check_legal(folder: Path, references: Sequence[Reference]) -> None:
    """Raise ``Violation`` unless the folder is in a state that an unfinished run may leave.

    ``references`` are the new output and, when one is being replaced, the old one.
    """
    name = references[0].name
    found = contents(folder)
    parts = parts_of(name, found)
    _check_parts(name, parts, references)
    for other in found.keys() - {name, name + ERRORS} - parts.keys():
        if not other.startswith(f".{name}."):
            raise Violation(f"{other} lies beside the output, where readers see it")
    if name in found:
        _check_output(name, found[name], references)
    _check_errors(found.get(name + ERRORS, b""), references)


def _check_parts(name: str, parts: dict[str, bytes], references: Sequence[Reference]) -> None:
    for reference in references:
        every = parts_of(name, reference.files)
        prefix = [*parts] == [*every][: len(parts)]
        if prefix and all(same_table(data, every[path]) for path, data in parts.items()):
            break
    else:
        # Before the first row there may be a part without rows.
        if len(parts) > 1 or any(pq.read_table(io.BytesIO(d)).num_rows for d in parts.values()):
            raise Violation(f"{[*parts]} are not complete, or not parts of one output")


def _check_output(name: str, data: bytes, references: Sequence[Reference]) -> None:
    if name.endswith(".parquet"):
        if not any(same_table(data, reference.files[name]) for reference in references):
            raise Violation(f"{name} is there, but not complete")
        return
    text = readable(name, data)
    if not any(reference.rows.startswith(text) for reference in references):
        raise Violation(f"{name} holds {_difference(text, references[0].rows)}")


def _check_errors(data: bytes, references: Sequence[Reference]) -> None:
    *whole, last = data.split(b"\n")
    known = [line for reference in references for line in reference.errors.split(b"\n")]
    for line in whole:
        if line not in known or not line:
            raise Violation(f"the list of failures holds the line {line!r}")
    if not any(line.startswith(last) for line in known):
        raise Violation(f"the list of failures ends with {last!r}")


def check_final(folder: Path, reference: Reference) -> None:
    """Raise ``Violation`` unless the folder holds exactly what the unbroken run left."""
    found = contents(folder)
    if found.keys() != reference.files.keys():
        more = sorted(found.keys() - reference.files.keys())
        less = sorted(reference.files.keys() - found.keys())
        raise Violation(f"at the end there is also {more}, and {less} is missing")
    for name, expected in reference.files.items():
        if name.endswith(".parquet"):
            if found[name] != expected:
                raise Violation(f"{name} differs from the unbroken run's")
            continue
        text, right = readable(name, found[name]), readable(name, expected)
        if text != right:
            raise Violation(f"{name} differs from the unbroken run's: {_difference(text, right)}")


def same_table(data: bytes, expected: bytes) -> bool:
    """Whether two Parquet files hold the same: equal bytes, or else equal rows and metadata."""
    if data == expected:
        return True
    try:
        table = pq.read_table(io.BytesIO(data))
        return bool(table.equals(pq.read_table(io.BytesIO(expected)), check_metadata=True))
    except (pa.ArrowInvalid, OSError):
        return False


def check_sentence(ended: Completed) -> None:
    """Raise ``Violation`` unless a failed run wrote one sentence and ended with 1 or 2."""
    lines = ended.stderr.splitlines()
    if ended.code not in (1, 2) or len(lines) != 1 or not lines[0].startswith("blip2cli: "):
        raise Violation(f"it ended with {ended.code} and wrote {ended.stderr!r}")
    if "Internal error" in lines[0]:
        raise Violation(f"it wrote {lines[0]!r}")


def check_finished(ended: Completed) -> None:
    """Raise ``Violation`` unless a run came to its end."""
    if ended.code not in GOOD_CODES:
        raise Violation(f"the resumed run ended with {ended.code} and wrote {ended.stderr!r}")


def _difference(text: bytes, expected: bytes) -> str:
    lines, right = text.splitlines(), expected.splitlines()
    for number, line in enumerate(lines):
        if number >= len(right) or line != right[number]:
            expected: Any = right[number] if number < len(right) else None
            return f"line {number + 1}: {line!r}, expected {expected!r}"
    return f"{len(lines)} lines, expected {len(right)}"
