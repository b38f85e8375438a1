"""Set of strings in constant memory each: sorted arrays of 96-bit hashes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

_RECENT = 1 << 15  # hashes that wait in a dictionary until they are merged into the arrays
_BUCKET_BITS = 16  # the arrays are entered by this number of leading bits of a hash
_BUCKET_SHIFT = 64 - _BUCKET_BITS
_64_BITS, _32_BITS = (1 << 64) - 1, (1 << 32) - 1


# The column that tells the rows of a manifest about one image apart: 1, 2, ...
OCCURRENCE = "occurrence"
# The column of a row's place in the source, from 1: of shares of sources that have another order
# than that of names.
ORDINAL = "ordinal"


def occurrence_key(name: str, occurrence: object) -> str:
    """What tells the occurrences of one name apart; that of the first, or only one, is the name."""
    return name if occurrence in (1, 0, None) else f"{name}\0{occurrence}"


def name_of(key: str) -> str:
    """The name that an ``occurrence_key`` was made of."""
    return key.partition("\0")[0]


class HashSet:
    """Set of strings in 12 bytes each, whatever their length (a Python set takes over 100).

    It stores 96 bits of their SipHash, Python's own ``hash``, which is keyed anew in every process:
    that two among a billion names share them has a chance of 1e-11. (64 bits would be 3 in a
    hundred then, and a name lost for good.)
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._recent: dict[int, int] = {}  # 64 bits to the other 32
        self._ties: set[tuple[int, int]] = set()  # where 64 bits are those of another name
        # Sorted by the first, and where the hashes of each bucket begin.
        self._first, self._second = memoryview(b"").cast("Q"), memoryview(b"").cast("I")
        self._starts = memoryview(bytes(8 * ((1 << _BUCKET_BITS) + 1))).cast("Q")
        self._most_recent = _RECENT
        for name in names:
            self.add(name)

    def add(self, name: str) -> bool:
        """Add ``name``; True when it is new."""
        first, second = hash(name) & _64_BITS, hash(name + "\0") & _32_BITS
        known = self._recent.get(first)
        if known == second or (self._first and self._is_merged(first, second)):
            return False
        if known is None:
            self._recent[first] = second
            if len(self._recent) > self._most_recent:
                self._merge()
        elif (first, second) in self._ties:
            return False
        else:
            self._ties.add((first, second))
        return True

    def add_next(self, name: str) -> int:
        """Add the next occurrence of ``name``; returns its number, from 1."""
        if self.add(name):
            return 1
        low, high = 1, 2  # occurrences that are, and that may not be here
        while occurrence_key(name, high) in self:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if occurrence_key(name, middle) in self:
                low = middle
            else:
                high = middle
        self.add(occurrence_key(name, high))
        return high

    def add_all(self, names: Sequence[str]) -> None:
        """Add many names, which is quick where none is here yet."""
        count = len(names)
        if count <= _RECENT:
            for name in names:
                self.add(name)
            return
        import numpy as np

        first = np.fromiter(map(hash, names), np.int64, count).view(np.uint64)
        second = np.fromiter((hash(f"{n}\0") & _32_BITS for n in names), np.uint32, count)
        self._merge()
        order = np.argsort(first)
        first = first[order]
        merged = np.frombuffer(self._first, np.uint64)
        places = np.searchsorted(merged, first)
        near = merged[np.minimum(places, max(len(merged) - 1, 0))] if len(merged) else first + 1
        if self._ties or (first[1:] == first[:-1]).any() or (near == first).any():
            for name in names:
                self.add(name)
        else:
            self._insert(places, first, second[order])

    def __contains__(self, name: Any) -> bool:
        first, second = hash(name) & _64_BITS, hash(name + "\0") & _32_BITS
        if self._recent.get(first) == second:
            return True
        if self._first and self._is_merged(first, second):
            return True
        return bool(self._ties) and (first, second) in self._ties

    def __len__(self) -> int:
        return len(self._first) + len(self._recent) + len(self._ties)

    def _is_merged(self, first: int, second: int) -> bool:
        bucket = first >> _BUCKET_SHIFT
        stop = self._starts[bucket + 1]
        at = bisect_left(self._first, first, self._starts[bucket], stop)
        while at < stop and self._first[at] == first:
            if self._second[at] == second:
                return True
            at += 1
        return False

    def _merge(self) -> None:
        """Move the recent hashes into the sorted arrays."""
        import numpy as np  # only a large set needs it

        count = len(self._recent)
        first = np.fromiter(self._recent.keys(), np.uint64, count)
        second = np.fromiter(self._recent.values(), np.uint32, count)
        self._recent = {}
        order = np.argsort(first)
        first = first[order]
        places = np.searchsorted(np.frombuffer(self._first, np.uint64), first)
        self._insert(places, first, second[order])

    def _insert(self, places: Any, first: Any, second: Any) -> None:
        """Put sorted hashes before these places of the arrays."""
        import numpy as np

        merged = np.insert(np.frombuffer(self._first, np.uint64), places, first)
        self._first = merged.data
        self._second = np.insert(np.frombuffer(self._second, np.uint32), places, second).data
        buckets = np.arange(1 << _BUCKET_BITS, dtype=np.uint64) << np.uint64(_BUCKET_SHIFT)
        starts = np.append(np.searchsorted(merged, buckets), len(merged)).astype(np.uint64)
        self._starts = starts.data
        self._most_recent = max(_RECENT, len(merged) >> 5)
