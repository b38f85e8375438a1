"""Going on with a run, through the whole pipeline, with a real (random) model in memory."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blip2cli.errors import OptionError, OutputError, RunError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    CaptionOptions,
    DecodeOptions,
    EmbedOptions,
    LimitOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Event, Progress, Resumed, Summary, TookOver
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.sinks import OutputLock
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.questions import from_texts

SHORT = DecodeOptions(max_new_tokens=6)
CAPTION = CaptionTask(decode=SHORT)
FORMATS = ("jsonl", "jsonl.gz", "parquet")
TASKS: dict[str, Task] = {
    "caption": CAPTION,
    "ask": AskTask(from_texts(["a?", "b?", "c?"]), decode=SHORT),
    "embed": EmbedTask(EmbedOptions("qformer")),
}


class Stopped(Exception):  # noqa: N818 - not an error: a stand-in for the end of the process
    """The run ends here."""


@pytest.fixture
def again(mixed: Path, model: Blip2) -> Callable[..., Summary]:
    """Run the mixed images, in one go or until so many batches are done."""

    def call(
        out: Path,
        task: Task = CAPTION,
        batch: int = 2,
        stop: int | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
        limits: LimitOptions | None = None,
        **output: Any,
    ) -> Summary:
        batches = 0

        def listen(event: Event) -> None:
            nonlocal batches
            on_event(event)
            if isinstance(event, Progress):
                batches += 1
                if batches == stop:
                    raise Stopped

        return run(
            Job(
                ImageItems(),
                task,
                RunOptions(
                    source=SourceOptions((str(mixed),)),
                    loader=LoaderOptions(batch_size=batch, workers=0),
                    output=OutputOptions(str(out), **({"resume": True} | output)),
                    limits=limits or LimitOptions(),
                ),
                load=lambda options: model,
            ),
            listen,
        )

    return call


def content(folder: Path) -> dict[str, bytes]:
    """Every file of an output, without what tells one folder from another."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in [name for name in found if name.endswith(".meta.json")]:
        found[name] = json.dumps(json.loads(found[name])["settings"]).encode()
    for name in [name for name in found if name.endswith(".gz")]:
        import gzip

        found[name] = gzip.decompress(found[name])
    return found


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_stopped_after_each_batch_it_ends_as_if_never_stopped(
    again: Callable[..., Summary], tmp_path: Path, task: Task, suffix: str
) -> None:
    for name in ("whole", "pieces"):
        (tmp_path / name).mkdir()
    again(tmp_path / "whole" / f"out.{suffix}", task)
    out = tmp_path / "pieces" / f"out.{suffix}"
    for batch in (1, 2, 1):
        with pytest.raises(Stopped):
            again(out, task, batch, stop=1)
    summary = again(out, task, 4)
    assert summary.exit_code == 3
    assert content(tmp_path / "pieces") == content(tmp_path / "whole")


