"""Runs with a calibration: confidence, guesses, abstaining, and what is refused."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from blip2cli import Blip2
from blip2cli.cli.app import call
from blip2cli.errors import OptionError
from blip2cli.options import CalibrationOptions
from blip2cli.tasks.calibration import from_options

SAMPLES = Path(__file__).parents[2] / "sample_images"
PLATT = {"method": "platt", "slope": 1.0, "intercept": 3.0}


def write(path: Path, **more: Any) -> Path:
    """A calibration of choices, unless ``more`` says otherwise."""
    lines = [[0.9, 300, 300], [0.8, 400, 390], [0.6, 800, 640]]
    found = {
        "format": 1, "kind": "choices", "norm": "sum", "match": False, "task": "ask",
        "weights": None, "temperature": 2.0, "questions": {}, "curve": None,
        "thresholds": lines, "labels": 800,
    }  # fmt: skip
    path.write_text(json.dumps(found | more))
    return path


@pytest.fixture(scope="module")
def tiny() -> Blip2:
    return Blip2.load("tiny", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("breakfast.jpg", "cats.png"):
        shutil.copy(SAMPLES / name, images)
    return images


def test_answers_get_their_confidence_and_unsure_ones_are_null(tiny: Blip2, tmp_path: Path) -> None:
    image, questions = SAMPLES / "cats.png", ["is there a cat?", "how many cats are there?"]
    choices = ["yes", "no", "two", "three"]
    plain = tiny.ask(image, questions, choices=choices)
    file = write(tmp_path / "c.json", questions={questions[1]: {"temperature": 9.0, "labels": 400}})
    calibrated = tiny.ask(image, questions, choices=choices, calibration=file)
    assert [row.pop("confidence") for row in calibrated] == [
        pytest.approx(softened(row, temperature), abs=1e-6)
        for row, temperature in zip(plain, (2.0, 9.0), strict=True)
    ]
    assert calibrated == plain
    sure = tiny.ask(image, questions, choices=choices, calibration=file, min_confidence=0.9999)
    kept = [softened(row, t) >= 0.9999 for row, t in zip(plain, (2.0, 9.0), strict=True)]
    assert False in kept
    for row, before, keep in zip(sure, plain, kept, strict=True):
        assert row["guess"] == before["answer"]
        assert row["answer"] == (before["answer"] if keep else None)
        assert row["flag"] == (before["flag"] if keep else "abstained")


def test_a_curve_over_what_the_temperature_gives(tmp_path: Path) -> None:
    curve = {"method": "isotonic", "x": [0.0, 2.0], "y": [0.4, 0.8]}
    found = from_options(CalibrationOptions(str(write(tmp_path / "c.json", curve=curve))))
    assert found is not None
    shares = [{"choice": "yes", "probability": 0.9}, {"choice": "no", "probability": 0.1}]
    # A temperature of 2 halves log-odds, which are ln 9.
    expected = 0.4 + 0.2 * math.log(9) / 2
    assert found.of_choices("?", "yes", shares) == pytest.approx(expected, abs=1e-6)
    assert found.of_choices("?", "no", shares) == 0.4


def softened(row: dict[str, Any], temperature: float) -> float:
    """The share of a row's answer, its probabilities to the power of 1 / temperature."""
    weights = {p["choice"]: p["probability"] ** (1 / temperature) for p in row["probabilities"]}
    return float(weights[row["answer"]] / sum(weights.values()))


@pytest.mark.parametrize("norm", ["logprob_mean", "logprob_sum"])
def test_captions_by_their_log_probability(tiny: Blip2, tmp_path: Path, norm: str) -> None:
    file = write(tmp_path / "c.json", kind="texts", norm=norm, task="caption", curve=PLATT)
    (row,) = tiny.caption(SAMPLES / "cats.png", calibration=file, min_confidence=0.999)
    tokens = len(tiny.model.codec.encode(f" {row['guess']}"))  # with a begin token for the end
    value = row["logprob"] * (1 if norm == "logprob_mean" else tokens)
    assert row["confidence"] == pytest.approx(1 / (1 + math.exp(-value - 3)), abs=1e-6)
    assert (row["caption"], row["flag"]) == (None, "abstained")
    with pytest.raises(OptionError, match="is about texts that are written by 'caption'"):
        tiny.ask(SAMPLES / "cats.png", "what is it?", calibration=file)


