"""Whole objects of S3, read by obstore where it is installed.

A request costs s3fs milliseconds of processor time, most of it in botocore and aiohttp, and obstore
a small part of that. So obstore is asked first, and s3fs once more for what obstore did not get:
errors, their repetition, and settings that only s3fs knows are those of s3fs in any case.

Credentials, region and address are taken from s3fs as well, because obstore alone would look for
them in fewer places: it reads no profiles.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from blip2cli.storage.opening import connect
from blip2cli.storage.web import TooLargeError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Credential

# Settings of s3fs that are taken over, or that change nothing about a request for an object.
_SETTINGS = frozenset({
    "anon", "cache_regions", "config_kwargs", "default_block_size", "default_cache_type",
    "default_fill_cache", "endpoint_url", "fixed_upload_size", "key", "listings_expiry_time",
    "max_concurrency", "max_paths", "password", "profile", "secret", "token", "use_listings_cache",
    "use_ssl", "username",
})  # fmt: skip
_CONFIG = frozenset({"max_pool_connections", "region_name", "s3"})  # the same of botocore
# In the region that s3fs is set to; then in that of the bucket, which costs a request to know.
_WAYS: tuple[dict[str, Any], ...] = ({}, {"cache_regions": True})
_RETRIES = 2  # after some 0.1 and 0.2 s; then s3fs is asked, which has pauses of its own
_WHOLE = timedelta(hours=1)  # for one object that keeps coming
_lock = threading.Lock()


def read_object(url: str, max_bytes: int, by_s3fs: Callable[[], bytes]) -> bytes:
    """The object at ``url`` (``s3://bucket/key``), by obstore or else ``by_s3fs``.

    Raises TooLargeError for more than ``max_bytes`` bytes, and what ``by_s3fs`` raises.
    """
    bucket, _, key = url.partition("://")[2].partition("/")
    # obstore strips slashes off keys; versions, access points and mistakes are left to s3fs.
    if not key or key != key.strip("/") or "?versionId=" in key or ":" in bucket:
        return by_s3fs()
    with _lock:
        objects = objects_of(bucket)
    return objects.read(key, max_bytes, by_s3fs)


@functools.cache
def objects_of(bucket: str) -> Objects:
    """The objects of a bucket, for this process."""
    return Objects(bucket)


class Objects:
    """The objects of one bucket."""

    def __init__(self, bucket: str) -> None:
        self._process = os.getpid()  # a fork of it lacks the threads of obstore
        self._stores = _stores(bucket)
        self._store = next(self._stores, None)
        self._works = False  # the store has given an object

    def read(self, key: str, max_bytes: int, by_s3fs: Callable[[], bytes]) -> bytes:
        """See ``read_object``."""
        store = self._store
        if store is None or self._process != os.getpid():
            return by_s3fs()
        try:
            found = store.get(key)
            size: int = found.meta["size"]
            data = bytes(found.bytes()) if size <= max_bytes else b""
        except Exception:  # noqa: BLE001 - s3fs says what is wrong, unless it is obstore
            data = by_s3fs()
            with _lock:
                if self._store is store and not self._works:
                    self._store = next(self._stores, None)
            return data
        self._works = True
        if size > max_bytes:
            raise TooLargeError
        return data


def _stores(bucket: str) -> Iterator[Any]:
    """The stores of obstore by which the objects of a bucket may be had, likeliest first."""
    for way in _WAYS:
        # Without obstore, without credentials, or with settings that it lacks there is none.
        with suppress(Exception):
            yield _store(bucket, **way)


def _store(bucket: str, **way: Any) -> Any:
    from fsspec.asyn import sync
    from obstore.store import S3Store

    filesystem, _ = connect(f"s3://{bucket}", **way)
    settings = filesystem.storage_options
    if not (settings.keys() <= _SETTINGS and settings.get("config_kwargs", {}).keys() <= _CONFIG):
        raise ValueError("these settings of s3fs have none like them in obstore")
    filesystem.connect()
    region = sync(filesystem.loop, filesystem.get_s3, bucket).meta.region_name
    # In the style that the server takes: with the bucket in the path, or before the host.
    address = urlsplit(filesystem.url(f"{bucket}/x"))
    client: ClientConfig = {
        "allow_http": address.scheme == "http",
        "connect_timeout": timedelta(seconds=filesystem.connect_timeout),
        "read_timeout": timedelta(seconds=filesystem.read_timeout),
        "timeout": _WHOLE,
    }
    if certificates := filesystem.session.get_config_variable("ca_bundle"):
        client["root_certificate"] = Path(certificates).read_bytes()
    return S3Store(
        bucket,
        endpoint=f"{address.scheme}://{address.netloc}{address.path.removesuffix('/x')}",
        virtual_hosted_style_request=True,  # the endpoint holds the bucket
        region="us-east-1" if region in (None, "aws-global") else region,
        skip_signature=bool(filesystem.anon),
        credential_provider=None if filesystem.anon else _Credentials(filesystem),
        client_options=client,
        retry_config={"max_retries": _RETRIES},
    )


class _Credentials:
    """The credentials of s3fs, which obstore asks for again after ``lasting``."""

    lasting = timedelta(minutes=1)  # botocore gives none that end within ten
    refresh_threshold = timedelta(0)  # of obstore: how long before the end it asks

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def __call__(self) -> S3Credential:
        """Those of its settings, or those that botocore finds."""
        from fsspec.asyn import sync

        filesystem = self._filesystem
        own = (filesystem.key, filesystem.secret, filesystem.token)
        key, secret, token = own if own[0] else sync(filesystem.loop, _found, filesystem.session)
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": token,
            "expires_at": datetime.now(UTC) + self.lasting,
        }


async def _found(session: Any) -> tuple[str, str, str | None]:
    found = await (await session.get_credentials()).get_frozen_credentials()
    return found.access_key, found.secret_key, found.token
