"""Several files into one: order, duplicates, gaps, and what does not fit together."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blip2cli.convert.concat import gaps, natural_key
from blip2cli.errors import SourceError
from tests.convert.helpers import answers, captions, convert, read_rows, vectors, write_rows


def shards(folder: Path, numbers: list[int]) -> list[Path]:
    return [
        write_rows(folder / f"part-{n}.jsonl", [captions()[0] | {"file_name": f"{n}.jpg"}])
        for n in numbers
    ]


def test_shards_follow_one_another_by_their_numbers(tmp_path: Path) -> None:
    shards(tmp_path, [10, 2, 1])
    done = convert(tmp_path / "part-*.jsonl", tmp_path / "all.parquet")
    table = pq.read_table(tmp_path / "all.parquet")
    assert table.column("file_name").to_pylist() == ["1.jpg", "2.jpg", "10.jpg"]
    gap = "The series of files has gaps: "
    assert [note for note in done.notes if note.startswith(gap)] == [
        f"{gap}{', '.join(str(tmp_path / f'part-{n}.jsonl') for n in (3, 4, 5))} and 4 more."
    ]


def test_a_list_of_files_keeps_its_order_whatever_their_formats(tmp_path: Path) -> None:
    one, two = shards(tmp_path, [1, 2])
    convert(one, tmp_path / "one.csv")
    done = convert(two, tmp_path / "one.csv", tmp_path / "all.jsonl")
    assert [row["file_name"] for row in read_rows(tmp_path / "all.jsonl")] == ["2.jpg", "1.jpg"]
    assert done.notes == []


def test_a_list_of_failures_is_not_taken_for_rows(tmp_path: Path) -> None:
    shards(tmp_path, [1, 2])
    failure = {"file_name": "3.jpg", "error_type": "truncated", "message": "It ends early."}
    write_rows(tmp_path / "part-1.errors.jsonl", [failure])
    with pytest.raises(SourceError, match="is a list of images that failed"):
        convert(tmp_path / "*.jsonl", tmp_path / "all.parquet")


def test_doubles_are_counted_and_kept(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one.jsonl", captions())
    two = write_rows(tmp_path / "two.jsonl", captions()[:1])
    done = convert(one, two, tmp_path / "all.jsonl")
    assert done.rows == 4
    assert done.notes == [
        "1 row repeats a row before, with the same file_name: COCO_val2014_000000000012.jpg."
    ]


def test_questions_of_one_image_are_no_doubles(tmp_path: Path) -> None:
    rows = answers()
    one = write_rows(tmp_path / "one.jsonl", rows[:3])
    two = write_rows(tmp_path / "two.jsonl", rows[3:])
    assert convert(one, two, tmp_path / "all.jsonl").notes == []
    assert read_rows(tmp_path / "all.jsonl") == rows


def test_columns_of_all_files_are_kept(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one.jsonl", [captions()[0] | {"n": 1}])
    two = write_rows(tmp_path / "two.jsonl", [captions()[1] | {"n": 1.5, "m": "x"}])
    convert(one, two, tmp_path / "all.jsonl")
    assert [(row["n"], row["m"]) for row in read_rows(tmp_path / "all.jsonl")] == [
        (1.0, None),
        (1.5, "x"),
    ]


def test_rows_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one.jsonl", captions())
    two = write_rows(tmp_path / "two.jsonl", answers())
    with pytest.raises(SourceError, match=r"two.jsonl' has rows of ask, while those before are"):
        convert(one, two, tmp_path / "all.parquet")
    big = write_rows(tmp_path / "big.jsonl", vectors(1, 4))
    small = write_rows(tmp_path / "small.jsonl", vectors(1, 3))
    with pytest.raises(SourceError, match=r"embedding holds .*\[3\] here and .*\[4\]"):
        convert(big, small, tmp_path / "all.parquet")
    text = write_rows(tmp_path / "text.jsonl", [captions()[0] | {"n": "x"}])
    number = write_rows(tmp_path / "number.jsonl", [captions()[0] | {"n": 1}])
    convert(text, number, tmp_path / "all.parquet")  # columns of others become text
    assert pq.read_table(tmp_path / "all.parquet").column("n").to_pylist() == ["x", "1"]
    own = write_rows(tmp_path / "own.jsonl", [captions()[0] | {"width": "20"}])
    with pytest.raises(SourceError, match=r"own.jsonl': width holds string here and int64 before"):
        convert(text, own, tmp_path / "own.parquet")


def test_settings_stay_only_where_all_files_share_them(tmp_path: Path) -> None:
    one, two = shards(tmp_path, [1, 2])
    for path, model in ((one, "tiny"), (two, "tiny")):
        meta = tmp_path / f".{path.name}.meta.json"
        meta.write_text(json.dumps({"settings": {"model": model}}))
    convert(one, two, tmp_path / "same.parquet")
    about = json.loads(pq.read_schema(tmp_path / "same.parquet").metadata[b"blip2cli"])
    assert about["settings"] == {"model": "tiny"}
    (tmp_path / f".{two.name}.meta.json").write_text('{"settings": {"model": "other"}}')
    done = convert(one, two, tmp_path / "mixed.parquet")
    assert done.notes == ["The files were made with different settings; none are kept."]
    assert pq.read_schema(tmp_path / "mixed.parquet").metadata[b"blip2cli"] == b"{}"


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["a-0.x", "a-1.x"], None),
        (["a-0001.x", "a-0003.x"], "a-0002.x"),
        (["a-1-of-9.x", "a-3-of-9.x"], "a-2-of-9.x"),
        (["2024-01.x", "2025-02.x"], None),
        (["a-20240101.x", "a-20250101.x"], None),
        (["a-1.x", "b-3.x"], None),
        (["a-1.x"], None),
    ],
)
def test_gaps_in_a_series(names: list[str], missing: str | None) -> None:
    expected = None if missing is None else f"The series of files has gaps: {missing}."
    assert gaps(names) == expected


def test_numbers_sort_by_value() -> None:
    names = ["p10", "p9", "p9a", "p", "q1", "p009"]
    assert sorted(names, key=natural_key) == ["p", "p009", "p9", "p9a", "p10", "q1"]


def test_a_pattern_without_a_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No file matches the pattern"):
        convert(tmp_path / "*.jsonl", tmp_path / "all.parquet")
