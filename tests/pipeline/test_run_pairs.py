"""Vectors of images with texts through the whole pipeline: files, failures, going on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import OutputError
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    EmbedOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Event, Progress
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.tasks.embed import EmbedTask
from blip2cli.tasks.texts import from_lines

TEXTS = ("two cats", "a red car and a tree")
TASK = EmbedTask(
    EmbedOptions("multimodal", normalize=True, embedding_dtype="float16"), from_lines(TEXTS)
)


@pytest.fixture(scope="module")
def model(retrieval_checkpoint: Path) -> Blip2:
    return Blip2.load(ModelOptions(str(retrieval_checkpoint), device="cpu", dtype="float32"))


def options(images: Path, out: Path, checkpoint: Path, batch: int = 2, **more: bool) -> RunOptions:
    return RunOptions(
        SourceOptions((str(images),)),
        ModelOptions(str(checkpoint), device="cpu", dtype="float32"),
        LoaderOptions(batch_size=batch, workers=0),
        OutputOptions(str(out), **more),
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_resumed_run_equals_an_unbroken_one(
    suffix: str, mixed: Path, model: Blip2, retrieval_checkpoint: Path, tmp_path: Path
) -> None:
    sent = []

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and not sent:  # a second one would end pytest
            sent.append(event)
            os.kill(os.getpid(), signal.SIGINT)

    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    chosen = options(mixed, whole, retrieval_checkpoint, batch=5)
    assert run(Job(ImageItems(), TASK, chosen, load=lambda o: model)).exit_code == 3
    chosen = options(mixed, cut, retrieval_checkpoint, resume=True)
    assert run(Job(ImageItems(), TASK, chosen, load=lambda o: model), interrupt).exit_code == 130
    assert run(Job(ImageItems(), TASK, chosen, load=lambda o: model)).exit_code == 3
    assert cut.read_bytes() == whole.read_bytes()
    if suffix == ".parquet":
        table = pq.read_table(whole)
        assert table.schema.field("embedding").type == pa.list_(pa.float16(), 32)
        rows = table.to_pylist()
    else:
        rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert len(rows) == 10
    assert [row["text"] for row in rows] == [*TEXTS] * 5
    keys = ["file_name", "width", "height", "text", "embedding", "kind"]
    assert list(rows[0]) == keys
    for row in rows:
        vector = np.array(row["embedding"], np.float16)
        assert vector.tolist() == list(row["embedding"])
        assert np.linalg.norm(vector.astype(np.float32)) == pytest.approx(1, abs=2e-3)


def test_other_texts_do_not_go_on_with_an_output(
    images: Path, model: Blip2, retrieval_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pairs.jsonl"
    run(Job(ImageItems(), TASK, options(images, out, retrieval_checkpoint), load=lambda o: model))
    chosen = options(images, out, retrieval_checkpoint, resume=True)
    for other, message in (
        (EmbedTask(EmbedOptions("multimodal"), from_lines(TEXTS)), "normalize True, not False"),
        (
            EmbedTask(TASK.options, from_lines(["a dog"])),
            "with text ",
        ),
        (
            EmbedTask(EmbedOptions("multimodal", normalize=True), TASK.texts),
            "embedding_dtype float16, not float32",
        ),
    ):
        with pytest.raises(OutputError) as caught:
            run(Job(ImageItems(), other, chosen, load=lambda o: model))
        assert message in str(caught.value)


def test_a_failed_image_has_a_row_for_every_text_inline(
    mixed: Path, model: Blip2, retrieval_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pairs.jsonl"
    chosen = RunOptions(
        SourceOptions((str(mixed),)),
        ModelOptions(str(retrieval_checkpoint), device="cpu", dtype="float32"),
        LoaderOptions(batch_size=4, workers=0),
        OutputOptions(str(out), errors="inline"),
    )
    run(Job(ImageItems(), TASK, chosen, load=lambda o: model))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    failed = [row for row in rows if row["error"]]
    assert [(row["file_name"], row["text"]) for row in failed] == [
        ("b-broken.jpg", text) for text in TEXTS
    ]
    assert all(row["embedding"] is None and row["kind"] == "multimodal" for row in failed)
    assert len(rows) == 12
