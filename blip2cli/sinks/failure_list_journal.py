"""Reads a list of failed images back, when a run resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from blip2cli.errors import OutputError, option
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import claim_failures
from blip2cli.storage import durable
from blip2cli.storage.hash_set import OCCURRENCE, HashSet, occurrence_key
from blip2cli.storage.text_encoding import from_utf8


@dataclass(frozen=True)
class FailureJournal:
    """The images that a list of failures holds."""

    paths: OutputPaths
    failed: HashSet  # their keys, without those that have rows now
    end: int  # bytes of complete lines; a torn one may follow
    repeated: frozenset[str] = frozenset()  # images with several lines: a retry was stopped

    def complete(self, settled: HashSet | tuple[str, ...] = ()) -> None:
        """Leave the latest line of every image that failed and has no rows.

        Of a ``settled`` image only lines behind ``end`` count, those of the current run. Raises
        OSError.
        """
        latest = {name: start for start, name, _ in self._lines() if name in self.repeated}

        def left() -> Iterator[bytes]:
            for start, name, line in self._lines():
                settles = name in settled or name not in self.failed
                outdated = settles and start < self.end
                if not outdated and latest.get(name, start) == start:
                    yield line

        size = sum(map(len, left()))
        if not size:
            durable.remove(self.paths.errors)
            claim_failures(self.paths, owned=False)
        elif size != os.stat(self.paths.errors).st_size:
            with durable.written(self.paths.temporary(), self.paths.errors) as file:
                file.writelines(left())

    def _lines(self) -> Iterator[tuple[int, str, bytes]]:
        """Where each complete line starts, its image, and the line."""
        start = 0
        with open(durable.open_regular(self.paths.errors, os.O_RDONLY), "rb") as file:
            for line in file:
                name = _name(line)
                if name is not None:
                    yield start, name, line
                start += len(line)


def read_failures(paths: OutputPaths, done: HashSet) -> FailureJournal | None:
    """The journal of the failures beside an output; None when there is no list.

    ``done`` are the images that have rows: a retry may have been stopped before the file was
    brought up to date. Raises OutputError for a line that is none of ours, OSError.
    """
    end = 0
    failed = HashSet()
    repeated = set()
    try:
        with open(durable.open_regular(paths.errors, os.O_RDONLY), "rb") as file:
            for number, line in enumerate(file, 1):
                name = _name(line)
                if name is None:
                    if not line.endswith(b"\n"):
                        break  # torn, as by a power cut
                    raise OutputError(
                        "resume",
                        f"{option('resume')}: line {number} of {paths.errors!r} is damaged",
                        "move the list away, and the images in it are tried again",
                    )
                end += len(line)
                if name not in done and not failed.add(name):
                    repeated.add(name)
    except FileNotFoundError:
        return None
    return FailureJournal(paths, failed, end, frozenset(repeated))


def old_failure_list(out: str) -> str | None:
    """The list of failures that version 0.1 left beside the output ``out``, if there is one."""
    path = OutputPaths.of(out).old_errors
    try:
        with open(path, "rb") as file:
            first = json.loads(file.readline(1 << 20))
        return path if {"file_name", "error_type", "message"} <= first.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _name(line: bytes) -> str | None:
    """The key of the image that a complete line is about; None for a torn or foreign line."""
    if not line.endswith(b"\n"):
        return None
    try:
        failure = json.loads(line)
        return occurrence_key(from_utf8(failure["file_name"]), failure.get(OCCURRENCE))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
