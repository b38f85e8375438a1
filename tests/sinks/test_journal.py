"""Resuming outputs: what a crash may leave, and how it is repaired."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

import pytest

from blip2cli.errors import OutputError, RunError
from blip2cli.sinks import (
    Settings,
    check_settings,
)
from blip2cli.sinks.paths import OutputPaths
from tests.sinks.helpers import FORMATS, SETTINGS, listing, names, put, read, resume, row


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_follow_those_of_the_stopped_run(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    _, sink = resume(out)
    put(sink, row(0), row(1))
    sink.abort()
    resumed, sink = resume(out)
    assert resumed is not None
    assert all(name in resumed.rows.done for name in names(0, 1))
    assert (len(resumed.rows.done), resumed.rows.rows) == (2, 2)
    assert resumed.rows.settings == SETTINGS
    sink.write([row(2)])
    sink.close()
    assert read(out) == [row(0), row(1), row(2)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_finished_output_grows(tmp_path: Path, suffix: str) -> None:
    out, whole = tmp_path / f"out.{suffix}", tmp_path / f"whole.{suffix}"
    for numbers in ((0, 1), (2,), (3, 4)):
        _, sink = resume(out)
        sink.write([row(n) for n in numbers])
        sink.close()
        assert ".out." not in " ".join(listing(tmp_path) - {f".out.{suffix}.meta.json"})
    _, sink = resume(whole)
    sink.write([row(n) for n in range(5)])
    sink.close()
    assert read(out) == read(whole)
    if suffix != "jsonl.gz":  # where members end depends on when rows came
        assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_a_file_cut_at_any_byte_is_resumed(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    _, sink = resume(out)
    for number in range(6):
        sink.write([row(number, "ein Käfer\n" * (number % 3))])
        if number % 2:
            sink.commit()
    sink.close()
    whole, rows = out.read_bytes(), read(out)
    for end in range(len(whole)):
        out.write_bytes(whole[:end])
        resumed, sink = resume(out)
        assert resumed is not None
        left = [r for r in rows if r["file_name"] not in resumed.rows.done]
        assert len(resumed.rows.done) + len(left) == 6
        sink.write(left)
        sink.close()
        assert read(out) == rows, end


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_an_image_without_all_its_rows_is_run_again(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    _, sink = resume(out, per_image=2)
    put(sink, row(0), row(0), row(1), row(1), row(2))
    sink.abort()
    resumed, sink = resume(out, per_image=2)
    assert resumed is not None
    assert (len(resumed.rows.done), resumed.rows.rows) == (2, 4)
    assert names(2)[0] not in resumed.rows.done
    sink.write([row(2), row(2)])
    sink.close()
    assert read(out) == [row(n) for n in (0, 0, 1, 1, 2, 2)]


def test_reading_the_journal_changes_nothing(tmp_path: Path) -> None:
    for suffix in FORMATS:
        out = tmp_path / f"out.{suffix}"
        _, sink = resume(out)
        put(sink, row(0), row(1))
        sink.abort()
        if suffix != "parquet":
            out.write_bytes(out.read_bytes()[:-3])
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        resume(out)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_completing_repairs_the_end_when_no_image_is_left(tmp_path: Path) -> None:
    for suffix in FORMATS:
        out = tmp_path / f"out.{suffix}"
        _, sink = resume(out)
        put(sink, row(0), row(1))
        sink.abort()
        if suffix == "jsonl":
            out.write_bytes(out.read_bytes() + b'{"file_name": "00')
        if suffix == "jsonl.gz":
            out.write_bytes(out.read_bytes() + zlib.compress(b'{"fi', wbits=31)[:-4])
        resumed, _ = resume(out)
        assert resumed is not None
        resumed.complete()
        assert read(out) == [row(0), row(1)]
        assert all("part" not in name and "tmp" not in name for name in listing(tmp_path))


def test_lines_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    _, sink = resume(out)
    put(sink, row(0), row(1), row(2))
    sink.close()
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(lines[0] + b'{"caption": "no name"}\n' + lines[2])
    with pytest.raises(
        OutputError, match=r"line 2, at byte 93, is no row of this output; it is sound up to row 1"
    ):
        resume(out)
    out.write_bytes(lines[0] + lines[1] + b"\0" * 20 + b"\n")  # as a power cut may leave it
    resumed, _ = resume(out)
    assert resumed is not None
    assert len(resumed.rows.done) == 2


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"PAR1 no, it is not")
    with pytest.raises(OutputError, match="cannot be read as rows of this tool"):
        resume(out)


def test_an_output_without_its_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="settings of 'x' are not known"):
        check_settings("x", None, SETTINGS)


def test_a_setting_that_differs_is_named() -> None:
    rows = {"version": "0.1", "num_beams": 1, "prompt": None, "question": ["a?"]}
    before = Settings(rows)

    def but(**more: object) -> Settings:
        return Settings(rows | more)

    check_settings("x", before, but(version="0.2"))
    with pytest.raises(OutputError, match="made with num_beams 1, not 5;"):
        check_settings("x", before, but(num_beams=5))
    with pytest.raises(OutputError, match="made with prompt unset, not a photo of;"):
        check_settings("x", before, but(prompt="a photo of"))
    with pytest.raises(OutputError, match=r"made with question 'a\?', not 'b\?', 'c\?';"):
        check_settings("x", before, but(question=["b?", "c?"]))


def test_settings_belong_to_the_output_they_were_written_for(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    _, sink = resume(out)
    put(sink, row(0))
    sink.close()
    paths = OutputPaths.of(str(out))
    new: dict[str, object] = {
        "format": 2,
        "settings": {"model": "other"},
        "inode": -1,
    }  # its output did not come
    Path(paths.next_meta).write_text(json.dumps(new))
    resumed, _ = resume(out)
    assert resumed is not None
    assert resumed.rows.settings == SETTINGS
    new["inode"] = out.stat().st_ino  # its output came, and then the power went
    Path(paths.next_meta).write_text(json.dumps(new))
    resumed, sink = resume(out)
    assert resumed is not None
    assert resumed.rows.settings == Settings({"model": "other"})
    sink.write([row(1)])
    sink.close()
    assert listing(tmp_path) == {"out.jsonl", ".out.jsonl.meta.json"}
    assert json.loads(Path(paths.meta).read_text()) == new


def test_parts_after_a_finished_merge_are_merged_again_or_dropped(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    _, sink = resume(out)
    put(sink, row(0))
    put(sink, row(1))
    parts = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    sink.close()
    whole = out.read_bytes()
    first, second = sorted(name for name in parts if ".part-" in name)
    for left in ((first, second), (second,)):  # killed before, and while, parts were removed
        for name in left:
            (tmp_path / name).write_bytes(parts[name])
        resumed, _ = resume(out)
        assert resumed is not None
        assert len(resumed.rows.done) == 2
        resumed.complete()
        assert out.read_bytes() == whole
        assert listing(tmp_path) == {"out.parquet", ".out.parquet.meta.json"}


def test_an_output_stays_in_place_while_it_grows(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    _, sink = resume(out)
    put(sink, row(0))
    sink.close()
    _, sink = resume(out)
    put(sink, row(1))
    sink.abort()
    assert read(out) == [row(0)]
    resumed, sink = resume(out)
    assert resumed is not None
    assert all(name in resumed.rows.done for name in names(0, 1))
    sink.close()
    assert read(out) == [row(0), row(1)]
    assert listing(tmp_path) == {"out.parquet", ".out.parquet.meta.json"}


def test_random_pieces_make_the_whole(tmp_path: Path) -> None:
    chance = random.Random(0)
    for suffix in FORMATS:
        for trial in range(10):
            out = tmp_path / f"{trial}.{suffix}"
            done = 0
            while done < 20:
                resumed, sink = resume(out)
                assert (len(resumed.rows.done) if resumed else 0) == done
                for _ in range(chance.randrange(4)):
                    size = min(chance.randrange(1, 6), 20 - done)
                    sink.write([row(n) for n in range(done, done + size)])
                    done += size
                sink.close() if chance.random() < 0.3 else sink.abort()
            resumed, _ = resume(out)
            assert resumed is not None
            resumed.complete()
            assert read(out) == [row(n) for n in range(20)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_output_that_others_changed_since_it_was_read_is_left(
    tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out.{suffix}"
    _, sink = resume(out)
    put(sink, row(0))
    sink.close()
    resumed, sink = resume(out)
    with out.open("ab") as other:
        other.write(b"of others")
    content = out.read_bytes()
    with pytest.raises(RunError, match="something else changed it since"):
        put(sink, row(1))
    assert resumed is not None
    with pytest.raises(RunError, match="something else changed it since"):
        resumed.complete()
    assert out.read_bytes() == content
