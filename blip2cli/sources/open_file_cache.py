"""Images read from a location that :func:`open_binary` opens, whole or in part.

Archives and tables stay open from one image to the next: opening a file on another machine, or
reading the directory of a large archive, costs more than the image.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from blip2cli.errors import ImageError, SourceError
from blip2cli.sources import base
from blip2cli.sources.base import ImageRef
from blip2cli.storage.fetching import RemoteRef
from blip2cli.storage.opening import is_remote


class Closable(Protocol):
    """What can be held open."""

    def close(self) -> object:
        """Let go of the file."""


T = TypeVar("T", bound=Closable)


class _Held(threading.local):
    key: Hashable = None
    thing: Closable | None = None


_held = _Held()


def held(kind: Callable[[str], T], location: str) -> T:
    """``kind(location)``, kept open until something else is asked for; one per thread.

    A local file that has changed since is opened anew.
    """
    stamp = None
    if not is_remote(location):
        status = os.stat(location)
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    key = (kind, location, stamp)
    if _held.key != key or _held.thing is None:
        close_cached()
        _held.thing = kind(location)
        _held.key = key
    return _held.thing  # type: ignore[return-value]


def close_cached() -> None:
    """Close what this thread holds open."""
    thing, _held.thing, _held.key = _held.thing, None, None
    if thing is not None:
        thing.close()


@contextmanager
def reading(what: str = "file") -> Iterator[None]:
    """Turn what goes wrong while bytes are read into an ImageError.

    ``missing``, ``permission_denied``, ``not_a_file`` or ``read_error``.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("missing", f"There is no such {what}.") from None
    except IsADirectoryError:
        raise ImageError("not_a_file", "It is a folder, not a file.") from None
    except PermissionError:
        raise ImageError("permission_denied", f"The {what} may not be read.") from None
    except (OSError, ValueError, EOFError) as error:  # ValueError: a NUL inside the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError("read_error", f"The {what} cannot be read: {reason}.") from None
    except SourceError as error:  # a package for the protocol is missing
        raise ImageError("read_error", str(error)) from None


def check_size(size: int) -> None:
    """Raise ImageError ``too_large`` for more bytes than an image may have."""
    if size > base.MAX_FILE_BYTES:
        raise ImageError("too_large", f"It holds {size} bytes, over 1 GiB.")


@dataclass(frozen=True)
class CarriedRef(ImageRef):
    """An image whose bytes had to be read when it was listed; ``path`` only says where."""

    data: bytes

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data


def ref_at(file_name: str, location: str, carried: tuple[object, ...] = ()) -> ImageRef:
    """The reference to the whole file at ``location``, a local path or a URL."""
    kind = RemoteRef if is_remote(location) else ImageRef
    return kind(file_name, location, carried=carried)
