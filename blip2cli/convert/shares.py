"""Outputs of shares: which are given, and what keeps them from being one output."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

import pyarrow.parquet as pq

from blip2cli.convert.base import read_errors
from blip2cli.convert.concat import expand_sources
from blip2cli.errors import SourceError, option
from blip2cli.options import ConvertOptions
from blip2cli.sinks.differences import differences, shown
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.row_groups import ARROW_ERRORS
from blip2cli.sinks.settings import Settings, parquet_settings, read_settings
from blip2cli.sinks.settings_file import is_finished
from blip2cli.sources.patterns import has_magic
from blip2cli.sources.shard import Shard
from blip2cli.storage.hash_set import ORDINAL
from blip2cli.storage.opening import is_remote

_FIRST_PART = ".part-000000"  # of an unfinished Parquet output, see ``OutputPaths``


@dataclass(frozen=True)
class Share:
    """The output of one share."""

    path: str
    settings: Settings
    shard: Shard
    finished: bool

    @property
    def has_ordinals(self) -> bool:
        """Whether rows hold their places in the source, since names do not tell their order."""
        return ORDINAL in self.settings.columns

    def __str__(self) -> str:
        return f"{self.shard.index}/{self.shard.count}"


@dataclass(frozen=True)
class Shares:
    """Outputs of shares, in the order of their numbers."""

    shares: tuple[Share, ...]

    def __post_init__(self) -> None:
        """Sort them."""
        key = attrgetter("shard.count", "shard.index", "path")
        object.__setattr__(self, "shares", tuple(sorted(self.shares, key=key)))

    @classmethod
    def of(cls, paths: Sequence[str]) -> Shares | None:
        """The shares at ``paths``; None where none of them is one.

        Raises SourceError when only some are, or their settings are not known.
        """
        found = {path: read_share(path) for path in paths}
        shares = tuple(share for share in found.values() if share is not None)
        if not shares:
            return None
        others = [path for path, share in found.items() if share is None]
        if others:
            raise SourceError(
                "sources",
                f"{shares[0].path!r} is share {shares[0]} of an output, and {others[0]!r} is no "
                "share, or has lost the hidden file beside it that says so",
                "merge the shares first, without it",
            )
        return cls(shares)

    @property
    def paths(self) -> list[str]:
        """Where the rows are that can be merged."""
        return [share.path for share in self.shares if os.path.exists(share.path)]

    def settings(self, to_folder: bool) -> Settings:
        """Those of the merged output, a file or a folder of parts: of all images, without the
        column that orders them."""
        first = self.shares[0].settings
        columns = {name: kind for name, kind in first.columns.items() if name != ORDINAL}
        rows = {**first.rows, "shard": None}
        if not to_folder:
            rows.pop("rows_per_part", None)
        sources = first.sources and {k: v for k, v in first.sources.items() if k != "chosen"}
        return replace(first, rows=rows, columns=columns, sources=sources)

    @property
    def has_ordinals(self) -> bool:
        """See ``Share``; the shares of an output are alike in that."""
        return self.shares[0].has_ordinals

    def different(self, moved_source: bool = False) -> str | None:
        """The first difference that keeps them from being shares of one output."""
        one = self.shares[0]
        for other in self.shares[1:]:
            if other.shard.count != one.shard.count:
                return f"{one.path!r} is share {one}, and {other.path!r} is share {other}"
            before, now = _comparable(other.settings), _comparable(one.settings)
            for found in differences(before, now, moved_source):
                return f"{other.path!r} {found.problem} ({one.path!r} is share {one})"
            if before.rows.get("questions") != now.rows.get("questions"):
                return f"{one.path!r} and {other.path!r} were made with other questions"
            images = _other_images(before.sources, now.sources, moved_source)
            if images is not None:
                return f"{other.path!r} was made {images} ({one.path!r} is share {one})"
        return None

    def doubled(self) -> list[str]:
        """A sentence for each share that is given twice."""
        together = groupby(self.shares, key=str)
        lists = [(share, [repr(one.path) for one in ones]) for share, ones in together]
        return [f"{' and '.join(o)} are both share {share}" for share, o in lists if len(o) > 1]

    def unfinished(self) -> list[str]:
        """A sentence for each share whose run has not ended."""
        return [
            f"{one.path!r}, share {one}, is unfinished" for one in self.shares if not one.finished
        ]

    def missing(self) -> str | None:
        """Which shares are not given, as a sentence; None when all are."""
        count = self.shares[0].shard.count
        given = {share.shard.index for share in self.shares}
        missing = (number for number in range(1, count + 1) if number not in given)
        numbers = [str(number) for number in islice(missing, 10)]
        if not numbers:
            return None
        if len(numbers) == 1:
            return f"share {numbers[0]} of {count} is missing"
        others = count - len(given) - len(numbers)
        more = f" and {others} more" if others else ""
        return f"shares {', '.join(numbers)}{more} of {count} are missing"

    def check(self, allow_missing: bool, moved_source: bool) -> list[str]:
        """Raise SourceError for shares that cannot be merged.

        Returns what is lacking, as notes, where ``allow_missing`` says that this is known.
        """
        different = self.different(moved_source)
        if different is not None:
            raise SourceError(
                "sources",
                f"The shares are not of one output: {different}",
                "run all with the same options; where only the places of the images differ, "
                f"confirm with {option('moved_source')} that these are the same",
            )
        for doubled in self.doubled():
            raise SourceError("sources", f"{doubled[0].upper()}{doubled[1:]}", "leave one out")
        missing = self.missing()
        lacking = [*([missing] if missing else []), *self.unfinished()]
        if lacking and not allow_missing:
            raise SourceError(
                "sources",
                f"The output is not complete: {'; '.join(lacking)}",
                f"run what is missing, finish the others with {option('resume')}, or add "
                f"{option('allow_missing')} to merge what there is",
            )
        return [f"The output is not complete: {one}." for one in lacking]


def find_shares(options: ConvertOptions, paths: Sequence[str]) -> tuple[Shares | None, list[str]]:
    """The shares to be merged, which ``paths`` of the sources are, and notes on what is lacking.

    None where they are no shares, and for one by itself: that is converted as it is. Raises
    SourceError for shares that cannot be merged.
    """
    if options.salvage or options.read_as not in (None, "jsonl", "parquet", "parts"):
        return None, []
    known = set(paths)
    hidden = [path for path in matches(options.sources) if path not in known]
    shares = Shares.of([*paths, *filter(read_share, hidden)])
    if shares is None:
        return None, []
    named = tuple(options.sources) == tuple(paths)  # and not by a pattern
    if named and len(shares.shares) == 1 and shares.shares[0].shard.count > 1:
        return None, []
    return shares, shares.check(options.allow_missing, options.moved_source)


def read_share(path: str) -> Share | None:
    """The share that the output ``path`` holds; None where it is none. Raises SourceError."""
    if is_remote(path):
        return None
    paths = OutputPaths.of(path)
    if paths.is_folder:
        return _read_folder(path, paths)
    parts = paths.parts() if path.lower().endswith(".parquet") else []
    own = None
    with read_errors(path):
        settings = read_settings(paths)
        finished = is_finished(paths) and not parts
    if path.lower().endswith(".parquet") and os.path.exists(paths.final):
        # Copied without the hidden file, it is known to be complete by being there.
        finished = finished or (settings is None and not parts)
        with contextlib.suppress(*ARROW_ERRORS):  # whoever reads its rows says what is damaged
            own = parquet_settings(pq.read_schema(paths.final).metadata)
    if own is not None and not (settings is not None and own.fits(settings)):
        settings = own
    return _share(path, settings, finished)


def _read_folder(path: str, paths: OutputPaths) -> Share | None:
    with read_errors(path):
        settings, finished = read_settings(paths), is_finished(paths)
        if settings is None and (files := paths.with_rows()):
            settings = parquet_settings(pq.read_schema(files[-1]).metadata)
    return _share(path, settings, finished)


def _share(path: str, settings: Settings | None, finished: bool) -> Share | None:
    shard = shard_in(settings)
    return None if settings is None or shard is None else Share(path, settings, shard, finished)


def shard_in(settings: Settings | None) -> Shard | None:
    """The share that rows with these settings are of; None: all, or it is not known."""
    if settings is None or settings.shard is None:
        return None
    with contextlib.suppress(ValueError):  # of damaged settings
        return Shard.of(settings.shard)
    return None


def matches(texts: Sequence[str]) -> list[str]:
    """The outputs that paths and patterns mean, also those that are not complete.

    Raises SourceError for a pattern that nothing matches.
    """
    found: list[str] = []
    for text in texts:
        hidden = _unfinished_matches(text)
        try:
            found += expand_sources([text])[0]
        except SourceError:
            if not hidden:
                raise
        found += hidden
    return found


def _unfinished_matches(pattern: str) -> list[str]:
    """Parquet outputs that match ``pattern`` and consist of hidden rows only."""
    folder, name = os.path.split(pattern)
    if os.path.lexists(pattern) or not has_magic(name) or not name.lower().endswith(".parquet"):
        return []
    found = glob.glob(os.path.join(folder, f".{name}{_FIRST_PART}"), recursive=True)
    places = map(os.path.split, found)
    names = (os.path.join(place, hidden[1 : -len(_FIRST_PART)]) for place, hidden in places)
    return sorted(path for path in names if not os.path.lexists(path))


def _comparable(settings: Settings) -> Settings:
    return replace(settings, rows={**settings.rows, "shard": None})


def _other_images(
    before: Mapping[str, Any] | None, now: Mapping[str, Any] | None, moved_source: bool
) -> str | None:
    """What says that two shares are of different lists of images; None where nothing does."""
    if not (before and now):
        return None
    were, chosen = before.get("chosen"), now.get("chosen")
    if were is not None and chosen is not None:
        for name, value in chosen.items():
            if were.get(name) != value:
                return f"with {option(name)} {shown(were.get(name))}, not {shown(value)}"
    places = [[*one.get("roots", ()), *one.get("content", ())] for one in (before, now)]
    if places[0] != places[1] and not moved_source:
        return "from other sources, or from the same ones in another order"
    return None