def test_nothing_left_needs_no_model(again: Callable[..., Summary], tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    again(out)
    before = out.read_bytes()
    events: list[Event] = []
    again(out, on_event=events.append)
    assert not any(type(event).__name__ == "ModelReady" for event in events)
    (resumed,) = (event for event in events if isinstance(event, Resumed))
    assert (resumed.images, resumed.failed, resumed.version) == (5, 1, None)
    assert out.read_bytes() == before


def test_new_images_join_the_rows(
    again: Callable[..., Summary], mixed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    again(out)
    before = out.read_bytes()
    Image.new("RGB", (9, 9), "red").save(mixed / "aa.png")
    summary = again(out)
    assert (summary.done, summary.already, summary.exit_code) == (1, 6, 3)
    assert out.read_bytes().startswith(before)
    assert json.loads(out.read_bytes()[len(before) :])["file_name"] == "aa.png"


def test_failures_are_tried_again_with_retry_errors(
    again: Callable[..., Summary], mixed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    again(out)
    shutil.copy(mixed / "b.jpg", mixed / "b-broken.jpg")
    summary = again(out)
    assert (summary.done, summary.failed, summary.exit_code) == (0, 0, 3)
    summary = again(out, retry_errors=True)
    assert (summary.done, summary.failed, summary.exit_code) == (1, 0, 0)
    assert not Path(f"{out}.errors").exists()
    assert sum("b-broken.jpg" in line for line in out.read_text().splitlines()) == 1


def test_failures_in_line_are_rows_like_others(
    again: Callable[..., Summary], tmp_path: Path
) -> None:
    whole, pieces = tmp_path / "whole.jsonl", tmp_path / "pieces.jsonl"
    again(whole, TASKS["ask"], errors="inline")
    with pytest.raises(Stopped):
        again(pieces, TASKS["ask"], errors="inline", stop=1)
    assert again(pieces, TASKS["ask"], errors="inline").exit_code == 3
    assert pieces.read_bytes() == whole.read_bytes()
    for suffix in FORMATS:
        out = tmp_path / f"more.{suffix}"
        codes = [again(out, TASKS["ask"], errors="inline").exit_code for _ in range(2)]
        assert codes == [3, 3]  # also when nothing is left to do
    with pytest.raises(OptionError, match="retry_errors reads the file"):
        again(pieces, errors="inline", retry_errors=True)


@pytest.mark.parametrize("suffix", FORMATS)
def test_replacing_an_output_forgets_its_failures(
    again: Callable[..., Summary], mixed: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out.{suffix}"
    again(out)
    shutil.copy(mixed / "b.jpg", mixed / "b-broken.jpg")
    with pytest.raises(Stopped):
        again(out, CaptionTask(CaptionOptions("x"), SHORT), stop=1, resume=False, overwrite=True)
    summary = again(out, CaptionTask(CaptionOptions("x"), SHORT))
    assert (summary.done, summary.exit_code) == (4, 0)


def test_other_settings_are_refused_before_the_model_is_loaded(
    again: Callable[..., Summary], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    again(out)
    before = out.read_bytes()
    events: list[Event] = []
    for task, flag in (
        (CaptionTask(CaptionOptions("a photo of"), SHORT), "prompt unset"),
        (CaptionTask(decode=replace(SHORT, num_beams=3)), "num_beams 1"),
        (TASKS["embed"], "the command caption"),
    ):
        with pytest.raises(OutputError, match=flag):
            again(out, task, on_event=events.append)
    with pytest.raises(OutputError, match="errors file, not inline"):
        again(out, errors="inline")
    assert events == []
    assert out.read_bytes() == before


def test_an_output_without_resume_is_refused(again: Callable[..., Summary], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    again(out)
    with pytest.raises(OutputError, match="add resume"):
        again(out, resume=False)
    with pytest.raises(OutputError, match="contradict"):
        again(out, overwrite=True)


def test_the_time_is_up(again: Callable[..., Summary], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    codes = [again(out, limits=LimitOptions(max_duration=1e-9)).exit_code for _ in range(4)]
    # Six images in batches of two: every run gets on by one batch; the third finds no more.
    assert codes == [4, 4, 3, 3]
    whole = tmp_path / "whole.jsonl"
    again(whole)
    assert out.read_bytes() == whole.read_bytes()


def test_too_many_failures_stop_the_run(again: Callable[..., Summary], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(RunError, match="1 of 2 images failed, more than max_errors 0 allows"):
        again(out, limits=LimitOptions(max_errors=0))
    assert len(out.read_text().splitlines()) == 1
    with pytest.raises(RunError, match="max_errors 10% allows"):
        again(tmp_path / "other.jsonl", limits=LimitOptions(max_errors=0.1))


def test_one_run_at_a_time(again: Callable[..., Summary], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with OutputLock(str(out)), pytest.raises(OutputError, match="is writing"):
        again(out)
    (tmp_path / ".out.jsonl.lock").write_text("process 999999999 on nowhere\n")
    events: list[Event] = []
    again(out, on_event=events.append)
    assert events[0] == TookOver("process 999999999 on nowhere")
    assert {path.name for path in tmp_path.iterdir() if "out" in path.name} == {
        "out.jsonl",
        "out.jsonl.errors",
        ".out.jsonl.meta.json",
    }


def test_stdout_cannot_be_gone_on_with(mixed: Path) -> None:
    source = SourceOptions((str(mixed),))

    def unwanted(options: ModelOptions) -> Blip2:
        raise AssertionError("the model was loaded")

    with pytest.raises(OutputError, match="resume needs a file"):
        run(
            Job(
                ImageItems(),
                CAPTION,
                RunOptions(source, output=OutputOptions(resume=True)),
                load=unwanted,
                stdout=io.BytesIO(),
            )
        )


def test_failures_before_the_first_row_are_those_of_a_run_that_goes_on(
    again: Callable[..., Summary], tmp_path: Path
) -> None:
    """A Parquet output has no part yet when images failed and the run is killed."""
    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    again(whole)
    listed = Path(f"{whole}.errors").read_bytes()
    Path(f"{out}.errors").write_bytes(listed.splitlines(keepends=True)[0])
    (tmp_path / ".out.parquet.meta.json").write_text('{"failures": true}\n')
    assert again(out).failed > 0
    assert out.read_bytes() == whole.read_bytes()
    assert Path(f"{out}.errors").read_bytes() == listed
