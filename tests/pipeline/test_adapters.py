"""Runs with adapters: an output is gone on with by the same ones alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blip2cli.errors import OutputError
from blip2cli.options import (
    DecodeOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.tasks.caption import CaptionTask
from tests.adapters import Q_PROJ, adapter, low_rank

PROJECTION = "language_projection"


def label(images: Path, out: Path, model: Path, *adapters: str, limit: int | None = None) -> int:
    """Caption the images, going on with ``out``; the number of rows that were there."""
    options = RunOptions(
        SourceOptions((str(images),), limit=limit),
        ModelOptions(str(model), device="cpu", dtype="float32", adapter=adapters),
        LoaderOptions(batch_size=2, workers=0),
        OutputOptions(str(out), resume=True),
    )
    task = CaptionTask(decode=DecodeOptions(max_new_tokens=5))
    return run(Job(ImageItems(), task, options)).already


def test_other_adapters_and_scales_are_refused(
    checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    lora = adapter(tmp_path / "lora", checkpoint, low_rank(checkpoint, PROJECTION))
    other = adapter(tmp_path / "other", checkpoint, low_rank(checkpoint, Q_PROJ))
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    label(images, out, checkpoint, f"{lora}@3", limit=2)
    for given, said in (
        ((f"{lora}@0.5",), rf"was made with adapter '{lora}@3', not '{lora}@0.5'"),
        ((f"{other}@3",), rf"was made with adapter '{lora}@3', not '{other}@3'"),
        ((), rf"was made with adapter '{lora}@3', not unset"),
    ):
        with pytest.raises(OutputError, match=said):
            label(images, out, checkpoint, *given)
    moved = lora.rename(tmp_path / "moved")
    assert label(images, out, checkpoint, f"{moved}@3.0") == 2  # the same one by another name
    label(images, whole, checkpoint, f"{moved}@3")
    assert out.read_bytes() == whole.read_bytes()
    rows = [json.loads(line)["caption"] for line in whole.read_text().splitlines()]
    label(images, bare := tmp_path / "bare.jsonl", checkpoint)
    assert rows != [json.loads(line)["caption"] for line in bare.read_text().splitlines()]
    adapter(moved, checkpoint, low_rank(checkpoint, PROJECTION, seed=9))
    with pytest.raises(OutputError, match="was made with adapter"):
        label(images, out, checkpoint, f"{moved}@3")
    with pytest.raises(OutputError, match="was made with model"):
        label(images, bare, moved)
