from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from blip2cli.cli.terminal.row_table import TableSink


def table(names: list[str], *batches: list[dict[str, object]], columns: int = 80) -> list[str]:
    stream = io.StringIO()
    sink = TableSink(names, stream, contextlib.nullcontext)
    for batch in batches:
        sink.write(batch)
    sink.commit()
    sink.close()
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def caption(name: str, text: str | None, **more: object) -> dict[str, object]:
    return {"file_name": name, "caption": text, "logprob": -0.25, **more}


def test_batches_share_one_header_and_their_columns() -> None:
    lines = table(
        ["caption", "logprob"],
        [caption("a.png", "a cat")],
        [caption("b.png", "two dogs and a cow")],
    )
    assert len(lines) >= 3
    assert lines[0].split() == ["file_name", "caption", "logprob"]
    assert lines[1].split() == ["a.png", "a", "cat", "-0.250"]
    start = lines[0].index("caption")
    assert lines[1].index("a cat") == start
    assert lines[2][start:].startswith("two")


def test_no_line_is_wider_than_the_terminal() -> None:
    rows = [caption("folder/" * 12 + "x.png", "a very long caption " * 9)]
    for line in table(["caption", "logprob"], rows):
        assert len(line) <= 80


def test_brackets_are_text_and_control_characters_are_shown() -> None:
    lines = table(["caption", "logprob"], [caption("[red]x[/red].png", "bell \x07 [bold]")])
    assert "[red]x[/red].png" in lines[1]
    assert "bell \\x07 [bold]" in lines[1]


def test_vectors_are_cut_and_candidates_listed() -> None:
    row = {"file_name": "a", "embedding": [0.5, -1.0, 2.0, 3.0, 4.0], "kind": "image"}
    assert "[0.500, -1.000, 2.000, 3.000, …] × 5" in table(["embedding", "kind"], [row])[1]
    several = [{"text": "one", "logprob": -0.5}, {"text": "two", "logprob": -1.0}]
    lines = table(
        ["caption", "logprob", "candidates"], [caption("a.png", "one", candidates=several)]
    )
    assert lines[1].endswith("one (-0.50)")
    assert lines[2].strip() == "two (-1.00)"


def test_probabilities_are_listed_the_likeliest_first_and_cut() -> None:
    listed = [{"choice": f"c{n}", "probability": n / 15} for n in range(6)]
    row = caption("a.png", "c5", probabilities=listed)
    lines = [line.split() for line in table(["caption", "probabilities"], [row])[1:]]
    assert [line[-2:] for line in lines[:4]] == [
        ["c5", "0.333"],
        ["c4", "0.267"],
        ["c3", "0.200"],
        ["c2", "0.133"],
    ]
    assert lines[4] == ["…"]


def test_a_flag_stands_behind_its_text() -> None:
    rows = [caption("a.png", "no no no no", flag="repetition"), caption("b.png", "a cat", flag="")]
    lines = table(["caption", "logprob", "flag"], rows)
    assert lines[0].split() == ["file_name", "caption", "logprob"]
    assert "no no no no (repetition)" in lines[1]
    assert lines[2].split() == ["b.png", "a", "cat", "-0.250"]


def test_rows_of_texts_begin_with_the_text() -> None:
    stream = io.StringIO()
    sink = TableSink(["text", "embedding", "kind"], stream, contextlib.nullcontext, "text")
    sink.write([{"text": "two cats", "embedding": [0.5] * 9, "kind": "projection"}])
    header, line = (line.rstrip() for line in stream.getvalue().splitlines())
    assert header.split() == ["text", "embedding"]
    assert line.startswith("two cats")
    assert line.endswith("[0.500, 0.500, 0.500, 0.500, …] × 9")


def test_an_error_has_a_column_of_its_own() -> None:
    lines = table(["caption", "logprob", "error"], [caption("a.png", None, error="truncated: x")])
    assert lines[0].split()[-1] == "error"
    assert lines[1].endswith("truncated: x")


def test_nothing_is_printed_for_no_rows(tmp_path: Path) -> None:
    assert table(["caption"], []) == []
