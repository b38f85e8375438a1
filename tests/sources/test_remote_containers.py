"""Manifests, tables and archives behind URLs give what they give from the local disk."""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import ImageError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import ImageRef, open_sources
from tests.s3_server import S3

CONTENT = {"a.png": b"A" * 10, "b/c.png": b"BC", "b/d.jpg": b"D" * 70_000}


def manifest(folder: Path) -> str:
    for name, data in CONTENT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    lines = [f"{name},{number}" for number, name in enumerate(CONTENT)]
    (folder / "m.csv").write_text("\n".join(["path,n", *lines, "b/gone.png,9", ""]))
    return "m.csv"


def table(folder: Path) -> str:
    images = [{"bytes": data, "path": name} for name, data in CONTENT.items()]
    numbers = [str(number) for number in range(len(CONTENT))]
    # One row group a row, so that reading jumps about.
    pq.write_table(
        pa.table({"image": images, "n": numbers}), folder / "t.parquet", row_group_size=1
    )
    return "t.parquet"


def tar(folder: Path) -> str:
    return shard(folder, "shard.tar", "w")


def tar_gz(folder: Path) -> str:
    return shard(folder, "shard.tgz", "w:gz")


def shard(folder: Path, name: str, mode: str) -> str:
    inside = folder / "inside"
    inside.mkdir()
    manifest(inside)
    with tarfile.open(folder / name, mode) as archive:  # type: ignore[call-overload]
        for member in CONTENT:
            archive.add(inside / member, member)
    return name


def archive(folder: Path) -> str:
    with zipfile.ZipFile(folder / "z.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in CONTENT.items():
            file.writestr(name, data)
    return "z.zip"


def what(ref: ImageRef) -> tuple[str, tuple[object, ...], bytes | str]:
    """The name, the carried values and the bytes, or how reading them fails in a worker."""
    try:
        data: bytes | str = pickle.loads(pickle.dumps(ref)).read()
    except ImageError as error:
        data = f"{error.error_type}: {error}"
    return ref.file_name, ref.carried, data


@pytest.mark.parametrize("make", [manifest, table, tar, tar_gz, archive])
def test_the_same_from_s3_as_from_the_disk(
    make: Callable[[Path], str], bucket: S3, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    name = make(folder)
    place = make.__name__.replace("_", "-") + "-bucket"
    bucket.upload(place, folder, "deep/")
    keep = ("n",) if make in (manifest, table) else ()

    def images(source: str) -> list[tuple[str, tuple[object, ...], bytes | str]]:
        return [what(ref) for ref in open_sources(SourceOptions((source,), keep=keep))]

    local = images(str(folder / name))
    assert [data for _, _, data in local][:3] == list(CONTENT.values())
    assert images(f"s3://{place}/deep/{name}") == local
    suffix = name.rpartition(".")[2]
    assert images(f"s3://{place}/deep/*.{suffix}") == images(f"{folder}/*.{suffix}")
    assert not any(place in name for name, _, _ in local)


@pytest.mark.parametrize("name", ["m.csv", "m.txt", "t.parquet", "s.tar", "s.tar.gz", "z.zip"])
def test_one_that_cannot_be_opened_says_what_to_do(name: str, bucket: S3) -> None:
    bucket.bucket("closed-" + name.replace(".", "-"), {})
    for url in (f"s3://closed-{name.replace('.', '-')}/{name}", f"s3://no-such-bucket/{name}"):
        with pytest.raises(SourceError, match=f"There is no '{url}'; check the name"):
            list(open_sources(SourceOptions((url,))))
    with pytest.raises(SourceError, match="holds a password") as caught:
        list(open_sources(SourceOptions((f"s3://key:s3cr3t@b/{name}",))))
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(SourceError, match="is not known"):
        list(open_sources(SourceOptions((f"gopher://b/{name}",))))


def test_a_local_manifest_of_urls(bucket: S3, tmp_path: Path) -> None:
    bucket.bucket("named", {"p/a.png": b"A"})
    (tmp_path / "m.txt").write_text("s3://named/p/a.png\ns3://named/p/gone.png\n")
    options = SourceOptions((str(tmp_path / "m.txt"),), absolute_paths=True)
    found = [what(ref) for ref in open_sources(options)]
    assert [data for _, _, data in found] == [b"A", "missing: There is no such file."]
