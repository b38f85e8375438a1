"""``blip2cli eval``: what it prints, and what it says of rows and references that do not fit."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.helpers import Row, coco, json_of, printed_by, vqa, write

WORDS = tuple("abcdefghijklmn")

evaluated, said = partial(json_of, "eval"), partial(printed_by, "eval")


def sentence(source: np.random.Generator) -> str:
    return " ".join(source.choice(WORDS, 7))


def captions(folder: Path, images: int = 60) -> tuple[Path, Path]:
    source = np.random.default_rng(0)
    texts = {n: [sentence(source) for _ in range(3)] for n in range(1, images + 1)}
    rows = [
        {
            "file_name": f"{n}.jpg",
            "caption": found[0] if n % 2 else sentence(source),
            "flag": "empty" if n % 3 else None,
        }
        for n, found in texts.items()
    ]
    return write(folder / "rows.jsonl", rows), write(folder / "coco.json", coco(texts))


def test_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, against = captions(tmp_path)
    found = evaluated(capsys, rows, "--against", against, "--by", "flag")
    assert {"bleu1", "bleu2", "bleu3", "bleu4", "rouge", "cider"} <= set(found["figures"])
    for figure in found["figures"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert found["counts"]["matched"] == 60
    assert {value: group["rows"] for value, group in found["by"]["flag"].items()} == {
        "(none)": 20, "empty": 40,
    }  # fmt: skip
    code, text = said(capsys, rows, "--against", against)
    assert code == 0
    assert "60 rows about 60 images" in text
    assert "CIDEr means little" not in text
    code, text = said(capsys, rows, "--against", against, *["--metric", "rouge"] * 2)
    assert text.count("rouge") == 1


def test_few_images_and_a_figure_that_is_too_low(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, against = captions(tmp_path, 6)
    arguments = [rows, "--against", against, "--metric", "cider", "--fail-under"]
    code, text = said(capsys, *arguments, "cider=9.5")
    assert code == 1
    assert "CIDEr means little for 6 images" in text
    assert "below 9.5" in text
    assert said(capsys, *arguments, "cider=0.0")[0] == 0
    code, text = said(capsys, *arguments, "vqa=0.5")
    assert code == 2
    assert "no such figure" in text


def test_two_outputs_are_compared_on_what_both_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, against = captions(tmp_path)
    worse = [json.loads(line) | {"caption": "x"} for line in rows.read_text().splitlines()[10:]]
    other = write(tmp_path / "worse.jsonl", worse)
    found = evaluated(capsys, rows, "--against", against, "--compare", other, "--metric", "rouge")
    compared = found["compare"]
    assert compared["rows"] == 50
    assert compared["figures"]["rouge"]["value"] == 0
    assert compared["differences"]["rouge"]["low"] > 0
    same = evaluated(capsys, rows, "--against", against, "--compare", rows, "--metric", "rouge")
    assert same["compare"]["differences"]["rouge"] == {"value": 0, "low": 0, "high": 0}
    # Neither the order of rows nor rows that come again have a say, nor that one output abstained.
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    turned = write(tmp_path / "turned.jsonl", lines[::-1])
    same = evaluated(
        capsys, turned, rows, "--against", against, "--compare", rows, "--metric", "rouge"
    )
    assert same["counts"]["doubled"] == same["counts"]["matched"] == 60
    assert same["compare"]["differences"]["rouge"] == {"value": 0, "low": 0, "high": 0}


def test_one_that_abstained_is_compared_with_one_that_did_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Row] = [
        {"file_name": f"{n}.jpg", "question": "?", "answer": "yes", "flag": None} for n in range(4)
    ]
    against = write(tmp_path / "l.jsonl", rows)
    out = write(tmp_path / "a.jsonl", rows)
    # What it kept to itself does not count, right as it is.
    other = write(tmp_path / "b.jsonl", [rows[0] | {"flag": "abstained"}, *rows[1:]])
    found = evaluated(capsys, out, "--against", against, "--compare", other)["compare"]
    assert found["figures"]["exact"]["value"] == pytest.approx(3 / 4)
    assert "exact_selective" not in found["differences"]
    arguments = out, "--against", against, "--fail-under"
    assert said(capsys, *arguments, "exact=1")[0] == 0


def test_answers_abstained_null_and_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[Row] = [
        {
            "file_name": f"{n}.jpg",
            "question": "?",
            "question_id": str(10 * n),
            "answer": "yes" if n < 5 else None,
            "flag": "abstained" if n == 5 else None,
        }
        for n in range(7)
    ]
    out = write(tmp_path / "rows.jsonl", rows)
    write(
        tmp_path / "rows.jsonl.errors", [{"file_name": "7.jpg", "error_type": "x", "message": ""}]
    )
    people = {10 * n: ["no" if n == 0 else "yes"] * 10 for n in range(8)}
    against = write(tmp_path / "vqa.json", vqa(people))
    found = evaluated(capsys, out, "--against", against)
    values = {name: figure["value"] for name, figure in found["figures"].items()}
    assert values["vqa"] == values["exact"] == pytest.approx(4 / 8)
    assert values["exact_selective"] == pytest.approx(4 / 7)
    assert values["coverage"] == pytest.approx(7 / 8)
    assert values["yesno_accuracy"] == pytest.approx(4 / 8)
    assert values["yesno_recall"] == pytest.approx(4 / 7)
    assert values["yesno_yes_ratio"] == pytest.approx(5 / 8)
    assert values["yesno_precision"] == pytest.approx(4 / 5)
    assert found["by"]["answer_type"]["other"]["rows"] == 8
    text = " ".join(found["notes"])
    for part in (
        "1 of 8 rows belong to images that failed",
        "1 of 8 rows have no text",
        "abstained",
    ):
        assert part in text


def test_a_table_of_labels_with_one_answer_has_no_vqa_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"file_name": "a.jpg", "question": "q", "question_id": "1", "answer": "Red."}]
    labels = [{"file_name": "a.jpg", "question": "q", "answer": "red"}]
    files = write(tmp_path / "r.jsonl", rows), "--against", write(tmp_path / "l.jsonl", labels)
    assert set(evaluated(capsys, *files)["figures"]) == {"exact", "normalized"}
    code, text = said(capsys, *files, "--metric", "vqa")
    assert code == 2
    assert "says nothing here" in text


def test_recall_of_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = np.random.default_rng(1)
    vectors = source.normal(size=(40, 16))
    images = [
        {"file_name": f"{n}.jpg", "embedding": list(v), "kind": "p"} for n, v in enumerate(vectors)
    ]
    # The first half are right, those behind are one off.
    shifted = [vectors[n if n < 20 else 20 + (n - 19) % 20] for n in range(40)]
    texts = [
        {"text": f"text {n}", "embedding": list(v), "kind": "p"} for n, v in enumerate(shifted)
    ]
    pairs = [{"file_name": f"{n}.jpg", "caption": f"text {n}"} for n in range(40)]
    arguments = (
        write(tmp_path / "i.jsonl", images), write(tmp_path / "t.jsonl", texts),
        "--against", write(tmp_path / "p.jsonl", pairs),
    )  # fmt: skip
    found = evaluated(capsys, *arguments)["figures"]
    assert found["image_to_text_recall@1"]["value"] == pytest.approx(0.5)
    assert found["text_to_image_recall@1"]["value"] == pytest.approx(0.5)
    assert found["image_to_text_recall@10"]["value"] > 0.5
    code, text = said(capsys, *arguments, "--fail-under", "recall=0.1")
    assert code == 2
    assert "no such figure; the figures are image_to_text_recall@1" in text
    code, text = said(capsys, *arguments, "--by", "kind")
    assert code == 2
    assert "--by is not about vectors" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rows.jsonl"], "nothing to compare with"),
        (["rows.jsonl", "--against", "none.json"], "There is no file"),
        (["rows.jsonl", "--against", "coco.json", "--metric", "vqa"], "is not about captions"),
        (["rows.jsonl", "--against", "coco.json", "--metric", "bleu5"], "has no value"),
        (["rows.jsonl", "--against", "coco.json", "--by", "x"], "have a column x"),
        (["rows.jsonl", "--against", "coco.json", "--fail-under", "cider"], "lowest value"),
        (["coco.json", "--against", "rows.jsonl"], "holds annotations"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    captions(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    code, text = said(capsys, *arguments)
    assert code == 2
    assert says in text
    assert text.count("\n") == 1


def test_meteor_is_said_to_be_missing_without_java(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, against = captions(tmp_path)
    monkeypatch.setenv("PATH", "")
    code, text = said(capsys, rows, "--against", against)
    assert code == 0
    assert "METEOR is missing: it needs Java" in text
    code, text = said(capsys, rows, "--against", against, "--metric", "meteor")
    assert code == 2
    assert "--meteor-jar" in text


def test_results_of_the_vqa_evaluation_are_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write(tmp_path / "results.json", [{"question_id": 10, "answer": "yes"}])
    against = write(tmp_path / "vqa.json", vqa({10: ["yes"] * 10}))
    assert evaluated(capsys, rows, "--against", against)["figures"]["vqa"]["value"] == 1.0


def test_a_column_of_too_many_values_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, against = captions(tmp_path, 1001)
    code, text = said(capsys, rows, "--against", against, "--by", "file_name", "--metric", "rouge")
    assert code == 2
    assert "has 1001 values" in text
