"""Prompts, questions and choices with columns of the source in them, through whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import OptionError, OutputError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    AskOptions,
    CaptionOptions,
    DecodeOptions,
    LoaderOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Summary
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.tasks import choices
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.questions import from_options
from tests.pipeline.helpers import read

SHORT = DecodeOptions(max_new_tokens=6, min_new_tokens=2)
ROWS = [
    {"file_name": "a.png", "alt": "a red {answer}", "sizes": ["big", "small"], "n": 1},
    {"file_name": "b.jpg", "alt": "", "sizes": ["one"], "n": 2},
    {"file_name": "c.webp", "alt": "two\ncats }}", "sizes": "long|short|none", "n": 3.0},
    {"file_name": "a.png", "alt": "x <image> y", "sizes": ["big", "big"], "n": 4},
    {"file_name": "d.png", "alt": "blue " * 3000, "sizes": None, "n": 5},
    {"file_name": "a.png", "alt": "a house", "sizes": ["a", "b"], "n": 6},
]

Done = tuple[list[dict[str, Any]], dict[str, str], Summary]
Start = Callable[..., Done]


@pytest.fixture
def start(images: Path, tmp_path: Path, model: Blip2) -> Start:
    """Run a task over the table of ``ROWS``: rows, messages of failures by line, and summary."""
    table = tmp_path / "list.jsonl"

    def go(task: Task, rows: Any = ROWS, out: str = "out.jsonl", **more: Any) -> Done:
        table.write_text(
            "".join(
                json.dumps(r | {"file_name": f"{images}/{r['file_name']}"}) + "\n" for r in rows
            )
        )
        more.setdefault("source", {}).setdefault("keep", ("n",))
        source = SourceOptions((str(table),), absolute_paths=True, **more.pop("source"))
        path = tmp_path / out
        options = RunOptions(
            source=source,
            loader=LoaderOptions(batch_size=more.pop("batch", 4), workers=0),
            output=OutputOptions(str(path), **more),
        )
        summary = run(Job(ImageItems(), task, options, load=lambda _: model))
        listed = path.with_name(path.name + ".errors")
        failed = read(listed) if listed.exists() else []
        messages = {str(int(row["n"])): f"{row['error_type']}: {row['message']}" for row in failed}
        return (read(path) if path.exists() else []), messages, summary

    return go


def ask(*questions: str, **options: Any) -> AskTask:
    given = AskOptions(question=questions, **options)
    templates = choices.templates_from_options(given)
    answers = templates or choices.from_options(given)
    closed = bool(templates or answers)
    return AskTask(
        from_options(given),
        given,
        DecodeOptions() if closed else SHORT,
        answers,
        choices_hold_columns=bool(templates),
    )


def caption(prompt: str, **options: Any) -> CaptionTask:
    return CaptionTask(CaptionOptions(prompt), replace(SHORT, **options))


def test_each_image_has_its_own_prompt(start: Start, images: Path, model: Blip2) -> None:
    task = caption("{{a}} photo of {alt}, {n}", num_captions=2, num_beams=2)
    rows, failed, summary = start(task)
    assert [(row["n"], row["alt"]) for row in rows] == [
        (1, "a red {answer}"),
        (3, "two\ncats }}"),
        (6, "a house"),
    ]
    assert [row["occurrence"] for row in rows] == [1, 1, 3]
    assert failed == {
        "2": "bad_metadata: Its alt is missing or empty, and prompt needs it.",
        "4": "bad_metadata: Its alt holds '<image>', which is a special token of the model.",
        "5": failed["5"],
    }
    assert "more than the model has room for" in failed["5"]
    assert summary.exit_code == 3
    for row, name in zip(rows, ("a.png", "c.webp", "a.png"), strict=True):
        # One whose prompt is the same for all images, filled in by hand.
        plain = caption(
            "{{a}} photo of "
            + row["alt"].replace("{", "{{").replace("}", "}}")
            + f", {int(row['n'])}",
            num_captions=2,
            num_beams=2,
        )
        own = [{"file_name": name, "n": 0}]
        (same,), _, _ = start(plain, own, out=f"{row['n']}.jsonl")
        assert {key: row[key] for key in same if key not in own[0] and key != "occurrence"} == {
            key: same[key] for key in same if key not in own[0] and key != "occurrence"
        }


def test_questions_templates_and_earlier_answers(start: Start) -> None:
    good = [ROWS[0] | {"question": "what is it?"}, ROWS[2] | {"question": "is it red?"}]
    task = ask("{question}", "is {alt} {answer}?", template="{n}: {question}")
    rows, failed, _ = start(task, good)
    assert failed == {}
    assert [row["question"] for row in rows] == [
        "what is it?",
        f"is a red {{answer}} {rows[0]['answer']}?",
        "is it red?",
        f"is two\ncats }}}} {rows[2]['answer']}?",
    ]
    assert list(rows[0])[:5] == ["file_name", "width", "height", "n", "alt"]
    assert list(rows[0]).count("question") == 1


def test_choices_of_each_image(start: Start) -> None:
    rows, failed, _ = start(ask("how big?", choices_column="sizes"))
    chosen = [[one["choice"] for one in row["probabilities"]] for row in rows]
    assert chosen == [["big", "small"], ["long", "short", "none"], ["a", "b"]]
    assert failed["2"] == "bad_metadata: Its list of choices leaves nothing to choose."
    assert failed["4"] == "bad_metadata: Its list of choices holds 'big' twice."
    assert "sizes is missing or empty, and choices column needs it" in failed["5"]
    assert [row["answer"] in each for row, each in zip(rows, chosen, strict=True)] == [True] * 3
    own = [{"file_name": "c.webp", "n": 0}]
    (same,), _, _ = start(ask("how big?", choices="long,short,none"), own, out="same.jsonl")
    assert same["probabilities"] == rows[1]["probabilities"]
    mixed, _, _ = start(ask("which?", choices="{n},none,{sizes}"), ROWS[:1], out="mixed.jsonl")
    chosen = [[one["choice"] for one in row["probabilities"]] for row in mixed]
    assert chosen == [["1", "none", "big", "small"]]


def test_failures_are_rows_where_that_is_wanted(start: Start) -> None:
    rows, _, _ = start(ask("is it {alt} {{x}}?"), ROWS[:2], errors="inline")
    assert [row["question"] for row in rows] == ["is it a red {answer} {x}?", "is it {alt} {x}?"]
    assert rows[1]["error"].startswith("bad_metadata: ")
    assert (rows[0]["error"], rows[1]["answer"]) == ("", None)


def test_a_run_that_goes_on_gives_the_same_bytes(start: Start, tmp_path: Path) -> None:
    task = caption("a photo of {alt}")
    start(task, out="whole.jsonl")
    start(task, out="parts.jsonl", source={"limit": 2}, batch=1)
    start(task, out="parts.jsonl", resume=True, batch=3)
    for suffix in ("", ".errors"):
        whole, parts = (tmp_path / f"{name}.jsonl{suffix}" for name in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()
    with pytest.raises(OutputError, match=r"prompt a photo of \{alt\}, not a photo of \{n\}"):
        start(caption("a photo of {n}"), out="parts.jsonl", resume=True)


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (
            caption("a {titel}"),
            r"prompt with \{titel\}: the manifest .* has no such column; it has .*n; \{\{ and",
        ),
        (ask("is it {x}?"), r"question with \{x\}: "),
        (ask("a?", template="{x} {question}"), r"template with \{x\}: "),
        (ask("a?", choices="{x},b"), r"choices with \{x\}: "),
        (ask("a?", choices_column="x"), r"choices_column with \{x\}: "),
        (caption("{occurrence}"), "rename it in the source"),
        (caption("a {alt"), r"prompt 'a \{alt' has a \{ that names no column; write \{NAME\} for"),
        (caption("a {}"), r"prompt 'a \{\}' has a \{ that names no column"),
    ],
)
def test_unknown_columns_are_named_before_work_begins(
    task: Task, sentence: str, start: Start, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=sentence):
        start(task)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_folder_has_no_columns(images: Path) -> None:
    job = Job(ImageItems(), caption("{alt}"), RunOptions(source=SourceOptions((str(images),))))
    with pytest.raises(OptionError, match=r"prompt with \{alt\}: the source .* has no columns"):
        job.check().plan()


def test_texts_in_memory_have_no_columns(model: Blip2) -> None:
    with pytest.raises(OptionError, match=r"write \{\{ and \}\} for braces"):
        caption("{alt}").fit(model)
    assert caption("{{alt}}").fit(model).options.prompt == "{{alt}}"
