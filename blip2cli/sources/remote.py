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

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from blip2cli.errors import ImageError, SourceError
from blip2cli.sources import base as limits
from blip2cli.sources.base import IMAGE_SUFFIXES, FailedRef, ImageRef, Source, name_below
from blip2cli.sources.faults import (
    RemoteDeniedError,
    RemoteError,
    RemoteMissingError,
    hide_secrets,
    remote_error,
)
from blip2cli.sources.opening import connect, is_remote, protocol_of, retries_of
from blip2cli.sources.patterns import PathPattern, has_magic
from blip2cli.sources.walk import has_image_suffix

T = TypeVar("T")

_EVERYTHING = PathPattern(("**",))
# Servers of these cannot list what they hold.
_UNLISTED = frozenset({"http", "https"})

# One entry of a listing: name, whether it is a folder, size in bytes if known.
Entry = tuple[bytes, bool, "int | None"]


@dataclass(frozen=True)
class RemoteRef(ImageRef):
    """An image behind a URL, which ``path`` holds."""

    size: int | None = field(default=None, kw_only=True)  # bytes, where the listing told

    @property
    def url(self) -> str:
        """Where the image lies."""
        return self.path

    def read(self) -> bytes:
        """Return the whole object, fetched by the calling process.

        Raises ImageError: ``missing``, ``permission_denied``, ``not_a_file``, ``too_large`` or
        ``read_error``.
        """
        try:
            return _again(self.path, lambda: _fetch(self.path, self.size))
        except RemoteError as error:
            raise error.of_image() from None
        except SourceError as error:
            raise ImageError("read_error", str(error)) from None


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
    pattern: PathPattern = _EVERYTHING
    unique: bool = True

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the images. Raises RemoteError when the folder itself cannot be listed; one
        below it that cannot comes as one failed image."""
        return _matches(self.root, self.pattern, base)

    def nothing(self) -> str:
        """The sentence for a folder without images."""
        return (
            f"{self.text!r} holds no images "
            f"(looked, also in its sub-folders, for {', '.join(sorted(IMAGE_SUFFIXES))})."
        )


@dataclass(frozen=True)
class RemoteGlob(RemoteFolder):
    """What a pattern in a URL matches."""

    def nothing(self) -> str:
        """The sentence for a pattern without a match."""
        return f"No image matches the pattern {self.text!r}; check it, or name a folder instead."


def claim_remote(text: str) -> Source | None:
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
        info = _again(url, lambda: filesystem.info(path))
    except (RemoteMissingError, RemoteDeniedError):
        if not pattern:
            raise
        return _glob(shown, protocol, place)
    if info["type"] == "directory" or (place.endswith("/") and protocol not in _UNLISTED):
        return RemoteFolder(shown, url)
    return RemoteFile(shown, url, info.get("size"))


def _glob(shown: str, protocol: str, place: str) -> RemoteGlob:
    components = place.split("/")
    first = next(i for i, part in enumerate(components) if has_magic(part))
    parts = tuple(part for part in components[first:] if part)
    return RemoteGlob(shown, f"{protocol}://{'/'.join(components[:first])}", PathPattern(parts))


def _matches(url: str, pattern: PathPattern, base: str) -> Iterator[ImageRef]:
    """Yield the images below ``url`` that ``pattern`` takes, in the order of ``walk``."""
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
                continue
            try:
                if pattern.end in after and not pattern.names_suffix:
                    yield from _matches(path, _EVERYTHING, base)
                elif inner := after - {pattern.end}:
                    below = _listing(path, pattern.wants_hidden(inner))
                    stack.append((path, iter(below), inner))
                    break
            except RemoteError as error:
                yield FailedRef(
                    name_below(path, base),
                    path,
                    error.of_image().error_type,
                    f"This folder cannot be listed ({error.strerror}), its images are left out.",
                )
        else:
            stack.pop()


def _listing(url: str, hidden: bool) -> list[Entry]:
    """Return the folders and files of one folder, sorted bytewise; a file before a folder of the
    same name, which object stores allow. Raises RemoteError."""
    filesystem, path = connect(url)
    found = _again(url, lambda: filesystem.ls(path, detail=True))
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


def _fetch(url: str, size: int | None) -> bytes:
    filesystem, path = connect(url)
    most = limits.MAX_FILE_BYTES + 1
    data: bytes
    if protocol_of(url) == "hf":  # one request; cat_file would first list the object's folder
        with filesystem.open(path, "rb", block_size=0) as file:
            data = file.read(most)
    else:
        if size is None:
            info = filesystem.info(path)
            size = info.get("size")
            if info["type"] == "directory":
                raise IsADirectoryError
        if size is None:
            data = filesystem.cat_file(path)
        elif size == 0 or _over(size):  # of nothing, no range can be asked for
            data = b""
        else:  # a range, because without one s3fs asks for the size first
            data = filesystem.cat_file(path, start=0, end=most)
    if _over(size) or _over(len(data)):
        raise ImageError("too_large", "The file is over 1 GiB.")
    return data


def _over(size: int | None) -> bool:
    return size is not None and size > limits.MAX_FILE_BYTES


def _again(url: str, request: Callable[[], T]) -> T:
    """Make a request; where the protocol's library does not, try again what may pass."""
    for pause in (*retries_of(url), None):
        try:
            return request()
        except (ImageError, SourceError):
            raise
        except IsADirectoryError:
            raise ImageError("not_a_file", "It is a folder, not a file.") from None
        except Exception as error:  # noqa: BLE001 - each protocol has exceptions of its own
            fault = remote_error(url, error)
            if pause is None or isinstance(fault, (RemoteMissingError, RemoteDeniedError)):
                raise fault from None
            time.sleep(pause)
    raise AssertionError  # the last turn returns or raises


__all__ = ["RemoteFile", "RemoteFolder", "RemoteGlob", "RemoteRef", "claim_remote"]
