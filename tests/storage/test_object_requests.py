"""Conditional puts, against a server of S3 and a proxy that cuts connections before it."""

from __future__ import annotations

import pytest

from blip2cli.errors import OutputError
from blip2cli.storage.object_requests import ObjectFolder, check_protocol
from blip2cli.storage.remote_errors import RemoteError
from tests.store_proxy import StoreProxy


def quick(bucket: str) -> ObjectFolder:
    return ObjectFolder(f"{bucket}/some/where", pauses=(0.0,) * 8)


def test_an_object_is_put_once(bucket: str, proxy: StoreProxy) -> None:
    folder = quick(bucket)
    assert folder.read("a") is None
    assert folder.create("a", b"1")
    assert proxy.count("PUT") == 1
    assert not folder.create("a", b"2")
    assert folder.read("a") == b"1"
    assert folder.create("a", b"1")  # the same bytes: as good as ours
    folder.replace("a", b"33")
    assert (folder.read("a"), folder.read_end("a", 1), folder.read_end("a", 5)) == (
        b"33",
        b"3",
        b"33",
    )
    assert folder.create("b/c", b"")
    assert folder.names() == ["a"]
    folder.remove("a", "b/c", "none")
    assert (folder.names(), folder.exists("a"), folder.modified("a")) == ([], False, None)


@pytest.mark.parametrize("fault", ["before", "after", "busy", "conflict"])
def test_a_put_that_fails_is_repeated(bucket: str, proxy: StoreProxy, fault: str) -> None:
    folder = quick(bucket)
    proxy.on_puts(fault, fault, fault)
    assert folder.create("a", b"ours")
    assert folder.read("a") == b"ours"
    assert proxy.count("PUT") >= 2
    # And the answer that says so may be another run's.
    folder.create("b", b"theirs")
    proxy.on_puts(fault, fault)
    assert not folder.create("b", b"ours")
    assert folder.read("b") == b"theirs"
    proxy.on_puts(fault, fault)
    folder.replace("b", b"later")
    assert folder.read("b") == b"later"


def test_the_answer_to_the_last_put_may_be_lost(bucket: str, proxy: StoreProxy) -> None:
    folder = ObjectFolder(bucket, pauses=())
    proxy.rule = lambda method, path: "after" if method == "PUT" else None
    assert folder.create("a", b"ours")
    proxy.rule = lambda method, path: "before" if method == "PUT" else None
    with pytest.raises(RemoteError, match="cannot be reached"):
        folder.create("b", b"ours")
    proxy.rule = lambda method, path: "busy"
    with pytest.raises(RemoteError, match=r"cannot be read \(Try again\)"):
        folder.read("a")


def test_conditions_are_tried(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = quick(bucket)
    folder.create("a", b"1")
    folder.check_refused("a")
    assert folder.read("a") == b"1"
    put = folder._put
    monkeypatch.setattr(folder, "_put", lambda name, data, mode="": put(name, data))
    with pytest.raises(OutputError, match="takes a second object under the name of the first"):
        folder.check_refused("a")
    assert folder.names() == []


def test_protocols_without_conditional_puts() -> None:
    for url in ("http://h/a", "sftp://h/a", "hf://datasets/u/r", "memory://a"):
        with pytest.raises(OutputError, match=r"replace one another's rows; name a folder"):
            check_protocol(url)
    check_protocol("GS://bucket/a")


def test_missing_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RemoteError, match=r"no valid credentials for 's3://.*'; set AWS_ACC"):
        quick(bucket).create("a", b"1")
    s3fs.S3FileSystem.clear_instance_cache()
