"""The journal of an output: which images have all their rows, read from the output itself.

There is no second book-keeping. A run that resumes reads the journal, skips the images in it and
appends behind its last row. Reading it changes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from blip2cli.errors import OutputError, option
from blip2cli.sinks.settings import Settings
from blip2cli.storage.hash_set import OCCURRENCE, HashSet, name_of

# How many rows one image has, by its name.
RowCount = Callable[[str], int]


@dataclass(frozen=True)
class Journal:
    """The images of an output that have all their rows: ``done`` holds their keys."""

    done: HashSet = field(default_factory=HashSet)
    rows: int = 0
    failed: int = 0  # images among them whose rows are failures (inline)
    settings: Settings | None = None  # None: not known
    lacking: str | None = None  # an image that has not all its rows, which no crash leaves
    remark: str | None = None  # for the user: what is damaged, and run again
    # Repairs what a crash left, so that the output is complete as it is. To be called when no
    # image is left; a writer that appends does it by itself. Raises OSError.
    complete: Callable[[], None] = lambda: None
    images: int | None = None  # the number of those in ``done``, where that was not read

    @property
    def count(self) -> int:
        """How many images have all their rows."""
        return len(self.done) if self.images is None else self.images


_KEYS = 1 << 15  # of complete images that are stored together


class RowKeys:
    """Collects the keys of rows in order (``occurrence_key``): which images have all their rows.

    Only the last image can lack rows: images are written one after the other. ``position`` is any
    number that grows, such as an offset in the file.
    """

    def __init__(self, row_count: RowCount, settings: Settings | None = None) -> None:
        """``settings`` say whether rows about one image are told apart."""
        if settings is not None and OCCURRENCE in settings.columns:
            self._row_count: RowCount = lambda key: row_count(name_of(key))
        else:
            self._row_count = row_count
        self.done = HashSet()
        self.rows = 0  # of complete images
        self.failed = 0  # complete images with a row for a failure
        self.complete_until = 0  # the position behind the last complete image
        self.lacking: str | None = None  # the first image that others follow, and lacks rows
        self._key: str | None = None
        self._count = self._needed = 0
        self._position = 0
        self._failed = False
        self._keys: list[str] = []  # of complete images, that are not in ``done`` yet

    def add(self, key: str, position: int, failed: bool = False) -> None:
        """One more row, which ends at ``position``."""
        if key != self._key or self._count >= self._needed:
            self.lacking = self.lacking or self.unfinished
            self._finish()
            self._key, self._count, self._failed = key, 0, False
            self._needed = self._row_count(key)
        self._count += 1
        self._failed |= failed
        self._position = position

    def add_all(self, keys: Sequence[str], end: int, ends: Callable[[], Sequence[int]]) -> None:
        """Many more rows, of which none is a failure; the last one ends at ``end``.

        ``ends`` gives the positions of all, which takes time.
        """
        start, places = 0, ends() if self.unfinished is not None else ()
        while start < len(places) and self.unfinished is not None:
            self.add(keys[start], places[start])
            start += 1
        added = self._add_images(keys[start:])
        start += added
        if start < len(keys):
            places = places or ends()
        if added:
            self.complete_until = places[start - 1] if start < len(keys) else end
        for key, place in zip(keys[start:], places[start:], strict=False):
            self.add(key, place)

    def end(self) -> None:
        """No more rows follow: count the last image if it is complete. ``done`` holds all then."""
        if not self.unfinished:
            self._finish()
        self.done.add_all(self._keys)

    @property
    def unfinished(self) -> str | None:
        """The last image if it lacks rows."""
        return name_of(self._key or "") if self._count < self._needed else None

    def _add_images(self, keys: Sequence[str]) -> int:
        """Add the first rows that are whole images with as many rows each; returns how many."""
        count = self._row_count(keys[0]) if keys and self.unfinished is None else 0
        stop = len(keys) // count * count if count else 0
        images = keys[:stop:count] if stop else ()
        alike = all(keys[n:stop:count] == images for n in range(1, count))
        if not images or not alike or {*map(self._row_count, images)} != {count}:
            return 0
        self._finish()
        self._key, self._count, self._needed = None, 0, 0
        self._store(images)
        self.rows += stop
        return stop

    def _finish(self) -> None:
        if self._key is not None:
            self._store([self._key])
            self.rows += self._count
            self.failed += self._failed
            self.complete_until = self._position

    def _store(self, keys: Sequence[str]) -> None:
        self._keys += keys
        if len(self._keys) > _KEYS:
            self.done.add_all(self._keys)
            self._keys = []


def damaged(path: str, rows: int, problem: str) -> OutputError:
    """The error for an output that no crash can have left as it is.

    ``rows`` are sound before the damage. The advice is one that costs none of the others either.
    """
    return OutputError(
        "resume",
        f"{option('resume')}: {path!r} is damaged: {problem}; it is sound up to row {rows}",
        f"'blip2cli verify {shlex.quote(path)}' looks at all of it, and 'blip2cli convert' with "
        f"{option('salvage')} writes every sound row into a new file, which a run can go on with",
    )


def check_whole(out: str, journal: Journal) -> None:
    """Raise OutputError when an image in the middle of the output lacks rows."""
    if journal.lacking is not None:
        raise damaged(out, 0, f"the image {journal.lacking!r} has not all its rows")
