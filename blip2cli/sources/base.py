"""What every source of images has in common: references to images, their names, reading errors.

A *source* is one argument of the command line turned into images by one reader. To add a kind of
source, write a reader file with a subclass of :class:`Source` and put one line into the table of
:mod:`blip2cli.sources.readers`. Sources whose bytes are no local file of their own (members of an
archive, cells of a table) subclass :class:`ImageRef` and override :meth:`ImageRef.read`.

``error_type`` names raised here: ``missing``, ``permission_denied``, ``not_a_file``,
``too_large``, ``read_error``, ``name_clash``.
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from blip2cli.errors import ImageError, SourceError
from blip2cli.sources import file_size
from blip2cli.storage.hash_set import occurrence_key


@dataclass(frozen=True)
class ImageRef:
    """One image: its public name and how to get its bytes. Picklable; goes to loader workers."""

    file_name: str  # row key: POSIX path relative to the source root
    path: str  # absolute local path; surrogateescape holds bytes that are not UTF-8
    # Values of the carried columns, in their order; keyword-only so that subclasses may add
    # fields without a default.
    carried: tuple[object, ...] = field(default=(), kw_only=True)
    # Of the rows of a manifest about one image: 1, 2, ...; 0 where they are not told apart.
    occurrence: int = field(default=0, kw_only=True)

    # Whether its bytes come from another machine: waited for, and cheaper to read many at once.
    remote: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """What tells images apart: the name, and for a repeated one its occurrence."""
        return occurrence_key(self.file_name, self.occurrence)

    def changed_since(self, when: float) -> bool:
        """Whether its file was written, or put in its place, later than ``when`` (seconds since
        1970); False for what has no local file of its own."""
        try:
            status = os.stat(self.path)
        except (OSError, ValueError):
            return False
        return max(status.st_mtime, status.st_ctime) > when

    def read(self) -> bytes:
        """Return the whole file.

        Raises ImageError: ``missing``, ``permission_denied``, ``not_a_file`` (a folder, pipe or
        device), ``too_large`` (over ``file_size.MAX_FILE_BYTES``) or ``read_error``.
        """
        try:
            # O_NONBLOCK: opening a named pipe that nobody writes to would wait for ever.
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with open(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ImageError("not_a_file", "It is a folder, pipe or device, not a file.")
                if status.st_size > file_size.MAX_FILE_BYTES:
                    file_size.check_size(status.st_size, "The file")
                return file.read()
        except (OSError, ValueError) as error:  # ValueError: a NUL inside the path
            raise _reading_error(error, "file") from None


def shown_names(names: Sequence[str]) -> str:
    """Images for people: ``a.jpg``, or ``a.jpg and 31 more``."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"


@dataclass(frozen=True)
class FailedRef(ImageRef):
    """An image known to be unusable already when it was listed; reading it says why."""

    error_type: str = "read_error"
    message: str = ""

    def read(self) -> bytes:
        raise ImageError(self.error_type, self.message)


@contextmanager
def reading_errors(what: str) -> Iterator[None]:
    """Turn errors that occur while the bytes of one image are read into an ImageError.

    ``missing``, ``permission_denied``, ``not_a_file`` or ``read_error``.
    """
    try:
        yield
    except (OSError, ValueError, EOFError, SourceError) as error:
        raise _reading_error(error, what) from None


def _reading_error(error: Exception, what: str) -> ImageError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return ImageError("missing", f"There is no such {what}.")
    if isinstance(error, IsADirectoryError):
        return ImageError("not_a_file", "It is a folder, not a file.")
    if isinstance(error, PermissionError):
        return ImageError("permission_denied", f"The {what} may not be read.")
    if isinstance(error, SourceError) and not isinstance(error, OSError):
        return ImageError("read_error", str(error))  # a package for the protocol is missing
    reason = getattr(error, "strerror", None) or str(error)
    return ImageError("read_error", f"The {what} cannot be read: {reason}.")


@dataclass(frozen=True)
class RefBlock:
    """Images that are listed together, for who needs few of the references."""

    keys: Sequence[str]
    ref: Callable[[int], ImageRef]  # the reference of the image with this number
    unique: bool = True  # none comes twice in all blocks

    @classmethod
    def of(cls, refs: Sequence[ImageRef], unique: bool = True) -> RefBlock:
        """References that are there."""
        return cls([ref.key for ref in refs], refs.__getitem__, unique)

    @classmethod
    def of_files(
        cls, names: Sequence[str], named: str, where: str, unique: bool = True
    ) -> RefBlock:
        """Local files ``names`` in the folder ``where``, whose images have ``named`` before
        theirs."""
        keys = [named + name for name in names] if named else names
        return cls(keys, lambda number: ImageRef(keys[number], where + names[number]), unique)


@dataclass(frozen=True)
class Source(ABC):
    """One argument of the command line, checked, not listed yet."""

    text: str  # the argument as the user typed it, for messages
    root: str  # absolute folder below which the images lie; with one source, names start there
    unique: bool = field(default=True, kw_only=True)  # it cannot give the same image twice

    streamed: ClassVar[bool] = False  # it may not be read before its images are requested
    has_rows: ClassVar[bool] = False  # a manifest: several rows may be about one image
    must_match: ClassVar[bool] = False  # without an image it is a mistake, also beside others

    @property
    def by_name(self) -> bool:
        """Whether its images come in the order of their names (``shard.name_order``)."""
        return False

    @property
    def commit(self) -> str:
        """Of a data set of the hub: the one that is read."""
        return ""

    @property
    def namespace(self) -> str:
        """The folder below which no other source has names, unless it is given one inside."""
        return self.root

    @abstractmethod
    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the images lazily, in a stable order, named relative to the folder ``base``."""

    def blocks(self, base: str) -> Iterator[RefBlock] | None:
        """The images of ``refs`` many together, where that is quicker."""
        return None

    def content_files(self) -> Iterable[str]:
        """The files that rows are made of beside the images they name: archives, tables."""
        return ()

    def list_files(self) -> tuple[str, ...] | None:
        """The files whose bytes say which images there are; None where other things do, too."""
        return None

    def no_images(self) -> SourceError:
        """The error that says why no image came, and the remedy."""
        return SourceError("sources", f"{self.text!r} gave no image")


@contextmanager
def opening_errors(text: str) -> Iterator[None]:
    """Turn an OSError of the file behind the source ``text`` into a SourceError."""
    try:
        yield
    except SourceError:  # of a URL: an OSError as well, but one with a remedy
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError("sources", f"The source {text!r} cannot be read: {reason}") from None


def absolute(path: str) -> str:
    """Return ``path`` absolute and without ``.``, ``..`` and doubled slashes.

    ``..`` is resolved on disk, since the parent of a symbolic link is not what its text says.
    A link in the last place stays: its name is what the user sees.
    """
    if ".." in path.split(os.sep):
        parent, name = os.path.split(path.rstrip(os.sep))
        if name == "..":
            return os.path.realpath(path)
        return os.path.join(os.path.realpath(parent), name)
    return os.path.abspath(path)


def name_below(path: str, base: str) -> str:
    """Return the POSIX name of the absolute ``path`` relative to ``base``.

    A path outside ``base`` (possible only for paths that arrive one by one on stdin) is named
    relative to the root of the file system, because names that begin with ``/`` or ``..`` are
    refused by the readers of metadata files.
    """
    prefix = base if base.endswith(os.sep) else base + os.sep
    name = path[len(prefix) :] if path.startswith(prefix) else path.lstrip(os.sep)
    return name.replace(os.sep, "/")
