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

from collections.abc import Iterator
from dataclasses import dataclass

from blip2cli.errors import SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources.base import IMAGE_SUFFIXES, FailedRef, ImageRef, Source, name_below
from blip2cli.sources.patterns import PathPattern, has_magic
from blip2cli.sources.readers.globs import GlobSource, MatchedFolder
from blip2cli.sources.walk import has_image_suffix
from blip2cli.storage.fetching import RemoteRef, again
from blip2cli.storage.opening import connect, is_remote, protocol_of
from blip2cli.storage.remote_errors import (
    RemoteDeniedError,
    RemoteError,
    RemoteMissingError,
    hide_secrets,
)

_EVERYTHING = PathPattern(("**",))
# Servers of these cannot list what they hold.
_UNLISTED = frozenset({"http", "https"})

# One entry of a listing: name, whether it is a folder, size in bytes if known.
Entry = tuple[bytes, bool, "int | None"]


@dataclass(frozen=True)
class RemoteFile:
    """One object, whatever its suffix: its content decides whether it is an image."""

    text: str
    url: str
    size: int | None
    unique: bool = True

    @property
    def root(self) -> str:
        """The folder it lies in."""
        return self.url.rpartition("/")[0]

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the one image."""
        name = name_below(self.url, base)
        if protocol_of(self.url) in _UNLISTED:
            name = name.partition("?")[0]  # often a signature
        yield RemoteRef(name, self.url, size=self.size)

    def nothing(self) -> str:
        """Never needed in practice: a file always gives one image."""
        return f"{self.text!r} gave no image."


@dataclass(frozen=True)
class RemoteFolder:
    """All images below a URL."""

    text: str
    root: str
    unique: bool = True

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the images. Raises RemoteError when the folder itself cannot be listed; one
        below it that cannot comes as one failed image."""
        return _below(self.root, base)

    def nothing(self) -> str:
        """The sentence for a folder without images."""
        return (
            f"{self.text!r} holds no images "
            f"(looked, also in its sub-folders, for {', '.join(sorted(IMAGE_SUFFIXES))})."
        )


@dataclass(frozen=True)
class RemoteGlob(GlobSource):
    """What a pattern in a URL matches."""

    def _matches(self, base: str) -> Iterator[ImageRef | MatchedFolder]:
        return _walk(self.root, self.pattern, base)

    def _tree(self, path: str, base: str) -> Iterator[ImageRef]:
        try:
            yield from _below(path, base)
        except RemoteError as error:
            yield _unlistable(path, error, base)


def claim_remote(text: str, options: SourceOptions) -> Source | None:
    """Take ``text`` if it is a URL. Asks the server what stands there.

    Raises SourceError when nothing does, or the server or its package cannot be had.
    """
    if not is_remote(text):
        return None
    protocol = protocol_of(text)
    place = text[len(protocol) + 3 :]
    url = f"{protocol}://{place.rstrip('/')}"
    shown = hide_secrets(text)
    pattern = has_magic(place) and protocol not in _UNLISTED
    if pattern and has_magic(place.partition("/")[0]):
        raise SourceError(f"The pattern {shown!r} has a wildcard in the bucket; name the bucket.")
    filesystem, path = connect(url)
    try:
        info = again(url, lambda: filesystem.info(path))
    except (RemoteMissingError, RemoteDeniedError):
        if not pattern:
            raise
        return _glob(shown, protocol, place, options)
    if info["type"] == "directory" or (place.endswith("/") and protocol not in _UNLISTED):
        return RemoteFolder(shown, url)
    return RemoteFile(shown, url, info.get("size"))


def _glob(shown: str, protocol: str, place: str, options: SourceOptions) -> RemoteGlob:
    components = place.split("/")
    first = next(i for i, part in enumerate(components) if has_magic(part))
    parts = tuple(part for part in components[first:] if part)
    root = f"{protocol}://{'/'.join(components[:first])}"
    return RemoteGlob(shown, root, PathPattern(parts), options)


def _below(url: str, base: str) -> Iterator[ImageRef]:
    for found in _walk(url, _EVERYTHING, base):
        assert not isinstance(found, MatchedFolder)  # this pattern matches files only
        yield found


def _walk(url: str, pattern: PathPattern, base: str) -> Iterator[ImageRef | MatchedFolder]:
    """Yield what ``pattern`` matches below ``url``, in the order of ``walk``."""
    # An explicit stack: a tree may be deeper than Python's recursion limit.
    entries = _listing(url, pattern.wants_hidden(pattern.start))
    stack = [(url, iter(entries), pattern.start)]
    while stack:
        parent, remaining, states = stack[-1]
        for encoded, is_folder, size in remaining:
            name = encoded.decode("utf-8", "surrogateescape")
            path = f"{parent}/{name}"
            after = pattern.step(states, name, is_folder)
            if not is_folder:
                if pattern.end in after and (pattern.names_suffix or has_image_suffix(encoded)):
                    yield RemoteRef(name_below(path, base), path, size=size)
            elif pattern.end in after and not pattern.names_suffix:
                yield MatchedFolder(path)
            elif inner := after - {pattern.end}:
                try:
                    below = _listing(path, pattern.wants_hidden(inner))
                except RemoteError as error:
                    yield _unlistable(path, error, base)
                    continue
                stack.append((path, iter(below), inner))
                break
        else:
            stack.pop()


def _unlistable(url: str, error: RemoteError, base: str) -> FailedRef:
    """One failed image that stands for a folder whose images cannot be seen."""
    return FailedRef(
        name_below(url, base),
        url,
        error.of_image().error_type,
        f"This folder cannot be listed ({error.strerror}), its images are left out.",
    )


def _listing(url: str, hidden: bool) -> list[Entry]:
    """Return the folders and files of one folder, sorted bytewise; a file before a folder of the
    same name, which object stores allow. Raises RemoteError."""
    filesystem, path = connect(url)
    found = again(url, lambda: filesystem.ls(path, detail=True))
    # The libraries remember every listing, which for a large bucket is a large memory.
    filesystem.dircache.clear()
    entries: list[Entry] = []
    for info in found:
        whole = info["name"].rstrip("/")
        name = whole.rpartition("/")[2]
        if whole == path.rstrip("/") or not name or (name.startswith(".") and not hidden):
            continue  # the first is the mark of an empty folder
        if info["type"] in ("file", "directory", "link"):
            encoded = name.encode("utf-8", "surrogateescape")
            entries.append((encoded, info["type"] == "directory", info.get("size")))
    entries.sort(key=lambda entry: entry[:2])
    return entries
