"""How often a failed request to a server is made again, and after which pauses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

from blip2cli.errors import SourceError
from blip2cli.storage.opening import protocol_of
from blip2cli.storage.remote_errors import RemoteDeniedError, RemoteMissingError, remote_error
from blip2cli.storage.web import TooLargeError

# Protocols whose libraries repeat failed requests themselves, with growing pauses and numbers of
# their own.
_LIBRARY_RETRIES = frozenset({"s3", "s3a", "gs", "gcs", "hf", "abfs", "abfss", "az"})
RETRY_AFTER = (0.2, 1.0)  # seconds before each repetition; for the other protocols
LONGEST_PAUSE = 30.0  # seconds, whatever a server wants

T = TypeVar("T")


def retries_of(url: str) -> tuple[float, ...]:
    """Seconds to wait before each repetition of a failed request."""
    return () if protocol_of(url) in _LIBRARY_RETRIES else RETRY_AFTER


def wanted_pause(error: Exception) -> float:
    """The seconds after which a server wants to be asked again (Retry-After), not too many."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    with contextlib.suppress(AttributeError, TypeError, ValueError):  # none, or a date
        return min(LONGEST_PAUSE, float(headers.get("retry-after")))  # type: ignore[union-attr]
    return 0.0


def with_retries(url: str, request: Callable[[], T]) -> T:
    """Make a request, and repeat one that fails in passing where the library does not.

    Raises RemoteError, and IsADirectoryError for what is a folder.
    """
    for pause in (*retries_of(url), None):
        try:
            return request()
        except (TooLargeError, IsADirectoryError, SourceError):
            raise
        except Exception as error:  # noqa: BLE001 - each protocol has exceptions of its own
            fault = remote_error(url, error)
            if pause is None or isinstance(fault, (RemoteMissingError, RemoteDeniedError)):
                raise fault from None
            time.sleep(max(pause, wanted_pause(error)))
    raise AssertionError  # the last turn returns or raises
