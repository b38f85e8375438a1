"""Set of strings in constant memory each: an open-addressing table of 128-bit hashes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from hashlib import blake2b

_MAX_LOAD = 0.6  # the share of used slots at which the table grows


class HashSet:
    """Set of strings in about 40 bytes each, whatever their length (a Python set takes over 100).

    It stores 128 bits of their BLAKE2b hash: that two among a billion share them has a
    chance of 1e-21. (64 bits would be 3 in a hundred then, and a name lost for good.)
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        # Two numbers a slot; an empty slot holds 0, 0.
        self._slots = array("Q", bytes(16 * 1024))
        self._mask = 1023
        self._used = 0
        for name in names:
            self.add(name)

    def add(self, name: str) -> bool:
        """Add ``name``; True when it is new."""
        first, second = _halves(name)
        place = self._find(first, second)
        if self._slots[place]:
            return False
        self._slots[place], self._slots[place + 1] = first, second
        self._used += 1
        if self._used > _MAX_LOAD * (self._mask + 1):
            self._grow()
        return True

    def __contains__(self, name: str) -> bool:
        return bool(self._slots[self._find(*_halves(name))])

    def __len__(self) -> int:
        return self._used

    def _find(self, first: int, second: int) -> int:
        """The index of the slot that holds the hash, or of the empty one where it belongs."""
        slots, mask = self._slots, self._mask
        number = first & mask
        while found := slots[2 * number]:
            if found == first and slots[2 * number + 1] == second:
                break
            number = (number + 1) & mask
        return 2 * number

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(16 * len(old)))
        self._mask = len(old) - 1
        for at in range(0, len(old), 2):
            if old[at]:
                place = self._find(old[at], old[at + 1])
                self._slots[place], self._slots[place + 1] = old[at], old[at + 1]


def _halves(name: str) -> tuple[int, int]:
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little") or 1, int.from_bytes(digest[8:], "little")
