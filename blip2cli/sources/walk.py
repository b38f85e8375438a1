"""Walking a folder tree: lazily, in a stated order, without being caught in a loop.

Order: bytewise by path component, folders and files interleaved, that is the order of the tuples
of encoded components. Each folder is listed when its turn comes, so the first names are out
before the last folder is opened, and memory holds one listing per level.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from blip2cli.sources.base import IMAGE_SUFFIXES

SUFFIXES = frozenset(os.fsencode(s) for s in IMAGE_SUFFIXES)

# One entry of a listing: name, whether it is a folder, whether it is a symbolic link.
Entry = tuple[bytes, bool, bool]


def has_image_suffix(name: bytes) -> bool:
    """True when the name ends like an image's, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def listing(folder: bytes, hidden: bool = False) -> list[Entry]:
    """Return the folders and files of one folder, sorted bytewise.

    Names with a leading dot are left out unless ``hidden``. Pipes, sockets and devices are left
    out; a link that leads nowhere stays, so that it is reported instead of lost.
    Raises OSError when the folder cannot be listed.
    """
    entries: list[Entry] = []
    with os.scandir(folder) as scan:
        for entry in scan:
            if not hidden and entry.name.startswith(b"."):
                continue
            link = entry.is_symlink()
            try:
                if entry.is_dir():
                    entries.append((entry.name, True, link))
                elif entry.is_file() or (link and not os.path.exists(entry.path)):
                    entries.append((entry.name, False, link))
            except OSError:  # a link to itself: reading it will say so
                entries.append((entry.name, False, link))
    entries.sort()
    return entries


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
        self, folder: bytes, entries: list[Entry], through_link: bool
    ) -> Iterator[str | Unlistable]:
        # An explicit stack: a tree may be deeper than Python's recursion limit.
        stack = [(folder, iter(entries), through_link)]
        while stack:
            folder, remaining, linked = stack[-1]
            for name, is_folder, is_link in remaining:
                path = os.path.join(folder, name)
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
