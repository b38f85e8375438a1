"""``convert`` with ``salvage``: what is sound in a damaged output, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blip2cli.errors import SourceError
from blip2cli.options import OutputOptions
from blip2cli.sinks import check_whole, read_output
from blip2cli.sinks.paths import OutputPaths
from tests.convert.helpers import convert, read_rows, write_rows
from tests.sinks.helpers import SETTINGS, read, row
from tests.sinks.test_damage import damages
from tests.sinks.test_damage import write as write_output


def numbers(rows: list[dict[str, object]]) -> list[int]:
    return [int(str(one["file_name"])[:4]) for one in rows]


def test_every_sound_line_is_kept_with_the_settings(tmp_path: Path) -> None:
    out, new = tmp_path / "out.jsonl", tmp_path / "new.jsonl"
    write_output(out)
    lines = out.read_bytes().splitlines(keepends=True)
    lines[7] = b'{"file_name": "0007.png"}\n'
    lines[20] = lines[20][:30] + b"\0" * 20 + lines[20][50:]
    out.write_bytes(b"".join(lines) + b'{"file_na')
    with pytest.raises(SourceError):
        convert(out, new)
    done = convert(out, new, salvage=True)
    assert done.notes == [
        "Left out 3 damaged places: line 8 is no row, line 21 is no row, line 41 is torn."
    ]
    assert read_rows(new) == [row(n) for n in range(40) if n not in (7, 20)]
    resumed = read_output(OutputOptions(str(new), resume=True), lambda name: 1)
    assert resumed is not None
    assert resumed.rows.settings is not None
    assert resumed.rows.settings.rows == SETTINGS.rows
    assert len(resumed.rows.done) == 38


@pytest.mark.parametrize("which", ["a flipped bit", "a hole", "a shortened member"])
def test_sound_members_of_a_gzip_file_are_kept(tmp_path: Path, which: str) -> None:
    out = tmp_path / "out.jsonl.gz"
    write_output(out)
    out.write_bytes(damages(out.read_bytes())[which])
    done = convert(out, tmp_path / "new.jsonl", salvage=True)
    assert done.rows == 36
    assert done.notes[0].startswith("Left out 1 damaged place: bytes ")


def test_images_around_the_damage_lose_all_their_rows(tmp_path: Path) -> None:
    rows = [row(n) | {"question": q, "answer": "a"} for n in range(20) for q in ("a?", "b?", "c?")]
    out = write_rows(tmp_path / "out.jsonl", rows)
    lines = out.read_bytes().splitlines(keepends=True)
    lines[16] = b"{}x\n"  # the second row of image 5
    lines[30] = b"\0\n"  # the first one of image 10
    out.write_bytes(b"".join(lines))
    convert(out, tmp_path / "new.jsonl", salvage=True)
    found = numbers(read_rows(tmp_path / "new.jsonl"))
    assert {found.count(n) for n in found} == {3}
    assert set(range(20)) - set(found) == {5, 9, 10}


def test_blank_lines_behind_the_damage_are_no_rows(tmp_path: Path) -> None:
    rows = [row(n) | {"question": q, "answer": "a"} for n in range(6) for q in ("a?", "b?")]
    out = write_rows(tmp_path / "out.jsonl", rows)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:-1], b"{}x\n", b"\n", b"\n"]))
    convert(out, tmp_path / "new.jsonl", salvage=True)
    assert set(numbers(read_rows(tmp_path / "new.jsonl"))) == set(range(5))


def test_parts_of_an_unfinished_output(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    write_output(out)
    paths = OutputPaths.of(str(out))
    Path(paths.part(2)).unlink()
    part = Path(paths.part(5))
    part.write_bytes(part.read_bytes()[:-30])
    done = convert(out, tmp_path / "new.parquet", salvage=True)
    assert numbers(read(tmp_path / "new.parquet")) == [n for n in range(40) if n // 4 not in (2, 5)]
    assert "part-000005': " in done.notes[0]
    assert "part-000002" in " ".join(done.notes)
    resumed = read_output(OutputOptions(str(tmp_path / "new.parquet"), resume=True), lambda n: 1)
    assert resumed is not None
    check_whole(resumed.paths.final, resumed.rows)
    assert len(resumed.rows.done) == 32


def test_row_groups_that_can_be_read(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [row(n) for n in range(100_000)])
    out = tmp_path / "out.parquet"
    convert(source, out)
    data = bytearray(out.read_bytes())
    data[len(data) * 9 // 10] ^= 4
    out.write_bytes(data)
    with pytest.raises(SourceError, match="is damaged"):
        convert(out, tmp_path / "no.jsonl")
    done = convert(out, tmp_path / "new.jsonl", salvage=True)
    assert done.rows >= 65536
    assert done.notes[0].startswith("Left out 1 damaged place: row group 1 (")
    with (tmp_path / "new.jsonl").open() as file:
        assert json.loads(next(file)) == row(0)
