"""Verdicts of people on texts that they were shown, as references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blip2cli.cli.app import call
from tests.evaluate.helpers import Row, json_of, write


def verdict(number: int, text: str, said: str, label: str | None, **more: Any) -> Row:
    found = {"file_name": f"{number}.jpg", "text": text, "verdict": said, "label": label}
    return found | {"output": "0f"} | more


def test_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"file_name": f"{n}.jpg", "question": "?", "question_id": "1", "answer": answer}
        for n, answer in enumerate(["yes", "no", "no", "maybe", None, "yes"])
    ]
    about: Row = {"question": "?", "question_id": "1"}
    verdicts = [
        verdict(0, "yes", "right", "yes", **about),
        verdict(1, "yes", "corrected", "no", **about),  # of an earlier output, and now right
        verdict(2, "no", "wrong", None, **about),
        verdict(3, "yes", "wrong", None, **about),  # another text
        verdict(4, "yes", "wrong", None, **about),  # there is none now: wrong all the same
        verdict(5, "no", "corrected", "yes", **about),
        verdict(5, "yes", "right", None, **about),
    ]
    arguments = (
        write(tmp_path / "r.jsonl", rows), "--against", write(tmp_path / "v.jsonl", verdicts),
    )  # fmt: skip
    found = json_of("eval", capsys, *arguments)
    assert found["rows"] == 5
    assert found["figures"]["exact"]["value"] == pytest.approx(3 / 5)
    assert found["counts"]["unjudged"] == 1
    assert found["counts"]["missing"] == 0
    assert any("1 row left out, as all that is known" in note for note in found["notes"])


def test_captions_are_right_or_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["a cat", "a dog.", "two cats", "a bus"]
    rows = [{"file_name": f"{n}.jpg", "caption": text} for n, text in enumerate(texts)]
    verdicts = [
        verdict(0, "a cat", "right", "a cat"),
        verdict(1, "a dog", "right", "a dog"),
        verdict(2, "two cats", "corrected", "three cats"),
        verdict(3, "a bus", "wrong", None),
    ]
    out = write(tmp_path / "r.jsonl", rows)
    against = write(tmp_path / "v.jsonl", verdicts)
    figures = json_of("eval", capsys, out, "--against", against)["figures"]
    assert {name: one["value"] for name, one in figures.items()} == {
        "exact": 0.25, "normalized": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "problem"),
    [
        ([verdict(0, "a cat", "maybe", None)], "has the verdict 'maybe'"),
        ([verdict(0, "a cat", "corrected", None)], "with the label None"),
        ([verdict(0, "a dog", "wrong", None)], "all its verdicts are about other texts"),
        ([verdict(9, "a dog", "wrong", None)], "has a reference"),
    ],
)
def test_what_says_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verdicts: list[Row], problem: str
) -> None:
    out = write(tmp_path / "r.jsonl", [{"file_name": "0.jpg", "caption": "a cat"}])
    against = write(tmp_path / "v.jsonl", verdicts)
    assert call(["eval", str(out), "--against", str(against)]) == 2
    assert problem in capsys.readouterr().err
