"""Links between the members of an archive, followed by name; nothing is looked up on the disk."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

MAX_HOPS = 40  # from link to link
MAX_DEPTH = 100  # folders in a path, each of which may be a link


def member_path(name: str) -> str:
    """The name of a member as links mean it: without ``.``, doubled and leading slashes."""
    return posixpath.normpath(name).lstrip("/")


def target_path(link: str, text: str) -> str:
    """What the symbolic link ``link``, which holds ``text``, names; ``/…`` or ``../…`` outside."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(member_path(link)), text))


def follow(path: str, targets: Mapping[str, str]) -> str:
    """The path at the end of all links (``targets`` by path), those of folders on the way too;
    empty for a circle, or a path that is too deep."""
    for _ in range(MAX_HOPS):
        if path.count("/") > MAX_DEPTH:
            break
        head, tail = path, ""
        while head and head not in targets:
            head, _, last = head.rpartition("/")
            tail = posixpath.join(last, tail) if tail else last
        if not head:
            return path
        path = posixpath.normpath(posixpath.join(targets[head], tail))
    return ""
