"""Hard and symbolic links in a tar, resolved to the members they name."""

from __future__ import annotations

import posixpath
import tarfile
from contextlib import suppress

from blip2cli.sources.tar_file import BreaksOffError, open_tar

MAX_LINKS = 1 << 20  # in one archive; about 300 bytes of memory each
MAX_HOPS = 40  # from link to link


class TarLinks:
    """The links of the archive at ``location``, and where the data of what they name lies.

    The archive is read twice more, up to the place where a damaged one breaks off.
    """

    def __init__(self, location: str) -> None:
        self._targets: dict[str, str] = {}  # of links, by name
        self._data: dict[str, tuple[int, int]] = {}  # of regular members: offset and size
        with open_tar(location) as tar, suppress(BreaksOffError):
            for info in tar.members():
                if len(self._targets) == MAX_LINKS:
                    break
                if info.issym() or info.islnk():
                    self._targets[_normal(info.name)] = _target(info)
        ends = {self._follow(name) for name in self._targets}
        with open_tar(location) as tar, suppress(BreaksOffError):
            for info in tar.members():
                name = _normal(info.name)
                if name in ends and info.isreg() and not info.issparse():
                    self._data.setdefault(name, (info.offset_data, info.size))

    def find(self, link: tarfile.TarInfo) -> tuple[int, int] | None:
        """Offset and size of the data that ``link`` leads to; None when the archive has none."""
        return self._data.get(self._follow(_target(link)))

    def _follow(self, name: str) -> str:
        """The name at the end of all links, also of folders on the way; empty for a circle."""
        for _ in range(MAX_HOPS):
            head, tail = name, ""
            while head and head not in self._targets:
                head, _, last = head.rpartition("/")
                tail = posixpath.join(last, tail) if tail else last
            if not head:
                return name
            name = posixpath.normpath(posixpath.join(self._targets[head], tail))
        return ""


def _target(link: tarfile.TarInfo) -> str:
    """The name in the archive that a link points to."""
    if link.islnk():
        return _normal(link.linkname)
    return posixpath.normpath(posixpath.join(posixpath.dirname(_normal(link.name)), link.linkname))


def _normal(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")
