"""References to whole files: local ones, and objects behind URLs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from blip2cli.errors import ImageError, SourceError
from blip2cli.sources import file_size
from blip2cli.sources.base import ImageRef
from blip2cli.storage.fetching import fetch
from blip2cli.storage.opening import is_remote
from blip2cli.storage.remote_errors import RemoteError
from blip2cli.storage.web import TooLargeError


@dataclass(frozen=True)
class RemoteRef(ImageRef):
    """An image behind a URL, which ``path`` holds."""

    size: int | None = field(default=None, kw_only=True)  # bytes, if the listing gave it

    remote: ClassVar[bool] = True

    def read(self) -> bytes:
        """Return the whole object, fetched by the calling process. Raises as ``ImageRef`` does."""
        try:
            return fetch(self.path, self.size, file_size.MAX_FILE_BYTES)
        except TooLargeError:
            raise ImageError("too_large", f"The file is over {file_size.limit()}.") from None
        except IsADirectoryError:
            raise ImageError("not_a_file", "It is a folder, not a file.") from None
        except RemoteError as error:
            raise error.of_image() from None
        except SourceError as error:
            raise ImageError("read_error", str(error)) from None


def ref_at(
    file_name: str, location: str, carried: tuple[object, ...] = (), occurrence: int = 0
) -> ImageRef:
    """The reference to the whole file at ``location``, a local path or a URL."""
    kind = RemoteRef if is_remote(location) else ImageRef
    return kind(file_name, location, carried=carried, occurrence=occurrence)
