"""What every source of images has in common: the reference to one image, and its name.

A *source* is one argument of the command line turned into images by one reader. To add a kind
of source, write a reader file that offers the :class:`Source` protocol and put one line into the
table of :mod:`blip2cli.sources`. Sources whose bytes are no local file of their own (members of an
archive, cells of a table) subclass :class:`ImageRef` and override :meth:`ImageRef.read`.

``error_type`` names raised here: ``missing``, ``permission_denied``, ``not_a_file``,
``too_large``, ``read_error``, ``name_clash``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from blip2cli.errors import ImageError

# What a folder is searched for. HEIC and JPEG XL are in the list although they may not decode
# here: a folder of phone photographs must report them, not pass over them in silence.
# fmt: off
IMAGE_SUFFIXES: frozenset[str] = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".gif",
    ".tif", ".tiff", ".bmp", ".dib", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm",
    ".qoi", ".ico", ".heic", ".heif", ".jxl",
})
# fmt: on

MAX_FILE_BYTES = 1 << 30  # a larger "image" is a mistake, and would fill the memory


@dataclass(frozen=True)
class ImageRef:
    """One image: its public name and how to get its bytes. Picklable; goes to loader workers."""

    file_name: str  # row key: POSIX path relative to the source root
    path: str  # absolute local path; surrogateescape holds bytes that are not UTF-8
    # Values of the columns named with --keep, in their order; keyword-only so that subclasses may
    # add fields without a default.
    carried: tuple[object, ...] = field(default=(), kw_only=True)

    def read(self) -> bytes:
        """Return the whole file.

        Raises ImageError: ``missing``, ``permission_denied``, ``not_a_file`` (a folder, pipe or
        device), ``too_large`` (over ``MAX_FILE_BYTES``) or ``read_error``.
        """
        try:
            # O_NONBLOCK: opening a named pipe that nobody writes to would wait for ever.
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with open(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ImageError("not_a_file", "It is a folder, pipe or device, not a file.")
                if status.st_size > MAX_FILE_BYTES:
                    raise ImageError(
                        "too_large", f"The file holds {status.st_size} bytes, over 1 GiB."
                    )
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            raise ImageError("missing", "There is no such file.") from None
        except IsADirectoryError:
            raise ImageError("not_a_file", "It is a folder, not a file.") from None
        except PermissionError:
            raise ImageError("permission_denied", "The file may not be read.") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL inside the path
            reason = getattr(error, "strerror", None) or str(error)
            raise ImageError("read_error", f"The file cannot be read: {reason}.") from None


@dataclass(frozen=True)
class FailedRef(ImageRef):
    """An image known to be unusable already when it was listed; reading it says why."""

    error_type: str = "read_error"
    message: str = ""

    def read(self) -> bytes:
        """Raise the ImageError found at listing time."""
        raise ImageError(self.error_type, self.message)


class Source(Protocol):
    """One argument of the command line, validated, not yet listed."""

    @property
    def text(self) -> str:
        """The argument as the user typed it, for messages."""

    @property
    def root(self) -> str:
        """Absolute folder below which the images lie; with one source, names start there."""

    @property
    def unique(self) -> bool:
        """True when this source alone can never give the same image twice."""

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the images lazily, in a stable order, named relative to the folder ``base``."""

    def nothing(self) -> str:
        """The sentence that says why no image came, and the mend."""


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
