"""Texts to be embedded, from the command line and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2cli.errors import OptionError
from blip2cli.tasks.texts import Texts, from_file, from_lines

CATS = ("two cats", "a dog, asleep", "“drei Vögel”")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "two cats\na dog, asleep\r\n\n  \n“drei Vögel”"),
        ("t.TXT", "\ufefftwo cats\na dog, asleep\n“drei Vögel”\n"),
        (
            "t.jsonl",
            '{"text": "two cats"}\n\n{"text": "a dog, asleep", "id": 3}\n{"text": "“drei Vögel”"}',
        ),
        ("t.csv", 'id,text\n1,two cats\n2,"a dog, asleep"\n3,“drei Vögel”\n'),
        ("t.csv", "id;caption\n1;two cats\n2;a dog, asleep\n3;“drei Vögel”\n"),
        (
            "captions.jsonl",
            (
                '{"file_name": "a", "caption": "two cats"}\n{"caption": "a dog, asleep"}\n'
                '{"caption": "“drei Vögel”", "text": null}\n'
            ),
        ),
        ("t.tsv", "text\tid\ntwo cats\t1\na dog, asleep\t2\n“drei Vögel”\t3\n"),
    ],
)
def test_texts_of_a_file(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8", newline="")
    assert from_file(str(file)) == Texts(CATS, str(file))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"", "holds no text; write one a line"),
        ("t.jsonl", b'{"text": "a"}\n{"caption": "b"}\n', "line 2: text is missing or empty"),
        ("t.jsonl", b'{"text": 7}\n', "line 1: text is no text"),
        ("t.jsonl", b'{"text": " "}\n', "line 1: text is no text"),
        ("t.jsonl", b"two cats\n", "line 1: not JSON"),
        ("t.csv", b"title\na cat\n", "line 2: there is no column text, caption or answer; it has"),
        ("t.csv", b"caption,id\n,1\n", "line 2: caption is missing or empty; leave such rows out"),
        ("t.csv", b"text,id\na cat\n", "line 2: 1 cells for 2 columns"),
        ("t.txt", b"a\nb\xff\n", "line 2: this is not UTF-8; save the file as UTF-8"),
        ("t.json", b"", "give a .txt file with one text a line, or a .jsonl, .csv or .tsv table"),
        ("none.txt", None, "there is no such file"),
    ],
)
def test_a_file_without_texts_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OptionError) as caught:
        from_file(str(tmp_path / name))
    assert message in str(caught.value)
    assert str(caught.value).startswith("texts")
    assert name in str(caught.value)


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(OptionError, match="A text given with text is empty"):
        from_lines(["a", " "])
    with pytest.raises(OptionError, match="is not UTF-8"):
        from_lines(["a\udcff"])
    assert from_lines(CATS) == Texts(CATS)
    assert not from_lines([])


def test_settings_differ_between_texts(tmp_path: Path) -> None:
    assert Texts().settings == {}
    assert from_lines(CATS).settings == {"text": list(CATS)}
    values = set()
    for content in ("a\nb\n", "a\nc\n", "a b\n", "b\na\n"):
        (tmp_path / "t.txt").write_text(content)
        (value,) = from_file(str(tmp_path / "t.txt")).settings.values()
        values.add(value)
    assert len(values) == 4
    (tmp_path / "other.txt").write_text("b\n\na\n")  # the name and blank lines make no difference
    assert from_file(str(tmp_path / "other.txt")).settings["texts"] in values
