"""Tasks for Label Studio, and what comes back as labels for ``eval``."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from blip2cli.cli.app import call
from blip2cli.errors import SourceError
from tests.convert.helpers import captions, convert, read_rows, write_rows

ANSWERS = [
    {
        "file_name": "a b.png", "width": 1, "height": 1, "question": "a dog?", "question_id": "1",
        "answer": "yes", "logprob": -0.5, "flag": "",
        "probabilities": [{"choice": "yes", "probability": 1.0}], "choice_mass": 1.0,
    },
    {
        "file_name": "ü/c.png", "width": 1, "height": 1, "question": "a cat?", "question_id": "2",
        "answer": "no", "logprob": None, "flag": "", "probabilities": None, "choice_mass": None,
    },
]  # fmt: skip


def export(tasks: list[Any], *texts: str | None) -> list[Any]:
    """What the server gives back: the tasks with an annotation each, or a skipped one."""
    done = []
    for number, (task, text) in enumerate(zip(tasks, texts, strict=True)):
        kind = task["predictions"][0]["result"][0]["type"]
        value = {"text" if kind == "textarea" else "choices": [text]}
        result = [] if text is None else [{"type": kind, "value": value, "from_name": "x"}]
        one = {"id": number, "was_cancelled": text is None, "result": result, "completed_by": 1}
        done.append({"id": number, "data": task["data"], "annotations": [one]})
    return done


def test_captions_there_and_back(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "c.jsonl", captions())
    convert(source, tmp_path / "tasks.json", write_as="label-studio")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[1]["data"] == {
        "image": "/data/local-files/?d=farm/two.cows_7.png",
        "file_name": "farm/two.cows_7.png",
    }
    (prediction,) = tasks[1]["predictions"]
    assert prediction["result"] == [
        {
            "from_name": "caption",
            "to_name": "image",
            "type": "textarea",
            "value": {"text": ["two\ncows"]},
        }
    ]
    assert prediction["score"] == pytest.approx(0.6065, abs=1e-4)
    (tmp_path / "export.json").write_text(json.dumps(export(tasks, "a fort", None, "x")))
    done = convert(tmp_path / "export.json", tmp_path / "l.jsonl", read_as="label-studio")
    assert done.notes == ["Left out 1 without an annotation: farm/two.cows_7.png."]
    names = [row["file_name"] for row in captions()]
    assert read_rows(tmp_path / "l.jsonl") == [
        {"file_name": names[0], "caption": "a fort"},
        {"file_name": names[2], "caption": "x"},
    ]


def test_answers_become_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_rows(tmp_path / "a.jsonl", ANSWERS)
    convert(source, tmp_path / "t.json", write_as="label-studio", image_url="https://h/")
    tasks = json.loads((tmp_path / "t.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [
        "https://h/a%20b.png",
        "https://h/%C3%BC/c.png",
    ]
    kinds = [task["predictions"][0]["result"][0]["type"] for task in tasks]
    assert kinds == ["choices", "textarea"]
    assert "score" not in tasks[1]["predictions"][0]
    done = export(tasks, "yes", "yes")
    for task in done:
        del task["data"]["file_name"]  # of tasks that were imported otherwise
    (tmp_path / "e.json").write_text(json.dumps(done))
    labels = tmp_path / "labels.jsonl"
    convert(tmp_path / "e.json", labels, read_as="label-studio", image_url="https://h/")
    assert [row["file_name"] for row in read_rows(labels)] == ["a b.png", "ü/c.png"]
    assert call(["eval", str(source), "--against", str(labels), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures["exact"]["value"] == 0.5


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([{"image": "a.png", "caption": "x"}], "element 1 is no task .* not as JSON-MIN"),
        ([{"data": {"text": "x"}, "annotations": []}], "neither a file_name nor an image"),
        ({"a": [{"data": {}}]}, "element 1 is no task"),
    ],
)
def test_what_is_no_export(content: Any, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match=sentence):
        convert(tmp_path / "e.json", tmp_path / "o.jsonl", read_as="label-studio")
    assert not (tmp_path / "o.jsonl").exists()


VALIDATE = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
view = LabelInterface(sys.argv[1])
for task in json.load(open(sys.argv[2])):
    (prediction,) = task["predictions"]
    assert view.validate_task({"data": task["data"]})
    assert view.validate_prediction(prediction)
    prediction["result"][0]["from_name"] = "other"
    assert not view.validate_prediction(prediction)
"""
VIEWS = {
    "caption": '<TextArea name="caption" toName="image" editable="true"/>',
    "choices": '<Text name="question" value="$question"/><Choices name="answer" toName="image">'
    '<Choice value="yes"/><Choice value="no"/></Choices>',
}


@pytest.mark.external
@pytest.mark.parametrize("kind", VIEWS)
def test_tasks_are_tasks_for_its_own_library(kind: str, tmp_path: Path) -> None:
    # label-studio-sdk holds NumPy below the version that is tested here.
    python = os.environ.get("LABEL_STUDIO_PYTHON")
    if python is None:
        pytest.skip("LABEL_STUDIO_PYTHON names no Python that has label-studio-sdk")
    rows = captions() if kind == "caption" else ANSWERS[:1]
    convert(write_rows(tmp_path / "r.jsonl", rows), tmp_path / "t.json", write_as="label-studio")
    view = f'<View><Image name="image" value="$image"/>{VIEWS[kind]}</View>'
    subprocess.run([python, "-c", VALIDATE, view, str(tmp_path / "t.json")], check=True)
