"""Rows and references: which belong together, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2cli.convert import convert
from blip2cli.errors import Blip2CliError, SourceError
from blip2cli.evaluate.read_references import read_references
from blip2cli.options import ConvertOptions
from tests.convert.test_parts import folder
from tests.evaluate.helpers import Row, coco, matched, vqa, write


def captions(*numbers: int) -> list[Row]:
    return [
        {"file_name": f"val/COCO_val2014_{n:012}.jpg", "caption": f"image {n}"} for n in numbers
    ]


def test_captions_meet_coco_annotations_by_the_number_in_the_name(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", captions(1, 2, 2, 9))
    against = write(tmp_path / "coco.json", coco({1: ["a", "b"], 2: ["c"], 3: ["d"]}))
    found, counts, references = matched(rows, against)
    assert found == {"1": "image 1", "2": "image 2"}
    assert references.kind == "captions"
    assert references.texts(0) == ["a", "b"]
    assert (counts.rows, counts.matched) == (4, 2)
    assert counts.doubled.first == ["2"]
    assert counts.left_over.first == ["9"]
    assert counts.missing.first == ["3"]


def test_names_of_the_annotations_win_over_numbers(tmp_path: Path) -> None:
    rows = write(tmp_path / "r.jsonl", [{"file_name": "farm/two_7.png", "caption": "x"}])
    content = coco({7: ["wrong"], 3: ["right"]})
    content["images"] = [{"id": 3, "file_name": "two_7.png"}]
    assert matched(rows, write(tmp_path / "c.json", content))[0] == {"3": "x"}


def test_answers_meet_vqa_annotations_by_question_id(tmp_path: Path) -> None:
    row = {"question": "?", "answer": "yes"}
    rows = [{"file_name": "1.jpg", "question_id": str(i), **row} for i in (10, 11, 20)]
    against = write(tmp_path / "v.json", vqa({10: ["yes"] * 10, 11: ["no"] * 10, 20: ["2"] * 10}))
    found, counts, references = matched(write(tmp_path / "r.jsonl", rows), against)
    assert found == dict.fromkeys(("10", "11", "20"), "yes")
    assert references.image_count == 2
    assert references.most_texts == 10
    assert references.columns["answer_type"].to_pylist() == ["other"] * 3
    assert not counts.missing.count
    assert not counts.doubled.count


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl.gz"])
def test_tables_of_labels(tmp_path: Path, form: str) -> None:
    labels = [
        {"file_name": "./a.jpg", "question": "what is it?", "answer": "cat"},
        {"file_name": "a.jpg", "question": "what is it?", "answer": "kitten"},
        {"file_name": "b.jpg", "question": "how many?", "answer": "2"},
        {"file_name": "b.jpg", "question": "which?", "answer": None},
    ]
    source = write(tmp_path / "labels.jsonl", labels)
    against = tmp_path / f"l.{form}"
    convert(ConvertOptions((str(source),), str(against)))
    asked = [("a", "what is it? "), ("b", "how many?"), ("b", "which?")]
    rows = [
        {"file_name": f"{n}.jpg", "question": q, "question_id": "1", "answer": "x"}
        for n, q in asked
    ]
    found, counts, references = matched(write(tmp_path / "r.jsonl", rows), against)
    assert set(found) == {"a.jpg\0what is it?", "b.jpg\0how many?"}
    assert references.texts(0) == ["cat", "kitten"]
    assert counts.left_over.first == ["b.jpg: which?"]
    assert len(references.notes) == 1
    assert "1 rows" in references.notes[0]


def test_texts_that_are_no_texts_in_any_order(tmp_path: Path) -> None:
    labels = [("a", True), ("b", 2.0), ("a", False), ("b", 2.5)]
    table = [{"file_name": f"{name}.jpg", "label": [value]} for name, value in labels]
    bools, numbers = table[::2], table[1::2]
    found = read_references(str(write(tmp_path / "l.jsonl", bools)))
    assert found.texts(0) == ["yes", "no"]
    found = read_references(str(write(tmp_path / "l.jsonl", numbers)))
    assert found.texts(0) == ["2", "2.5"]
    names = [{"file_name": f"{name}.jpg", "label": str(n)} for n, (name, _) in enumerate(labels)]
    found = read_references(str(write(tmp_path / "l.jsonl", names)))
    assert [found.texts(0), found.texts(1)] == [["0", "2"], ["1", "3"]]


def test_questions_are_known_by_their_text_where_an_id_is_missing(tmp_path: Path) -> None:
    base = {"file_name": "a.jpg", "answer": "x"}
    labels = [base | {"question": q, "question_id": i} for q, i in (("p", "1"), ("q", None))]
    against = write(tmp_path / "l.jsonl", labels)
    rows = write(tmp_path / "r.jsonl", [base | {"question": "q", "question_id": "1"}])
    assert matched(rows, against)[0] == {"a.jpg\0q": "x"}


def test_images_are_in_the_order_of_the_annotations_list_of_them(tmp_path: Path) -> None:
    content = coco({1: ["a"], 2: ["b"]})
    content["images"] = content["images"][::-1]
    references = read_references(str(write(tmp_path / "c.json", content)))
    assert references.keys.to_pylist() == ["2", "1"]
    assert references.texts(0) == ["b"]


def test_lists_of_texts_and_folders_in_names(tmp_path: Path) -> None:
    against = write(tmp_path / "l.jsonl", [{"file_name": "a.jpg", "captions": ["one", "two"]}])
    rows = write(tmp_path / "r.jsonl", [{"file_name": "deep/a.jpg", "caption": "x"}])
    found, _, references = matched(rows, against)
    assert found == {"a.jpg": "x"}
    assert references.texts(0) == ["one", "two"]


def test_failed_null_and_abstained_rows_have_their_place(tmp_path: Path) -> None:
    against = write(
        tmp_path / "l.jsonl",
        [{"file_name": f"{n}.jpg", "question": "q", "answer": "yes"} for n in range(6)],
    )
    base: Row = {"question": "q", "question_id": "1", "flag": "", "error": ""}
    rows = write(tmp_path / "r.jsonl", [
        {**base, "file_name": "0.jpg", "answer": "yes"},
        {**base, "file_name": "1.jpg", "answer": None},
        {**base, "file_name": "2.jpg", "answer": None, "flag": "abstained"},
        {"file_name": "3.jpg", "question": None, "question_id": None, "answer": None,
         "flag": None, "error": "truncated"},
    ])  # fmt: skip
    failure = {"file_name": "4.jpg", "error_type": "truncated", "message": "it is"}
    write(tmp_path / "r.jsonl.errors", [failure])
    found, counts, _ = matched(rows, against, ["confidence"])
    assert found == {f"{n}.jpg\0q": "yes" if n == 0 else "" for n in range(5)}
    assert (counts.null, counts.abstained, counts.failed) == (1, 1, 2)
    assert counts.missing.first == ["5.jpg: q"]


def test_results_files_of_the_evaluations_are_rows(tmp_path: Path) -> None:
    rows = write(tmp_path / "res.json", [{"image_id": 3, "caption": "x"}])
    against = write(tmp_path / "c.json", coco({3: ["y"]}))
    assert matched(rows, against)[0] == {"3": "x"}


def test_ids_of_a_map_or_a_column(tmp_path: Path) -> None:
    against = write(tmp_path / "c.json", coco({3: ["y"], 4: ["z"]}))
    rows = write(tmp_path / "r.jsonl", [{"file_name": "a.jpg", "caption": "x", "number": 4}])
    ids = write(tmp_path / "ids.json", {"a.jpg": 3})
    assert matched(rows, against, id_map=str(ids))[0] == {"3": "x"}
    assert matched(rows, against, id_column="number")[0] == {"4": "x"}


def test_a_later_row_of_another_type_is_read(tmp_path: Path) -> None:
    numbers = range(20_000)
    rows = [{"file_name": f"{n}.jpg", "caption": "x", "k": n} for n in numbers]
    rows += [{"file_name": "z.jpg", "caption": "y", "k": "text"}]
    against = write(
        tmp_path / "l.jsonl", [{"file_name": f"{n}.jpg", "text": "t"} for n in [*numbers, "z"]]
    )
    found, counts, _ = matched(write(tmp_path / "r.jsonl", rows), against)
    assert len(found) == 20_001
    assert counts.rows == 20_001


@pytest.mark.parametrize(
    ("rows", "against", "says"),
    [
        ([{"file_name": "a1.jpg", "caption": "x"}], coco({5: ["y"]}), "No row"),
        ([{"file_name": "a1.jpg", "caption": None, "error": "x"}], coco({5: ["y"]}), "about a1"),
        ([{"file_name": "a1.jpg", "text": "x"}], coco({1: ["y"]}), "no column caption"),
        ([{"file_name": "a1.jpg", "caption": "x"}], vqa({1: ["y"]}), "no column question_id"),
        (
            [{"file_name": "a1.jpg", "caption": "x"}],
            [{"image_id": 1, "caption": "y"}],
            "file of results",
        ),
        ([{"file_name": "a1.jpg", "caption": "x"}], {"a": 1}, "holds no captions"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    tmp_path: Path, rows: list[Row], against: Row, says: str
) -> None:
    files = write(tmp_path / "r.jsonl", rows), write(tmp_path / "c.json", against)
    with pytest.raises(Blip2CliError, match=says):
        matched(*files)


def test_annotations_in_the_place_of_rows_are_noticed(tmp_path: Path) -> None:
    against = write(tmp_path / "c.json", coco({1: ["y"]}))
    with pytest.raises(SourceError, match="holds annotations"):
        matched(against, against)


def test_two_answers_of_one_question_id_are_said(tmp_path: Path) -> None:
    content = vqa({1: ["a"] * 10})
    content["annotations"] *= 2
    references = read_references(str(write(tmp_path / "v.json", content)))
    assert references.most_texts == 10
    assert "come again" in references.notes[0]


@pytest.mark.parametrize("form", ["jsonl.gz", "parquet", "csv"])
def test_rows_in_every_form_of_an_output(tmp_path: Path, form: str) -> None:
    against = write(tmp_path / "coco.json", coco({n: ["a"] for n in range(1, 6)}))
    source = write(tmp_path / "source.jsonl", captions(1, 2, 3, 4, 5))
    out = tmp_path / f"rows.{form}"
    convert(ConvertOptions((str(source),), str(out)))
    assert matched(out, against)[0] == {str(n): f"image {n}" for n in range(1, 6)}


@pytest.mark.parametrize("finished", [True, False])
def test_folders_of_parts_and_their_failures(tmp_path: Path, finished: bool) -> None:
    out = folder(tmp_path, 25, finished)
    found = 25 if finished else 20
    write(tmp_path / "out.errors", [{"file_name": "bad.png", "error_type": "x", "message": ""}])
    names = [*(f"{n:04d}.png" for n in range(25)), "bad.png"]
    table = [{"file_name": name, "caption": "x"} for name in names]
    texts, counts, _ = matched(out, write(tmp_path / "r.jsonl", table))
    assert len(texts) == found + 1
    assert counts.failed == 1
