from __future__ import annotations

import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import SourceError
from blip2cli.storage.opening import BLOCK, is_remote, open_binary
from tests.sources.faulty import OwnMemory


def test_urls_and_paths_are_distinguished() -> None:
    assert all(map(is_remote, ("s3://b/k", "hf://datasets/u/r", "S3://b", "file:///x")))
    assert not any(map(is_remote, ("/data/s3://", "c:/x", "s3:/b", "://x", "a b://c", "-")))


def test_a_local_file_is_opened_as_open_does(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    with open_binary(str(tmp_path / "a")) as file:
        assert file.seek(2) == 2
        assert file.read() == b"345"
    with pytest.raises(FileNotFoundError):
        open_binary(str(tmp_path / "absent"))


def test_a_file_behind_a_url_is_seekable(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    (tmp_path / "a").write_bytes(data)
    with open_binary(f"file://{tmp_path}/a") as file:
        assert file.seekable()
        assert file.read(3) == data[:3]
        assert file.seek(-5, 2) == len(data) - 5
        assert file.read(100) == data[-5:]
        file.seek(7)
        buffer = bytearray(4)
        assert file.readinto(buffer) == 4  # type: ignore[attr-defined]
        assert bytes(buffer) == data[7:11]
        assert file.tell() == 11
        assert file.read() == data[11:]
    assert file.closed


class Watched(OwnMemory):
    protocol = "watched"
    opened: dict[str, Any]

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        type(self).opened = kwargs
        return super().open(path, mode, **kwargs)


def test_one_block_is_prefetched_and_cached() -> None:
    Watched.register()
    Watched().pipe_file("/opened/a", b"1")
    open_binary("watched://opened/a").close()
    assert Watched.opened == {"block_size": BLOCK, "cache_type": "readahead"}


class Broken(OwnMemory):
    """Opens files and fails to read them, with an exception that is no OSError."""

    protocol = "broken"

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        class File:
            def read(self, size: int) -> bytes:
                raise type("HTTPClientError", (Exception,), {})("connection lost")

            def seek(self, offset: int, whence: int = 0) -> int:
                raise ValueError("Cannot seek")

            def close(self) -> None: ...

        return File()


def test_errors_while_reading_are_oserrors_too() -> None:
    Broken.register()
    with open_binary("broken://a/b") as file, pytest.raises(OSError, match="connection lost") as e:
        file.read()
    with open_binary("broken://a/b") as file, pytest.raises(OSError, match="Cannot seek"):
        file.seek(3)
    assert e.value.strerror == "its server cannot be reached"
    assert isinstance(e.value, SourceError)


def test_a_missing_file_behind_a_url_is_both_kinds_of_error() -> None:
    with pytest.raises(SourceError, match="There is no 'memory://absent/x'; check the name"):
        open_binary("memory://absent/x")
    with pytest.raises(FileNotFoundError) as caught:
        open_binary("memory://absent/x")
    assert caught.value.strerror == "there is no such file"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.strerror) == (str(caught.value), caught.value.strerror)


@pytest.mark.parametrize(
    ("url", "module", "message"),
    [
        (
            "gs://b/k",
            "gcsfs",
            "needs gcsfs, which is not installed; pip install 'blip2cli[rem",
        ),
        ("gcs://b/k", "gcsfs", "pip install 'blip2cli[remote]'"),
        ("s3://b/k", "s3fs", "needs s3fs, which is not installed; pip install 'blip2cli[rem"),
        ("abfs://b/k", "adlfs", "needs adlfs, which is not installed; pip install adlfs"),
    ],
)
def test_a_missing_package_is_named(
    url: str, module: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    known = import_module("fsspec.registry")._registry  # of classes imported before
    monkeypatch.delitem(known, url.partition("://")[0], raising=False)
    with pytest.raises(SourceError) as caught:
        open_binary(url)
    assert message in str(caught.value)


def test_without_fsspec_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(SourceError, match="needs fsspec, which is not installed; pip install 'bli"):
        open_binary("s3://b/k")


def test_an_unknown_protocol() -> None:
    with pytest.raises(SourceError, match="protocol of 'gopher://x/y' is not known"):
        open_binary("gopher://x/y")


@pytest.mark.parametrize(
    "url", ["s3://key:s3cr3t@bucket/x", "s3://key:s3cr/3t@b/x", "ftp://me:s3cr3t@h/x"]
)
def test_a_password_in_a_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SourceError, match="holds a password") as caught:
        open_binary(url)
    assert "3t" not in str(caught.value)


def test_fsspec_is_not_imported_for_local_sources(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    code = (
        "import sys\n"
        "from blip2cli.cli.app import call\n"
        f"call(['caption', {str(tmp_path)!r}, '--model', 'tiny', '--dry-run'])\n"
        "call(['caption', '--help'])\n"
        "sys.exit(bool({'fsspec', 's3fs', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "caption: 1 image" in done.stdout
