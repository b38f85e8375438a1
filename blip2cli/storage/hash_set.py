"""Set of strings in constant memory each: sorted arrays of 96-bit hashes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import add
from typing import Any

_FEW = 1 << 15  # hashes that wait in a dictionary, or unsorted, until they are merged
_PIECE = 1 << 18  # hashes that are moved at once
_64_BITS, _32_BITS = (1 << 64) - 1, (1 << 32) - 1

# The column that tells the rows of a manifest about one image apart: 1, 2, ...
OCCURRENCE = "occurrence"
# The column of a row's place in the source, from 1: of shares of sources that have another order
# than that of names.
ORDINAL = "ordinal"


def occurrence_key(name: str, occurrence: object) -> str:
    """What tells the occurrences of one name apart; that of the first, or only one, is the name."""
    if occurrence in (1, 0, None):
        return name
    if isinstance(occurrence, float) and occurrence.is_integer():  # as pandas writes them
        occurrence = int(occurrence)
    return f"{name}\0{occurrence}"


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
        self._ties: set[tuple[int, int]] = set()  # where 64 bits are those of another recent name
        self._blocks: list[tuple[Any, Any]] = []  # both, of names that came together
        self._waiting = 0  # hashes in the blocks
        self._most_recent = _FEW
        # Sorted by the first; ``starts`` says where those of a bucket begin, which share the
        # leading bits.
        self._first, self._second = memoryview(b"").cast("Q"), memoryview(b"").cast("I")
        self._starts, self._shift = memoryview(b"").cast("Q"), 64
        for name in names:
            self.add(name)

    def add(self, name: str) -> bool:
        """Add ``name``; True when it is new."""
        if self._blocks:
            self._merge()
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
        """Add many names, quicker than one by one."""
        if len(names) + len(self._recent) < _FEW and not (self._first or self._blocks):
            for name in names:
                self.add(name)
            return  # numpy is not needed
        self._blocks.append(_hashes(names))
        self._waiting += len(names)
        if self._waiting > max(_FEW, len(self._first) >> 3):
            self._merge()

    def __contains__(self, name: Any) -> bool:
        if self._blocks:
            self._merge()
        first = hash(name) & _64_BITS
        known = self._recent.get(first)
        if known is None and not self._first:
            return False
        second = hash(name + "\0") & _32_BITS
        if known == second or (self._first and self._is_merged(first, second)):
            return True
        return known is not None and (first, second) in self._ties

    def contains(self, names: Sequence[str]) -> list[bool]:
        """Which of many names are in the set, quicker than one by one."""
        if len(self._first) + self._waiting < _FEW:
            return [name in self for name in names]  # numpy is not needed
        answers: list[bool] = (self.places(names) >= 0).tolist()
        return answers

    def places(self, names: Sequence[str]) -> Any:
        """Where names are among the hashes, an array ``[N]`` of int64; -1 for those that are not.

        They stay there until something is added.
        """
        import numpy as np

        if self._blocks or self._recent:
            self._merge()
        if not self._first:
            return np.full(len(names), -1)
        first, second = _hashes(names)
        order = np.argsort(first)  # neighbours are found in the same lines of the cache
        first, second = first[order], second[order]
        merged, others = np.frombuffer(self._first, np.uint64), np.frombuffer(self._second, "I")
        places = np.minimum(self._search(first), len(merged) - 1)
        alike = merged[places] == first
        absent = ~alike | (others[places] != second)
        for n in np.flatnonzero(alike & absent):  # 64 bits are those of another name
            while places[n] + 1 < len(merged) and merged[places[n] + 1] == first[n] and absent[n]:
                places[n] += 1
                absent[n] = others[places[n]] != second[n]
        places[absent] = -1
        found = np.empty_like(places)
        found[order] = places
        return found

    def _search(self, first: Any) -> Any:
        """Where 64 bits are or would be in the sorted array: bisection within their buckets."""
        import numpy as np

        merged = np.frombuffer(self._first, np.uint64)
        starts = np.frombuffer(self._starts, np.int64)
        bucket = (first >> np.uint64(self._shift)).astype(np.int64)
        low, high = starts[bucket], starts[bucket + 1]
        for _ in range(int(np.diff(starts).max()).bit_length()):
            middle = (low + high) >> 1
            below = merged[np.minimum(middle, len(merged) - 1)] < first
            low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
        return low

    def __len__(self) -> int:
        if self._blocks:
            self._merge()
        return len(self._first) + len(self._recent) + len(self._ties)

    def _is_merged(self, first: int, second: int) -> bool:
        bucket = first >> self._shift
        stop = self._starts[bucket + 1]
        at = bisect_left(self._first, first, self._starts[bucket], stop)
        while at < stop and self._first[at] == first:
            if self._second[at] == second:
                return True
            at += 1
        return False

    def _merge(self) -> None:
        """Move all hashes into the sorted arrays, each once."""
        import numpy as np  # only a large set needs it

        ties = np.array([*self._ties], np.uint64).reshape(-1, 2)
        count = len(self._recent)
        self._blocks += [
            (
                np.fromiter(self._recent.keys(), np.uint64, count),
                np.fromiter(self._recent.values(), np.uint32, count),
            ),
            (ties[:, 0], ties[:, 1].astype(np.uint32)),
        ]
        first, second = (np.concatenate(hashes) for hashes in zip(*self._blocks, strict=True))
        self._recent, self._ties, self._blocks, self._waiting = {}, set(), [], 0
        order = np.argsort(first)
        first, second = first[order], second[order]
        if (first[1:] == first[:-1]).any():
            order = np.lexsort((second, first))
            first, second = first[order], second[order]
            again = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
            new = np.append(True, ~again)
            first, second = first[new], second[new]
        merged = np.frombuffer(self._first, np.uint64)
        places = np.searchsorted(merged, first)
        if len(merged):
            alike = np.flatnonzero(merged[np.minimum(places, len(merged) - 1)] == first)
            known = [n for n in alike if self._is_merged(int(first[n]), int(second[n]))]
            if known:
                places, first, second = (np.delete(a, known) for a in (places, first, second))
        del merged  # a view, which keeps the array from growing
        self._first = _inserted(self._first, places, first)
        self._second = _inserted(self._second, places, second)
        merged = np.frombuffer(self._first, np.uint64)
        bits = max(1, len(merged).bit_length() - 4)
        self._shift = 64 - bits
        buckets = np.arange(1 << bits, dtype=np.uint64) << np.uint64(self._shift)
        starts = np.append(np.searchsorted(merged, buckets), len(merged)).astype(np.uint64)
        self._starts = starts.data
        self._most_recent = max(_FEW, len(merged) >> 5)


def _hashes(names: Sequence[str]) -> tuple[Any, Any]:
    """The hashes of many names: arrays of 64 bits and of the other 32."""
    import numpy as np

    first = np.fromiter(map(hash, names), np.int64, len(names)).view(np.uint64)
    second = np.fromiter(map(hash, map(add, names, repeat("\0"))), np.int64, len(names))
    return first, second.astype(np.uint32)


def _inserted(view: memoryview, places: Any, values: Any) -> memoryview:
    """An array with values put before these places, in their order.

    It grows in place and is moved piece by piece, so it is in memory once.
    """
    import numpy as np

    array: Any = view.obj if len(view) else np.empty(0, values.dtype)
    end, left = len(array), len(values)
    view.release()
    array.resize(end + left, refcheck=False)  # its only view is released
    while left:
        start = max(0, end - _PIECE)
        begin = int(np.searchsorted(places, start)) if start else 0
        moved = np.insert(array[start:end], places[begin:left] - start, values[begin:left])
        array[start + begin : end + left] = moved
        end, left = start, begin
    return memoryview(array)
