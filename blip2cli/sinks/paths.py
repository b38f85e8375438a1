"""The names of an output and of the files beside it, and the checks before a run.

For ``photos/captions.jsonl``: ``captions.errors.jsonl`` (failed images), and hidden, so that
data-set loaders pass them over: ``.captions.jsonl.meta.json`` (settings), while a run lasts
``.captions.jsonl.lock`` and temporary files and, for Parquet, ``.captions.parquet.part-000000`` and
so on.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass

from blip2cli.errors import OutputError
from blip2cli.options import OutputOptions
from blip2cli.storage.opening import is_remote
from blip2cli.storage.remote_errors import hide_secrets

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")

_OTHER_SPELLINGS = {
    ".json": ".jsonl", ".ndjson": ".jsonl", ".jl": ".jsonl", ".json.gz": ".jsonl.gz",
    ".ndjson.gz": ".jsonl.gz", ".gz": ".jsonl.gz", ".pq": ".parquet", ".parq": ".parquet",
}  # fmt: skip
_PART = ".part-"


@dataclass(frozen=True)
class OutputPaths:
    """Absolute paths of an output and its companions, all in one folder."""

    final: str

    @classmethod
    def of(cls, out: str) -> OutputPaths:
        """Symbolic links are resolved: what they point to is replaced, not the link."""
        return cls(os.path.realpath(out))

    @property
    def folder(self) -> str:
        """The folder that holds everything."""
        return os.path.dirname(self.final)

    @property
    def compressed(self) -> bool:
        """Whether the output is gzipped."""
        return self.final.lower().endswith(".gz")

    def hidden(self, ending: str) -> str:
        """The path of a hidden companion."""
        return os.path.join(self.folder, f".{os.path.basename(self.final)}{ending}")

    @property
    def temporary(self) -> str:
        """Where new content is written before it takes its place."""
        return self.hidden(".tmp")

    def temporaries(self) -> tuple[str, ...]:
        """All temporary files; those of a killed run are of no use to anyone."""
        return self.temporary, self.hidden(".meta.tmp"), self.hidden(".errors.tmp")

    @property
    def lock(self) -> str:
        """What a run holds while it writes (see ``lock``)."""
        return self.hidden(".lock")

    @property
    def meta(self) -> str:
        """The settings beside a JSONL file."""
        return self.hidden(".meta.json")

    @property
    def next_meta(self) -> str:
        """The settings of a JSONL file that is about to take its place."""
        return self.hidden(".meta.next")

    @property
    def errors(self) -> str:
        """The failed images."""
        name = os.path.basename(self.final)
        suffix = known_suffix(name) or ""
        return os.path.join(self.folder, name[: len(name) - len(suffix)] + ".errors.jsonl")

    def part(self, number: int) -> str:
        """A committed piece of a Parquet file in the making."""
        return self.hidden(f"{_PART}{number:06d}")

    def parts(self) -> list[str]:
        """The committed pieces, in order.

        Without the first one, the others are what a finished merge had no time to remove: none
        counts.
        """
        parts = self.every_part()
        return parts if parts[:1] == [self.part(0)] else []

    def every_part(self) -> list[str]:
        """All files with the name of a piece, in order."""
        prefix = os.path.basename(self.hidden(_PART))
        with os.scandir(self.folder) as scan:
            found = [
                (int(entry.name[len(prefix) :]), entry.path)
                for entry in scan
                if entry.name.startswith(prefix) and entry.name[len(prefix) :].isdecimal()
            ]
        return [path for _, path in sorted(found)]


def known_suffix(out: str) -> str | None:
    """The known suffix that ``out`` ends in, in upper or lower case; the longest that fits."""
    fitting = [suffix for suffix in SUFFIXES if out.lower().endswith(suffix)]
    return max(fitting, key=len, default=None)


def to_stdout(options: OutputOptions) -> bool:
    """True when rows go to standard output."""
    return options.out is None or options.out == "-"


def check_output(options: OutputOptions) -> None:
    """Raise OutputError now for what would keep the output from being written later."""
    if options.resume and options.overwrite:
        raise OutputError(
            "--resume and --overwrite contradict each other: the first goes on with what is "
            "there, the second replaces it; give one."
        )
    if to_stdout(options):
        if options.resume:
            raise OutputError("--resume needs a file to go on with; name it with -o.")
        return
    out = options.out or ""
    if is_remote(out):
        raise OutputError(
            f"The output {hide_secrets(out)!r} is a URL, but rows are only written to the local "
            "disk; name a local file, and copy it there afterwards."
        )
    if os.path.isdir(out):
        raise OutputError(
            f"The output {out!r} is a folder; name a file in it, "
            f"for example {os.path.join(out, 'captions.jsonl')!r}."
        )
    if known_suffix(out) is None or known_suffix(out) == os.path.basename(out).lower():
        raise OutputError(_suffix_advice(out))
    paths = OutputPaths.of(out)
    if not os.path.isdir(paths.folder):
        folder = os.path.dirname(out) or paths.folder
        raise OutputError(
            f"The folder {folder!r} for the output does not exist; create it (mkdir -p) first."
        )
    if os.path.lexists(paths.final):
        if not os.path.isfile(paths.final):
            raise OutputError(f"The output {out!r} is not a regular file; choose another name.")
        if not (options.overwrite or options.resume):
            raise OutputError(
                f"The output {out!r} exists already; add --resume to go on with it, --overwrite "
                "to replace it, or choose another name."
            )
    elif not (options.overwrite or options.resume) and paths.parts():
        raise OutputError(
            f"An unfinished run left rows for {out!r} beside it; add --resume to go on with them, "
            "--overwrite to start anew without them, or choose another name."
        )


def _suffix_advice(out: str) -> str:
    known = f"known are {', '.join(SUFFIXES)}"
    name = os.path.basename(out).lower()
    if "." not in name.lstrip("."):
        return f"The output {out!r} has no suffix that says its format; {known}."
    suffix = next(
        (s for s in sorted(_OTHER_SPELLINGS, key=len, reverse=True) if name.endswith(s)), None
    )
    if suffix:
        meant: str | None = _OTHER_SPELLINGS[suffix]
    else:
        suffix = os.path.splitext(name)[1]
        meant = next(iter(difflib.get_close_matches(suffix, SUFFIXES, n=1)), None)
    hint = f"; did you mean {meant}?" if meant else "."
    return f"The output {out!r} has the unknown suffix {suffix!r}, {known}{hint}"
