"""A set of names that stays small however many they are."""

from __future__ import annotations

from array import array
from hashlib import blake2b

_FULL = 0.6  # the share of used slots at which the table grows


class NameSet:
    """Remembers which names were added, in about 16 bytes each (a Python set takes over 100).

    Names are known by the first 64 bits of their BLAKE2b hash. Two different names among ten
    million share one with a probability of 3 in a million; the second then counts as known.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))  # open addressing; 0 is an empty slot
        self._mask = 1023
        self._used = 0

    def add(self, name: str) -> bool:
        """Add ``name``; True when it is new."""
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if not self._place(int.from_bytes(digest, "little") or 1):
            return False
        self._used += 1
        if self._used > _FULL * (self._mask + 1):
            self._grow()
        return True

    def __len__(self) -> int:
        return self._used

    def _place(self, key: int) -> bool:
        slots, mask = self._slots, self._mask
        place = key & mask
        while found := slots[place]:
            if found == key:
                return False
            place = (place + 1) & mask
        slots[place] = key
        return True

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(16 * len(old)))
        self._mask = len(self._slots) - 1
        for key in old:
            if key:
                self._place(key)
