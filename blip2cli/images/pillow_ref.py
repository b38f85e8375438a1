"""Images of the Python API, paths and Pillow images, as references that the loader takes."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

from PIL import Image, ImageOps

from blip2cli.sources.base import ImageRef

# What PNG holds without loss, transparency and 16 bits included.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


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


def image_ref(image: str | os.PathLike[str] | Image.Image, number: int) -> ImageRef:
    """The reference to an image; ``number`` names a Pillow image that was read from no file.

    The name is what rows call it; it also seeds its draws, so it must not vary.
    """
    if isinstance(image, str | os.PathLike):
        return ImageRef(os.fspath(image), os.path.abspath(image))
    name = str(getattr(image, "filename", "") or f"image {number}")
    return PillowRef(name, "", image)
