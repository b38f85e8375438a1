"""Images that a manifest names in several rows, told apart by a run and by the one that resumes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    LimitOptions,
    LoaderOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Summary
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.questions import from_texts

SHORT = DecodeOptions(max_new_tokens=3)
TASKS = {
    "caption": CaptionTask(decode=SHORT),
    "ask": AskTask(from_texts(["a?", "b?"]), decode=SHORT),
}


@pytest.fixture
def label(mixed: Path, model: Blip2) -> Callable[..., Summary]:
    """Label the images of a manifest that names some of them again and again."""
    names = sorted(path.name for path in mixed.iterdir() if path.is_file())
    rows = [*names, names[0], names[0], *names[:4], names[0], "b-broken.jpg", "b-broken.jpg"]
    text = "".join(f"{name},{number}\n" for number, name in enumerate(rows))
    (mixed / "m.csv").write_text("file_name,sku\n" + text)

    def call(
        out: Path, task: Task, limits: LimitOptions | None = None, **output: object
    ) -> Summary:
        options = RunOptions(
            source=SourceOptions((str(mixed / "m.csv"),), keep=("sku",)),
            loader=LoaderOptions(batch_size=2, workers=0),
            limits=limits or LimitOptions(),
            output=OutputOptions(str(out), **output),  # type: ignore[arg-type]
        )
        return run(Job(ImageItems(), task, options, load=lambda _: model))

    return call


@pytest.mark.parametrize("errors", ["file", "inline"])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("task", TASKS)
def test_batch_by_batch_or_at_once(
    task: str, suffix: str, errors: str, label: Callable[..., Summary], tmp_path: Path
) -> None:
    whole, bit = tmp_path / f"whole.{suffix}", tmp_path / f"bit.{suffix}"
    expected = label(whole, TASKS[task], errors=errors)
    assert expected.failed
    runs = 0
    stop = LimitOptions(max_duration=1e-9)
    while label(bit, TASKS[task], stop, errors=errors, resume=runs > 0).exit_code == 4:
        runs += 1
        assert runs < 50
    if suffix == "parquet":  # row groups end where runs did
        assert pq.read_table(bit).to_pylist() == pq.read_table(whole).to_pylist()
    else:
        assert bit.read_bytes() == whole.read_bytes()
    if errors == "file":
        listed = Path(f"{whole}.errors").read_bytes()
        assert Path(f"{bit}.errors").read_bytes() == listed
        assert listed.count(b"\n") == 4
    again = label(bit, TASKS[task], errors=errors, resume=True)
    assert (again.done, again.failed) == (0, 0)


def test_failed_images_are_tried_again_row_by_row(
    label: Callable[..., Summary], mixed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.jsonl"
    label(out, TASKS["caption"])
    assert label(out, TASKS["caption"], resume=True, retry_errors=True).failed == 4
    assert Path(f"{out}.errors").read_bytes().count(b"\n") == 4
    shutil.copy(mixed / "a.png", mixed / "b-broken.jpg")
    assert label(out, TASKS["caption"], resume=True, retry_errors=True).done == 4
    assert not Path(f"{out}.errors").exists()
    skus = [json.loads(line)["sku"] for line in out.read_text().splitlines()]
    assert sorted(map(int, skus)) == list(range(len(skus)))
