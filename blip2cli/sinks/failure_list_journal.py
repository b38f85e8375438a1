"""Reads a list of failed images back, when a run resumes."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.text_encoding import from_utf8


@dataclass(frozen=True)
class FailureJournal:
    """The images that a list of failures holds."""

    paths: OutputPaths
    failed: frozenset[str]  # without those that have rows now
    end: int  # bytes of complete lines; a torn one may follow

    def complete(self, settled: Collection[str] = ()) -> None:
        """Leave the latest line of every image that failed and has no rows.

        Of a ``settled`` image only lines behind ``end`` count, those of the current run. Raises
        OSError.
        """
        lines: dict[str, bytes] = {}
        with open(self.paths.errors, "rb") as file:
            data = file.read()
        position = 0
        for line in data.splitlines(keepends=True):
            old = position < self.end
            position += len(line)
            name = _name(line)
            if name is None or (old and (name in settled or name not in self.failed)):
                continue
            lines.pop(name, None)
            lines[name] = line
        if not lines:
            durable.remove(self.paths.errors)
        elif (latest := b"".join(lines.values())) != data:
            durable.replace_file(self.paths.temporary(), self.paths.errors, latest)


def read_failures(paths: OutputPaths, done: HashSet) -> FailureJournal | None:
    """The journal of the failures beside an output; None when there is no list.

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
    return FailureJournal(paths, frozenset(failed), end)


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
    """The image that a complete line is about; None for a torn or foreign line."""
    if not line.endswith(b"\n"):
        return None
    try:
        name = json.loads(line)["file_name"]
    except (ValueError, KeyError, TypeError):
        return None
    return from_utf8(name) if isinstance(name, str) else None
