"""What went wrong with a URL, and what to do about it.

The libraries behind fsspec raise what they like: OSError where they translate the server's answer,
exceptions of botocore, aiohttp, httpx or google-auth where they do not. They are distinguished by
class name and status code, because importing those libraries for that costs more.
"""

from __future__ import annotations

import os

from blip2cli.errors import ImageError, SourceError
from blip2cli.storage.secrets import hide_secrets

_CREDENTIALS = frozenset({
    "CredentialRetrievalError", "DefaultCredentialsError", "NoCredentialsError",
    "PartialCredentialsError", "ProfileNotFound", "RefreshError", "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
})  # fmt: skip
_UNREACHABLE = frozenset({
    "ClientConnectionError", "ConnectionError", "HTTPClientError", "TimeoutError",
    "TransportError", "gaierror",
})  # fmt: skip

# Where each protocol's credentials and its server's address come from.
_ACCESS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "HF_TOKEN",
}
_ADDRESS = {"s3": "AWS_ENDPOINT_URL", "hf": "HF_ENDPOINT"}
_ALIASES = {"s3a": "s3", "gcs": "gs"}


class RemoteError(SourceError, OSError):
    """A URL that cannot be read.

    ``problem`` and ``remedy`` are for the user who named the URL. As an OSError (``strerror``: a
    few words) it is what readers of files expect from ``open``. ``lasting``: the same request
    fails again until somebody does something about it.
    """

    def __init__(self, problem: str, remedy: str, reason: str, lasting: bool = False) -> None:
        super().__init__(None, problem, remedy)
        self.strerror = reason
        self.lasting = lasting

    def __reduce__(self) -> tuple[type[RemoteError], tuple[str, str, str, bool]]:
        """Keep all arguments on the way between processes."""
        return (type(self), (self.problem, self.remedy, self.strerror or "", self.lasting))

    def of_image(self) -> ImageError:
        """The same for one image of many."""
        return ImageError("read_error", f"The file cannot be read: {self.strerror}.")


class RemoteMissingError(RemoteError, FileNotFoundError):
    """There is nothing at the URL."""

    def of_image(self) -> ImageError:
        return ImageError("missing", "There is no such file.")


class RemoteDeniedError(RemoteError, PermissionError):
    """The server refuses."""

    def of_image(self) -> ImageError:
        return ImageError("permission_denied", "The file may not be read.")


def is_refused(error: Exception) -> bool:
    """Whether a store refused a conditional put: something has the name, or is just getting it."""
    return isinstance(error, FileExistsError) or _status(error) in (409, 412)


def remote_error(url: str, error: Exception, action: str = "read") -> RemoteError:
    """Return the RemoteError for what a library raised while it dealt with ``url``.

    ``action``: what could not be done, as a past participle.
    """
    if isinstance(error, RemoteError):
        return error
    protocol = url.partition("://")[0].lower()
    protocol = _ALIASES.get(protocol, protocol)
    shown = repr(hide_secrets(url))
    status = _status(error)
    # fsspec calls it a missing file whatever a web server said, or none: the cause knows better.
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
    names = {kind.__name__ for kind in type(cause or error).__mro__}
    missing = isinstance(error, FileNotFoundError) and status is None and not names & _UNREACHABLE
    access = _ACCESS.get(protocol, "them")
    if missing or status in (404, 410):
        private = ", or set HF_TOKEN if it is private" if protocol == "hf" else ""
        return RemoteMissingError(
            f"There is no {shown}", f"check the name{private}", "there is no such file", True
        )
    if isinstance(error, PermissionError) or status in (401, 403):
        return RemoteDeniedError(
            f"{shown} may not be {action} with the credentials in use",
            f"check {access}",
            f"it may not be {action}",
            True,
        )
    if names & _CREDENTIALS:
        public = ", or FSSPEC_S3_ANON=true if it is public" if protocol == "s3" else ""
        return RemoteError(
            f"There are no valid credentials for {shown}",
            f"set {access}{public}",
            "there are no valid credentials",
            True,
        )
    if "OfflineModeIsEnabled" in names:
        return RemoteError(
            f"{shown} is not reached while HF_HUB_OFFLINE is set",
            "unset it",
            "HF_HUB_OFFLINE is set",
            True,
        )
    if "ParamValidationError" in names:
        reason = "its name is not valid"
        return RemoteError(f"{shown} is no valid name", "check the bucket", reason, True)
    detail = _detail(cause if isinstance(cause, Exception) else error)
    if names & _UNREACHABLE:
        address = f" and {_ADDRESS[protocol]}" if protocol in _ADDRESS else ""
        return RemoteError(
            f"The server of {shown} cannot be reached ({detail})",
            f"check the network{address}",
            "its server cannot be reached",
        )
    return RemoteError(f"{shown} cannot be {action} ({detail})", "", detail)


def _status(error: Exception) -> int | None:
    for holder in (error, getattr(error, "response", None), error.__cause__):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
        if isinstance(response := getattr(holder, "response", None), dict):  # of botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(status, int):
                return status
    return None


def _detail(error: Exception) -> str:
    """The error in a few words, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if not text and isinstance(error, OSError) and error.errno:
        text = os.strerror(error.errno)
    lines = hide_secrets(text).strip().splitlines()
    first = lines[0].rstrip(".") if lines else ""
    return first[:200] or type(error).__name__
