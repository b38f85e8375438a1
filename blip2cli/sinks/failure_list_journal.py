"""Reading the file of failures back."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable
from blip2cli.storage.hash_set import HashSet


@dataclass(frozen=True)
class ErrorJournal:
    """The images that a file of failures names."""

    paths: OutputPaths
    failed: frozenset[str]  # without those that have rows after all
    end: int  # bytes of whole lines; behind them is what a crash tore

    def complete(self, settled: Collection[str] = ()) -> None:
        """Leave one line for every image that failed and has no rows, the latest.

        Of a ``settled`` image only lines behind ``end`` count, those of the run that is
        completing. Raises OSError.
        """
        kept: dict[str, bytes] = {}
        with open(self.paths.errors, "rb") as file:
            data = file.read()
        place = 0
        for line in data.splitlines(keepends=True):
            old = place < self.end
            place += len(line)
            name = _name(line)
            if name is None or (old and (name in settled or name not in self.failed)):
                continue
            kept.pop(name, None)
            kept[name] = line
        if not kept:
            durable.remove(self.paths.errors)
        elif (whole := b"".join(kept.values())) != data:
            durable.replace_file(self.paths.hidden(".errors.tmp"), self.paths.errors, whole)


def read_errors(paths: OutputPaths, done: HashSet) -> ErrorJournal | None:
    """The journal of the failures beside an output, None when none are noted.

    ``done`` are the images that have rows: a retry may have been stopped before the file was
    brought up to date.
    """
    try:
        with open(paths.errors, "rb") as file:
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    end = 0
    failed = set()
    for line in lines:
        name = _name(line)
        if name is None:
            break
        end += len(line)
        if name not in done:
            failed.add(name)
    return ErrorJournal(paths, frozenset(failed), end)


def _name(line: bytes) -> str | None:
    """The image a whole line is about."""
    if not line.endswith(b"\n"):
        return None
    try:
        name = json.loads(line)["file_name"]
    except (ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None
