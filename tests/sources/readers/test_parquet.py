from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import ImageError, OptionError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import Listing, open_sources
from blip2cli.sources.base import FailedRef, ImageRef
from tests.sources.helpers import failure, refs, write_table

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(file: Path, columns: dict[str, Any], rows_in_group: int = 3, about: Any = None) -> Path:
    table = pa.table(columns)
    if about is not None:
        features = {"info": {"features": about}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, file, row_group_size=rows_in_group)
    return file


def structs(*cells: tuple[bytes | None, str | None] | None) -> pa.Array:
    dicts = [None if c is None else {"bytes": c[0], "path": c[1]} for c in cells]
    return pa.array(dicts, IMAGE)


def names(found: list[ImageRef]) -> list[str]:
    return [ref.file_name for ref in found]


def test_images_of_a_hugging_face_table_in_their_order(tmp_path: Path) -> None:
    cells = [(f"{n}".encode() * 10, f"{n}.jpg") for n in range(10)]
    table = write(
        tmp_path / "train.parquet",
        {"label": list(range(10)), "picture": structs(*cells)},
        about={"picture": {"_type": "Image"}, "label": {"_type": "Value"}},
    )
    found = refs(table, keep=("label",))
    assert names(found) == [f"{n}.jpg" for n in range(10)]
    assert [ref.carried for ref in found] == [(n,) for n in range(10)]
    assert [ref.read() for ref in found] == [data for data, _ in cells]
    # In any order, as after a worker has died, and by another process.
    again = [pickle.loads(pickle.dumps(found[n])) for n in (9, 1, 0, 5, 4)]
    assert [ref.read() for ref in again] == [cells[n][0] for n in (9, 1, 0, 5, 4)]


def test_rows_without_names_are_numbered(tmp_path: Path) -> None:
    cells = structs((b"a", None), (b"b", None))
    one = write(tmp_path / "train-0.parquet", {"image": cells})
    two = write(tmp_path / "train-1.parquet", {"image": cells})
    numbered = ["train-0.parquet/00000000", "train-0.parquet/00000001"]
    assert names(refs(one)) == numbered
    both = [*numbered, "train-1.parquet/00000000", "train-1.parquet/00000001"]
    assert names(refs(one, two)) == both
    assert names(refs(f"{tmp_path}/*.parquet")) == both
    assert [ref.read() for ref in refs(f"{tmp_path}/*.parquet")] == [b"a", b"b"] * 2


def test_shards_put_their_names_before_those_of_rows(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for shard in range(2):
        write(tmp_path / "data" / f"{shard}.parquet", {"image": structs((b"%d" % shard, "x.png"))})
    assert names(refs(tmp_path / "data" / "0.parquet")) == ["x.png"]
    found = refs(f"{tmp_path}/data/*.parquet")
    assert names(found) == ["0.parquet/x.png", "1.parquet/x.png"]
    assert [ref.read() for ref in found] == [b"0", b"1"]
    assert names(refs(f"{tmp_path}/data/1*.parquet")) == ["1.parquet/x.png"]


def test_names_are_made_unique_and_safe(tmp_path: Path) -> None:
    paths = ["a.png", "a.png", "/home/u/../b.png", None, "", "../c", "a-00000001.png", "a.png"]
    table = write(tmp_path / "t.parquet", {"image": structs(*((b"x", p) for p in paths))})
    assert names(refs(table)) == [
        "a.png",
        "a-00000001.png",
        "home/u/b.png",
        "00000003",
        "00000004",
        "c",
        "a-00000001-00000006.png",
        "a-00000007.png",
    ]


def test_a_column_names_what_the_struct_does_not(tmp_path: Path) -> None:
    cells = structs((b"x", None), (b"y", "in.png"))
    table = write(tmp_path / "t.parquet", {"image": cells, "file_name": ["a.png", "b.png"]})
    assert names(refs(table)) == ["a.png", "in.png"]


def test_plain_binary_columns(tmp_path: Path) -> None:
    columns = {"image": [b"a", b"b"], "jpg": [b"c", None], "path": ["1.png", "2.png"], "n": [1, 2]}
    table = write(tmp_path / "t.parquet", columns)
    assert [ref.read() for ref in refs(table)] == [b"a", b"b"]
    chosen = refs(table, image_column="jpg")
    assert names(chosen) == ["1.png", "2.png"]
    assert chosen[0].read() == b"c"
    assert failure(chosen[1]) == "missing"
    only = write(tmp_path / "u.parquet", {"jpg": [b"c"]})
    assert names(refs(only, image_column="jpg")) == ["u.parquet/00000000"]
    with pytest.raises(SourceError, match="neither a column of images"):
        refs(only)


def test_sounds_are_no_images_and_several_columns_need_a_choice(tmp_path: Path) -> None:
    one = structs((b"x", "1"))
    sound = write(
        tmp_path / "s.parquet",
        {"sound": one, "photo": one},
        about={"sound": {"_type": "Audio"}, "photo": {"_type": "Image"}},
    )
    assert names(refs(sound)) == ["1"]
    two = write(tmp_path / "two.parquet", {"left": one, "right": structs((b"y", "2"))})
    with pytest.raises(OptionError, match=r"several columns of images \(left, right\)"):
        refs(two)
    assert refs(two, image_column="right")[0].read() == b"y"
    masked = write(tmp_path / "m.parquet", {"mask": one, "image": structs((b"z", "3"))})
    assert refs(masked)[0].read() == b"z"


def test_cells_that_only_name_a_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"inside")
    (tmp_path / "b.png").write_bytes(b"outside")
    paths = ["a.png", "../b.png", f"{tmp_path}/b.png", "gone.png"]
    cells = structs(*((None, path) for path in paths), None, (None, None))
    table = write(tmp_path / "in" / "t.parquet", {"image": cells})
    found = refs(table)
    assert found[0].read() == b"inside"
    refused = ["outside_source"] * 2 + ["missing"] * 3
    assert [failure(ref) for ref in found[1:]] == refused
    assert [r.read() for r in refs(table, absolute_paths=True)[:3]] == [
        b"inside",
        *[b"outside"] * 2,
    ]


