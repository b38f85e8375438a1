"""Sources with names that are easily misordered, and runs that label them as shares."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Summary
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.tasks.base import Task
from tests.convert.shares import CAPTION, Label


@pytest.fixture
def label(model: Blip2, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Label:
    """Label sources, as seen from ``tmp_path``, into ``out``, as one share or all of them."""
    monkeypatch.chdir(tmp_path)

    def call(
        sources: tuple[str, ...],
        out: str,
        shard: str | None = None,
        task: Task = CAPTION,
        stdin: bytes = b"",
        output: dict[str, Any] = {},  # noqa: B006 - not changed
        **more: Any,
    ) -> Summary:
        options = RunOptions(
            SourceOptions(sources, shard=shard, **more),
            ModelOptions(str(checkpoint)),
            LoaderOptions(batch_size=3, workers=0),
            OutputOptions(out, **output),
        )
        job = Job(ImageItems(), task, options, stdin=io.BytesIO(stdin), load=lambda _: model)
        return run(job)

    return call


@pytest.fixture
def photos(images: Path, tmp_path: Path) -> Path:
    """A folder of 14 files, of which two are no images, with names that are easily misordered."""
    folder = tmp_path / "photos"
    pictures = sorted(images.glob("*.png"))
    names = ["a/1.png", "a-b/1.png", "a.png", "a/b/2.png", "ü.png", "z\\udc80.png", "10.png"]
    names += ["9.png", "B.png", "b.png", os.fsdecode(b"caf\xe9.png"), 'quo"te.png']
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[number % len(pictures)], folder / name)
    (folder / "a/broken.png").write_bytes(b"no picture")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder
