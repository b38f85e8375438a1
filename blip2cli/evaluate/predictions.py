"""The rows of one output with their references, in the order of the references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from blip2cli.evaluate.key_index import Codes, Numbers
from blip2cli.evaluate.match_rows import MatchCounts, RowMatcher
from blip2cli.evaluate.references import References

_PIECE = 4096


@dataclass(frozen=True)
class Predictions:
    """One row for each of some references; arrays have one length."""

    references: References
    numbers: Numbers  # int64, of the references, ascending
    images: Numbers  # int64, numbered as in the references
    texts: Any  # pa.LargeStringArray; "" where there is no text
    answered: Numbers  # bool: False where an image failed, a text is null, or a row abstained
    abstained: Numbers  # bool
    columns: dict[str, list[str]]  # values of columns as texts, "" for null
    counts: MatchCounts

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def read(cls, matcher: RowMatcher, columns: Sequence[str] = ()) -> Predictions:
        """Read all rows. Raises SourceError."""
        numbers, answered, abstained = [], [], []
        texts: list[Any] = []
        values: dict[str, _Column] = {name: _Column() for name in columns}
        for batch in matcher.batches(columns):
            numbers.append(batch.numbers)
            answered.append(batch.answered)
            abstained.append(batch.abstained)
            texts.append(pa.array(batch.texts, pa.large_string()))
            for name, column in values.items():
                column.extend(batch.columns[name])
        number = np.concatenate(numbers)
        order = np.argsort(number, kind="stable")
        return cls(
            matcher.references,
            number[order],
            matcher.images[number[order]],
            pa.concat_arrays(texts).take(order),
            np.concatenate(answered)[order],
            np.concatenate(abstained)[order],
            {name: column.values(order) for name, column in values.items()},
            matcher.counts,
        )

    def pairs(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the text of each row and those of its reference."""
        for start in range(0, len(self), _PIECE):
            some = self.texts.slice(start, _PIECE).to_pylist()
            numbers = self.numbers[start : start + _PIECE].tolist()
            yield from zip(some, map(self.references.texts, numbers), strict=True)

    def common(self, other: Predictions) -> tuple[Predictions, Predictions]:
        """Both, as far as both have a row for the same reference."""
        mine = np.isin(self.numbers, other.numbers, assume_unique=True)
        theirs = np.isin(other.numbers, self.numbers, assume_unique=True)
        return self.only(mine), other.only(theirs)

    def only(self, chosen: Numbers) -> Predictions:
        """The rows where ``chosen`` is true."""
        if chosen.all():
            return self
        at = np.flatnonzero(chosen)
        return Predictions(
            self.references,
            self.numbers[at],
            self.images[at],
            self.texts.take(at),
            self.answered[at],
            self.abstained[at],
            {name: [values[i] for i in at] for name, values in self.columns.items()},
            self.counts,
        )


class _Column:
    """Values of a column; equal ones are stored once."""

    def __init__(self) -> None:
        self._codes = Codes()
        self._numbers: list[int] = []

    def extend(self, values: list[Any]) -> None:
        texts = ("" if value is None else str(value) for value in values)
        self._numbers += map(self._codes.of, texts)

    def values(self, order: Numbers) -> list[str]:
        texts = list(self._codes.keys())
        return [texts[self._numbers[i]] for i in order]
