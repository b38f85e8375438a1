"""``blip2cli calibrate``: what it finds, prints, writes and refuses."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from blip2cli.options import CalibrationOptions
from blip2cli.tasks.calibration import from_options
from tests.evaluate.helpers import Row, json_of, printed_by, write

NAMES = ("red", "green", "blue", "grey")
SHARPER = 3.0  # how much too far apart the scores are

calibrated, said = partial(json_of, "calibrate"), partial(printed_by, "calibrate")


def answered(folder: Path, images: int = 600, scores: bool = False) -> tuple[Path, Path]:
    """Rows of a model that is too sure, three questions an image, and their labels."""
    source = np.random.default_rng(0)
    rows, labels = [], []
    for number in range(images):
        for question in ("what colour?", "which sky?", "and now?"):
            honest = source.normal(0, 2.5, len(NAMES))
            right = NAMES[source.choice(len(NAMES), p=softmax(honest))]
            shares = softmax(honest * SHARPER)
            best = NAMES[int(shares.argmax())]
            row: Row = {
                "file_name": f"{number}.jpg", "question": question, "question_id": question[0],
                "answer": best, "logprob": -0.5, "flag": "",
                "probabilities": [{"choice": c, "probability": float(p)}
                                  for c, p in zip(NAMES, shares, strict=True)],
            }  # fmt: skip
            if scores:  # without the image, "red" is likely: the sum prefers it
                blank = np.array([0.0, -3, -3, -3])
                row["choice_scores"] = [
                    {"choice": c, "logprob": float(s + b), "tokens": 2, "blank_logprob": float(b)}
                    for c, s, b in zip(NAMES, honest, blank, strict=True)
                ]
                best = NAMES[int((honest + blank).argmax())]
                row["answer"] = best
            rows.append(row)
            labels.append({k: row[k] for k in ("file_name", "question")} | {"answer": right})
    return write(folder / "rows.jsonl", rows), write(folder / "labels.jsonl", labels)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def test_a_model_that_is_too_sure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, labels = answered(tmp_path)
    out = tmp_path / "calibration.json"
    code, text = said(capsys, rows, "--against", labels, "-o", out)
    assert code == 0
    assert "1800 labels about 600 images; judged on 5 folds" in text
    assert "precision 0.9: above confidence" in text
    assert "--choice-scores" in text
    written = json.loads(out.read_text())
    assert written["temperature"] == pytest.approx(SHARPER, rel=0.1)
    assert written["before"]["ece"] > 0.15
    assert written["after"]["ece"] < 0.03
    assert set(written["before"]) == set(written["after"]) == {
        "accuracy", "ece", "brier", "auroc", "risk_coverage_area",
        *(f"coverage@risk{n}%" for n in (1, 5, 10, 20)),
        *(f"effective_reliability@cost{n}" for n in (1, 10, 100)),
    }  # fmt: skip
    assert set(written["questions"]) == {"what colour?", "which sky?", "and now?"}
    assert len(written["reliability"]["after"]) == 15
    # Nothing depends on the order of rows, and what is there is not touched.
    again = tmp_path / "again.json"
    turned = write(
        tmp_path / "turned.jsonl",
        [json.loads(line) for line in rows.read_text().splitlines()][::-1],
    )
    assert said(capsys, turned, "--against", labels, "-o", again)[0] == 0
    assert again.read_bytes() == out.read_bytes()
    code, text = said(capsys, rows, "--against", labels, "-o", out)
    assert code == 2
    assert "is there already" in text
    assert said(capsys, rows, "--against", labels, "-o", out, "--overwrite")[0] == 0
    found = from_options(CalibrationOptions(str(out), min_precision=0.9))
    assert found is not None
    assert 0.5 < (found.least or 0) < 1


def test_the_best_norm_is_named_and_none_is_taken_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = answered(tmp_path, 300, scores=True)
    found = calibrated(capsys, files[0], "--against", files[1])
    assert set(found["compared"]) == {"sum", "mean", "pmi", "prior"}
    assert found["compared"]["pmi"]["difference"]["low"] > 0
    assert found["calibration"]["norm"] == "pmi"
    assert "The best norm is pmi." in found["notes"]
    arguments = files[0], "--against", files[1], "--norm", "sum"
    assert calibrated(capsys, *arguments)["calibration"]["norm"] == "sum"


def captioned(folder: Path) -> tuple[list[Row], list[Row], tuple[object, ...]]:
    """Captions of a model that is too sure, verdicts on them, and the arguments that name both."""
    source = np.random.default_rng(1)
    logprobs = -source.exponential(0.8, 1000)
    rows = [
        {"file_name": f"{n}.jpg", "caption": "a cat", "logprob": float(x), "flag": ""}
        for n, x in enumerate(logprobs)
    ]
    right = source.random(1000) < np.exp(2 * logprobs)
    verdicts = [
        {"file_name": f"{n}.jpg", "text": "a cat", "verdict": "right" if good else "wrong",
         "label": "a cat" if good else None, "output": ""}
        for n, good in enumerate(right)
    ]  # fmt: skip
    files = write(folder / "r.jsonl", rows), write(folder / "v.jsonl", verdicts)
    return rows, verdicts, (files[0], "--against", files[1])


def test_captions_by_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *_, arguments = captioned(tmp_path)
    found = calibrated(capsys, *arguments)
    calibration = found["calibration"]
    assert (calibration["kind"], calibration["norm"]) == ("texts", "logprob_mean")
    assert calibration["before"]["ece"] > 0.1
    assert calibration["after"]["ece"] < 0.05
    assert set(found["compared"]) == {"logprob_mean, platt", "logprob_mean, isotonic"}
    assert any("Only the mean" in note for note in found["notes"])
    code, text = said(capsys, *arguments, "--norm", "sum")
    assert code == 2
    assert "is about choices" in text


def test_rows_say_which_questions_are_about_one_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, labels = answered(tmp_path, 60)
    both = [[json.loads(line) for line in path.read_text().splitlines()] for path in (rows, labels)]
    for number, (row, label) in enumerate(zip(*both, strict=True)):
        row["question_id"] = label["question_id"] = number
    write(rows, both[0][::-1])
    write(labels, both[1])
    by_id = [{k: label[k] for k in ("question_id", "answer")} for label in both[1]]
    against = write(tmp_path / "ids.jsonl", by_id)
    assert calibrated(capsys, rows, "--against", against) == calibrated(
        capsys, rows, "--against", labels
    )
    figures = [
        json_of("eval", capsys, rows, "--against", path)["figures"] for path in (against, labels)
    ]
    assert figures[0] == figures[1]
    # By verdicts only the answers of the rows can be judged.
    verdicts = [
        row | {"text": row["answer"], "verdict": "corrected", "label": label["answer"]}
        for row, label in zip(*both, strict=True)
    ]
    code, text = said(capsys, rows, "--against", write(tmp_path / "v.jsonl", verdicts))
    assert code == 0
    assert "verdicts say nothing of other ones" in text


def test_rows_that_failed_are_null_or_abstained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, verdicts, arguments = captioned(tmp_path)
    whole = calibrated(capsys, *arguments)
    for row in rows[:200]:  # a calibration made by one is that of the guesses
        row |= {"caption": None, "guess": row["caption"], "flag": "abstained"}
    write(tmp_path / "r.jsonl", rows)
    same = calibrated(capsys, *arguments)
    assert same["calibration"] == whole["calibration"]
    assert same["counts"]["abstained"] == 200
    for row in rows[:100]:
        row |= {"guess": None, "flag": ""}
    write(tmp_path / "r.jsonl", rows[50:])
    write(tmp_path / "r.jsonl.errors", [
        {"file_name": row["file_name"], "error_type": "x", "message": ""} for row in rows[:50]
    ])  # fmt: skip
    found = calibrated(capsys, *arguments)
    assert found["calibration"]["labels"] == 900
    assert found["counts"]["unanswered"] == 100
    right = sum(v["verdict"] == "right" for v in verdicts[100:])
    assert found["calibration"]["after"]["accuracy"] == pytest.approx(right / 1000)
    assert found["accuracy"]["value"] == pytest.approx(right / 1000)


def test_the_interval_of_the_accuracy_is_over_images_also_where_they_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, labels = answered(tmp_path, 60)
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    write(rows, lines[60:])
    failed = [{"file_name": f"{n}.jpg", "error_type": "x", "message": ""} for n in range(20)]
    write(tmp_path / "rows.jsonl.errors", failed)
    found = calibrated(capsys, rows, "--against", labels)
    evaluated = json_of("eval", capsys, rows, "--against", labels)
    assert found["accuracy"] == evaluated["figures"]["normalized"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["rows.jsonl"], "nothing to compare with"),
        (["rows.jsonl", "--against", "few.jsonl"], "a calibration needs 50 or more"),
        (["rows.jsonl", "--against", "labels.jsonl", "-o", "no/c.json"], "folder does not exist"),
        (["rows.jsonl", "--against", "labels.jsonl", "-o", "."], "is no file"),
        (["rows.jsonl", "--against", "labels.jsonl", "-o", "labels.jsonl", "--overwrite"],
         "is read as well"),
        (["rows.jsonl", "--against", "labels.jsonl", "-o", "s3://b/c.json"], "another machine"),
        (["rows.jsonl", "--against", "labels.jsonl", "--norm", "pmi"],
         "ask with --choice-norm pmi"),
        (["bare.jsonl", "--against", "labels.jsonl"], "has a text and its logprob"),
        (["odd.jsonl", "--against", "labels.jsonl"], "in another form than ask and caption"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    problem: str,
) -> None:
    rows, labels = answered(tmp_path, 40)
    lines = [json.loads(line) for line in labels.read_text().splitlines()]
    write(tmp_path / "few.jsonl", lines[:9])
    bare = [{k: v for k, v in json.loads(line).items() if k not in ("probabilities", "logprob")}
            for line in rows.read_text().splitlines()]  # fmt: skip
    write(tmp_path / "bare.jsonl", bare)
    write(tmp_path / "odd.jsonl", [row | {"probabilities": {"red": 0.9}} for row in bare])
    monkeypatch.chdir(tmp_path)
    before = labels.read_bytes()
    code, text = said(capsys, *arguments)
    assert code == 2
    assert problem in text
    assert text.count("\n") == 1
    assert labels.read_bytes() == before
