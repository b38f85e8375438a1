"""Rows that are parsed together are those that are parsed one by one."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blip2cli.sinks.jsonl_rows import RowParser
from blip2cli.storage.hash_set import occurrence_key
from blip2cli.storage.text_encoding import to_json
from tests.strategies import ANY_TEXT

_VALUES = st.one_of(
    ANY_TEXT,
    st.none(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    st.lists(st.fixed_dictionaries({"choice": ANY_TEXT}), max_size=2),
)
_KINDS = {"file_name": ANY_TEXT, "occurrence": st.one_of(st.integers(0, 3), _VALUES)}
_COLUMNS = st.lists(ANY_TEXT, max_size=3, unique=True)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Rows as they are written, some of them damaged."""
    columns = ["file_name", *draw(_COLUMNS.filter(lambda names: "file_name" not in names))]
    columns.insert(draw(st.integers(1, 9)), draw(st.sampled_from(("x", "occurrence"))))
    rows = [
        {name: draw(_KINDS.get(name, _VALUES)) for name in columns}
        for _ in range(draw(st.integers(1, 4)))
    ]
    data = bytearray(b"".join(to_json(row) + b"\n" for row in rows))
    for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
        place = draw(st.integers(0, len(data) - 1))
        piece = draw(st.sampled_from((b'"', b"\n", b"\\", b"\0", b'}\n{"file_name": "x"', b"")))
        data[place : place + draw(st.integers(0, 2))] = piece or bytes([data[place] ^ 32])
    return bytes(data)


@given(blocks())
@example(b'{"file_name": "a\\ub"}\n')  # no escape: a bit of a tab was flipped
@example(b'{"file_name": "a"}\n{"file_name": "b\n"}\n')
@example(b'{"file_name": "a"}\n {"file_name": "b"}\n')
def test_keys_found_together_are_those_found_one_by_one(block: bytes) -> None:
    lines = [line + b"\n" for line in block.split(b"\n")[:-1]]
    if not lines:
        return
    parser = RowParser(lines[0])
    single = [parser.key(line) for line in lines]
    together = parser.keys(block)
    assert together in (None, single)
    if not block.endswith(b"\n") or None in single:
        assert together is None


@pytest.mark.parametrize("name", ["a.png", 'a "quoted" \t.png', "Käfer.png", "caf\udce9.png"])
def test_rows_as_they_are_written_are_found_together(name: str) -> None:
    row = {"file_name": name, "width": 3, "caption": "a\nb", "logprob": -1e-7, "v": [1.5, None]}
    block = to_json(row) + b"\n" + to_json(row | {"caption": None}) + b"\n"
    assert RowParser(to_json(row)).keys(block) == [name, name]
    numbered = [row | {"occurrence": number} for number in (1, 2)]
    block = b"".join(to_json(one) + b"\n" for one in numbered)
    parser = RowParser(to_json(numbered[0]))
    assert parser.keys(block) == [name, occurrence_key(name, 2)]
    assert parser.key(to_json(numbered[1]) + b"\n") == occurrence_key(name, 2)
    # As pandas writes whole numbers of a column with nulls.
    assert parser.key(to_json(row | {"occurrence": 2.0}) + b"\n") == occurrence_key(name, 2)


def test_rows_of_other_columns_are_none() -> None:
    parser = RowParser(b'{"file_name": "a", "width": 1}\n')
    assert parser.key(b'{"width": 1, "file_name": "a"}\n') is None
    assert parser.key(json.dumps({"file_name": "b", "width": [{}]}).encode() + b"\n") == "b"
