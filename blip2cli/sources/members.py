"""Names of the images that archives and tables hold.

An archive counts as a folder: with one source, names are the members' own; with several, the
archive's file name comes before them (``shard-000000.tar/000012.jpg``). Nothing is ever written
under these names, but they are made safe for those who read the output: relative, without ``..``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from blip2cli.sources.base import name_below
from blip2cli.sources.image_suffixes import IMAGE_SUFFIXES
from blip2cli.storage.hash_set import HashSet

MAX_NAME = 1 << 14  # characters; far over what any file system takes


def safe_name(name: str) -> str:
    """``name`` relative and without ``.``, ``..`` and doubled slashes; may be empty."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def is_hidden_member(name: str) -> bool:
    """True for a member that is hidden, or made by macOS."""
    return any(
        part.startswith(".") or part == "__MACOSX"
        for part in name.split("/")
        if part not in (".", "..")
    )


def is_image_member(name: str) -> bool:
    """True for a member that is an image by its suffix, and neither hidden nor made by macOS."""
    if os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
        return False
    return not is_hidden_member(name)


@dataclass
class MemberNames:
    """Unique names for the members of one container, below ``base``."""

    location: str
    base: str
    _seen: HashSet = field(default_factory=HashSet)

    def unique(self, name: str, number: int) -> tuple[str, str]:
        """The row's ``file_name`` and the path it stands for.

        ``number`` (the row or member, from 0) names what has no name, or one that is longer than
        ``MAX_NAME``, and is put before the suffix of a name that has come before.
        """
        name = safe_name(name) if len(name) <= MAX_NAME else ""
        name = name or f"{number:08d}"
        stem, suffix = os.path.splitext(name)
        while not self._seen.add(name):
            stem = f"{stem}-{number:08d}"
            name = stem + suffix
        path = f"{self.location}/{name}"
        return name_below(path, self.base), path
