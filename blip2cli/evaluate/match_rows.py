"""Matches rows with references, and counts what is missing, doubled or left over.

Every reference gets at most one row, the first. What has no text has its place all the same:

* a null text is an empty text, which is wrong;
* so is the text of an image that failed, where its rows would have had references;
* a row that abstained is wrong as well, and is marked, so that it can be left out where only what
  was answered counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from blip2cli.convert.examples import Examples
from blip2cli.convert.image_ids import id_getter, last_number
from blip2cli.convert.images import default_text_column
from blip2cli.errors import OptionError, SourceError, option
from blip2cli.evaluate.key_index import Numbers
from blip2cli.evaluate.read_references import clean_name, row_key
from blip2cli.evaluate.read_rows import Columns, Table
from blip2cli.evaluate.references import KEYS, References
from blip2cli.options import ColumnOptions
from blip2cli.sources.records import BadRow, json_records
from blip2cli.tasks.base import ABSTAINED

_Row = Mapping[str, Any]
_TAIL = 16384  # references of failed images that are given at once


@dataclass(frozen=True)
class Matched:
    """Some rows and the references they belong to; every list has the same length."""

    numbers: Numbers  # int64, of the references
    texts: list[str]  # "" for a null
    answered: Numbers  # bool: False for rows that failed, are null or abstained
    abstained: Numbers  # bool
    columns: Columns  # the other columns that were asked for


@dataclass
class MatchCounts:
    """What became of rows and references."""

    rows: int = 0
    matched: int = 0  # rows that have a reference, failed ones with them
    null: int = 0  # among them: without a text
    abstained: int = 0  # among them: that kept their guess to themselves
    failed: int = 0  # among them: of images that failed
    doubled: Examples = field(default_factory=Examples)  # rows whose reference had a row before
    left_over: Examples = field(default_factory=Examples)  # rows without a reference
    unjudged: Examples = field(default_factory=Examples)  # rows with a text that nobody looked at
    missing: Examples = field(default_factory=Examples)  # references without a row

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: v.count if isinstance(v, Examples) else v for k, v in values.items()}


class RowMatcher:
    """Reads the rows of ``table``, each with its reference."""

    def __init__(self, table: Table, references: References, options: ColumnOptions) -> None:
        """Raises SourceError for rows without the columns that are needed, OptionError."""
        self.table, self.references = table, references
        self.counts = MatchCounts()
        # The image of each reference, int64, once all rows are read. Where references know none,
        # as a table of question_id and answers, rows say which questions are about one.
        self.images = references.images
        self._by_name: dict[str, list[int]] | None = None
        if references.by == "question_id" and references.image_count == len(references):
            self._by_name = {}
        self.text_column = options.text_column or default_text_column(table.columns)
        _require(table, self.text_column, f"name the texts with {option('text_column')}")
        by = references.by
        self._ids = None
        self._id_columns = [n for n in ("file_name", options.id_column) if n in table.columns]
        if options.id_column is not None or options.id_map is not None:
            if by not in ("image_id", "question_id"):
                name = "id_column" if options.id_column is not None else "id_map"
                raise OptionError(
                    name,
                    f"{option(name)} is about the ids of annotations, and {references.path!r} has "
                    "file names",
                    "leave it out",
                )
            schema = pa.schema([(name, pa.null()) for name in table.columns])
            self._ids = id_getter(options, schema, by == "question_id")
        self._needed = self._key_columns(by)

    def _key_columns(self, by: str) -> tuple[str, ...]:
        """The columns of rows that their keys are made of. Raises SourceError."""
        names = self.table.columns
        if self._ids is not None:
            return tuple(self._id_columns)
        if by == "image_id" and "image_id" in names and "file_name" not in names:
            return ("image_id",)  # a file of results
        for name in KEYS[by]:
            _require(self.table, name, f"{self.references.path!r} is known by it")
        return KEYS[by]

    def batches(self, columns: Sequence[str] = ()) -> Iterator[Matched]:
        """Yield all rows that have a reference; at the end those of images that failed.

        ``columns`` are given along, null where a row has none. ``counts`` is complete after that.
        Raises SourceError, also where no row has a reference.
        """
        self.counts = counts = MatchCounts()
        seen = np.zeros(len(self.references), bool)
        failed: list[str] = []
        wanted = list(dict.fromkeys(
            [*self._needed, self.text_column, "flag", "error", "file_name", *columns]
        ))  # fmt: skip
        first: list[str] = []
        for size, batch in self.table.batches(wanted):
            counts.rows += size
            errors = [i for i, error in enumerate(batch["error"]) if error]
            failed += [clean_name(batch["file_name"][i]) for i in errors]
            keep = sorted(set(range(size)) - set(errors)) if errors else range(size)
            keys = [self._key({name: batch[name][i] for name in self._needed}) for i in keep]
            first = first or keys[:3]
            yield from self._matched(batch, list(keep), keys, seen, columns)
        if first and not seen.any():
            raise self._no_reference(first)
        for path in self.table.failures:
            for _, record in json_records(path):
                if not isinstance(record, BadRow):
                    failed.append(clean_name(record.get("file_name")))
        yield from self._failed(failed, seen, columns)
        if not seen.any():
            raise self._no_reference(failed[:3])
        if not counts.matched:
            raise SourceError(
                self.table.field,
                f"{self.references.path!r} says of no text of {str(self.table)!r} whether it is "
                f"right: all its verdicts are about other texts",
                "give verdicts on this output",
            )
        if self._by_name is not None:
            self.images = self.references.images.copy()
            for numbers in self._by_name.values():
                self.images[numbers] = self.images[min(numbers)]
        for number in np.flatnonzero(~seen):
            counts.missing.count += 1
            if counts.missing.count <= 3:
                counts.missing.first.append(_shown([self.references.keys[int(number)].as_py()]))

    def _no_reference(self, first: list[str]) -> SourceError:
        return SourceError(
            self.table.field,
            f"No row of {str(self.table)!r} has a reference in {self.references.path!r}: the "
            f"rows are about {_shown(first) or 'nothing'}, the references about "
            f"{_shown(self.references.sample())}",
            "give the references of these images, with the same file names or ids",
        )

    def _matched(
        self, batch: Columns, keep: list[int], keys: list[str], seen: Numbers, more: Sequence[str]
    ) -> Iterator[Matched]:
        counts = self.counts
        numbers = self._find(keys)
        for at in np.flatnonzero(numbers < 0):
            counts.left_over.add(_shown([keys[at]]))
        _, firsts = np.unique(numbers, return_index=True)
        good = np.zeros(len(numbers), bool)
        good[firsts] = True
        good &= numbers >= 0
        good[good] &= ~seen[numbers[good]]
        for at in np.flatnonzero(~good & (numbers >= 0)):
            counts.doubled.add(_shown([keys[at]]))
        seen[numbers[good]] = True
        if self.references.wrong is not None:
            self._leave_out_unjudged(batch, keep, keys, numbers, good)
        chosen = np.flatnonzero(good)
        if not len(chosen):
            return
        rows = [keep[at] for at in chosen]
        if self._by_name is not None:
            for number, i in zip(numbers[chosen].tolist(), rows, strict=True):
                if batch["file_name"][i] is not None:
                    self._by_name.setdefault(batch["file_name"][i], []).append(number)
        texts = [batch[self.text_column][i] for i in rows]
        null = np.array([text is None for text in texts])
        abstained = np.array([batch["flag"][i] == ABSTAINED for i in rows])
        counts.matched += len(rows)
        counts.abstained += int(abstained.sum())
        counts.null += int((null & ~abstained).sum())
        yield Matched(
            numbers[chosen],
            ["" if text is None else str(text) for text in texts],
            ~null & ~abstained,
            abstained,
            {name: [batch[name][i] for i in rows] for name in more},
        )

    def _leave_out_unjudged(
        self, batch: Columns, keep: list[int], keys: list[str], numbers: Numbers, good: Numbers
    ) -> None:
        """Take rows out of ``good`` whose reference says only that another text was wrong."""
        for at in np.flatnonzero(good):
            text = batch[self.text_column][keep[at]]
            if text is not None and not self.references.judges(int(numbers[at]), str(text).strip()):
                good[at] = False
                self.counts.unjudged.add(_shown([keys[at]]))

    def _failed(self, names: list[str], seen: Numbers, more: Sequence[str]) -> Iterator[Matched]:
        """The references of images that failed, as far as they have no row."""
        images = self.references.image_index.find(
            [image_key(name, self.references, "") for name in names]
        )
        is_failed = np.zeros(self.references.image_count, bool)
        is_failed[images[images >= 0]] = True
        found = np.flatnonzero(is_failed[self.references.images] & ~seen)
        seen[found] = True
        self.counts.failed = len(found)
        self.counts.matched += len(found)
        for start in range(0, len(found), _TAIL):
            numbers = found[start : start + _TAIL]
            none = np.zeros(len(numbers), bool)
            columns: Columns = {name: [None] * len(numbers) for name in more}
            yield Matched(numbers, [""] * len(numbers), none, none, columns)

    def _key(self, row: _Row) -> str:
        if self._ids is not None:
            return str(self._ids(dict(row)))
        if self.references.by == "image_id" and "image_id" not in self._needed:
            return image_key(clean_name(row["file_name"]), self.references)
        return row_key(self.references.by, row)

    def _find(self, keys: list[str]) -> Numbers:
        numbers = self.references.index.find(keys)
        if not self.references.by.startswith("file_name"):
            return numbers
        for at in np.flatnonzero(numbers < 0):  # references without folders
            name, null, rest = keys[at].partition("\0")
            if "/" in name:
                (numbers[at],) = self.references.index.find([os.path.basename(name) + null + rest])
        return numbers


def image_key(name: str, references: References, otherwise: str | None = None) -> str:
    """The key of the image called ``name``: of annotations its id, which their table of names
    tells, or the last number in the name.

    Raises SourceError for a name without a number, unless ``otherwise`` stands for it.
    """
    if references.by.startswith("file_name"):
        return name
    found = references.ids.get(name, references.ids.get(os.path.basename(name)))
    if found is not None:
        return str(found)
    try:
        return str(last_number(name))
    except SourceError:
        if otherwise is None:
            raise
        return otherwise


def _require(table: Table, column: str, remedy: str) -> None:
    if column not in table.columns:
        raise SourceError(
            table.field,
            f"{str(table)!r} has no column {column}; it has {', '.join(table.columns) or 'none'}",
            remedy,
        )


def _shown(keys: Sequence[str]) -> str:
    return ", ".join(key.replace("\0", ": ") for key in keys)
