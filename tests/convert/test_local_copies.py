"""Outputs on object stores are verified and converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blip2cli.convert.run import convert
from blip2cli.convert.verify import verify_all
from blip2cli.errors import ImageError, SourceError
from blip2cli.options import ConvertOptions, OutputOptions
from blip2cli.sinks import RowSchema, open_failure_list
from blip2cli.sinks.base import IDENTITY
from blip2cli.sinks.folder import FolderSink
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sources.shard import Shard
from blip2cli.storage.object_requests import ObjectFolder
from tests.sinks.helpers import COLUMNS, FOLDER_SETTINGS, row


@pytest.fixture
def out(bucket: str) -> str:
    """An unfinished output with parts of 10 rows, and an image that failed."""
    url = f"{bucket}/out/"
    sink = FolderSink(OutputPaths.of(url), RowSchema((*IDENTITY, *COLUMNS)), FOLDER_SETTINGS)
    sink.write([row(n) for n in range(13)])
    sink.commit()
    failures = open_failure_list(OutputOptions(url))
    failures.write("x.png", ImageError("decode_error", "It is broken."))
    failures.close()
    return url


def test_an_output_of_a_store_is_verified(out: str) -> None:
    (found,) = verify_all([out])
    assert (found.path, found.kind, found.state, found.rows) == (out, "parts", "sound", 13)
    assert any("unfinished, with rows in 1 hidden files" in note for note in found.notes)
    data = bytearray(ObjectFolder(out).read("part-00000.parquet") or b"")
    data[100] ^= 1
    ObjectFolder(out).replace("part-00000.parquet", bytes(data))
    (found,) = verify_all([out])
    assert (found.path, found.state) == (out, "damaged")
    assert "/tmp" not in str(found)


def test_an_output_of_a_store_is_converted(out: str, tmp_path: Path) -> None:
    to = tmp_path / "all.parquet"
    done = convert(ConvertOptions((out,), str(to)))
    assert pq.read_table(to).to_pylist() == [row(n) for n in range(10)]
    assert done.notes[0].startswith(f"The run that wrote '{out[:-1]}' is not finished: its last 3")
    done = convert(ConvertOptions((out,), str(tmp_path / "salvaged.parquet"), salvage=True))
    assert done.rows == 13


def test_shares_on_a_store_are_merged(bucket: str, tmp_path: Path) -> None:
    names = [row(n)["file_name"] for n in range(20)]
    for index in (1, 2):
        shard = Shard(index, 2)
        rows = {**FOLDER_SETTINGS.rows, "shard": f"{index}/2"}
        paths = OutputPaths.of(f"{bucket}/out-{index}-of-2/")
        schema = RowSchema((*IDENTITY, *COLUMNS))
        sink = FolderSink(paths, schema, replace(FOLDER_SETTINGS, rows=rows))
        sink.write([row(n) for n, name in enumerate(names) if shard.takes(name)])
        sink.close()
    pattern = f"{bucket}/out-*/"
    assert [str(one) for one in verify_all([pattern])][-1] == "sound, 20 rows; all 2 shares"
    to = tmp_path / "all.parquet"
    convert(ConvertOptions((pattern,), str(to)))
    assert pq.read_table(to).to_pylist() == [row(n) for n in range(20)]
    with pytest.raises(SourceError, match="No folder matches the pattern"):
        convert(ConvertOptions((f"{bucket}/no-*/",), str(to)))


def test_places_without_an_output(bucket: str, tmp_path: Path) -> None:
    for url, message in (
        (f"{bucket}/none/", "There is no output at 's3://.*/none/'; check the name"),
        (f"{bucket}/x.parquet", "is one object"),
    ):
        with pytest.raises(SourceError, match=message):
            list(verify_all([url]))
    with pytest.raises(SourceError, match="There is no output at"):
        convert(ConvertOptions((f"{bucket}/none/",), str(tmp_path / "all.jsonl")))
