from __future__ import annotations

from pathlib import Path

from PIL import Image

from blip2cli.tiny.samples import SAMPLES
from training.sample_images import write_samples

SHIPPED = Path(__file__).parents[2] / "sample_images"


def test_they_can_be_drawn_again(tmp_path: Path) -> None:
    write_samples(tmp_path)
    for sample in SAMPLES:
        name = sample.file_name
        with Image.open(tmp_path / name) as again, Image.open(SHIPPED / name) as shipped:
            assert again.size == shipped.size
            if name.endswith(".png"):  # lossless: the same on every machine
                assert again.tobytes() == shipped.tobytes()