def test_the_command_abstains_resumes_and_is_resumed_by_digest(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, out = write(tmp_path / "c.json", temperature=40.0), tmp_path / "a.jsonl"
    command = ["ask", str(folder), "-q", "is there a cat?", "--choices", "yes,no", "--model",
               "tiny", "-o", str(out), "--calibration", str(file)]  # fmt: skip
    assert call([*command, "--min-precision", "0.95", "--limit", "1"]) == 0
    assert "1 of 1 rows abstained" in capfd.readouterr().err
    assert call([*command, "--min-precision", "0.95", "--resume"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert list(row)[-2:] == ["confidence", "guess"]
        assert row["confidence"] < 0.8  # the lowest line whose precision is shown
        assert (row["answer"], row["flag"]) == (None, "abstained")
        assert row["guess"] in ("yes", "no")
    for arguments, problem in (
        (["--min-precision", "0.9"], "--min-precision 0.95, not 0.9"),
        ([], "--min-precision 0.95, not unset"),
    ):
        assert call([*command, *arguments, "--resume"]) == 2
        assert problem in capfd.readouterr().err
    write(file, temperature=41.0)
    assert call([*command, "--min-precision", "0.95", "--resume"]) == 2
    assert "was made with --calibration sha256" in capfd.readouterr().err
    # Rows that abstained are read with their guess.
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps(row | {"answer": row["guess"]}) + "\n" for row in rows))
    assert call(["eval", str(out), "--against", str(labels), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["counts"]["abstained"] == 2
    assert found["figures"]["coverage"]["value"] == 0


@pytest.mark.parametrize(
    ("more", "options", "problem"),
    [
        ({"weights": "files:0"}, [], "was made from rows of another model"),
        ({"norm": "mean"}, ["--choice-norm", "sum"], "--choice-norm is sum, and"),
        ({"match": True}, [], "was made with --match, and this run is without it"),
        ({"kind": "texts", "norm": "logprob_mean", "curve": PLATT}, [], "is about texts"),
        ({"task": "caption"}, [], "by 'caption'"),
        ({"format": 2}, [], "has format 2"),
        ({"temperature": 0}, ["--min-confidence", "2"], "must be between 0 and 1"),
        ({"temperature": -1}, [], "is no calibration"),
        ({"thresholds": [[0.5, 100, 60]]}, ["--min-precision", "0.95"], "would not do"),
        ({}, ["--min-precision", "0.9", "--min-confidence", "0.9"], "exclude each other"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    more: dict[str, Any],
    options: list[str],
    problem: str,
) -> None:
    file = write(tmp_path / "c.json", **more)
    code = call(["ask", str(folder), "-q", "is there a cat?", "--choices", "yes,no", "--model",
                 "tiny", "--calibration", str(file), *options])  # fmt: skip
    printed = capfd.readouterr()
    assert (code, printed.out) == (2, "")
    assert problem in printed.err
    assert printed.err.count("\n") == 1


def test_options_without_a_calibration_and_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="give calibration a file"):
        CalibrationOptions(min_precision=0.9)
    assert from_options(CalibrationOptions()) is None
    for text in ("", "[]", "{}", '{"format": 1}', "\x00"):
        path = tmp_path / "c.json"
        path.write_text(text)
        with pytest.raises(OptionError, match="is no calibration"):
            from_options(CalibrationOptions(str(path)))
    for odd in (
        {"norm": "sums"},
        {"kind": "texts", "norm": "sum", "curve": PLATT},
        {"temperature": math.nan},
        {"temperature": 10**400},
        {"curve": {"method": "isotonic", "x": [], "y": []}},
        {"thresholds": [[0.9, 0, 0]]},
    ):
        with pytest.raises(OptionError, match="is no calibration"):
            from_options(CalibrationOptions(str(write(path, **odd)), min_precision=0.9))
    with pytest.raises(OptionError, match="cannot be read"):
        from_options(CalibrationOptions(str(tmp_path / "none.json")))
    found = from_options(CalibrationOptions(str(write(path)), min_precision=0.95))
    assert found is not None
    assert found.least == 0.8
    assert pickle.loads(pickle.dumps(found)) == found
