"""The pipeline, with a real (random) model that is already in memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from blip2cli.errors import OptionError, OutputError, SourceError, UserError
from blip2cli.options import (
    EmbedOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Event, Failed, Finished, ModelReady, Progress, Started
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.questions import Question, Questions, from_texts
from tests.pipeline.helpers import CAPTION, SHORT, Loader, options, read, unwanted


def test_rows_are_the_same_whatever_the_batch_size(
    images: Path, tmp_path: Path, loader: Loader
) -> None:
    written = []
    for batch in (1, 3, 16):
        out = tmp_path / f"{batch}.jsonl"
        run(Job(ImageItems(), CAPTION, options(images, out, batch), load=loader))
        written.append(out.read_bytes())
    assert written[0] == written[1] == written[2]
    assert [json.loads(line)["file_name"] for line in written[0].splitlines()] == [
        "a.png",
        "b.jpg",
        "c.webp",
        "d.png",
        "e/f.bmp",
    ]


def test_a_summary_in_the_place_of_the_output_costs_no_row(
    images: Path, tmp_path: Path, loader: Loader
) -> None:
    out = tmp_path / "out.jsonl"
    chosen = options(images, out, summary=str(out))
    with pytest.raises(OutputError, match="is no summary of a run with this output"):
        run(Job(ImageItems(), CAPTION, chosen, load=loader))
    rows = out.read_bytes()
    assert len(rows.splitlines()) == 5
    for again in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError, match="is no summary of a run with this output"):
            run(Job(ImageItems(), CAPTION, options(images, out, summary=str(out), **again)))
    assert out.read_bytes() == rows


def test_events_report_a_run(mixed: Path, tmp_path: Path, loader: Loader) -> None:
    events: list[Event] = []
    summary_file = tmp_path / "summary.json"
    out = tmp_path / "out.jsonl"
    summary = run(
        Job(ImageItems(), CAPTION, options(mixed, out, summary=str(summary_file)), load=loader),
        events.append,
    )
    kinds = [type(event) for event in events]
    assert kinds[:2] == [Started, ModelReady]
    assert kinds[2:] == [Failed, Progress, Progress, Progress, Finished]
    assert events[0] == Started("caption", "Salesforce/blip2-opt-2.7b", 6)
    failed = events[2]
    assert isinstance(failed, Failed)
    assert (failed.file_name, failed.error_type) == ("b-broken.jpg", "not_an_image")
    progress = [(e.done, e.failed, e.total) for e in events if isinstance(e, Progress)]
    assert progress == [(1, 1, 6), (3, 1, 6), (5, 1, 6)]
    assert events[-1] == Finished(summary)
    assert (summary.done, summary.failed, summary.skipped, summary.rows) == (5, 1, 0, 5)
    assert summary.exit_code == 3
    assert summary.read_share + summary.model_share + summary.write_share == pytest.approx(1)
    assert 0 < summary.list_seconds < summary.load_seconds < summary.first_seconds < summary.seconds
    assert summary.images_per_second > 0
    assert json.loads(summary_file.read_text()) == summary.as_dict()
    assert [row["file_name"] for row in read(out)] == [
        "a.png",
        "b.jpg",
        "c.webp",
        "d.png",
        "e/f.bmp",
    ]
    (failure,) = read(tmp_path / "out.jsonl.errors")
    assert failure["file_name"] == "b-broken.jpg"


def test_failures_can_stay_in_line(mixed: Path, tmp_path: Path, loader: Loader) -> None:
    out = tmp_path / "out.jsonl"
    task = AskTask(from_texts(["a?", "b?"]), decode=SHORT)
    summary = run(Job(ImageItems(), task, options(mixed, out, 3, errors="inline"), load=loader))
    rows = read(out)
    assert [row["file_name"] for row in rows[:6]] == [
        "a.png",
        "a.png",
        "b-broken.jpg",
        "b-broken.jpg",
        "b.jpg",
        "b.jpg",
    ]
    assert [row["question"] for row in rows] == ["a?", "b?"] * 6
    assert rows[2]["error"].startswith("not_an_image: ")
    assert rows[2]["answer"] is None
    assert [row["error"] for row in rows if row["file_name"] != "b-broken.jpg"] == [""] * 10
    assert summary.exit_code == 3
    assert not (tmp_path / "out.jsonl.errors").exists()


def test_settings_are_stored_with_the_rows(images: Path, tmp_path: Path, loader: Loader) -> None:
    out = tmp_path / "out.parquet"
    run(Job(ImageItems(), EmbedTask(EmbedOptions("qformer")), options(images, out), load=loader))
    table = pq.read_table(out)
    assert table.column_names == ["file_name", "width", "height", "embedding", "kind"]
    stored = b" ".join((table.schema.metadata or {}).values()).decode()
    for part in ('"kind": "qformer"', '"dtype": "float32"', '"pool": "mean"'):
        assert part.replace(" ", "") in stored.replace(" ", "")


def test_only_images_with_questions_are_run(images: Path, tmp_path: Path, loader: Loader) -> None:
    questions = Questions(
        per_image={"d.png": (Question("x?", "1"),), "b.jpg": (Question("y?", "2"),)}
    )
    out = tmp_path / "out.jsonl"
    summary = run(
        Job(ImageItems(), AskTask(questions, decode=SHORT), options(images, out), load=loader)
    )
    assert [(row["file_name"], row["question"]) for row in read(out)] == [
        ("b.jpg", "y?"),
        ("d.png", "x?"),
    ]
    assert (summary.done, summary.skipped) == (2, 3)


def test_questions_for_unknown_images_are_refused(images: Path) -> None:
    questions = Questions(per_image={"z.png": (Question("x?", "1"),)})
    with pytest.raises(OptionError, match=r"1 image .* \(z.png\)"):
        run(Job(ImageItems(), AskTask(questions), options(images), load=unwanted))


def test_a_limit_hides_no_name(images: Path) -> None:
    """An image that --limit leaves out is known all the same."""
    questions = Questions(
        per_image={"a.png": (Question("x?", "1"),), "e/f.bmp": (Question("x?", "2"),)}
    )
    source = SourceOptions((str(images),), limit=2)
    plan = Job(ImageItems(), AskTask(questions), RunOptions(source)).check().plan()
    assert [ref.file_name for ref in plan.items] == ["a.png"]
    with pytest.raises(OptionError, match="loosen"):
        Job(
            ImageItems(), AskTask(questions), RunOptions(replace(source, include=("c*",)))
        ).check().plan()


def test_names_on_stdin_are_read_once(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    questions = Questions(per_image={"c.webp": (Question("x?", "1"),)})
    stdin = io.BytesIO(b"a.png\nc.webp\n")
    plan = (
        Job(ImageItems(), AskTask(questions), RunOptions(SourceOptions(("-",))), stdin=stdin)
        .check()
        .plan()
    )
    assert [ref.file_name for ref in plan.items] == ["c.webp"]


@pytest.mark.parametrize(
    ("task", "change", "error"),
    [
        (CAPTION, {"source": SourceOptions(("/no/such/place",))}, SourceError),
        (CAPTION, {"output": OutputOptions("out.xyz")}, OutputError),
        (CAPTION, {"output": OutputOptions("/no/such/place/out.jsonl")}, OutputError),
        (CAPTION, {"output": OutputOptions(summary="/no/such/place/s.json")}, OutputError),
        (CAPTION, {"output": OutputOptions(summary="/")}, OutputError),
        (EmbedTask(EmbedOptions("projection")), {"model": ModelOptions("tiny")}, OptionError),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(
    task: Task, change: dict[str, Any], error: type[UserError], images: Path
) -> None:
    with pytest.raises(error):
        run(Job(ImageItems(), task, replace(options(images), **change), load=unwanted))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        run(Job(ImageItems(), CAPTION, options(tmp_path), load=unwanted))


def test_a_large_source_is_counted_while_the_run_goes(tmp_path: Path, loader: Loader) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "000.png")
    for number in range(1, 300):
        (tmp_path / f"{number:03}.png").hardlink_to(tmp_path / "000.png")
    totals: dict[bool, list[int | None]] = {}
    for count in (False, True):
        events: list[Event] = []
        run(
            Job(
                ImageItems(),
                EmbedTask(),
                options(tmp_path, batch=64),
                load=loader,
                stdout=io.BytesIO(),
                count_all=count,
            ),
            events.append,
        )
        assert isinstance(events[0], Started)
        assert events[0].total is None
        totals[count] = [event.total for event in events if isinstance(event, Progress)]
    assert totals[False] == [None] * 5
    assert totals[True][-1] == 300


def test_the_pipeline_itself_imports_nothing_heavy() -> None:
    code = (
        "import sys, blip2cli.pipeline.run, blip2cli.tasks, blip2cli.tasks.questions\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'numpy', 'PIL', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_columns_of_the_source_come_into_the_rows(
    mixed: Path, tmp_path: Path, loader: Loader
) -> None:
    lines = [
        {"file_name": "a.png", "sku": "A-1", "price": 3},
        {"file_name": "b-broken.jpg", "sku": None, "price": 4.5},
        {"file_name": "b.jpg", "tags": ["x"]},
    ]
    manifest = mixed / "list.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    keep = ("price", "sku", "tags")
    for workers, name in ((0, "out.jsonl"), (1, "out.parquet")):
        out = tmp_path / name
        chosen = options(manifest, out, errors="inline")
        chosen = replace(
            chosen,
            source=replace(chosen.source, keep=keep),
            loader=replace(chosen.loader, workers=workers),
        )
        task = AskTask(from_texts(["a?", "b?"]), decode=SHORT)
        assert run(Job(ImageItems(), task, chosen, load=loader)).exit_code == 3
        rows = read(out) if name == "out.jsonl" else pq.read_table(out).to_pylist()
        assert list(rows[0])[:8] == [
            "file_name",
            "width",
            "height",
            *keep,
            "occurrence",
            "question",
        ]
        assert list(rows[0])[-1] == "error"
        carried = [tuple(row[column] for column in keep) for row in rows]
        assert carried == [
            *[(3.0, "A-1", None)] * 2,
            *[(4.5, None, None)] * 2,
            *[(None, None, '["x"]')] * 2,
        ]
        assert [bool(row["error"]) for row in rows] == [False, False, True, True, False, False]


@pytest.mark.parametrize("name", ["file_name", "width", "occurrence", "caption", "error"])
def test_a_carried_column_may_not_take_the_name_of_our_own(name: str, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"path,{name}\na.png,1\n")
    chosen = options(manifest)
    chosen = replace(chosen, source=replace(chosen.source, keep=(name,)))
    with pytest.raises(OptionError, match=f"keep {name}: rows have a column"):
        run(Job(ImageItems(), CAPTION, chosen, load=unwanted))
