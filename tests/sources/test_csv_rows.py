from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blip2cli.errors import SourceError
from blip2cli.sources.csv_rows import csv_dialect, csv_records
from blip2cli.sources.records import MAX_LINE_BYTES, BadRow


def table(path: Path, data: bytes, delimiter: str = ",") -> list[tuple[int, object]]:
    path.write_bytes(data)
    return [
        (number, row.problem if isinstance(row, BadRow) else list(row.values()))
        for number, row in csv_records(str(path), csv_dialect(str(path), delimiter))
    ]


@pytest.mark.parametrize(
    ("data", "columns"),
    [
        ("file_name;caption\n", ["file_name", "caption"]),
        ("\ufefffile_name;caption\r\n", ["file_name", "caption"]),
        ("sep=;\r\nfile_name;caption\r\n", ["file_name", "caption"]),
        ("file_name\tcaption\n", ["file_name", "caption"]),
        ("file_name|caption\n", ["file_name", "caption"]),
        ("file_name,tags (a;b;c)\n", ["file_name", "tags (a;b;c)"]),
        ('"file;name"\n', ["file;name"]),
        ("file_name\n", ["file_name"]),
        ("file_name,caption,,\n", ["file_name", "caption"]),
        ("\n \t\r\nfile_name;caption\n", ["file_name", "caption"]),
        ("\ufeff\r\rfile_name;caption\r", ["file_name", "caption"]),
        ("\nsep=;\nfile_name;caption\n", ["file_name", "caption"]),
        ("\n\n", []),
        ("", []),
    ],
)
def test_the_delimiter_is_the_one_of_the_header(
    data: str, columns: list[str], tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_bytes(data.encode())
    assert list(csv_dialect(str(tmp_path / "t.csv"), ",").columns) == columns


def test_rows_of_spreadsheets(tmp_path: Path) -> None:
    data = '\ufeffsep=;\r\nname;text\r\na;"x;\r\ny"\r\n;\r\n;;;\r\nb;z;;\r\n'.encode()
    assert table(tmp_path / "t.csv", data) == [(3, ["a", "x;\r\ny"]), (7, ["b", "z"])]
    assert table(tmp_path / "blank.csv", b"\n \n\na;b\n1;2\n") == [(5, ["1", "2"])]
    assert table(tmp_path / "mac.csv", b"a,b\r1,2\r3,4\r") == [(2, ["1", "2"]), (3, ["3", "4"])]


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    text = "a\x0bb\x0cc\x1cd\x1ee\x85f\u2028g\u2029h"
    assert table(tmp_path / "t.csv", f"n,t\n1,{text}\n".encode()) == [(2, ["1", text])]


def test_a_bad_row_costs_one_row(tmp_path: Path) -> None:
    lines = [b"n,t", b'1,"open', b"2,b", b'3,"c"x', b"4", b"5,e", b'6,"f']
    found = table(tmp_path / "t.csv", b"\n".join(lines))
    assert [number for number, _ in found] == [2, 3, 4, 5, 6, 7]
    assert [cells for _, cells in found if isinstance(cells, list)] == [["2", "b"], ["5", "e"]]


def test_a_quote_that_is_never_closed_costs_one_row_of_many(tmp_path: Path) -> None:
    lines = [b"n,t", b'0,"open', *(b"%d,x" % n for n in range(1, 5000))]
    found = table(tmp_path / "t.csv", b"\n".join(lines))
    assert len(found) == 5000
    assert found[0] == (2, "a quoted cell of over 1000 lines")


def test_long_lines_and_cells(tmp_path: Path) -> None:
    long = b"x" * 200_000  # the csv module takes 128 KiB by itself
    assert table(tmp_path / "t.csv", b"n,t\n1," + long + b"\n") == [(2, ["1", long.decode()])]
    long = b"x" * MAX_LINE_BYTES
    half = b"y" * (MAX_LINE_BYTES * 3 // 5)
    quoted = b'2,"' + half + b"\n" + half + b'"\n'
    found = table(tmp_path / "t.csv", b"n,t\n1," + long + b"\n" + quoted + b"3,c\n")
    assert [number for number, _ in found] == [2, 3, 4, 5]
    assert found[-1] == (5, ["3", "c"])


def test_a_gzip_stream_that_breaks_off(tmp_path: Path) -> None:
    rows = b"".join(b"%d,%d\n" % (n, n * n) for n in range(100_000))
    data = gzip.compress(b"n,t\n" + rows)
    found = table(tmp_path / "t.csv.gz", data[: len(data) // 2])
    assert len(found) > 1000
    assert "breaks off" in str(found[-1][1])
    (tmp_path / "t.csv.gz").write_bytes(data[:8])
    with pytest.raises(SourceError, match="damaged gzip"):
        csv_dialect(str(tmp_path / "t.csv.gz"), ",")


CELL = st.text(st.sampled_from('ab,;\t|"\n\r \u2028é'), max_size=5)


@given(
    rows=st.lists(st.tuples(CELL, CELL).filter(any), max_size=6),
    delimiter=st.sampled_from(",;\t|"),
)
@settings(max_examples=60, deadline=None)
def test_what_the_csv_module_writes_is_read_back(
    rows: list[tuple[str, str]], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([("n", "t"), *rows])
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    found = table(path, text.getvalue().encode())
    assert [cells for _, cells in found] == [list(row) for row in rows]
