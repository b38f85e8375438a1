"""Pictures that models are checked with: drawn scenes of known content, or the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from blip2cli.errors import ImageError, SourceError, option
from blip2cli.images.decode import decode
from blip2cli.sources.base import ImageRef
from blip2cli.tiny.samples import SAMPLES, draw_sample

# Scenes that differ in what they show, and in how many.
_SCENES = ("cats.png", "elephant.jpg", "night.png")


@dataclass(frozen=True)
class Picture:
    """A picture, and its caption where that is known."""

    name: str
    image: Image.Image  # RGB
    caption: str | None = None


@cache
def drawn_pictures() -> tuple[Picture, ...]:
    """The scenes every model is checked with."""
    samples = {sample.file_name: sample for sample in SAMPLES}
    pictures = []
    for name in _SCENES:
        image, scene = draw_sample(samples[name])
        pictures.append(Picture(name, image, scene.caption))
    return tuple(pictures)


def read_picture(file: str) -> Picture:
    """The user's picture. Raises SourceError when it cannot be read or decoded."""
    path = Path(file)
    try:
        return Picture(path.name, decode(ImageRef(file, str(path.absolute())).read()).image)
    except ImageError as error:
        raise SourceError("image", f"{option('image')} {file}: {error.problem}") from error
