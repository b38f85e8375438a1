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
from blip2cli.storage.hash_set import HashSet

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


_NAMES = 1 << 15  # of complete images that are stored together


class RowNames:
    """Collects the names of rows in order, and knows which images have all their rows.

    A name that comes again is the next occurrence of the image (``occurrence_key``).

    Only the last image can lack rows: images are written one after the other. ``position`` is any
    number that grows, such as an offset in the file.
    """

    def __init__(self, row_count: RowCount) -> None:
        self.done = HashSet()
        self.rows = 0  # of complete images
        self.failed = 0  # complete images with a row for a failure
        self.complete_until = 0  # the position behind the last complete image
        self.lacking: str | None = None  # the first image that others follow, and lacks rows
        self._row_count = row_count
        self._name: str | None = None
        self._count = self._needed = 0
        self._position = 0
        self._failed = False
        self._names: list[str] = []  # of complete images, that are not in ``done`` yet

    def add(self, name: str, position: int, failed: bool = False) -> None:
        """One more row, which ends at ``position``."""
        if name != self._name or self._count >= self._needed:
            if self._count < self._needed:
                self.lacking = self.lacking or self._name
            self._finish()
            self._name, self._count, self._failed = name, 0, False
            self._needed = self._row_count(name)
        self._count += 1
        self._failed |= failed
        self._position = position

    def add_all(self, names: Sequence[str], end: int, ends: Callable[[], Sequence[int]]) -> None:
        """Many more rows, of which none is a failure; the last one ends at ``end``.

        ``ends`` gives the positions of all, which takes time.
        """
        start, places = 0, ends() if self.unfinished is not None else ()
        while start < len(places) and self.unfinished is not None:
            self.add(names[start], places[start])
            start += 1
        added = self._add_images(names[start:])
        start += added
        if start < len(names):
            places = places or ends()
        if added:
            self.complete_until = places[start - 1] if start < len(names) else end
        for name, place in zip(names[start:], places[start:], strict=False):
            self.add(name, place)

    def end(self) -> None:
        """No more rows follow: count the last image if it is complete. ``done`` holds all then."""
        if not self.unfinished:
            self._finish()
        self._store_names()

    @property
    def unfinished(self) -> str | None:
        """The last image if it lacks rows."""
        return self._name if self._count < self._needed else None

    def _add_images(self, names: Sequence[str]) -> int:
        """Add the first rows that are whole images with as many rows each; returns how many."""
        count = self._row_count(names[0]) if names and self.unfinished is None else 0
        stop = len(names) // count * count if count else 0
        images = names[:stop:count] if stop else ()
        alike = all(names[n:stop:count] == images for n in range(1, count))
        if not images or not alike or {*map(self._row_count, images)} != {count}:
            return 0
        self._finish()
        self._name, self._count, self._needed = None, 0, 0
        self._store(images)
        self.rows += stop
        return stop

    def _finish(self) -> None:
        if self._name is not None:
            self._store([self._name])
            self.rows += self._count
            self.failed += self._failed
            self.complete_until = self._position

    def _store(self, names: Sequence[str]) -> None:
        self._names += names
        if len(self._names) > max(_NAMES, len(self.done) >> 5):
            self._store_names()

    def _store_names(self) -> None:
        if len(self._names) > _NAMES:
            self.done.add_occurrences(self._names)
        else:
            for name in self._names:
                self.done.add_next(name)
        self._names = []


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
