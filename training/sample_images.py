"""Draw the images of ``sample_images/``: ``python -m training.sample_images FOLDER``."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from blip2cli.tiny.samples import SAMPLES, draw_sample

ORIENTATION = 0x0112  # EXIF tag
SIDEWAYS = 6  # "rotate 90° clockwise to view"


def write_samples(folder: Path) -> None:
    """Draw every sample into ``folder``."""
    for sample in SAMPLES:
        path = folder / sample.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        image, _ = draw_sample(sample)
        if sample.sideways:
            exif = Image.Exif()
            exif[ORIENTATION] = SIDEWAYS
            image.transpose(Image.Transpose.ROTATE_90).save(path, quality=90, exif=exif)
        else:
            image.save(path, quality=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the sample images.")
    parser.add_argument("folder", type=Path)
    write_samples(parser.parse_args().folder)
