"""``verify``: what runs and conversions write is sound, and damage to it is noticed."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from blip2cli.cli.app import call
from blip2cli.convert.verify import verify
from blip2cli.errors import SourceError
from blip2cli.sinks.paths import OutputPaths
from tests.convert.helpers import answers, captions, convert, draw, vectors, write_rows
from tests.sinks.test_damage import write as write_output

Make = Callable[[Path], Path]


def rows(folder: Path, count: int = 300) -> Path:
    return write_rows(
        folder / "rows.jsonl",
        [{"file_name": f"{n}.jpg", "caption": f"red {n}", "logprob": -n / 7} for n in range(count)],
    )


def made(source: Path, name: str, **options: object) -> Path:
    out = source.parent / name
    convert(source, out, **options)
    return out


def shards(folder: Path) -> Path:
    source = write_rows(folder / "c.jsonl", captions())
    images = str(draw(folder / "images"))
    return made(source, "w.tar", image_root=images, shard_size=1)


MAKERS: dict[str, Make] = {
    "jsonl": lambda f: made(rows(f), "o.jsonl"),
    "jsonl.gz": lambda f: made(rows(f), "o.jsonl.gz"),
    "parquet": lambda f: made(rows(f), "o.parquet"),
    "csv": lambda f: made(rows(f), "o.csv"),
    "tsv": lambda f: made(rows(f), "o.tsv"),
    "coco": lambda f: made(rows(f), "o.json", write_as="coco"),
    "llava": lambda f: made(write_rows(f / "a.jsonl", answers()), "o.json", write_as="llava"),
    "webdataset": shards,
    "imagefolder": lambda f: made(
        write_rows(f / "c.jsonl", captions()), "o", write_as="imagefolder",
        image_root=str(draw(f / "images")),
    ),
    "image-parquet": lambda f: made(
        write_rows(f / "c.jsonl", captions()), "o.parquet", write_as="image-parquet",
        image_root=str(draw(f / "images")),
    ),
    "sidecar": lambda f: made(write_rows(f / "c.jsonl", captions()), "o", write_as="sidecar"),
    "npy": lambda f: made(write_rows(f / "v.jsonl", vectors(20)), "o.npy"),
    "clip-retrieval": lambda f: made(
        write_rows(f / "v.jsonl", vectors(20)), "o", write_as="clip-retrieval", shard_size=6
    ),
}  # fmt: skip


def test_whatever_a_conversion_writes_is_sound(tmp_path: Path) -> None:
    for name, make in MAKERS.items():
        folder = tmp_path / name
        folder.mkdir()
        found = verify(str(make(folder)))
        assert (found.state, found.notes) == ("sound", []), (name, str(found))
        assert found.rows == 300 if "rows.jsonl" in [p.name for p in folder.iterdir()] else 3
        assert "sound, " in str(found)


def files_of(out: Path) -> list[Path]:
    if out.is_dir():
        return sorted(p for p in out.rglob("*") if p.is_file() and p.suffix != ".jpg")
    if out.suffix == ".tar":
        return sorted(out.parent.glob("w-*.tar"))
    return [out, *out.parent.glob("o.keys.jsonl")]


@pytest.mark.parametrize("name", sorted({*MAKERS} - {"sidecar", "imagefolder"}))
def test_damage_is_noticed(tmp_path: Path, name: str) -> None:
    out = MAKERS[name](tmp_path)
    for file in files_of(out):
        whole = file.read_bytes()
        half = len(whole) // 2
        for broken in (whole[:half], whole[: half - 4] + b"\0" * 40 + whole[half + 36 :]):
            if broken == whole:  # a hole in what is empty
                continue
            file.write_bytes(broken)
            found = verify(str(out))
            assert found.exit_code == 1, (file.name, str(found))
            assert found.sound_until is not None
            assert found.sound_until <= found.rows
        file.write_bytes(whole)
        if name not in ("llava", "coco"):  # one file
            file.unlink()
            assert verify(str(out)).exit_code in (1, 2)
            file.write_bytes(whole)
    assert verify(str(out)).state == "sound"


@pytest.mark.parametrize("name", ["jsonl.gz", "parquet", "npy", "webdataset", "clip-retrieval"])
def test_files_with_checksums_lose_no_bit_unnoticed(tmp_path: Path, name: str) -> None:
    out = MAKERS[name](tmp_path)
    table = pq.read_table(out) if name == "parquet" else None
    for file in files_of(out):
        whole = file.read_bytes()
        for at in range(len(whole) // 5, len(whole) * 4 // 5, len(whole) // 7):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << at % 8
            file.write_bytes(flipped)
            if verify(str(out)).state == "sound":  # statistics, which no row depends on
                assert name == "parquet"
                assert pq.read_table(out).equals(table), at
        file.write_bytes(whole)


def test_it_says_up_to_where_an_output_is_sound(tmp_path: Path) -> None:
    out = made(rows(tmp_path), "o.jsonl")
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:20], b'{"file_name": "x"}\n', *lines[20:], b'{"file']))
    assert str(verify(str(out))) == (
        "damaged: line 21 is no row, line 302 is torn; sound up to row 20, 300 rows in all"
    )
    out.write_bytes(b"".join([*lines, lines[3]]))
    assert "1 row is in it twice, such as 3.jpg; sound up to row 301" in str(verify(str(out)))
    out.write_bytes(b"".join(lines).replace(b'"logprob": 0.0', b'"logprob": "-"'))
    assert "the values of logprob are not of one kind" in str(verify(str(out)))


def test_an_unfinished_output_is_sound_and_its_missing_part_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    write_output(out)
    found = verify(str(out))
    assert (found.state, found.rows) == ("sound", 40)
    assert found.notes[0].startswith("unfinished, in 10 parts")
    Path(OutputPaths.of(str(out)).part(4)).unlink()
    assert "the part .out.parquet.part-000004 is missing" in str(verify(str(out)))
    part = Path(OutputPaths.of(str(out)).part(2))
    part.write_bytes(part.read_bytes()[:-9])
    assert ".out.parquet.part-000002 cannot be read" in str(verify(str(out)))


def test_settings_and_failures_beside_are_read(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write_output(out)
    paths = OutputPaths.of(str(out))
    Path(paths.errors).write_text('{"file_name": "a", "error_type": "t", "message": "m"}\n')
    assert str(verify(str(out))) == "sound, 40 rows; 1 failures are listed"
    Path(paths.errors).write_text('{"file_name": "a"}\n')
    assert "line 1 of out.jsonl.errors is no failure" in str(verify(str(out)))
    Path(paths.errors).unlink()
    Path(paths.meta).write_text("{")
    assert "its settings .out.jsonl.meta.json cannot be read" in str(verify(str(out)))


def test_vectors_under_keys_of_another_run_are_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one.npy", tmp_path / "two.npy"
    source = write_rows(tmp_path / "v.jsonl", vectors(5))
    convert(source, one)
    other = [row | {"file_name": f"x{row['file_name']}"} for row in vectors(5)]
    other[0]["embedding"] = [9.0, 9.0, 9.0, 9.0]
    convert(write_rows(tmp_path / "w.jsonl", other), two)
    kept = one.read_bytes()
    shutil.copy(two, one)  # as many, of the same size
    assert "is not what was written" in str(verify(str(one)))
    with pytest.raises(SourceError, match="do not belong together"):
        convert(one, tmp_path / "back.jsonl")
    shutil.copy(tmp_path / "two.keys.jsonl", tmp_path / "one.keys.jsonl")
    assert verify(str(one)).state == "sound"  # both are others
    one.write_bytes(kept)
    assert "'one.keys.jsonl' is not what was written" in str(verify(str(one)))
    np.save(one, np.full((5, 4), np.nan, "<f4"))
    assert "the vector of row 1 has numbers that are not finite" in str(verify(str(one)))


def test_shards_of_two_conversions_are_told_apart(tmp_path: Path) -> None:
    out = shards(tmp_path)
    last = tmp_path / "w-000002.tar"
    whole = last.read_bytes()
    shutil.copy(tmp_path / "w-000001.tar", last)
    assert "'w-000002.tar' is not what was written" in str(verify(str(out)))
    last.unlink()
    assert "'w-000002.tar' is missing" in str(verify(str(tmp_path / "w-000000.tar")))
    last.write_bytes(whole)
    with tarfile.open(tmp_path / "w-000003.tar", "w"):
        pass
    assert "'w-000003.tar' is of another conversion" in str(verify(str(out)))


def test_images_that_are_missing_are_noticed(tmp_path: Path) -> None:
    out = MAKERS["imagefolder"](tmp_path)
    (out / captions()[1]["file_name"]).unlink()
    assert "1 of its images are missing or empty" in str(verify(str(out)))


def test_the_command_prints_a_line_each_and_exits_with_the_worst(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = made(rows(tmp_path), "o.jsonl")
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(good.read_bytes()[:-9])
    assert call(["verify", str(good)]) == 0
    assert call(["verify", str(good), str(bad)]) == 1
    assert call(["verify", str(good), str(bad), str(tmp_path / "none.jsonl")]) == 2
    assert call(["verify", str(tmp_path), str(tmp_path / "none.parquet")]) == 2
    capsys.readouterr()
    assert call(["verify", str(good), str(bad), "--json"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["state"], first["rows"], first["sound_until"]) == ("sound", 300, None)
    assert (second["state"], second["sound_until"]) == ("damaged", 299)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["{0}", "{1},", "]"], "line 2 ends without a comma"),
        (["{0},", "{1},", "]"], "line 3 ends in a comma"),
        (["{0},", "{1}", "]"], None),
        (["]"], None),
    ],
)
def test_commas_of_an_array_are_where_they_belong(
    lines: list[str], problem: str | None, tmp_path: Path
) -> None:
    elements = [f'{{"image_id": {n}, "caption": "a"}}' for n in range(2)]
    body = "\n".join(["[", *lines]).replace("{0}", elements[0]).replace("{1}", elements[1])
    out = tmp_path / "coco.json"
    out.write_text(body + "\n")
    found = verify(str(out))
    assert found.exit_code == (0 if problem is None else 1), str(found)
    assert (problem or "") in str(found)
