"""Folders of the local disk for ``walk``: compact listings, and symbolic links followed once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from blip2cli.sources.base import ImageRef, RefBlock
from blip2cli.sources.walk import SUFFIXES, Entry, is_image, walk

SEPARATOR = b"/"  # stands in no name
BLOCK = 4096  # records joined at once; joining takes memory of its own for each
FOLDER, LINKED_FOLDER, LINK = b"\0D", b"\0E", b"\0L"  # kinds of entries that are no plain file
_KINDS = {b"": (False, False), b"D": (True, False), b"E": (True, True), b"L": (False, True)}


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
                yield name, is_folder, is_link, None


class LocalTree:
    """The tree of the local file system."""

    others: Counter[str] | None = None

    encode = staticmethod(os.fsencode)
    decode = staticmethod(os.fsdecode)
    reference = ImageRef

    def __init__(self, block: int = BLOCK) -> None:
        """``block``: entries that are held together."""
        self._block = block

    def listing(self, folder: bytes, hidden: bool = False) -> Listing:
        """Return the folders and files of one folder, sorted bytewise.

        Names with a leading dot are left out unless ``hidden``. Pipes, sockets and devices are
        left out; a link that leads nowhere stays, so that it is reported instead of lost.
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
        starts = range(0, len(records), self._block)
        return Listing([SEPARATOR.join(records[i : i + self._block]) for i in starts])

    def images_below(self, top: str, base: str) -> Iterator[ImageRef]:
        return walk(self, top, FollowLinks(os.fsencode(top), others=self.others), base)

    def blocks_below(self, top: str, base: str) -> Iterator[RefBlock]:
        """The images of ``images_below`` many together."""
        rules = FollowLinks(os.fsencode(top), others=self.others)
        found = walk(self, top, rules, base, reference=lambda *image: image)
        while images := [*islice(found, self._block)]:
            if all(type(image) is tuple for image in images):
                keys = [name for name, _ in images]
                yield RefBlock(keys, partial(_reference, images))
            else:  # folders that cannot be listed
                yield RefBlock.of([i if isinstance(i, ImageRef) else ImageRef(*i) for i in images])


@dataclass
class FollowLinks:
    """Rules of a folder source: all images below ``top``; state: reached through a link.

    A symbolic link to a folder is followed once. It is not followed at all when it points to a
    place the walk reaches in its own right, or to a folder that was entered through a link
    before; so every image has one name and loops end.
    """

    top: bytes
    start: bool = False
    others: Counter[str] | None = None
    _entered: set[tuple[int, int]] = field(default_factory=set)  # (device, inode)

    def __post_init__(self) -> None:
        self._real_top = os.path.realpath(self.top)
        self._entered.add(_identity(self.top))

    def takes(self, state: bool, name: bytes) -> bool:
        # As ``splitext`` finds the suffix; names that begin with a dot are not listed.
        return name[name.rfind(b".") :].lower() in SUFFIXES or is_image(name, self.others)

    def enter(self, state: bool, path: bytes, name: bytes, is_link: bool) -> bool | None:
        """Decide whether to go into a folder. Real folders of the tree itself need no check."""
        if not is_link and not state:
            return False
        if is_link and self._reached_anyway(os.path.realpath(path)):
            return None
        identity = _identity(path)
        if identity in self._entered:
            return None
        self._entered.add(identity)
        return True

    def lists_hidden(self, state: bool) -> bool:
        return False

    def takes_all(self, state: bool) -> bool:
        """Folders are entered, not yielded."""
        return False

    def _reached_anyway(self, real: bytes) -> bool:
        """True when ``real`` lies in the tree, and not in a hidden part that is left out."""
        if real == self._real_top:
            return True
        prefix = self._real_top.rstrip(b"/") + b"/"
        if not real.startswith(prefix):
            return False
        return not any(part.startswith(b".") for part in real[len(prefix) :].split(b"/"))


def _reference(images: Sequence[tuple[str, str]], number: int) -> ImageRef:
    return ImageRef(*images[number])


def _identity(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return (status.st_dev, status.st_ino)
