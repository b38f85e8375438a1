from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageOps

from blip2cli.tiny.samples import SAMPLES, Sample

SHIPPED = Path(__file__).parents[2] / "sample_images"


def test_the_folder_holds_the_samples_and_nothing_else() -> None:
    there = {path.relative_to(SHIPPED).as_posix() for path in SHIPPED.rglob("*") if path.is_file()}
    assert there == {sample.file_name for sample in SAMPLES}
    suffixes = {name.rsplit(".", 1)[1] for name in there}
    assert suffixes == {"jpg", "png", "webp"}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.file_name)
def test_every_sample_is_seen_upright(sample: Sample) -> None:
    with Image.open(SHIPPED / sample.file_name) as image:
        assert (image.size != sample.size) == sample.sideways
        assert ImageOps.exif_transpose(image).size == sample.size
