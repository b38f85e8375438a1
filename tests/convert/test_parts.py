"""Folders of Parquet parts: read as one table by others and by ``convert``, verified, salvaged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blip2cli.convert.verify import verify, verify_all
from blip2cli.errors import OutputError, SourceError
from blip2cli.options import OutputOptions
from blip2cli.sinks import read_output
from blip2cli.sinks.folder import FolderSink
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import read_settings
from blip2cli.sinks.settings_file import mark
from blip2cli.sources.shard import Shard
from tests.convert.helpers import convert, in_subprocess, read_rows
from tests.sinks.helpers import FOLDER_SETTINGS, row
from tests.sinks.test_folder import SCHEMA, again, content, new, put

LOAD = """
import os, duckdb, pandas, polars, pyarrow.dataset
from datasets import load_dataset
tables = {
    "pandas": lambda path: pandas.read_parquet(path)["file_name"].tolist(),
    "polars": lambda path: polars.read_parquet(path)["file_name"].to_list(),
    "arrow": lambda path: pyarrow.dataset.dataset(path).to_table()["file_name"].to_pylist(),
    "duckdb": lambda path: [
        row[0] for row in duckdb.sql(f"select file_name from '{path}/*.parquet'").fetchall()],
    "datasets": lambda path: load_dataset(
        path, cache_dir=sys.argv[1], split="train")["file_name"][:],
}
print(json.dumps([{tool: read(p) for tool, read in tables.items()} for p in sys.argv[2:]]))
"""


def folder(tmp_path: Path, count: int = 25, finished: bool = True) -> Path:
    """An output of parts of 10 rows."""
    out = tmp_path / "out"
    sink = new(out)
    for start in range(0, count, 10):
        put(sink, start, min(start + 10, count))
    sink.close() if finished else sink.abort()
    return out


def numbers(rows: list[dict[str, object]]) -> list[int]:
    return [int(str(one["file_name"])[:4]) for one in rows]


def test_other_programs_read_one_table(tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    outs = folder(tmp_path), folder(tmp_path / "unfinished", finished=False)
    for found, count in zip(in_subprocess(LOAD, tmp_path / "cache", *outs), (25, 20), strict=True):
        assert len(found) == 5
        assert found == {key: [f"{n:04d}.png" for n in range(count)] for key in found}


def test_it_is_converted_as_one_table(tmp_path: Path) -> None:
    out = folder(tmp_path)
    assert convert(out, tmp_path / "all.jsonl").notes == []
    assert read_rows(tmp_path / "all.jsonl") == [row(n) for n in range(25)]
    settings = read_settings(OutputPaths.of(str(tmp_path / "all.jsonl")))
    assert settings is not None
    assert settings.rows["model"] == "tiny"


def test_an_unfinished_one_is_read_as_far_as_others_read_it(tmp_path: Path) -> None:
    out = folder(tmp_path, finished=False)
    (note,) = convert(out, tmp_path / "all.jsonl").notes
    assert "its last 5 rows are not in a part yet" in note
    assert numbers(read_rows(tmp_path / "all.jsonl")) == [*range(20)]
    convert(out, tmp_path / "whole.jsonl", salvage=True)
    assert numbers(read_rows(tmp_path / "whole.jsonl")) == [*range(25)]


def test_a_table_becomes_parts_that_a_run_goes_on_with(tmp_path: Path) -> None:
    expected = content(folder(tmp_path, 28))
    (tmp_path / "other").mkdir()
    convert(folder(tmp_path / "other"), tmp_path / "all.parquet")
    with pytest.raises(OutputError, match="parts"):
        convert(tmp_path / "all.parquet", tmp_path / "new")
    convert(tmp_path / "all.parquet", tmp_path / "new", write_as="parts", shard_size=10)
    sizes = [pq.read_metadata(p).num_rows for p in sorted((tmp_path / "new").iterdir())]
    assert sizes == [10, 10, 5]
    assert verify(str(tmp_path / "new")).exit_code == 0
    sink = again(tmp_path / "new")
    put(sink, 25, 28)
    sink.close()
    last = "part-00002.parquet"
    assert content(tmp_path / "new")[last] == expected[last]
    with pytest.raises(OutputError, match="not empty"):
        convert(tmp_path / "all.parquet", tmp_path / "new", write_as="parts", overwrite=True)


def test_a_sound_one_is_verified(tmp_path: Path) -> None:
    out = folder(tmp_path)
    finding = verify(str(out))
    assert str(finding) == "sound, 25 rows"
    (out / "README.md").write_text("about")
    assert "files of others, such as 'README.md'" in str(verify(f"{out}/"))
    (tmp_path / ".out.meta.json").unlink()
    assert "whether its run was finished is not known" in str(verify(str(out)))


def test_an_unfinished_one_is_verified_with_its_hidden_rows(tmp_path: Path) -> None:
    out = folder(tmp_path, finished=False)
    assert str(verify(str(out))).startswith("sound, 25 rows; unfinished, with rows in 1 hidden")
    for part in out.iterdir():
        part.unlink()
    assert "its rows 1 to" in str(verify(str(out)))


def damage(path: Path, at: int = 60) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("which", ["missing", "page", "footer", "copied", "short"])
def test_damage_is_found_refused_and_salvaged(tmp_path: Path, which: str) -> None:
    out = folder(tmp_path)
    part = out / "part-00001.parquet"
    left = [*range(10), *range(20, 25)]
    if which == "missing":
        part.unlink()
    elif which == "page":
        damage(part)
    elif which == "footer":
        part.write_bytes(part.read_bytes()[:-7])
    elif which == "copied":
        part.write_bytes((out / "part-00000.parquet").read_bytes())
        left = [*range(10), *range(10), *range(20, 25)]
    else:
        pq.write_table(pq.read_table(part).slice(4), part)
        left = [*range(10), *range(14, 25)]
    finding = verify(str(out))
    assert finding.exit_code == 1
    if which in ("missing", "footer", "short"):
        with pytest.raises((OutputError, SourceError), match=r"part-00001\.parquet"):
            read_output(OutputOptions(f"{out}/", resume=True), lambda name: 1)
    convert(out, tmp_path / "sound.jsonl", salvage=True)
    assert numbers(read_rows(tmp_path / "sound.jsonl")) == left


def test_every_part_that_is_missing_is_named(tmp_path: Path) -> None:
    out = folder(tmp_path)
    (out / "part-00001.parquet").unlink()
    (out / "part-00002.parquet").rename(out / "part-00004.parquet")
    found = str(verify(str(out)))
    names = ", ".join(f"'part-0000{number}.parquet'" for number in (1, 2, 3))
    assert f"its parts {names} are missing" in found
    assert "sound up to row 10" in found
    (out / "part-00004.parquet").rename(out / "part-99999999999.parquet")
    assert "'part-00010.parquet' and 99999999988 more are missing" in str(verify(str(out)))


def test_a_part_under_two_names_is_named(tmp_path: Path) -> None:
    out = folder(tmp_path)
    shutil.copy(out / "part-00001.parquet", out / "part-000001.parquet")
    assert "its part 'part-000001.parquet' is there under two names" in str(verify(str(out)))


def test_rows_of_a_damaged_last_part_may_be_in_hidden_files(tmp_path: Path) -> None:
    out = folder(tmp_path)
    sink = again(out)
    put(sink, 25, 28)
    sink.abort()
    assert "sound, 28 rows" in str(verify(str(out)))
    convert(out, tmp_path / "whole.jsonl", salvage=True)
    assert numbers(read_rows(tmp_path / "whole.jsonl")) == [*range(28)]
    (out / "part-00002.parquet").write_bytes(b"PAR1")
    convert(out, tmp_path / "sound.jsonl", salvage=True)
    assert numbers(read_rows(tmp_path / "sound.jsonl")) == [*range(20), *range(25, 28)]


def test_shares_are_merged_in_the_order_of_the_source(tmp_path: Path) -> None:
    names = [f"{n:04d}.png" for n in range(40)]
    for index in (1, 2):
        settings = replace(FOLDER_SETTINGS, rows={**FOLDER_SETTINGS.rows, "shard": f"{index}/2"})
        sink = FolderSink(OutputPaths.of(f"{tmp_path}/out-{index}/"), SCHEMA, settings)
        takes = Shard.of(f"{index}/2").takes
        sink.write([row(n) for n, name in enumerate(names) if takes(name)])
        sink.close()
    pattern = f"{tmp_path}/out-*/"
    assert [str(one) for one in verify_all([pattern])][-1] == "sound, 40 rows; all 2 shares"
    convert(pattern, tmp_path / "all", write_as="parts", shard_size=10)
    assert content(tmp_path / "all").keys() == content(folder(tmp_path, 40)).keys()
    convert(tmp_path / "all", tmp_path / "all.jsonl")
    assert read_rows(tmp_path / "all.jsonl") == [row(n) for n in range(40)]
    mark(OutputPaths.of(f"{tmp_path}/out-2/"), finished=None)
    with pytest.raises(SourceError, match="share 2/2, is unfinished"):
        convert(pattern, tmp_path / "all.parquet")
