from __future__ import annotations

import socket
from typing import Any

import pytest

from blip2cli.errors import SourceError
from blip2cli.storage.remote_errors import (
    RemoteDeniedError,
    RemoteError,
    RemoteMissingError,
    remote_error,
)


def named(name: str, *bases: type[Exception], text: str = "", **attributes: Any) -> Exception:
    """An exception as a library that is not imported here would raise it."""
    return type(name, bases or (Exception,), attributes)(text)


class Response:
    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


@pytest.mark.parametrize(
    ("url", "error", "kind", "message"),
    [
        (
            "s3://b/k",
            FileNotFoundError("b/k"),
            "missing",
            "There is no 's3://b/k'; check the na",
        ),
        ("hf://u/r", FileNotFoundError("u/r"), "missing", "or set HF_TOKEN if it is private."),
        ("https://h/k", named("E", status=404), "missing", "There is no 'https://h/k'"),
        ("s3a://b/k", PermissionError("Forbidden"), "permission_denied", "AWS_PROFILE."),
        ("gs://b/k", named("HttpError", code=403), "permission_denied", "GOOGLE_APPLICATION_CRED"),
        ("hf://u/r", named("E", response=Response(401)), "permission_denied", "HF_TOKEN."),
        ("s3://b/k", named("NoCredentialsError"), "read_error", "AWS_ACCESS_KEY_ID"),
        ("s3://b/k", named("NoCredentialsError"), "read_error", "FSSPEC_S3_ANON=true"),
        ("gcs://b/k", named("DefaultCredentialsError"), "read_error", "GOOGLE_APPLICATION_CRED"),
        ("s3://b/k", named("ConnectionError"), "read_error", "network and AWS_ENDPOINT_URL."),
        ("hf://u/r", named("X", named("TransportError").__class__), "read_error", "HF_ENDPOINT."),
        ("sftp://h/k", socket.gaierror(-2, "unknown"), "read_error", "(unknown); check the net"),
        (
            "hf://u/r",
            named("OfflineModeIsEnabled", ConnectionError),
            "read_error",
            "HF_HUB_OFFLINE",
        ),
        ("s3://b/k", OSError(5, "odd"), "read_error", "'s3://b/k' cannot be read (odd)."),
        ("s3://b/k", named("Odd", text="two.\nlines"), "read_error", "cannot be read (two)."),
        ("s3://b/k", named("Odd"), "read_error", "cannot be read (Odd)."),
    ],
)
def test_sentences_name_the_remedy(url: str, error: Exception, kind: str, message: str) -> None:
    found = remote_error(url, error)
    assert message in str(found)
    assert isinstance(found, SourceError)
    assert isinstance(found, OSError)
    assert found.strerror
    assert found.exit_code == 2
    assert found.of_image().error_type == kind
    assert isinstance(found, RemoteMissingError) is (kind == "missing")
    assert isinstance(found, RemoteDeniedError) is (kind == "permission_denied")
    assert remote_error(url, found) is found


def test_the_words_of_a_library_do_not_bring_secrets_back() -> None:
    url = "https://h/k.png?sig=s3cr3t"
    found = remote_error(url, named("Odd", text=f"400, message='Bad', url='{url}'"))
    assert "s3cr3t" not in str(found) + str(found.strerror) + str(found.of_image())


def test_a_web_server_that_fails_has_no_missing_file() -> None:
    def missing(cause: Exception) -> RemoteError:
        error = FileNotFoundError("https://h/k.png?sig=s3cr3t")
        error.__cause__ = cause
        return remote_error("https://h/k.png?sig=s3cr3t", error)

    broken = named("ClientResponseError", text="500, message='Oops', url='https://h/k?sig=s3cr3t'")
    for status, kind in ((404, "missing"), (403, "permission_denied"), (500, "read_error")):
        broken.status = status  # type: ignore[attr-defined]
        assert missing(broken).of_image().error_type == kind
    assert "s3cr3t" not in str(missing(broken))
    unreachable = named("ClientConnectionError", text="refused")
    assert missing(unreachable).of_image().error_type == "read_error"
    assert "cannot be reached" in str(missing(unreachable))
