"""Rows as columns: what becomes of confidences, failures, columns of others, limits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import SourceError
from blip2cli.evaluate.read_rows import Table
from blip2cli.report.plain import number, plain, public_path, public_text
from blip2cli.report.rows import AMONG_CHOICES, CALIBRATED, OF_TOKENS, PageRows, read_page_rows
from tests.report.helpers import rows_file


def read(*paths: Path, text: str | None = None, limit: int | None = None) -> PageRows:
    return read_page_rows(Table.of("rows", [str(path) for path in paths]), text, limit)


def test_confidence_is_the_best_there_is(tmp_path: Path) -> None:
    shares = [{"choice": "yes", "probability": 0.25}, {"choice": "no", "probability": 0.75}]
    common = {"question": "?", "question_id": "1"}
    path = rows_file(
        tmp_path / "a.jsonl",
        {"file_name": "a", **common, "answer": "no", "logprob": -1, "probabilities": shares},
        {"file_name": "b", **common, "answer": "x", "logprob": math.log(0.5), "flag": "empty"},
        {"file_name": "c", **common, "answer": None, "logprob": None},
    )
    rows = read(path)
    assert rows.columns["confidence"] == [0.75, 0.5, None]
    assert rows.columns["probabilities"][0] == [["no", 0.75], ["yes", 0.25]]
    assert set(rows.confidences) == {AMONG_CHOICES, OF_TOKENS}
    assert rows.task == "ask"
    assert rows.counts() == [("rows", 3), ("images", 3), ("empty", 1)]
    calibrated = rows_file(
        tmp_path / "b.jsonl",
        {"file_name": "a", **common, "answer": "no", "confidence": 0.9, "probabilities": shares},
    )
    assert read(calibrated).confidences == (CALIBRATED,)


def test_images_that_failed_are_rows_wherever_they_are_listed(tmp_path: Path) -> None:
    path = rows_file(
        tmp_path / "a.jsonl",
        {"file_name": "a", "caption": "x", "error": ""},
        {"file_name": "b", "caption": None, "error": "truncated: The JPEG file ends early."},
    )
    rows_file(
        tmp_path / "a.jsonl.errors",
        {"file_name": "c", "error_type": "missing", "message": "It was '/home/me/x/c' before."},
        {"file_name": "a", "error_type": "missing", "message": "It has its row by now."},
    )
    rows = read(path)
    assert rows.columns["error_type"] == [None, "truncated", "missing"]
    assert rows.columns["error"] == [None, "The JPEG file ends early.", "It was 'c' before."]
    assert rows.errors == {"truncated": 1, "missing": 1}
    assert ("failed", 2) in rows.counts()


def test_files_that_are_one_and_columns_of_others(tmp_path: Path) -> None:
    first = tmp_path / "a.parquet"
    pq.write_table(pa.table({"file_name": ["a"], "text": ["x"], "year": [1 << 60]}), first)
    second = rows_file(
        tmp_path / "b.jsonl",
        {"file_name": "./b", "text": "y", "tags": [{"z": math.pi}], "width": 3},
    )
    rows = read(first, second, text="text")
    assert rows.columns["file_name"] == ["a", "b"]
    assert rows.columns["text"] == ["x", "y"]
    assert rows.extra == {
        "year": [str(1 << 60), None],
        "tags": [None, [{"z": 3.141593}]],
        "width": [None, 3],
    }


def test_a_limit_cuts_and_says_so(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "a.jsonl", *({"file_name": str(n), "caption": "x"} for n in "abc"))
    assert not read(path, limit=3).cut
    rows = read(path, limit=2)
    assert rows.cut
    assert rows.columns["file_name"] == ["a", "b"]
    failed = ({"file_name": n, "error_type": "missing", "message": ""} for n in ("d", "e"))
    rows_file(tmp_path / "a.jsonl.errors", *failed)
    rows = read(path, limit=4)
    assert (rows.cut, rows.errors) == (True, {"missing": 1})
    assert rows.columns["file_name"] == ["a", "b", "c", "d"]
    assert not read(path, limit=5).cut


@pytest.mark.parametrize(
    ("row", "said"),
    [({"name": "a", "caption": "x"}, "no column file_name"), ({"file_name": "a"}, "no column cap")],
)
def test_rows_that_are_none(tmp_path: Path, row: dict[str, object], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        read(rows_file(tmp_path / "a.jsonl", row))


@pytest.mark.parametrize("value", ["x", 3, [1, 2], {"yes": 0.4, "no": 0.6}])
def test_columns_of_known_names_may_hold_something_else(value: object, tmp_path: Path) -> None:
    row = {"file_name": "a.jpg", "caption": "x", "probabilities": value, "candidates": value}
    columns = read(rows_file(tmp_path / "a.jsonl", row)).columns
    assert columns["probabilities"] == columns["candidates"] == columns["confidence"] == [None]


def test_values_are_plain_and_name_no_machine() -> None:
    surrogate = "caf\udce9"
    assert plain({surrogate: [b"x", float("nan"), True, None]}) == {
        "caf\\udce9": ["b'x'", None, True, None]
    }
    json.dumps(plain(surrogate)).encode()
    assert number("1") is None
    assert number(float("inf")) is None
    assert public_text("'/home/me/a b.jpg' and /srv/x/y.jpg, not s3://bucket/key") == (
        "'a b.jpg' and y.jpg, not s3://bucket/key"
    )
    assert public_path("/home/me/models/mine/") == "mine"
    assert public_path("owner/name") == "owner/name"
    assert "secret" not in public_path("https://user:secret@host/model")
