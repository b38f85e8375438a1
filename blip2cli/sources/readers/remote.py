"""Images behind a URL: a file, everything below a folder (a prefix), or the matches of a glob.

Order, names and the choice of files are those of local folders and globs: bytewise by path
component, POSIX names relative to the folder (never with the bucket in them), image suffixes only,
names with a leading dot left out. Each folder is listed when its turn comes; memory holds one
listing per level. Keys with an empty component (``a//b.png``) are left out: fsspec cannot list
them.

Listing yields references; the bytes are fetched by the loader's workers, so an object that cannot
be read is the failure of one image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from blip2cli.errors import SourceError
from blip2cli.sources.base import ImageRef, Source
from blip2cli.sources.patterns import PathPattern, has_magic
from blip2cli.sources.readers.folder import FolderSource
from blip2cli.sources.readers.globs import GlobSource
from blip2cli.sources.remote_ref import RemoteRef
from blip2cli.sources.url_names import url_name
from blip2cli.sources.walk import Entry, PatternRules, walk
from blip2cli.storage.opening import connect, protocol_of
from blip2cli.storage.remote_errors import RemoteDeniedError, RemoteMissingError
from blip2cli.storage.secrets import hide_secrets
from blip2cli.storage.url_retries import with_retries

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

_EVERYTHING = PathPattern(("**",))
# Servers of these cannot list what they hold.
_UNLISTED = frozenset({"http", "https"})


class RemoteTree:
    """The tree of one fsspec file system; paths are URLs."""

    others: Counter[str] | None = None

    reference = RemoteRef

    def encode(self, path: str) -> bytes:
        """UTF-8, whatever the locale."""
        return path.encode("utf-8", "surrogateescape")

    def decode(self, path: bytes) -> str:
        """UTF-8, whatever the locale."""
        return path.decode("utf-8", "surrogateescape")

    def listing(self, folder: bytes, hidden: bool) -> list[Entry]:
        """Return the folders and files of one folder, sorted bytewise; a file before a folder of
        the same name, which object stores allow. Raises RemoteError."""
        url = self.decode(folder)
        filesystem, path = connect(url)
        found = with_retries(url, lambda: filesystem.ls(path, detail=True))
        # The libraries remember every listing, which for a large bucket is a large memory.
        filesystem.dircache.clear()
        entries: list[Entry] = []
        for info in found:
            whole = info["name"].rstrip("/")
            name = whole.rpartition("/")[2]
            if whole == path.rstrip("/") or not name or (name.startswith(".") and not hidden):
                continue  # the first is the mark of an empty folder
            if info["type"] in ("file", "directory", "link"):
                is_folder = info["type"] == "directory"
                entries.append((self.encode(name), is_folder, False, info.get("size")))
        entries.sort(key=lambda entry: entry[:2])
        return entries

    def images_below(self, top: str, base: str) -> Iterator[ImageRef]:
        found = walk(self, top, PatternRules(_EVERYTHING, self.decode, others=self.others), base)
        return cast("Iterator[ImageRef]", found)  # this pattern matches files only


class RemoteFolder(FolderSource):
    """All images below a URL. Listing it twice is too much to find out beforehand that it holds
    tables or archives only, as is done on the local disk."""

    def no_images(self) -> SourceError:
        for suffix in (".parquet", ".tar", ".zip"):
            rules = PatternRules(PathPattern(("**", f"*{suffix}")), self.tree.decode)
            if next(walk(self.tree, self.root, rules, self.root), None) is not None:
                return SourceError(
                    "sources",
                    f"{self.text!r} holds no images, but {suffix} files",
                    f"name them, as '{self.text.rstrip('/')}/**/*{suffix}'",
                )
        return super().no_images()


@dataclass(frozen=True)
class RemoteFile(Source):
    """One object, whatever its suffix: its content decides whether it is an image."""

    url: str
    size: int | None

    def refs(self, base: str) -> Iterator[ImageRef]:
        yield RemoteRef(url_name(self.url, base), self.url, size=self.size)


def open_source(text: str, options: SourceOptions) -> Source:
    """The file, folder or pattern at the URL ``text``, after a request to its server.

    Raises SourceError when nothing is there, or the server cannot be reached or its package is
    missing.
    """
    protocol = protocol_of(text)
    place = text[len(protocol) + 3 :]
    url = f"{protocol}://{place.rstrip('/')}"
    shown = hide_secrets(text)
    pattern = has_magic(place) and protocol not in _UNLISTED
    if pattern and has_magic(place.partition("/")[0]):
        raise SourceError(
            "sources", f"The pattern {shown!r} has a wildcard in the bucket", "name the bucket"
        )
    filesystem, path = connect(url)
    try:
        info = with_retries(url, lambda: filesystem.info(path))
    except (RemoteMissingError, RemoteDeniedError):
        if not pattern:
            raise
        components = place.split("/")
        first = next(i for i, part in enumerate(components) if has_magic(part))
        parts = tuple(part for part in components[first:] if part)
        root = f"{protocol}://{'/'.join(components[:first])}"
        return GlobSource.of(shown, root, PathPattern(parts), options, RemoteTree())
    if info["type"] == "directory" or (place.endswith("/") and protocol not in _UNLISTED):
        return RemoteFolder(shown, url, RemoteTree())
    return RemoteFile(shown, url.rpartition("/")[0], url, info.get("size"))
