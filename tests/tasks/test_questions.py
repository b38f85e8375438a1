"""Questions from the command line, text files and tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blip2cli.errors import OptionError
from blip2cli.storage.text_encoding import to_json
from blip2cli.tasks.questions import Question, check_names, from_file, from_texts


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_questions_from_the_command_line_are_numbered_from_one() -> None:
    questions = from_texts([" is it red? ", "what is it?"])
    assert questions.of("any.jpg") == (Question("is it red?", "1"), Question("what is it?", "2"))
    assert questions.per_image is None
    assert len(questions) == 2


def test_an_empty_question_is_refused() -> None:
    with pytest.raises(OptionError, match="empty"):
        from_texts(["what?", "  "])


def test_a_text_file_holds_one_question_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, "q.txt", "\ufeffwhat is it?\r\n\r\n  how many?\n")
    assert from_file(path).of("x") == (Question("what is it?", "1"), Question("how many?", "2"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "q.jsonl",
            (
                '{"file_name": "a.png", "question": "one?"}\n\n'
                '{"file_name": "b/c.png", "question": "two?", "question_id": 17}\n'
                '{"file_name": "./a.png", "question": "three?", "question_id": "x"}\n'
            ),
        ),
        (
            "q.csv",
            "question_id,file_name,question\n,a.png,one?\n17,b/c.png,two?\nx,./a.png,three?\n",
        ),
        (
            "q.TSV",
            (
                "file_name\tquestion\tquestion_id\na.png\tone?\t\nb/c.png\ttwo?\t17\n"
                "a.png\tthree?\tx\n"
            ),
        ),
    ],
)
def test_a_table_asks_each_image_its_own(tmp_path: Path, name: str, content: str) -> None:
    questions = from_file(written(tmp_path, name, content))
    assert questions.of("a.png") == (Question("one?", "1"), Question("three?", "x"))
    assert questions.of("b/c.png") == (Question("two?", "17"),)
    assert questions.of("d.png") == ()
    assert questions.per_image is not None
    assert list(questions.per_image) == ["a.png", "b/c.png"]
    assert len(questions) == 3


def test_a_quoted_csv_field_may_hold_commas_and_newlines(tmp_path: Path) -> None:
    path = written(tmp_path, "q.csv", 'file_name,question\n"a,b.png","red,\nor blue?"\n')
    assert from_file(path).of("a,b.png") == (Question("red,\nor blue?", "1"),)


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("q.jsonl", '{"file_name": "a", "question": "b"}\n{"file_name": ', 2, "not JSON"),
        ("q.jsonl", '["a", "b"]\n', 1, "expected an object"),
        ("q.jsonl", '\n\n{"question": "b"}\n', 3, "file_name is missing"),
        ("q.jsonl", '{"file_name": "a", "question": ""}\n', 1, "question is empty"),
        ("q.jsonl", '{"file_name": "a", "question": 3}\n', 1, "question is no text"),
        ("q.jsonl", '{"file_name": "a", "question": "b", "question_id": true}', 1, "question_id"),
        ("q.jsonl", '{"file_name": "a", "question": "b", "question_id": 1.5}', 1, "question_id"),
        (
            "q.jsonl",
            (
                '{"file_name":"a","question":"b","question_id":1}\n'
                '{"file_name":"a","question":"c","question_id":"1"}\n'
            ),
            2,
            "twice",
        ),
        ("q.csv", "name,question\na,b\n", 1, "no column 'file_name'"),
        ("q.csv", "file_name,text\na,b\n", 1, "no column 'question'"),
        ("q.csv", "", 1, "no column"),
        ("q.csv", "file_name,question\na,b\nc,is it red, or blue?\n", 3, "2 columns"),
        ("q.csv", "file_name,question\na\n", 2, "2 columns"),
        ("q.csv", 'file_name,question\na,"b\n', 2, "a quote that is never closed"),
        ("q.tsv", "file_name\tquestion\na\t \n", 2, "question"),
        ("q.txt", b"fine?\n\xff\xfe?\n", 2, "not UTF-8"),
        ("q.jsonl", b'{"file_name": "a", "question": "\xff"}\n', 1, "not UTF-8"),
    ],
)
def test_a_malformed_line_is_named(
    tmp_path: Path, name: str, content: str | bytes, line: int, message: str
) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(OptionError) as caught:
        from_file(path)
    assert path in str(caught.value)
    assert f", line {line}:" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"), [("q.txt", "\n \n"), ("q.jsonl", ""), ("q.csv", "file_name,question\n")]
)
def test_a_file_without_questions_is_refused(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(OptionError, match="holds no question"):
        from_file(written(tmp_path, name, content))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such file"):
        from_file(str(tmp_path / "none.txt"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(OptionError, match="cannot be read"):
        from_file(str(tmp_path / "folder.txt"))
    with pytest.raises(OptionError, match=r"give a \.txt"):
        from_file(written(tmp_path, "questions.xlsx", "x"))


def test_names_the_source_lacks_are_listed_and_counted() -> None:
    check_names(["a", "b"], iter(["b", "x", "a"]))
    with pytest.raises(OptionError, match=r"1 image that .* \(b\)"):
        check_names(["a", "b"], iter(["a"]))
    many = [f"{n}.png" for n in range(7)]
    with pytest.raises(OptionError, match=r"7 images .* \(0.png, 1.png, 2.png, 3.png, 4.png, …\)"):
        check_names(many, iter(()))


def test_the_listing_is_read_no_further_than_needed() -> None:
    listing = iter(["a", "b", "c"])
    check_names(["a"], listing)
    assert list(listing) == ["b", "c"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a.png", "b/c.png", "dé.png"]), st.text(min_size=1)),
        min_size=1,
    )
)
def test_jsonl_gives_back_every_question(pairs: list[tuple[str, str]]) -> None:
    import tempfile

    pairs = [(name, text) for name, text in pairs if text.strip() and text.isprintable()]
    if not pairs:
        return
    lines = [json.dumps({"file_name": name, "question": text}) for name, text in pairs]
    with tempfile.TemporaryDirectory() as folder:
        questions = from_file(written(Path(folder), "q.jsonl", "\n".join(lines)))
    for name in {name for name, _ in pairs}:
        expected = [text.strip() for other, text in pairs if other == name]
        assert [question.text for question in questions.of(name)] == expected


def test_numbers_as_pandas_writes_them(tmp_path: Path) -> None:
    row = '{"file_name": "a", "question": "b?", "choices": NaN, "question_id": '
    (tmp_path / "q.jsonl").write_text(f"{row}17.0}}\n{row}NaN}}\n")
    asked = from_file(str(tmp_path / "q.jsonl")).of("a")
    assert [question.question_id for question in asked] == ["17", "2"]
    assert [question.choices for question in asked] == [(), ()]


def test_names_that_are_not_utf_8_as_rows_hold_them(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_bytes(to_json({"file_name": "\udce9", "question": "b?"}))
    assert from_file(str(tmp_path / "q.jsonl")).of("\udce9")
