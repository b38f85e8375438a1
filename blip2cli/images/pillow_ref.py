"""Images of the Python API (paths, Pillow images, arrays) as references that the loader takes."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from blip2cli.errors import OptionError
from blip2cli.sources.base import ImageRef

# What PNG holds without loss, transparency and 16 bits included.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})

_CHANNELS = ((), (1,), (3,), (4,))


@dataclass(frozen=True)
class PillowRef(ImageRef):
    """A Pillow image; it has no path."""

    image: Image.Image

    def read(self) -> bytes:
        """The image as the bytes of a file, so that every image goes through one decoder."""
        upright = ImageOps.exif_transpose(self.image)
        file = io.BytesIO()
        if upright.mode in ("F", "I"):
            upright.save(file, "TIFF")
        else:
            plain = upright if upright.mode in _PNG_MODES else upright.convert("RGB")
            plain.save(file, "PNG", compress_level=0)
        return file.getvalue()


def is_one_image(images: object) -> bool:
    """Whether ``images`` is one image; an array of four dimensions is several."""
    if isinstance(images, str | os.PathLike):
        return True
    dimensions = getattr(images, "ndim", None)  # of an array
    return dimensions in (2, 3) if dimensions is not None else not hasattr(images, "__iter__")


def image_ref(image: object, number: int) -> ImageRef:
    """The reference to an image; ``number`` names what was read from no file.

    The name is what rows call it; it also seeds its draws, so it must not vary. Raises OptionError
    for what is neither a path, a Pillow image nor an array, uint8 ``[H, W]`` or ``[H, W, C]`` with
    one, three or four channels.
    """
    if isinstance(image, str | os.PathLike):
        return ImageRef(os.fspath(image), os.path.abspath(image))
    if isinstance(image, np.ndarray):
        image = _from_array(image, number)
    elif not isinstance(image, Image.Image):
        raise OptionError(
            "images",
            f"Image {number} is an object of type {type(image).__name__}",
            "give paths, Pillow images or NumPy arrays",
        )
    name = str(getattr(image, "filename", "") or f"image {number}")
    return PillowRef(name, "", image)


def _from_array(pixels: np.ndarray, number: int) -> Image.Image:
    shape = pixels.shape
    if pixels.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in _CHANNELS:
        raise OptionError(
            "images",
            f"Image {number} is an array of {pixels.dtype} {list(shape)}",
            "give uint8 [H, W] or [H, W, C], with one, three or four channels",
        )
    return Image.fromarray(pixels[:, :, 0] if shape[2:] == (1,) else pixels)
