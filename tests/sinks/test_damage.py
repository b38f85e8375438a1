"""Damaged outputs: refused or run again, and no sound row is lost."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blip2cli.errors import OutputError
from blip2cli.options import OutputOptions
from blip2cli.sinks import Sink, check_whole, jsonl, open_sink, read_output
from blip2cli.sinks.journal import Journal
from blip2cli.sinks.paths import OutputPaths
from tests.sinks.helpers import COLUMNS, SETTINGS, read, row


def journal_of(out: Path, per_image: int = 1) -> Journal:
    resumed = read_output(OutputOptions(str(out), resume=True), lambda name: per_image)
    assert resumed is not None
    check_whole(resumed.paths.final, resumed.rows)
    return resumed.rows


def appending(out: Path) -> Sink:
    options = OutputOptions(str(out), resume=True)
    return open_sink(options, COLUMNS, SETTINGS, None, journal_of(out))  # type: ignore[arg-type]


def write(out: Path, count: int = 40, per_image: int = 1) -> None:
    """Rows in batches of four images, each a gzip member or a part of its own."""
    sink = open_sink(OutputOptions(str(out)), COLUMNS, SETTINGS, None)  # type: ignore[arg-type]
    for first in range(0, count, 4):
        sink.write([row(n) for n in range(first, first + 4) for _ in range(per_image)])
        sink.commit()
    sink.abort()


NOT_ROWS = {
    "another object": b'{"file_name": "0007.png"}\n',
    "a flipped bit": json.dumps(row(7)).replace('"width"', '"wiDth"').encode() + b"\n",
    "not UTF-8": json.dumps(row(7)).encode().replace(b"caption 7", b"capt\xfeon 7") + b"\n",
    "cut and closed": b'{"file_name": "0007.png", "width": 17, "hei}\n',
    "a hole": b'{"file_name": "0007.png", "wid' + b"\0" * 40 + b"7}\n",
    "an empty line": b"\n",
}


@pytest.mark.parametrize("line", NOT_ROWS.values(), ids=NOT_ROWS)
def test_a_line_that_is_no_row_is_refused_and_nothing_is_cut(tmp_path: Path, line: bytes) -> None:
    out = tmp_path / "out.jsonl"
    write(out)
    lines = out.read_bytes().splitlines(keepends=True)
    lines[7] = line
    out.write_bytes(b"".join(lines))
    before = out.read_bytes()
    with pytest.raises(OutputError, match="sound up to row 7; 'blip2cli verify") as refused:
        appending(out)
    assert "overwrite" not in str(refused.value)
    assert out.read_bytes() == before


def test_only_what_a_crash_leaves_is_cut_off_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write(out)
    whole = out.read_bytes()
    for torn in (b'{"file_na', b'{"file_name": "x', b"\0" * 5000, b'{"fi\0\0\0', b'{"f\0\0\0"}\n'):
        out.write_bytes(whole + torn)
        journal = journal_of(out)
        assert len(journal.done) == 40
        journal.complete()
        assert out.read_bytes() == whole
    for foreign in (b"a note", b'{"file_name": "x"}\n', b"\n", b'{"f\0"}\n{"f'):
        out.write_bytes(whole + foreign)
        if foreign.endswith(b'{"f'):  # a hole, and what was written behind it
            assert len(journal_of(out).done) == 40
            continue
        with pytest.raises(OutputError, match="line 41, at byte"):
            journal_of(out)
        assert out.read_bytes() == whole + foreign


def damages(data: bytes) -> dict[str, bytes]:
    """The file with a flipped bit, a hole, a shortened member, and with its end damaged."""
    third = data.index(b"\x1f\x8b", len(data) // 3)
    flipped = bytearray(data)
    flipped[third + 40] ^= 16
    last = bytearray(data)
    last[-12] ^= 1
    return {
        "a flipped bit": bytes(flipped),
        "a hole": data[: third + 30] + b"\0" * 25 + data[third + 55 :],
        "a shortened member": data[: third + 60] + data[third + 75 :],
        "garbage at the end": data + b"garbage",
        "the last member": bytes(last),
    }


@pytest.mark.parametrize("which", damages(b"\x1f\x8b" * 200))
def test_damaged_gzip_members_are_run_again_and_all_others_stay(tmp_path: Path, which: str) -> None:
    out = tmp_path / "out.jsonl.gz"
    write(out)
    out.write_bytes(damages(out.read_bytes())[which])
    journal = journal_of(out)
    lost = 0 if which == "garbage at the end" else 4
    assert len(journal.done) == 40 - lost
    assert journal.remark is not None
    assert "is damaged behind row" in journal.remark
    sink = appending(out)
    sink.write([row(n) for n in range(40) if f"{n:04d}.png" not in journal.done])
    sink.close()
    assert sorted(read(out), key=lambda r: r["file_name"]) == [row(n) for n in range(40)]
    assert journal_of(out).remark is None


def test_a_gzip_file_without_a_sound_member_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl.gz"
    data = bytearray(gzip.compress(b"".join(json.dumps(row(n)).encode() for n in range(9))))
    data[60] ^= 1
    out.write_bytes(data)
    with pytest.raises(OutputError, match="none of its gzip members is what was written"):
        journal_of(out)
    assert out.read_bytes() == data


def test_one_damaged_byte_costs_few_rows() -> None:
    assert jsonl.MEMBER_BYTES <= 1 << 16


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
def test_an_image_that_lost_a_row_is_noticed(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    write(out, per_image=2)
    assert len(journal_of(out, 2).done) == 40
    if suffix == "jsonl":
        lines = out.read_bytes().splitlines(keepends=True)
        out.write_bytes(b"".join(lines[:11] + lines[12:]))
        with pytest.raises(OutputError, match=r"'0005.png' has not all its rows"):
            journal_of(out, 2)
    with pytest.raises(OutputError, match="has not all its rows"):
        journal_of(out, 3)


@pytest.mark.parametrize("missing", [0, 3, 9])
def test_the_images_of_a_missing_part_are_run_again(tmp_path: Path, missing: int) -> None:
    out = tmp_path / "out.parquet"
    write(out)
    paths = OutputPaths.of(str(out))
    Path(paths.part(missing)).unlink()
    with pytest.raises(OutputError, match="An unfinished run left rows"):
        open_sink(OutputOptions(str(out)), COLUMNS, SETTINGS, None)  # type: ignore[arg-type]
    journal = journal_of(out)
    assert len(journal.done) == 36
    if missing < 9:  # nothing tells of the last one
        assert journal.remark is not None
        assert f"-00000{missing}', a part of this output, is missing" in journal.remark
    sink = appending(out)
    for number in range(40):
        if f"{number:04d}.png" not in journal.done:
            sink.write([row(number)])
            sink.commit()
    sink.close()
    assert sorted(read(out), key=lambda r: r["file_name"]) == [row(n) for n in range(40)]


def test_parts_without_the_first_are_left_over_only_if_their_rows_are_in_the_output(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out.parquet"
    write(out, 8)
    sink = appending(out)
    sink.close()
    write_more = appending(out)
    write_more.write([row(n) for n in range(8, 12)])
    write_more.abort()
    paths = OutputPaths.of(str(out))
    Path(paths.part(0)).unlink()
    with pytest.raises(OutputError, match=r"-000000' is missing, and .* holds other rows"):
        journal_of(out)


def test_a_damaged_part_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    write(out)
    part = Path(OutputPaths.of(str(out)).part(3))
    data = bytearray(part.read_bytes())
    data[60] ^= 4  # in the names
    part.write_bytes(data)
    with pytest.raises(OutputError, match=r"part-000003' cannot be read .* sound up to row"):
        journal_of(out)


def test_a_damaged_column_is_noticed_by_a_run_with_nothing_to_add(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    write(out)
    appending(out).close()
    with pq.ParquetFile(out) as file:
        captions = file.metadata.row_group(0).column(3)
    data = bytearray(out.read_bytes())
    data[captions.data_page_offset + captions.total_compressed_size - 9] ^= 4
    out.write_bytes(data)
    with pytest.raises(OutputError, match="cannot be read as rows of this tool"):
        journal_of(out)


def test_a_power_cut_leaves_nul_bytes_at_any_place_of_a_gzip_file(tmp_path: Path) -> None:
    """The member in work has no end: a batch is flushed, and the next goes on in it."""
    out = tmp_path / "out.jsonl.gz"
    sink = open_sink(OutputOptions(str(out)), COLUMNS, SETTINGS, None)  # type: ignore[arg-type]
    for first in range(0, 80, 4):
        sink.write([row(n) for n in range(first, first + 4)])
    sink.abort()
    whole = out.read_bytes()
    rows = gzip.GzipFile(fileobj=io.BytesIO(whole)).read1(1 << 20)
    for place in range(40, len(whole), 3):
        out.write_bytes(whole[:place] + bytes(len(whole) - place))
        journal = journal_of(out)
        journal.complete()
        left = gzip.decompress(out.read_bytes())
        assert rows.startswith(left)
        assert left.count(b"\n") == journal.rows
    assert journal.rows > 70
