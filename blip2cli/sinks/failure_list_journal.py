"""Reads a list of failed images back, when a run resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from blip2cli.errors import OutputError, option
from blip2cli.sinks.failure_list_file import list_size, open_list, remove_list, replace_list
from blip2cli.sinks.jsonl_lines import CHUNK, lines_of
from blip2cli.sinks.jsonl_rows import RowParser
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import claim_failures
from blip2cli.storage.hash_set import OCCURRENCE, HashSet, occurrence_key
from blip2cli.storage.text_encoding import from_utf8


@dataclass(frozen=True)
class FailureJournal:
    """The images that a list of failures holds."""

    paths: OutputPaths
    failed: HashSet  # their keys, without those that have rows now
    end: int  # bytes of complete lines
    torn: bool = False  # an incomplete line follows
    outdated: bool = False  # images have lines that have rows now
    repeated: frozenset[str] = frozenset()  # images with several lines: a retry was stopped

    def complete(self, settled: HashSet | tuple[str, ...] = ()) -> None:
        """Leave the latest line of every image that failed and has no rows.

        Of a ``settled`` image only lines behind ``end`` count, those of the current run. Raises
        OSError.
        """
        if self.end and not (self.torn or self.outdated or self.repeated or settled):
            return  # it is as it should be, with the lines of this run
        latest = {name: start for start, name, _ in self._lines() if name in self.repeated}

        def left() -> Iterator[bytes]:
            for start, name, line in self._lines():
                settles = name in settled or name not in self.failed
                outdated = settles and start < self.end
                if not outdated and latest.get(name, start) == start:
                    yield line

        size = sum(map(len, left()))
        if not size:
            remove_list(self.paths)
            claim_failures(self.paths, owned=False)
            return
        if size != list_size(self.paths):
            replace_list(self.paths, left())

    def _lines(self) -> Iterator[tuple[int, str, bytes]]:
        """Where each complete line starts, its image, and the line."""
        start = 0
        for block, names in _blocks(self.paths):
            for name, line in zip(names, lines_of(block), strict=True):
                yield start, name, line
                start += len(line)


def read_failures(paths: OutputPaths, done: HashSet) -> FailureJournal | None:
    """The journal of the failures beside an output; None when there is no list.

    ``done`` are the images that have rows: a retry may have been stopped before the file was
    brought up to date. Raises OutputError for a line that is none of ours, OSError.
    """
    end = count = 0
    outdated = False
    failed = HashSet()
    repeated: set[str] = set()
    try:
        for block, keys in _blocks(paths):
            end += len(block)
            known = done.contains(keys)
            if any(known):
                outdated = True
                keys = [key for key, has_rows in zip(keys, known, strict=True) if not has_rows]
            count += len(keys)
            failed.add_all(keys)
        if len(failed) < count:
            seen = HashSet()
            for _, keys in _blocks(paths):
                repeated |= {key for key in keys if key not in done and not seen.add(key)}
        torn = end < list_size(paths)
    except FileNotFoundError:
        return None
    return FailureJournal(paths, failed, end, torn, outdated, frozenset(repeated))


def _blocks(paths: OutputPaths) -> Iterator[tuple[bytes, list[str]]]:
    """The complete lines, many together, and the key of each. What is torn at the end is left out.

    Raises OutputError for a line that is none of ours, OSError.
    """
    count = 0
    parser: RowParser | None = None
    with open_list(paths) as file:
        for chunk in iter(lambda: file.read(CHUNK) + file.readline(), b""):
            block = chunk[: chunk.rfind(b"\n") + 1]
            if not block:
                return
            parser = parser or RowParser(next(lines_of(block)), strict=True)
            keys = parser.keys(block)
            if keys is None:
                keys = []
                for line in lines_of(block):
                    key = _key(line)
                    if key is None:
                        raise OutputError(
                            "resume",
                            f"{option('resume')}: line {count + len(keys) + 1} of "
                            f"{paths.errors!r} is damaged",
                            "move the list away, and the images in it are tried again",
                        )
                    keys.append(key)
            count += len(keys)
            yield block, keys


def old_failure_list(out: str) -> str | None:
    """The list of failures that version 0.1 left beside the output ``out``, if there is one."""
    path = OutputPaths.of(out).old_errors
    try:
        with open(path, "rb") as file:
            first = json.loads(file.readline(1 << 20))
        return path if {"file_name", "error_type", "message"} <= first.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _key(line: bytes) -> str | None:
    """The key of the image that a complete line is about; None for a foreign line."""
    try:
        failure = json.loads(line)
        return occurrence_key(from_utf8(failure["file_name"]), failure.get(OCCURRENCE))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
