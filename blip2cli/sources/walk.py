"""Walking a folder tree: lazily, in a stated order, without being caught in a loop.

Order: bytewise by path component, folders and files interleaved, that is the order of the tuples
of encoded components. Each folder is listed when its turn comes, so the first names are out
before the last folder is opened, and memory holds one listing per level.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from blip2cli.sources.base import IMAGE_SUFFIXES

SUFFIXES = frozenset(os.fsencode(s) for s in IMAGE_SUFFIXES)

# One entry of a listing: name, whether it is a folder, whether it is a symbolic link.
Entry = tuple[bytes, bool, bool]

SEPARATOR = b"/"  # stands in no name
BLOCK = 4096  # records joined at once; joining takes memory of its own for each
FOLDER, LINKED_FOLDER, LINK = b"\0D", b"\0E", b"\0L"  # kinds of entries that are no plain file
_KINDS = {b"": (False, False), b"D": (True, False), b"E": (True, True), b"L": (False, True)}


def has_image_suffix(name: bytes) -> bool:
    """True when the name ends like an image's, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def listing(folder: bytes, hidden: bool = False) -> Listing:
    """Return the folders and files of one folder, sorted bytewise.

    Names with a leading dot are left out unless ``hidden``. Pipes, sockets and devices are left
    out; a link that leads nowhere stays, so that it is reported instead of lost.
    Raises OSError when the folder cannot be listed.
    """
    records: list[bytes] = []
    with os.scandir(folder) as scan:
        for entry in scan:
            name = entry.name
            if not hidden and name.startswith(b"."):
                continue
            # Nearly all entries are plain files; the folder itself says so, without a stat.
            if entry.is_file(follow_symlinks=False):
                records.append(name)
                continue
            link = entry.is_symlink()
            try:
                if entry.is_dir():
                    records.append(name + (LINKED_FOLDER if link else FOLDER))
                elif link and (entry.is_file() or not os.path.exists(entry.path)):
                    records.append(name + LINK)
            except OSError:  # a link to itself: reading it will say so
                records.append(name + LINK)
    records.sort()
    return Listing([SEPARATOR.join(records[i : i + BLOCK]) for i in range(0, len(records), BLOCK)])


@dataclass(frozen=True)
class Listing:
    """The entries of one folder in few pieces of memory, for folders of millions of files.

    A name, then for what is no plain file a NUL and a letter. The NUL sorts before all that a
    name may hold, so sorting the records sorts the names.
    """

    blocks: list[bytes]  # records, joined by SEPARATOR

    def __iter__(self) -> Iterator[Entry]:
        for block in self.blocks:
            for record in block.split(SEPARATOR):
                name, _, kind = record.partition(b"\0")
                is_folder, is_link = _KINDS[kind]
                yield name, is_folder, is_link


@dataclass(frozen=True)
class Unlistable:
    """A sub-folder that could not be listed."""

    path: str
    error: OSError


@dataclass
class TreeWalk:
    """All images below one folder.

    A symbolic link to a folder is followed once. It is not followed at all when it points to a
    place the walk reaches in its own right, or to a folder that was entered through a link
    before; so every image has one name and loops end.
    """

    top: bytes
    _entered: set[tuple[int, int]] = field(default_factory=set)  # (device, inode)

    def __iter__(self) -> Iterator[str | Unlistable]:
        """Yield absolute paths of images; raises OSError when ``top`` cannot be listed."""
        self._real_top = os.path.realpath(self.top)
        self._entered = {_identity(self.top)}
        yield from self._below(self.top, listing(self.top), through_link=False)

    def _below(
        self, folder: bytes, entries: Iterable[Entry], through_link: bool
    ) -> Iterator[str | Unlistable]:
        # An explicit stack: a tree may be deeper than Python's recursion limit.
        stack = [(folder, iter(entries), through_link)]
        while stack:
            folder, remaining, linked = stack[-1]
            inside = os.path.join(folder, b"")  # joined once: a folder may hold millions
            for name, is_folder, is_link in remaining:
                path = inside + name
                if not is_folder:
                    if has_image_suffix(name):
                        yield os.fsdecode(path)
                    continue
                try:
                    if not self._enter(path, is_link, linked):
                        continue
                    below = listing(path)
                except OSError as error:
                    yield Unlistable(os.fsdecode(path), error)
                    continue
                stack.append((path, iter(below), linked or is_link))
                break
            else:
                stack.pop()

    def _enter(self, path: bytes, is_link: bool, through_link: bool) -> bool:
        """Decide whether to go into a folder. Real folders of the tree itself need no check."""
        if not is_link and not through_link:
            return True
        if is_link and self._reached_anyway(os.path.realpath(path)):
            return False
        identity = _identity(path)
        if identity in self._entered:
            return False
        self._entered.add(identity)
        return True

    def _reached_anyway(self, real: bytes) -> bool:
        """True when ``real`` lies in the tree, and not in a hidden part that is left out."""
        if real == self._real_top:
            return True
        prefix = self._real_top.rstrip(b"/") + b"/"
        if not real.startswith(prefix):
            return False
        return not any(part.startswith(b".") for part in real[len(prefix) :].split(b"/"))


def _identity(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return (status.st_dev, status.st_ino)
