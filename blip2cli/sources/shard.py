"""Shares of the images of a source, for processes that know nothing of one another.

An image belongs to a share by a hash of its name alone: the first eight bytes of the SHA-256 of
``file_name`` in UTF-8 (names that are not UTF-8: their bytes), as a big-endian number, modulo N,
plus 1. So it stays in its share when others join the source, in every version of this tool, and all
rows about one image are in one share.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """One of ``count`` shares; ``index`` is counted from 1."""

    index: int
    count: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """The share ``I/N``. Raises ValueError."""
        index, count = map(int, text.split("/"))
        if not 1 <= index <= count:
            raise ValueError(text)
        return cls(index, count)

    def takes(self, file_name: str) -> bool:
        """Whether the image of this name belongs to it."""
        return shard_of(file_name, self.count) == self.index


def shard_of(file_name: str, count: int) -> int:
    """The share, from 1 to ``count``, that an image belongs to."""
    digest = hashlib.sha256(file_name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


def name_order(file_name: str) -> bytes:
    """A key that sorts names as folders are walked: bytewise by path component."""
    return file_name.encode("utf-8", "surrogateescape").replace(b"/", b"\0")
