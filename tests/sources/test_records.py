from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from blip2cli.errors import SourceError
from blip2cli.sources.records import BadRow, json_records, text_records


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    text = "a\x0bb\x0cc\x1cd\x1ee\x85f\u2028g\u2029h\ri"
    (tmp_path / "t.txt").write_bytes(f"{text}\r\nj\n".encode())
    names = [row["file_name"] for _, row in text_records(str(tmp_path / "t.txt"))]  # type: ignore[index]
    assert names == [text, "j"]
    (tmp_path / "t.jsonl").write_bytes('{"t": "a\u2028b"}\n{"t": "c\x85d"}\n'.encode())
    assert [row for _, row in json_records(str(tmp_path / "t.jsonl"))] == [
        {"t": "a\u2028b"}, {"t": "c\x85d"}
    ]  # fmt: skip


def test_a_long_line_costs_one_row(tmp_path: Path) -> None:
    for data in (b"a\n" + b"x" * 1000 + b"\nb\n", b"a\n" + b"x" * 199 + b"\nb"):
        (tmp_path / "t.txt").write_bytes(data)
        (first, bad, last) = text_records(str(tmp_path / "t.txt"), line_bytes=100)
        assert isinstance(bad[1], BadRow)
        assert (first[1], last) == ({"file_name": "a"}, (3, {"file_name": "b"}))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_by_name(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a.png\n", encoding=encoding)
    with pytest.raises(SourceError, match="UTF-16"):
        list(text_records(str(tmp_path / "t.txt")))


def test_gzipped_lines(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(b'\xef\xbb\xbf{"a": 1}\n') * 2)
    (first, second) = json_records(str(tmp_path / "t.jsonl.gz"))
    assert first == (1, {"a": 1})
    assert isinstance(second[1], BadRow)  # a byte order mark in the middle
