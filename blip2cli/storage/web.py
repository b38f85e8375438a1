"""Objects behind ``http://`` and ``https://``: with redirects, limits, and robots' headers.

A server may say in the header ``X-Robots-Tag`` that an image is not for machines that learn. What
it forbids is not fetched, as img2dataset has it: ``noai``, ``noimageai``, ``noindex`` and
``noimageindex``, for everybody or for the user agent ``blip2cli``.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable
from typing import Any

from blip2cli import __version__
from blip2cli.errors import ImageError
from blip2cli.storage.remote_errors import RemoteDeniedError, RemoteError, remote_error
from blip2cli.storage.secrets import hide_secrets

PROTOCOLS = frozenset({"http", "https"})
ANSWER_SECONDS = 10.0  # without a byte, as img2dataset waits
WHOLE_SECONDS = 60.0  # for the whole object, as an image may take in a worker
REDIRECTS = 5
AGENT = "blip2cli"
_PASSING = (408, 425, 429)  # of the answers 4xx, those that say: not now
FORBIDDING = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
# Directives that have a colon as well; before any other stands a user agent.
_WITH_VALUES = frozenset({
    "max-image-preview", "max-snippet", "max-video-preview", "unavailable_after",
})  # fmt: skip


class TooLargeError(Exception):
    """An object is larger than allowed."""


def fetch_web(url: str, max_bytes: int, seconds: float = WHOLE_SECONDS) -> bytes:
    """The whole object at ``url``.

    Raises TooLargeError for more than ``max_bytes`` bytes, RemoteError for one that a robots'
    header forbids or that takes more than ``seconds``, and what httpx raises.
    """
    end = time.monotonic() + seconds
    with _client(os.getpid()).stream("GET", url) as response:
        try:
            response.raise_for_status()
        except Exception as error:
            if response.status_code >= 500 or response.status_code in _PASSING:
                raise
            raise remote_error(url, error) from None  # it would be the same again
        directive = forbidding_directive(response.headers.get_list("x-robots-tag"))
        if directive is not None:
            reason = f"its server forbids it: X-Robots-Tag: {directive}"
            raise NotForMachinesError(
                f"{hide_secrets(url)!r} may not be used ({reason})", "leave it out", reason, True
            )
        if int(response.headers.get("content-length") or 0) > max_bytes:
            raise TooLargeError
        data = bytearray()
        for piece in response.iter_bytes():
            data += piece
            if len(data) > max_bytes:
                raise TooLargeError
            if time.monotonic() > end:
                reason = f"it did not come within {seconds:g} seconds"
                raise RemoteError(f"{hide_secrets(url)!r} cannot be read ({reason})", "", reason)
    return bytes(data)


class NotForMachinesError(RemoteDeniedError):
    """A robots' header forbids it."""

    def of_image(self) -> ImageError:
        return ImageError("permission_denied", f"The file may not be used: {self.strerror}.")


def forbidding_directive(headers: Iterable[str]) -> str | None:
    """The first directive of ``X-Robots-Tag`` headers that forbids an image to this program.

    A header is ``noai, noindex``, or for one user agent ``blip2cli: noai``.
    """
    for header in headers:
        agent, colon, rest = header.partition(":")
        agent = agent.strip().lower()
        named = colon and "," not in agent and agent not in _WITH_VALUES
        if named and agent != AGENT:
            continue
        directives = rest if named else header
        for directive in directives.split(","):
            if directive.strip().lower() in FORBIDDING:
                return directive.strip().lower()
    return None


@functools.cache
def _client(process: int) -> Any:
    """The client of this process, whose threads share its connections."""
    import httpx2

    return httpx2.Client(
        follow_redirects=True,
        max_redirects=REDIRECTS,
        timeout=ANSWER_SECONDS,
        headers={"User-Agent": f"{AGENT}/{__version__}", "Accept": "image/*,*/*;q=0.5"},
        limits=httpx2.Limits(max_connections=64, max_keepalive_connections=32),
    )
