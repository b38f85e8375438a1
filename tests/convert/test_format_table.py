"""The table of formats and its modules."""

from __future__ import annotations

import pytest

from blip2cli.convert.format_table import FORMATS, Format, format_by_suffix


@pytest.mark.parametrize("one", FORMATS.values(), ids=list(FORMATS))
def test_a_format_is_written_and_perhaps_read_by_its_module(one: Format) -> None:
    assert callable(one.load("open_writer"))
    if one.readable:
        assert callable(one.load("open_reader"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.jsonl", "jsonl"),
        ("A.JSONL.GZ", "jsonl"),
        ("b.tar/c.tsv", "tsv"),
        ("a.json", None),
        ("folder/.csv", None),
        ("a", None),
    ],
)
def test_the_suffix_tells_the_format(path: str, name: str | None) -> None:
    found = format_by_suffix(path)
    assert (found and found.name) == name
