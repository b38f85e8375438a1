"""Index of texts in 16 bytes each: sorted hashes, looked up a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[Any]]


class KeyIndex:
    """Finds the position of a key among those it was built from.

    It holds Python's own 64-bit hashes, which are keyed anew in every process: that any two of a
    million keys share one has a chance of 3e-8.
    """

    def __init__(self, hashes: Numbers) -> None:
        """``hashes`` are those of the keys, int64; none comes twice."""
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def find(self, keys: Iterable[str]) -> Numbers:
        """Positions, int64; -1 for a key that is not there."""
        hashes = _hashes(keys)
        if not len(self._sorted):
            return np.full(len(hashes), -1)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[at] == hashes, self._order[at], -1)


class Codes:
    """Numbers keys from 0 in the order they come."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._codes)

    def of(self, key: str) -> int:
        """The number of ``key``; a new one if it is new."""
        return self._codes.setdefault(key, len(self._codes))

    def keys(self) -> Iterable[str]:
        """The keys in the order of their numbers."""
        return self._codes.keys()


def _hashes(keys: Iterable[str]) -> Numbers:
    return np.fromiter(map(hash, keys), np.int64)
