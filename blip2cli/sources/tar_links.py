"""Hard and symbolic links in a tar, resolved to the members they name."""

from __future__ import annotations

import tarfile
from contextlib import suppress

from blip2cli.sources.member_links import follow, member_path, target_path
from blip2cli.sources.tar_file import BreaksOffError, open_tar

MAX_LINKS = 1 << 20  # in one archive; about 300 bytes of memory each


class TarLinks:
    """The links of the archive at ``location``, and where the data of what they name lies.

    The archive is read twice more, up to the place where a damaged one breaks off.
    """

    def __init__(self, location: str) -> None:
        self._targets: dict[str, str] = {}  # of links, by name
        self._data: dict[str, tuple[int, int]] = {}  # of regular members: offset and size
        wanted: set[str] = set()
        with open_tar(location) as tar, suppress(BreaksOffError):
            for info in tar.members():
                if len(wanted) == MAX_LINKS or len(self._targets) == MAX_LINKS:
                    break
                if info.issym() or info.islnk():
                    name, target = member_path(info.name), _target(info)
                    wanted.add(target)
                    # GNU tar stores a file that is given twice as a hard link to itself.
                    if not (info.islnk() and name == target):
                        self._targets[name] = target
        ends = {follow(target, self._targets) for target in wanted}
        with open_tar(location) as tar, suppress(BreaksOffError):
            for info in tar.members():
                name = member_path(info.name)
                if name in ends and info.isreg() and not info.issparse():
                    self._data.setdefault(name, (info.offset_data, info.size))

    def find(self, link: tarfile.TarInfo) -> tuple[int, int] | None:
        """Offset and size of the data that ``link`` leads to; None when the archive has none."""
        return self._data.get(follow(_target(link), self._targets))


def _target(link: tarfile.TarInfo) -> str:
    return member_path(link.linkname) if link.islnk() else target_path(link.name, link.linkname)
