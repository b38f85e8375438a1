"""Results files for the COCO and VQA evaluations, judged by their own readers and rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blip2cli.errors import OptionError, SourceError
from tests.convert.helpers import NAMES, answers, captions, convert, in_subprocess, write_rows

IDS = [12, 7, 33]
LOAD = """
import contextlib, io
from pycocotools.coco import COCO
with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO(sys.argv[1])
    results = truth.loadRes(sys.argv[2])
print(json.dumps([results.imgToAnns[i][0]["caption"] for i in truth.getImgIds()]))
"""


def annotations(path: Path, ids: list[int]) -> Path:
    images = [{"id": i, "file_name": name} for i, name in zip(ids, NAMES, strict=False)]
    truth = [{"image_id": i, "id": n, "caption": "x"} for n, i in enumerate(ids)]
    path.write_text(json.dumps({"images": images, "annotations": truth, "info": {}}))
    return path


def questions(path: Path, ids: list[int]) -> Path:
    questions = [{"image_id": 1, "question_id": i, "question": "?"} for i in ids]
    path.write_text(json.dumps({"questions": questions}))
    return path


def test_pycocotools_loads_the_results(tmp_path: Path) -> None:
    truth = annotations(tmp_path / "truth.json", IDS)
    source = write_rows(tmp_path / "captions.jsonl", captions())
    out = tmp_path / "results.json"
    convert(source, out, write_as="coco", annotations=str(truth))
    assert json.loads(out.read_text())[0] == {"image_id": 12, "caption": "a fort"}
    assert in_subprocess(LOAD, truth, out) == ["a fort", "two\ncows", "ein Stück"]


def test_vqa_results_have_the_ids_of_the_questions(tmp_path: Path) -> None:
    ids = [int(row["question_id"]) for row in answers()]
    truth = questions(tmp_path / "questions.json", ids)
    source = write_rows(tmp_path / "answers.jsonl", answers())
    out = tmp_path / "results.json"
    convert(source, out, write_as="vqa", annotations=str(truth))
    results = json.loads(out.read_text())
    # The rules of the VQA evaluation: a list, each id of the questions once, no others.
    assert sorted(r["question_id"] for r in results) == sorted(ids)
    assert [set(r) for r in results] == [{"question_id", "answer"}] * 6
    assert [r["answer"] for r in results] == [row["answer"] for row in answers()]


def write_map(path: Path, kind: str) -> Path:
    ids = {name: 100 + i for i, name in enumerate(NAMES)}
    if kind == "csv":
        path = path.with_suffix(".csv")
        path.write_text("file_name,id\n" + "".join(f"{n},{i}\n" for n, i in ids.items()))
    elif kind == "json":
        path.write_text(json.dumps(ids))
    else:
        # As in COCO's own files, where the folder is not part of the name.
        images = [{"file_name": Path(n).name, "id": i} for n, i in ids.items()]
        path.write_text(json.dumps({"images": images}))
    return path


@pytest.mark.parametrize("kind", ["json", "csv", "coco"])
def test_ids_come_from_a_map(kind: str, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "captions.jsonl", captions())
    ids = write_map(tmp_path / "map.json", kind)
    convert(source, tmp_path / "r.json", write_as="coco", id_map=str(ids))
    results = json.loads((tmp_path / "r.json").read_text())
    assert [r["image_id"] for r in results] == [100, 101, 102]
    write_rows(source, [captions()[0] | {"file_name": "other.jpg"}])
    with pytest.raises(SourceError, match=r"has no id for 'other.jpg'"):
        convert(source, tmp_path / "s.json", write_as="coco", id_map=str(ids))


@pytest.mark.parametrize("value", [5, "5", " 5"])
def test_ids_come_from_a_column(value: object, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "captions.jsonl", [captions()[0] | {"key": value}])
    convert(source, tmp_path / "r.json", write_as="coco", id_column="key")
    assert json.loads((tmp_path / "r.json").read_text())[0]["image_id"] == 5


@pytest.mark.parametrize("value", ["5a", "", None, 1.5, "٣"])
def test_a_column_of_other_things_is_refused(value: object, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "captions.jsonl", [captions()[0] | {"key": value}])
    with pytest.raises(SourceError, match="is no whole number"):
        convert(source, tmp_path / "r.json", write_as="coco", id_column="key")


def test_a_name_without_a_number_is_refused_with_a_remedy(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", [captions()[0] | {"file_name": "2014/cat.mp4"}])
    with pytest.raises(SourceError, match="id_column or id_map"):
        convert(source, tmp_path / "r.json", write_as="coco")


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "captions.jsonl", captions())
    truth = annotations(tmp_path / "truth.json", [*IDS, 1, 2, 3, 4])
    truth.write_text(json.dumps({"images": [{"id": i} for i in [*IDS, 1, 2, 3, 4]]}))
    with pytest.raises(SourceError, match=r"4 of the 7 image_ids .* have no row: 1, 2, 3 and 1 mo"):
        convert(source, tmp_path / "r.json", write_as="coco", annotations=str(truth))
    assert not (tmp_path / "r.json").exists()


def test_ids_without_an_annotation_are_refused(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "captions.jsonl", captions())
    truth = annotations(tmp_path / "truth.json", IDS[:2])
    with pytest.raises(SourceError, match=r"33 of 'x 33.webp' is not in annotations"):
        convert(source, tmp_path / "r.json", write_as="coco", annotations=str(truth))


def test_an_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", [*captions(), captions()[0]])
    with pytest.raises(SourceError, match="image_id 12 comes twice"):
        convert(source, tmp_path / "r.json", write_as="coco")
    common = [row | {"question_id": "1"} for row in answers()]
    with pytest.raises(SourceError, match="ids must differ between images"):
        convert(write_rows(tmp_path / "a.jsonl", common), tmp_path / "r.json", write_as="vqa")


def test_rows_without_a_caption_are_left_out_and_count_as_missing(tmp_path: Path) -> None:
    rows = captions()
    rows[1]["caption"] = None
    source = write_rows(tmp_path / "c.jsonl", rows)
    done = convert(source, tmp_path / "r.json", write_as="coco")
    assert done.notes == [f"Left out 1 without a text (failed images): {NAMES[1]}."]
    truth = annotations(tmp_path / "truth.json", IDS)
    with pytest.raises(SourceError, match=r"have no row: 7;"):
        convert(source, tmp_path / "s.json", write_as="coco", annotations=str(truth))


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("coco", answers(), "have no column caption"),
        ("vqa", captions(), "have no column answer"),
        ("llava", captions(), "have no column question"),
    ],
)
def test_rows_of_another_command_are_refused(
    kind: str, rows: list[dict[str, object]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        convert(write_rows(tmp_path / "r.jsonl", rows), tmp_path / "o.json", write_as=kind)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [{}]}', "3"])
@pytest.mark.parametrize("option", ["id_map", "annotations"])
def test_files_that_are_something_else_are_refused(option: str, text: str, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", captions())
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SourceError, match=f"{option} "):
        convert(source, tmp_path / "r.json", write_as="coco", **{option: str(tmp_path / "x.json")})
    with pytest.raises(OptionError, match=f"{option} .* cannot be read"):
        convert(source, tmp_path / "r.json", write_as="coco", **{option: str(tmp_path / "no.json")})


def test_a_conversation_has_the_image_once(tmp_path: Path) -> None:
    rows = answers()
    rows[1]["question"] = "is <image> new?"
    rows[3]["answer"] = None
    done = convert(write_rows(tmp_path / "a.jsonl", rows), tmp_path / "l.json", write_as="llava")
    assert done.notes == [f"Left out 1 without an answer: {NAMES[1]}."]
    first, second, third = json.loads((tmp_path / "l.json").read_text())
    assert first == {
        "id": "COCO_val2014_000000000012",
        "image": NAMES[0],
        "conversations": [
            {"from": "human", "value": "<image>\nis it red?"},
            {"from": "gpt", "value": "i0"},
            {"from": "human", "value": "is image new?"},
            {"from": "gpt", "value": "h0"},
        ],
    }
    assert len(second["conversations"]) == 2
    for record in (first, second, third):
        turns = [turn["value"] for turn in record["conversations"]]
        assert [turn.count("<image>") for turn in turns] == [1] + [0] * (len(turns) - 1)


def test_a_conversation_of_scattered_rows_is_refused(tmp_path: Path) -> None:
    rows = answers()
    source = write_rows(tmp_path / "a.jsonl", [*rows[::2], *rows[1::2]])
    with pytest.raises(SourceError, match="do not follow one another"):
        convert(source, tmp_path / "l.json", write_as="llava")


def test_no_rows_give_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(b"")
    with pytest.raises(SourceError, match="have no column caption"):
        convert(tmp_path / "c.jsonl", tmp_path / "r.json", write_as="coco")
    (tmp_path / "c.csv").write_text("file_name,caption\n")
    convert(tmp_path / "c.csv", tmp_path / "r.json", write_as="coco")
    assert json.loads((tmp_path / "r.json").read_text()) == []
