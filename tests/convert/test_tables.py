"""Tables: JSONL, Parquet, CSV and TSV into one another and back."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blip2cli.convert.line_blocks import BLOCK_BYTES
from blip2cli.errors import OutputError, SourceError
from blip2cli.storage.text_encoding import to_json
from tests.convert.helpers import (
    Row,
    answers,
    captions,
    convert,
    in_subprocess,
    read_rows,
    vectors,
    write_rows,
)

TABLES = ("jsonl", "jsonl.gz", "parquet", "csv", "tsv")


def rows_of(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[Row]:
    """Rows with these columns, always in this order."""
    return st.tuples(*columns.values()).map(lambda v: dict(zip(columns, v, strict=True)))


SPICE = st.sampled_from(
    ["\n", "\r\n", '"', "'", "=1+1", "+", "-1", "@x", "\t", "'=a", ",", "\0", "\\", "\\udc80",
     "\\u005cudc80", "😀", "שלום", "\u2028", "\x85", "\udc80", "null", "NaN",
     "2024-01-01", "x" * 2000]
)  # fmt: skip
TEXT = st.lists(st.text(max_size=6) | SPICE, max_size=4).map("".join)
NAME = st.lists(st.text("ab/.é\udc80\udcff", min_size=1, max_size=6) | SPICE, min_size=1).map(
    "".join
)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
INT = st.integers(-(2**63), 2**63 - 1)
CANDIDATE = rows_of(text=TEXT, logprob=st.none() | NUMBER)


ROW = rows_of(
    file_name=NAME,
    width=st.none() | INT,
    height=st.none() | INT,
    caption=st.none() | TEXT,
    logprob=st.none() | NUMBER,
    candidates=st.none() | st.lists(CANDIDATE, max_size=3),
)
ANSWERED = rows_of(
    **{
        "file_name": NAME,
        "width": st.none() | INT,
        "height": st.none() | INT,
        "=note": st.none() | TEXT,
        "question": TEXT,
        "question_id": TEXT,
        "answer": st.none() | TEXT,
        "logprob": st.none() | NUMBER,
        "probabilities": st.none()
        | st.lists(rows_of(choice=TEXT, probability=st.none() | NUMBER), max_size=3),
        "choice_mass": st.none() | NUMBER,
        "choice_scores": st.none()
        | st.lists(
            rows_of(choice=TEXT, logprob=NUMBER, tokens=INT, blank_logprob=st.none() | NUMBER),
            max_size=2,
        ),
    }
)
SOME = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("suffix", TABLES)
@SOME
@given(rows=st.lists(ROW, min_size=1, max_size=8) | st.lists(ANSWERED, min_size=1, max_size=8))
def test_any_rows_come_back_byte_for_byte(suffix: str, rows: list[Row], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", rows)
    convert(source, tmp_path / f"t.{suffix}", overwrite=True)
    convert(tmp_path / f"t.{suffix}", tmp_path / "back.jsonl", overwrite=True)
    assert (tmp_path / "back.jsonl").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("suffix", TABLES)
def test_a_text_larger_than_any_buffer_comes_back(suffix: str, tmp_path: Path) -> None:
    rows = captions()
    rows[1]["caption"] = 'long "text"\n' * 300_000
    source = write_rows(tmp_path / "in.jsonl", rows)
    convert(source, tmp_path / f"t.{suffix}")
    convert(tmp_path / f"t.{suffix}", tmp_path / "back.jsonl")
    assert (tmp_path / "back.jsonl").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("first", [None, [], [{"text": "a", "logprob": -0.1, "match": 0.25}]])
@pytest.mark.parametrize("suffix", TABLES)
def test_ranked_candidates_come_back_byte_for_byte(suffix: str, first: Any, tmp_path: Path) -> None:
    candidates = [
        {"text": "b", "logprob": -0.5, "match": 0.75},
        {"text": "", "logprob": 0.0, "match": None},
    ]
    rows = [
        row | {"match": match, "guess": guess, "candidates": value}
        for row, match, guess, value in zip(
            captions(), (None, 0.5, 1e-9), (None, "b", "c"), (first, candidates, None), strict=True
        )
    ]
    source = write_rows(tmp_path / "in.jsonl", rows)
    convert(source, tmp_path / f"t.{suffix}")
    convert(tmp_path / f"t.{suffix}", tmp_path / "back.jsonl")
    assert (tmp_path / "back.jsonl").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("suffix", TABLES)
def test_vectors_come_back_byte_for_byte(suffix: str, tmp_path: Path) -> None:
    rows = vectors(50, 9)
    rows[7]["embedding"] = None
    rows[8]["embedding"] = [0.10000000149011612, 9.999999747378752e-06, 3.4028234663852886e38] * 3
    rows[9]["embedding"] = [1.401298464324817e-45, -0.0, 16777216.0] * 3
    source = write_rows(tmp_path / "in.jsonl", rows)
    convert(source, tmp_path / f"t.{suffix}")
    convert(tmp_path / f"t.{suffix}", tmp_path / "back.jsonl")
    assert (tmp_path / "back.jsonl").read_bytes() == source.read_bytes()


def test_vectors_in_parquet_have_a_fixed_size(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", vectors(3, 4))
    convert(source, tmp_path / "t.parquet")
    kind = pq.read_schema(tmp_path / "t.parquet").field("embedding").type
    assert kind == pa.list_(pa.float32(), 4)
    long = write_rows(tmp_path / "odd.jsonl", [*vectors(3, 4), *vectors(1, 5)])
    with pytest.raises(SourceError, match="vectors have 4 and 5 numbers"):
        convert(long, tmp_path / "odd.parquet")


@pytest.mark.parametrize("suffix", TABLES)
def test_a_file_without_rows_gives_one_without_rows(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"")
    assert convert(tmp_path / "in.jsonl", tmp_path / f"t.{suffix}").rows == 0
    assert convert(tmp_path / f"t.{suffix}", tmp_path / "back.jsonl").rows == 0
    assert (tmp_path / "back.jsonl").read_bytes() == b""


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv"])
def test_columns_survive_without_rows(suffix: str, tmp_path: Path) -> None:
    table = pa.table({"file_name": pa.array([], pa.string()), "width": pa.array([], pa.int64())})
    pq.write_table(table, tmp_path / "in.parquet")
    convert(tmp_path / "in.parquet", tmp_path / f"t.{suffix}", overwrite=True)
    convert(tmp_path / f"t.{suffix}", tmp_path / "back.parquet")
    back = pq.read_table(tmp_path / "back.parquet")
    assert back.schema.names == ["file_name", "width"]
    assert back.schema.types == [pa.string(), pa.int64()]


def test_null_and_the_empty_text_differ_in_csv(tmp_path: Path) -> None:
    rows = [captions()[0] | {"caption": text, "width": None} for text in (None, "")]
    convert(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "t.csv")
    first, second = (tmp_path / "t.csv").read_text().splitlines()[1:]
    assert first == f'"{rows[0]["file_name"]}",,16,,0'.replace(",0", ",-0") or ",,16,," in first
    assert ',,16,"",' in second


def test_no_cell_of_a_csv_is_taken_for_a_formula(tmp_path: Path) -> None:
    texts = ["=1", "+1", "-1", "@a", "\tx", "\rx", "\nx", "'=1", "'tis", "a=1"]
    rows = [captions()[0] | {"caption": text} for text in texts]
    convert(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        cells = [row["caption"] for row in csv.DictReader(file)]
    assert cells == ["'" + text for text in texts[:8]] + texts[8:]


def test_csv_of_others_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_bytes(
        b"\xef\xbb\xbffile_name,width,caption,price\r\na.jpg,64,it's,1.50\r\nb\xff.jpg,,,x\r\n"
    )
    convert(tmp_path / "o.csv", tmp_path / "o.jsonl")
    assert read_rows(tmp_path / "o.jsonl") == [
        {"file_name": "a.jpg", "width": 64, "caption": "it's", "price": "1.50"},
        {"file_name": "b\\udcff.jpg", "width": None, "caption": None, "price": "x"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,width\na.jpg,wide\n", "width is not what a column of that name holds"),
        ("file_name,width\na.jpg\n", "line 2: 1 cells for 2 columns"),
        ('file_name,width\na.jpg,"1\nb.jpg,2\n', "line 2: a quote that is never closed"),
        ("a,a\n1,2\n", "two columns are called 'a'"),
        ("file_name,candidates\na.jpg,[\n", "candidates is not what"),
    ],
)
def test_a_csv_that_cannot_be_read_says_why(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text(text)
    with pytest.raises(SourceError, match=message.replace("[", r"\[")):
        convert(tmp_path / "o.csv", tmp_path / "o.jsonl")
    assert not (tmp_path / "o.jsonl").exists()


def test_a_csv_of_a_spreadsheet(tmp_path: Path) -> None:
    data = '\ufefffile_name;caption;;\r\na.jpg;a cat;;\r\n;;;\r\nb.jpg;"x;\r\ny";;\r\n'
    (tmp_path / "o.csv").write_bytes(data.encode())
    convert(tmp_path / "o.csv", tmp_path / "o.jsonl")
    assert read_rows(tmp_path / "o.jsonl") == [
        {"file_name": "a.jpg", "caption": "a cat"},
        {"file_name": "b.jpg", "caption": "x;\r\ny"},
    ]


def test_text_of_other_tools_that_looks_like_an_escape_stays_itself(tmp_path: Path) -> None:
    texts = ["\\udc80", "C:\\ud800", "\\u005c", "plain"]
    nested = [[{"text": text}] for text in texts]
    table = pa.table({"file_name": texts, "large": pa.array(texts, pa.large_string()), "n": nested})
    pq.write_table(table, tmp_path / "o.parquet")
    convert(tmp_path / "o.parquet", tmp_path / "o.jsonl")
    rows = read_rows(tmp_path / "o.jsonl")
    assert [row["file_name"] for row in rows] == texts
    assert [row["large"] for row in rows] == texts
    assert [row["n"] for row in rows] == nested
    convert(tmp_path / "o.jsonl", tmp_path / "back.parquet")
    stored = pq.read_table(tmp_path / "back.parquet").column("file_name").to_pylist()
    assert stored == texts


def test_types_beyond_the_sampled_rows_are_found(tmp_path: Path) -> None:
    """Behind the rows that are sampled for the schema, in several blocks."""
    text = "x" * 6000
    rows: list[Row] = [
        {"file_name": f"{i}.jpg", "n": None, "score": i, "text": text} for i in range(3000)
    ]
    rows[1500]["n"] = [{"a": 1}]
    rows[2000]["score"] = 0.5
    rows[2500]["extra"] = "x"
    rows[2999]["n"] = [{"a": 1.5, "b": "y"}]
    source = write_rows(tmp_path / "in.jsonl", rows)
    assert source.stat().st_size > 2 * BLOCK_BYTES
    assert convert(source, tmp_path / "t.parquet").rows == 3000
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.schema.field("score").type == pa.float64()
    assert table.column("n").to_pylist()[2999] == [{"a": 1.5, "b": "y"}]
    assert table.column("n").to_pylist()[1500] == [{"a": 1.0, "b": None}]
    assert table.column("extra").to_pylist() == [None] * 2500 + ["x"] + [None] * 499


@pytest.mark.parametrize("values", [(1, "a"), ("a", 1), ([1], {"a": 1}), (True, 1), (1, True)])
@pytest.mark.parametrize("apart", [0, 2000])
def test_a_column_of_two_kinds_becomes_text_unless_it_is_our_own(
    values: tuple[Any, Any], apart: int, tmp_path: Path
) -> None:
    for name in ("v", "width"):
        rows = [{"file_name": "a.jpg", name: values[0]}] * (1 + apart)
        source = write_rows(tmp_path / "in.jsonl", [*rows, {"file_name": "b.jpg", name: values[1]}])
        if name == "v":
            convert(source, tmp_path / "t.parquet")
            found = pq.read_table(tmp_path / "t.parquet").column("v").to_pylist()
            texts = [v if isinstance(v, str) else json.dumps(v) for v in values]
            assert found == [texts[0]] * (1 + apart) + texts[1:]
        else:
            with pytest.raises(SourceError, match="width"):
                convert(source, tmp_path / "w.parquet")
            assert not (tmp_path / "w.parquet").exists()


@pytest.mark.parametrize("cut", [1, 2, 30, 60])
def test_a_torn_tail_is_reported_with_its_byte_offset(cut: int, tmp_path: Path) -> None:
    rows = captions()
    data = b"".join(to_json(row) + b"\n" for row in rows)
    start = len(data) - len(to_json(rows[-1])) - 1
    (tmp_path / "t.jsonl").write_bytes(data[:-cut])
    if cut == 1:  # only the newline is gone: the row is whole
        assert convert(tmp_path / "t.jsonl", tmp_path / "o.csv").rows == 3
        return
    with pytest.raises(SourceError, match=rf"torn at line 3, which begins at byte {start} "):
        convert(tmp_path / "t.jsonl", tmp_path / "o.csv")
    (tmp_path / "u.jsonl").write_bytes(data[:start])  # what the command in the message does
    assert convert(tmp_path / "u.jsonl", tmp_path / "o.csv").rows == 2


def test_a_torn_gzip_stream_is_reported_with_the_offset_in_its_content(tmp_path: Path) -> None:
    data = b"".join(to_json(row) + b"\n" for row in captions())
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(data)[:-12])
    with pytest.raises(SourceError, match=r"torn at line \d, which begins at byte \d+ of its con"):
        convert(tmp_path / "t.jsonl.gz", tmp_path / "o.csv")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"file_name": "a.jpg",}', "not JSON"),
        (b'["a.jpg"]', "expected an object"),
        (b'{"width": ' + b"9" * 30 + b"}", "width"),
    ],
)
def test_a_bad_line_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    good = to_json(captions()[0]) + b"\n"
    (tmp_path / "t.jsonl").write_bytes(good * 5 + line + b"\n" + good)
    with pytest.raises(SourceError, match=message):
        convert(tmp_path / "t.jsonl", tmp_path / "o.parquet")


def test_rows_of_two_commands_are_refused(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "m.jsonl", [*captions(), *answers()])
    with pytest.raises(SourceError, match=r"line 4, has rows of ask.*before are rows of caption"):
        convert(source, tmp_path / "m.parquet")
    behind = write_rows(tmp_path / "l.jsonl", [*(captions() * 500), *answers()])
    with pytest.raises(SourceError, match=r"line 1501, has rows of ask"):
        convert(behind, tmp_path / "l.parquet")


def test_settings_travel_with_the_rows(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", captions())
    (tmp_path / ".in.jsonl.meta.json").write_text(json.dumps({"settings": {"model": "tiny"}}))
    convert(source, tmp_path / "t.parquet")
    about = json.loads(pq.read_schema(tmp_path / "t.parquet").metadata[b"blip2cli"])
    assert about["settings"] == {"model": "tiny"}
    convert(tmp_path / "t.parquet", tmp_path / "back.jsonl")
    beside = json.loads((tmp_path / ".back.jsonl.meta.json").read_text())
    assert beside["settings"] == {"model": "tiny"}
    assert beside["inode"] == (tmp_path / "back.jsonl").stat().st_ino
    other = write_rows(tmp_path / "other.jsonl", captions())
    convert(other, tmp_path / "back.jsonl", overwrite=True)
    assert not (tmp_path / ".back.jsonl.meta.json").exists()


def test_columns_of_bytes_have_no_place_in_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"file_name": ["a"], "raw": [b"\0"]}), tmp_path / "t.parquet")
    done = convert(tmp_path / "t.parquet", tmp_path / "t.jsonl")
    assert done.notes == ["Left out: raw, which hold bytes."]
    assert read_rows(tmp_path / "t.jsonl") == [{"file_name": "a"}]


def test_equal_rows_give_equal_files(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", captions())
    for suffix in TABLES:
        for name in ("a", "b"):
            convert(source, tmp_path / f"{name}.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_what_cannot_be_completed_leaves_the_old_file(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", captions())
    for suffix in TABLES:
        out = tmp_path / f"t.{suffix}"
        out.write_bytes(b"old")
        with pytest.raises(OutputError, match="exists already; add overwrite"):
            convert(source, out)
    (tmp_path / "bad.jsonl").write_bytes(source.read_bytes() * 2000 + b'{"file_name": ')
    before = sorted(tmp_path.iterdir())
    for suffix in TABLES:
        with pytest.raises(SourceError, match="torn"):
            convert(tmp_path / "bad.jsonl", tmp_path / f"t.{suffix}", overwrite=True)
        assert (tmp_path / f"t.{suffix}").read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == before


def test_duckdb_and_polars_read_what_is_written(tmp_path: Path) -> None:
    rows = captions()
    rows[1]["caption"] = 'say "hi",\nyou'
    source = write_rows(tmp_path / "in.jsonl", rows)
    for suffix in ("csv", "parquet", "jsonl.gz"):
        convert(source, tmp_path / f"t.{suffix}")
    code = """
import duckdb, polars
out = [duckdb.sql(f"select caption from '{path}'").fetchall() for path in sys.argv[1:]]
out.append([[x] for x in polars.read_csv(sys.argv[1])["caption"]])
out.append([[x] for x in polars.read_parquet(sys.argv[2])["caption"]])
print(json.dumps(out))
"""
    paths = (tmp_path / f"t.{suffix}" for suffix in ("csv", "parquet", "jsonl.gz"))
    assert in_subprocess(code, *paths) == [[[row["caption"]] for row in rows]] * 5
