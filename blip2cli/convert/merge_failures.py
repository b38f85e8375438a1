"""Merging of the lists of failures of shares, beside the merged output."""

from __future__ import annotations

import contextlib
import heapq
import json
import operator
import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from typing import IO, Any

from blip2cli.convert.merge import allow_open_files
from blip2cli.convert.shares import Share, Shares
from blip2cli.errors import SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import claim_failures, owns_failures
from blip2cli.sources.shard import name_order
from blip2cli.storage import durable
from blip2cli.storage.hash_set import ORDINAL
from blip2cli.storage.text_encoding import from_utf8

_WITH_LISTS = ("jsonl", "parquet", "parts")  # formats of outputs of runs
_IN_MEMORY = 1 << 20  # bytes of a list
_Line = tuple[Any, bytes]  # the key that lines are sorted by, and the line


@contextlib.contextmanager
def merged_failures(shares: Shares | None, options: ConvertOptions) -> Iterator[MergedFailures]:
    """The list of failures of the merged output, which is empty without shares.

    It is there before any row is read: a damaged one must not be found behind them. Raises
    SourceError, OSError.
    """
    folder = OutputPaths.of(options.destination).folder
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=folder) as lines:
        yield MergedFailures(shares, options, lines)


class MergedFailures:
    """The list of failures of the merged output, in the order of the source, like rows."""

    def __init__(self, shares: Shares | None, options: ConvertOptions, lines: IO[bytes]) -> None:
        """Collect what the shares list in ``lines``. Raises SourceError for a list that is damaged,
        OSError."""
        self._paths, self._lines = OutputPaths.of(options.destination), lines
        self._written = shares is not None and options.write_as in _WITH_LISTS
        self._count = 0
        if shares is None or not self._written:
            return
        lists = [_in_order(share) for share in shares.shares if _has_list(share)]
        allow_open_files(len(lists))
        for _, line in heapq.merge(*lists, key=lambda one: one[0]):
            self._lines.write(line)
            self._count += 1

    @property
    def notes(self) -> list[str]:
        """That there is a list."""
        if not self._count:
            return []
        return [f"{self._count} failures are listed in {self._paths.errors!r}."]

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Put the list beside the output, which takes its place in the body. Raises OSError.

        A new output never is without its list: that comes first, and the next conversion replaces
        it if this one is killed. The list of an older output stays until that is replaced.
        """
        new = not os.path.lexists(self._paths.final)
        try:
            if new:
                self._put()
            yield
        except BaseException:
            if new and not os.path.lexists(self._paths.final):
                self._remove()
            raise
        if not new:
            self._put()

    def _put(self) -> None:
        if not self._count:
            self._remove()
            return
        claim_failures(self._paths)
        self._lines.seek(0)
        with durable.written(self._paths.temporary(), self._paths.errors) as file:
            shutil.copyfileobj(self._lines, file, 1 << 20)

    def _remove(self) -> None:
        if self._written and owns_failures(self._paths):
            durable.remove(self._paths.errors)
            claim_failures(self._paths, owned=False)


def check_failures(shares: Shares, options: ConvertOptions) -> None:
    """Raise SourceError where failures are listed, and there is a file of others in their place."""
    paths = OutputPaths.of(options.destination)
    if (
        options.write_as in _WITH_LISTS
        and os.path.lexists(paths.errors)
        and any(map(_has_list, shares.shares))
        and not (owns_failures(paths) and (options.overwrite or not os.path.exists(paths.final)))
    ):
        raise SourceError(
            "destination",
            f"{paths.errors!r}, where images that failed would be listed, is there already",
            f"move it away, add {option('overwrite')} if it belongs to {options.destination!r}, "
            "or choose another name",
        )


def _has_list(share: Share) -> bool:
    paths = OutputPaths.of(share.path)
    return os.path.exists(paths.errors)


def _in_order(share: Share) -> Iterator[_Line]:
    """The lines of a share's list, sorted. Those of a later run stand behind the others."""
    if all(one[0] <= other[0] for one, other in pairwise(_lines(share))):
        return _lines(share)
    return iter(sorted(_lines(share), key=lambda one: one[0]))


def _lines(share: Share) -> Iterator[_Line]:
    path = OutputPaths.of(share.path).errors
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") and not share.finished:
                return  # torn: its image is tried again
            try:
                failure = json.loads(line)
                key: Any = name_order(from_utf8(failure["file_name"]))
                if share.has_ordinals:
                    key = operator.index(failure.pop(ORDINAL))
                    # Its text stays as it is stored.
                    line = json.dumps(failure, ensure_ascii=False).encode()
            except (ValueError, KeyError, TypeError, AttributeError):
                raise SourceError("sources", f"Line {number} of {path!r} is no failure") from None
            yield key, line.removesuffix(b"\n") + b"\n"
