"""JPEGs decoded no larger than the model needs: smaller pictures, the same rows otherwise."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blip2cli.errors import ImageError, OutputError
from blip2cli.images.batch_stream import BatchStream
from blip2cli.images.decode import decode
from blip2cli.images.preprocess import PixelSpec, to_uint8
from blip2cli.model.wrapper import Blip2
from blip2cli.options import LoaderOptions, ModelOptions, OutputOptions, RunOptions, SourceOptions
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask
from tests.images.helpers import Made
from tests.images.pictures import encoded, photograph

SAMPLES = Path(__file__).parents[2] / "sample_images"


def jpeg(width: int, height: int, orientation: int = 1, kind: str = "JPEG") -> bytes:
    picture = Image.open(io.BytesIO(photograph("coffee.png"))).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture.resize((width, height)), kind, exif=exif, quality=92)


@pytest.mark.parametrize(
    ("size", "at_least", "found"),
    [
        ((640, 480), (224, 224), (320, 240)),
        ((447, 600), (224, 224), (447, 600)),  # half of it would be a pixel short
        ((448, 600), (224, 224), (224, 300)),
        ((449, 601), (224, 224), (225, 301)),
        ((900, 897), (224, 224), (225, 225)),
        ((1800, 1793), (224, 224), (225, 225)),
        ((4000, 2000), (112, 112), (500, 250)),
        ((100, 80), (224, 224), (100, 80)),
        ((800, 400), (200, 50), (200, 100)),
    ],
)
def test_it_is_the_smallest_scale_that_is_large_enough(
    size: tuple[int, int], at_least: tuple[int, int], found: tuple[int, int]
) -> None:
    picture = decode(jpeg(*size), at_least)
    assert picture.image.size == found
    assert picture.image.mode == "RGB"
    assert (picture.width, picture.height) == size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_orientation_comes_after_and_counts_for_the_size(orientation: int, kind: str) -> None:
    data = jpeg(800, 400, orientation, kind)
    whole, fast = decode(data), decode(data, (100, 50))
    assert (fast.width, fast.height) == (whole.width, whole.height)
    assert fast.image.size == ((100, 50) if orientation < 5 else (100, 200))
    shrunk = whole.image.resize(fast.image.size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(shrunk, float) - np.asarray(fast.image, float))
    assert difference.mean() < 3  # turned the wrong way it is over 40


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000"])
def test_other_formats_are_decoded_whole(kind: str) -> None:
    picture = Image.open(io.BytesIO(photograph("coffee.png"))).convert("RGB").resize((400, 300))
    data = encoded(picture, kind)
    whole, fast = decode(data), decode(data, (50, 50))
    assert fast.image.size == (400, 300)
    assert np.array_equal(np.asarray(fast.image), np.asarray(whole.image))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_jpeg_is_the_same_picture(mode: str, progressive: bool) -> None:
    source = Image.open(io.BytesIO(photograph("coffee.png"))).convert("RGB").resize((800, 600))
    data = encoded(source.convert(mode), "JPEG", progressive=progressive)
    fast = decode(data, (90, 70))
    assert fast.image.size == (100, 75)
    shrunk = decode(data).image.resize((100, 75), Image.Resampling.BOX)
    assert np.abs(np.asarray(shrunk, float) - np.asarray(fast.image, float)).mean() < 3


def test_damage_has_the_same_names() -> None:
    for data, name in ((jpeg(800, 600)[:9000], "truncated"), (b"\xff\xd8\xff", "truncated")):
        with pytest.raises(ImageError) as caught:
            decode(data, (100, 100))
        assert caught.value.error_type == name


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_decodes_for_the_size_the_model_takes(workers: int) -> None:
    spec = PixelSpec(60, 90)
    refs = [Made(f"{n}.jpg", f"/{n}.jpg", jpeg(720 + n, 480)) for n in range(3)]
    for fast in (False, True):
        with BatchStream(refs, spec, LoaderOptions(4, workers, fast_decode=fast)) as batches:
            (batch,) = batches
        for ref, item, found in zip(refs, batch.items, batch.pixels, strict=True):
            picture = decode(ref.data, (90, 60) if fast else None)
            assert picture.image.height == (60 if fast else 480)
            assert torch.equal(found, to_uint8(picture.image, spec))
            assert (item.width, item.height) == (720 + int(ref.file_name[0]), 480)


@pytest.fixture(scope="module")
def model() -> Blip2:
    return Blip2.load(ModelOptions(model="tiny"))


def test_rows_have_the_same_texts_and_are_not_mixed(model: Blip2, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("breakfast.jpg", "party.jpg", "sideways.jpg"):
        shutil.copy(SAMPLES / name, tmp_path / "in" / name)

    def rows(task: Task, name: str, fast: bool, resume: bool = False) -> list[dict[str, Any]]:
        out = tmp_path / f"{task.name}-{name}.jsonl"
        options = RunOptions(
            source=SourceOptions((str(tmp_path / "in"),)),
            loader=LoaderOptions(2, 0, fast_decode=fast),
            output=OutputOptions(str(out), resume=resume),
        )
        assert run(Job(ImageItems(), task, options, load=lambda chosen: model)).exit_code == 0
        return [json.loads(line) for line in out.read_text().splitlines()]

    for task, key in ((CaptionTask(), "caption"), (EmbedTask(), "embedding")):
        whole, fast = rows(task, "whole", False), rows(task, "fast", True)
        assert len(whole) == 3
        for one, other in zip(whole, fast, strict=True):
            same = {"file_name", "width", "height"} | ({"caption"} if key == "caption" else set())
            assert {name: one[name] for name in same} == {name: other[name] for name in same}
        if key == "embedding":  # other pixels, so other numbers, if not by much
            a, b = (np.array([row[key] for row in each]) for each in (whole, fast))
            assert not np.array_equal(a, b)
            lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            assert ((a * b).sum(1) / lengths).min() > 0.98
        for name, other in (("whole", True), ("fast", False)):
            with pytest.raises(OutputError, match="fast_decode"):
                rows(task, name, other, resume=True)
