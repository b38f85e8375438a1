"""The shipped tiny-instruct through the commands: what it says of the sample images is true.

That its tokens and scores are those of transformers: see ``tests/model/test_instruct.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blip2cli.cli.app import call
from blip2cli.model.quantize.int8_layers import max_exact_level
from blip2cli.tiny.samples import SAMPLES

SHIPPED = Path(__file__).parents[2] / "sample_images"
MODEL = ("--model", "tiny-instruct", "--device", "cpu", "--quiet")
# By default, and with linear layers in eight bits.
EXACT = pytest.param((), id="float32")
INT8 = pytest.param(
    ("--quantize", "int8"),
    id="int8",
    marks=pytest.mark.skipif(max_exact_level() == 0, reason="this torch has no such products here"),
)


def rows(out: Path, task: str, *words: str) -> dict[str, list[dict[str, Any]]]:
    """The rows that a command writes about the sample images, by file name."""
    assert call([task, str(SHIPPED), *MODEL, "-o", str(out), *words]) == 0
    found: dict[str, list[dict[str, Any]]] = {}
    for line in out.read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["file_name"], []).append(row)
    return found


@pytest.mark.parametrize("options", [EXACT, INT8])
def test_captions_are_true(options: tuple[str, ...], tmp_path: Path) -> None:
    found = rows(tmp_path / "c.jsonl", "caption", *options)
    said = {name: row["caption"] for name, (row,) in found.items()}
    assert said == {sample.file_name: sample.caption for sample in SAMPLES}


def test_answers_are_true(tmp_path: Path) -> None:
    asked = ("how many cats are there?", "what color is the background?")
    words = [word for question in asked for word in ("--question", question)]
    found = rows(tmp_path / "a.jsonl", "ask", *words)
    for sample in SAMPLES:
        count = "two" if "cat" in sample.kinds else "zero"
        answers = [row["answer"] for row in found[sample.file_name]]
        assert answers == [count, sample.background], sample


def test_what_is_true_is_chosen(tmp_path: Path) -> None:
    asked = ("--question", "what is in the picture?", "--choices", "a cat,a car,two cars,a dog")
    found = rows(tmp_path / "a.jsonl", "ask", *asked)
    assert found["street/traffic.png"][0]["answer"] == "two cars"
