"""Merging of the lists of failures of shares, beside the merged output."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from blip2cli.convert.shares import Share, Shares
from blip2cli.errors import SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import claim_failures, owns_failures
from blip2cli.sources.shard import name_order
from blip2cli.storage import durable
from blip2cli.storage.hash_set import ORDINAL
from blip2cli.storage.text_encoding import from_utf8, to_json

_WITH_LISTS = ("jsonl", "parquet", "parts")  # formats of outputs of runs
_Line = tuple[Any, bytes]  # the key that lines are sorted by, and the line


def merge_failures(shares: Shares, options: ConvertOptions) -> list[str]:
    """Write the list of failures of the merged output; returns a note that there is one.

    Failures come in the order of the source, like rows. Raises SourceError for a list that is
    damaged, OSError.
    """
    if options.write_as not in _WITH_LISTS:
        return []
    paths = OutputPaths.of(options.destination)
    lists = [_in_order(share) for share in shares.shares if _has_list(share)]
    count = 0
    if not lists:
        if owns_failures(paths):
            durable.remove(paths.errors)
            claim_failures(paths, owned=False)
        return []
    claim_failures(paths)
    with durable.written(paths.temporary(), paths.errors) as file:
        for _, line in heapq.merge(*lists, key=lambda one: one[0]):
            file.write(line)
            count += 1
    return [f"{count} failures are listed in {paths.errors!r}."]


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
            try:
                failure = json.loads(line)
                place = failure.pop(ORDINAL) if share.has_ordinals else None
                name = failure["file_name"]
                key = name_order(from_utf8(name)) if place is None else place
            except (ValueError, KeyError, TypeError, AttributeError):
                raise SourceError("sources", f"Line {number} of {path!r} is no failure") from None
            yield key, line if place is None else to_json(failure) + b"\n"