def test_carried_columns_of_tables(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", {"image": structs((b"x", "1")), "n": [2.5], "s": ["é"]})
    options = SourceOptions((str(table),), keep=("s", "n"))
    assert [column.type for column in Listing.open(options).columns] == ["string", "float"]
    assert [ref.carried for ref in open_sources(options)] == [("é", 2.5)]
    globbed = SourceOptions((f"{tmp_path}/*.parquet",), keep=("n",))
    assert [ref.carried for ref in open_sources(globbed)] == [(2.5,)]
    with pytest.raises(OptionError, match=r"keep m: .* it has image, n, s"):
        refs(table, keep=("m",))
    with pytest.raises(OptionError, match="keep image: this column holds bytes"):
        refs(table, keep=("image",))


def test_an_empty_table(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", {"image": structs()})
    with pytest.raises(SourceError, match="has no rows"):
        refs(table)


def test_a_later_shard_that_is_none_is_one_failure(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", {"image": structs((b"x", "1"))})
    (tmp_path / "1.parquet").write_bytes(b"cut off")
    write(tmp_path / "2.parquet", {"image": structs((b"y", "1"))})
    first, second, third = refs(f"{tmp_path}/*.parquet")
    assert (first.read(), third.read()) == (b"x", b"y")
    assert (second.file_name, failure(second)) == ("1.parquet", "unreadable_source")
    with pytest.raises(SourceError, match="is no Parquet file"):
        refs(f"{tmp_path}/[12].parquet")


def test_damage_fails_the_images_it_hits(tmp_path: Path) -> None:
    table = pa.table({"image": structs(*((bytes([n]) * 2000, f"{n}") for n in range(9)))})
    file = tmp_path / "t.parquet"
    pq.write_table(table, file, row_group_size=3, compression="zstd")
    data = bytearray(file.read_bytes())
    chunk = pq.ParquetFile(file).metadata.row_group(1).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    file.write_bytes(data)
    found = refs(file)
    assert [ref.read()[:1] for ref in found[:3]] == [b"\0", b"\1", b"\2"]
    assert [failure(ref) for ref in found[3:6]] == ["read_error"] * 3
    assert [ref.read()[:1] for ref in found[6:]] == [b"\6", b"\7", b"\10"]


def test_a_table_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", {"image": structs((b"old", "1"))})
    (ref,) = refs(table)
    assert ref.read() == b"old"
    write(tmp_path / "t.parquet", {"image": structs((b"newer", "1"))})
    assert ref.read() == b"newer"
    table.unlink()
    assert failure(ref) == "missing"


def test_a_cell_that_is_too_large(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", {"image": structs((b"123456", "1"), (b"12345", "2"))})
    large, fine = refs(table)
    assert failure(large, most=5) == "too_large"
    assert fine.read(most=5) == b"12345"


MEMORY = """
import resource, sys
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
import pyarrow, pyarrow.parquet
first = next(open_sources(SourceOptions((sys.argv[1],)))).read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = sum(len(ref.read()) for ref in open_sources(SourceOptions((sys.argv[1],))))
print(size >> 20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10)
"""


def test_memory_is_flat_however_large_the_table(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    one = pa.table({"image": structs(*((bytes([n]) * 1_000_000, f"{n}") for n in range(100)))})
    with pq.ParquetWriter(file, one.schema, compression="none", use_dictionary=False) as writer:
        for _ in range(3):
            writer.write_table(one, row_group_size=100)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, file], capture_output=True, text=True, check=True
    )
    size, grown = map(int, done.stdout.split())
    assert size == 286
    assert grown < 60  # MiB; a row group of this file has 95


def test_a_failed_read_says_so(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", {"image": structs((b"x", "1"))})
    (ref,) = refs(table)
    table.write_bytes(b"something else")
    with pytest.raises(ImageError) as caught:
        ref.read()
    assert caught.value.error_type == "read_error"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("images", [False, True])
def test_a_damaged_row_group_is_one_failure(images: bool, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(6)]
    table = pa.table({"path": names} | ({"image": [b"x"] * 6} if images else {}))
    file = tmp_path / "t.parquet"
    pq.write_table(table, file, row_group_size=2, compression="snappy", use_dictionary=False)
    place = pq.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(file.read_bytes())
    data[place : place + 20] = b"\xff" * 20
    file.write_bytes(data)
    found = refs(file)
    good = [ref.file_name for ref in found if not isinstance(ref, FailedRef)]
    assert good == [*names[:2], *names[4:]]
    (lost,) = (ref for ref in found if isinstance(ref, FailedRef))
    assert "2 rows are lost" in lost.message


def test_a_dictionary_of_images(tmp_path: Path) -> None:
    table = write_table(
        tmp_path / "t.parquet", image=pa.array([b"a", b"b", b"a"]).dictionary_encode()
    )
    assert [ref.read() for ref in refs(table)] == [b"a", b"b", b"a"]
