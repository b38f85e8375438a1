from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import OutputError
from blip2cli.options import AskOptions, OutputOptions, RunOptions, SourceOptions
from blip2cli.pipeline.check_paths import check_paths
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.questions import from_texts


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("list.jsonl", "questions.jsonl", "choices.txt", "a.png", "a.jsonl.errors"):
        (tmp_path / name).touch()
    (tmp_path / "link.jsonl").symlink_to("list.jsonl")
    os.link(tmp_path / "list.jsonl", tmp_path / "second name.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(source: str = ".", task: Any = None, **output: Any) -> None:
    options = RunOptions(source=SourceOptions((source,)), output=OutputOptions(**output))
    check_paths(Job(ImageItems(), task or CaptionTask(), options))


@pytest.mark.parametrize(
    ("source", "output", "field"),
    [
        ("list.jsonl", {"out": "list.jsonl"}, "out"),
        ("list.jsonl", {"out": "./list.jsonl"}, "out"),
        ("list.jsonl", {"out": "link.jsonl"}, "out"),
        ("link.jsonl", {"out": "list.jsonl"}, "out"),
        ("list.jsonl", {"out": "second name.jsonl"}, "out"),
        ("*.jsonl", {"out": "list.jsonl"}, "out"),
        ("a.jsonl.errors", {"out": "a.jsonl"}, "out"),
        ("list.jsonl", {"summary": "list.jsonl"}, "summary"),
        ("a.png", {"summary": "a.png"}, "summary"),
        (".", {"out": "a.jsonl", "summary": "a.jsonl.errors"}, "summary"),
        (".", {"out": "a.jsonl", "summary": ".a.jsonl.lock"}, "summary"),
        (".", {"out": "a.parquet", "summary": ".a.parquet.part-000000"}, "summary"),
    ],
)
def test_a_path_for_two_purposes(source: str, output: dict[str, str], field: str) -> None:
    for more in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError) as caught:
            check(source, **output, **more)
        assert caught.value.field == field


@pytest.mark.parametrize("name", ["questions.jsonl", "choices.txt"])
@pytest.mark.parametrize("field", ["out", "summary"])
def test_files_of_questions_and_choices_are_read(name: str, field: str) -> None:
    options = AskOptions(questions="questions.jsonl", choices_file="choices.txt")
    task = AskTask(from_texts(["what?"]), options)
    with pytest.raises(OutputError, match=r"is read as (questions|choices_file)") as caught:
        check(task=task, **{field: name})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("source", "output"),
    [
        (".", {"out": "list.jsonl", "summary": "s.json"}),
        ("-", {"out": "new.jsonl"}),
        ("*.png", {"out": "list.jsonl"}),
        ("https://example.org/list.jsonl", {"out": "list.jsonl"}),
        ("a.jsonl.errors", {"out": "a.jsonl.gz", "summary": "a.json"}),
        ("no such\0file", {"out": "list.jsonl"}),
    ],
)
def test_paths_that_do_not_meet(source: str, output: dict[str, str]) -> None:
    check(source, **output)
