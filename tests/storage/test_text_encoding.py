from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blip2cli.storage.text_encoding import from_utf8, printable, to_json, to_utf8
from tests.strategies import ANY_TEXT

# Text made to be mistaken for an escape.
TRICKY = st.lists(
    st.sampled_from(["\\", "u", "udc80", "udcff", "uDCFF", "u005c", "u005C", "\udcff", "d", "x"])
).map("".join)


@given(st.one_of(ANY_TEXT, TRICKY))
@example('line\nbreak \0 \u2028 \u202eright to left 👩‍👩‍👧 "quoted" \\')
def test_json_gives_back_the_same_text(text: str) -> None:
    line = to_json({"text": text})
    assert b"\n" not in line
    assert from_utf8(json.loads(line.decode("utf-8"))["text"]) == text


def test_json_is_readable() -> None:
    assert to_json("café 猫 🐈") == '"café 猫 🐈"'.encode()
    assert to_json("caf\udce9") == b'"caf\\\\udce9"'
    assert to_json(["\\udce9"]) == b'["\\\\u005cudce9"]'


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_read_back_exactly(number: float) -> None:
    assert json.loads(to_json(number)) == number


def test_not_a_number_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json(float("nan"))


@given(st.one_of(ANY_TEXT, TRICKY, st.text(st.characters(categories=("Cs",)))))
def test_the_utf8_form_is_reversible(text: str) -> None:
    stored = to_utf8(text)
    assert stored.encode("utf-8").decode("utf-8") == stored
    assert from_utf8(stored) == text


@given(st.text(st.characters(exclude_categories=("Cs",))).filter(lambda text: "\\u" not in text))
def test_ordinary_text_is_stored_unchanged(text: str) -> None:
    assert to_utf8(text) == text


def test_the_forms_in_the_documentation() -> None:
    assert to_utf8("caf\udce9.png") == "caf\\udce9.png"
    assert to_utf8("C:\\users\\x") == "C:\\users\\x"
    assert to_utf8("\\udce9") == "\\u005cudce9"


def test_control_characters_and_undecodable_bytes_become_escapes() -> None:
    assert printable("a\nb\x1b[2J\udcff") == "a\\nb\\x1b[2J\\udcff"
    assert printable("naïve 日本 'x'") == "naïve 日本 'x'"
