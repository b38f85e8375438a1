"""The paths of an output and of the files beside it.

For ``photos/captions.jsonl``: ``captions.jsonl.errors`` (failed images), which no pattern for rows
matches, and hidden, so that data-set loaders pass them over: ``.captions.jsonl.meta.json``
(settings), while a run lasts ``.captions.jsonl.lock`` and temporary files and, for Parquet,
``.captions.parquet.part-000000`` and so on. For the folder ``captions/``: ``captions.errors``,
``.captions.meta.json``, ``.captions.rows-…`` (see ``folder_layout``) and so on, all beside it. For
``s3://bucket/captions/``: ``captions.errors`` beside it, and the rest in ``.captions/``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from blip2cli.options import OutputOptions
from blip2cli.sinks.folder_layout import HIDDEN, VISIBLE
from blip2cli.sinks.format_table import FOLDER, known_suffix
from blip2cli.storage.durable import temporary_name
from blip2cli.storage.opening import is_remote

_PART = ".part-"
LONGEST_ENDING = len(f".{_PART}000000")  # bytes that a name beside the output has more


@dataclass(frozen=True)
class OutputPaths:
    """Absolute paths of an output and the files that belong to it, all in one folder."""

    final: str
    replace: bool = False  # whether a new output may take the place of an old one
    is_folder: bool = False  # the output is a folder of parts

    @classmethod
    def of(cls, out: str, replace: bool = False) -> OutputPaths:
        """Symbolic links are resolved: what they point to is replaced, not the link."""
        if is_remote(out):
            return cls(out.rstrip("/"), replace, True)
        return cls(os.path.realpath(out), replace, known_suffix(out) == FOLDER)

    @property
    def is_remote(self) -> bool:
        """Whether paths are URLs of an object store."""
        return is_remote(self.final)

    @property
    def folder(self) -> str:
        return os.path.dirname(self.final)

    @property
    def beside_folder(self) -> str:
        """The URL below which everything hidden lies that belongs to an output on a store."""
        return self.hidden("")

    @property
    def compressed(self) -> bool:
        return self.final.lower().endswith(".gz")

    def hidden(self, ending: str) -> str:
        """The path of a hidden file beside the output."""
        return os.path.join(self.folder, f".{os.path.basename(self.final)}{ending}")

    def temporary(self) -> str:
        """A new name for content that is renamed into place later."""
        return temporary_name(self.final)

    @property
    def lock(self) -> str:
        """The lock file of the run that writes (see ``lock``), or the folder of lock objects."""
        return self.hidden("/lock" if self.is_remote else ".lock")

    @property
    def meta(self) -> str:
        """The settings of a JSONL output or a folder."""
        return self.hidden("/meta.json" if self.is_remote else ".meta.json")

    @property
    def next_meta(self) -> str:
        """The settings of a JSONL output that is about to be renamed into place."""
        return self.hidden(".meta.next")

    @property
    def errors(self) -> str:
        """The list of failed images: the whole name of the output, so that it has one owner."""
        return self.final + ".errors"

    @property
    def old_errors(self) -> str:
        """Where version 0.1 listed failed images, for all outputs with the same stem."""
        stem = self.final[: len(self.final) - len(known_suffix(self.final) or "")]
        return (self.final if self.is_folder else stem) + ".errors.jsonl"

    def beside(self) -> list[str]:
        """The names of the files that last beside the output, whether they are there or not."""
        return [self.meta, self.next_meta, self.errors, *self.beside_parts()]

    def beside_parts(self) -> list[str]:
        """All part files, of an output whose format has any."""
        if self.is_remote:
            return []
        parted = self.is_folder or self.final.lower().endswith(".parquet")
        return self.every_part() if parted else []

    def with_rows(self) -> list[str]:
        """The files that hold rows of the output, or may."""
        if self.is_remote:
            return []
        if self.is_folder and os.path.isdir(self.final):
            names = filter(VISIBLE.fullmatch, sorted(os.listdir(self.final)))
            return [*(os.path.join(self.final, name) for name in names), *self.beside_parts()]
        return [self.final, *self.beside_parts()]

    def own(self, path: str) -> bool:
        """Whether ``path`` is one of the files beside the output that belong to it."""
        folder, name = os.path.split(path)
        inside = self.is_folder and (path == self.final or path.startswith(self.final + os.sep))
        beside = folder == self.folder and name.startswith(f".{os.path.basename(self.final)}.")
        return path == self.errors or beside or inside

    def part(self, number: int) -> str:
        """A part file: committed rows of a Parquet output that is not complete yet."""
        return self.hidden(f"{_PART}{number:06d}")

    def parts(self) -> list[str]:
        """The part files, in order.

        Beside an output and without the first one, the others are left over from a finished
        merge: none counts. Of a folder they are its hidden files.
        """
        parts = self.every_part()
        if self.is_folder:
            return parts
        merged = parts[:1] != [self.part(0)] and os.path.exists(self.final)
        return [] if merged else parts

    def next_part(self, parts: Sequence[str]) -> str:
        """The path of the part that follows ``parts``, of which some may be missing."""
        return self.part(int(parts[-1].rpartition("-")[2]) + 1 if parts else 0)

    def every_part(self) -> list[str]:
        """All files with the name of a part, in order; of a folder its hidden files."""
        if self.is_folder:
            start = os.path.basename(self.hidden("."))
            names = sorted(name for name in os.listdir(self.folder) if name.startswith(start))
            ours = (name for name in names if HIDDEN.fullmatch(name[len(start) :]))
            return [os.path.join(self.folder, name) for name in ours]
        prefix = os.path.basename(self.hidden(_PART))
        with os.scandir(self.folder) as scan:
            found = [
                (int(entry.name[len(prefix) :]), entry.path)
                for entry in scan
                if entry.name.startswith(prefix) and entry.name[len(prefix) :].isdecimal()
            ]
        return [path for _, path in sorted(found)]


def to_stdout(options: OutputOptions) -> bool:
    """True when rows go to standard output."""
    return options.out is None or options.out == "-"
