"""The segments of a JPEG file (ITU T.81, annex B)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length: restarts, SOI, EOI
# 0xff 0 is a data byte of a scan, and restarts stand inside one. Any number of 0xff may fill the
# space before a marker; a pattern that takes them all in would look at each again and again.
_MARKER = re.compile(rb"\xff[^\0\xff]", re.DOTALL)
_BEHIND_A_SCAN = re.compile(rb"\xff[^\0\xff\xd0-\xd7]", re.DOTALL)


class Segment(NamedTuple):
    """One segment; only a marker where ``start`` is ``end``."""

    marker: int
    start: int  # of its content, behind the length
    end: int  # may lie beyond the file
    skipped: int  # bytes before it that belong to no segment


def segments(data: bytes, at: int = 2, in_scan: bool = False) -> Iterator[Segment]:
    """The segments from ``at`` on, up to a start of scan or the end of the picture, it included.

    ``in_scan``: ``at`` stands in the data of a scan.
    """
    pattern = _BEHIND_A_SCAN if in_scan else _MARKER
    while (found := pattern.search(data, at)) is not None:
        marker, start = data[found.end() - 1], found.end()
        skipped = start - at - 2
        if marker in _BARE:
            yield Segment(marker, start, start, skipped)
            if marker == EOI:
                return
            at = start
            continue
        at = start + int.from_bytes(data[start : start + 2], "big")
        yield Segment(marker, start + 2, at, skipped)
        if marker == SOS:
            return
