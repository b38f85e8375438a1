"""Images of the Python API (paths, Pillow images, arrays, tensors, values of ``datasets``) as
references that the loader takes."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from blip2cli.errors import OptionError
from blip2cli.sources.base import FailedRef, ImageRef

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


@dataclass(frozen=True)
class BytesRef(ImageRef):
    """The bytes of an image file; it has no path."""

    data: bytes

    def read(self) -> bytes:
        return self.data


def is_one_image(images: object) -> bool:
    """Whether ``images`` is one image; an array of four dimensions is several."""
    if isinstance(images, str | os.PathLike | Mapping):
        return True
    dimensions = getattr(images, "ndim", None)  # of an array or a tensor
    return dimensions in (2, 3) if dimensions is not None else not hasattr(images, "__iter__")


def image_ref(image: object, number: int) -> ImageRef:
    """The reference to an image; ``number`` names what was read from no file.

    The name is what rows call it; it also seeds its draws, so it must not vary. An image is a path,
    a Pillow image, an array, uint8 ``[H, W]`` or ``[H, W, C]``, or a tensor of torch, uint8
    ``[H, W]`` or ``[C, H, W]``, with one, three or four channels; a value of ``datasets`` that is
    not decoded, with ``bytes`` or ``path``; or None, an image that is missing. Raises OptionError
    for anything else.
    """
    if isinstance(image, ImageRef):
        return image
    if isinstance(image, str | os.PathLike):
        return ImageRef(os.fspath(image), os.path.abspath(image))
    if image is None:
        return FailedRef(
            f"image {number}", "", error_type="missing", message="There is no such image."
        )
    if isinstance(image, Mapping):
        return _of_datasets(image, number)
    if isinstance(image, np.ndarray):
        image = _from_array(image, number)
    elif hasattr(image, "detach"):  # a tensor, without importing torch
        image = _from_tensor(image, number)
    elif not isinstance(image, Image.Image):
        raise OptionError(
            "images",
            f"Image {number} is an object of type {type(image).__name__}",
            "give paths, Pillow images, NumPy arrays or tensors",
        )
    name = str(getattr(image, "filename", "") or f"image {number}")
    return PillowRef(name, "", image)


def _of_datasets(value: Mapping[Any, Any], number: int) -> ImageRef:
    """The reference to an image as ``datasets`` stores it."""
    path, data = value.get("path"), value.get("bytes")
    if isinstance(data, bytes):
        return BytesRef(path or f"image {number}", "", data)
    if not path:
        raise OptionError(
            "images",
            f"Image {number} is a dictionary with neither path nor bytes",
            "give a column of images, as dataset['image']",
        )
    return image_ref(path, number)


def _from_tensor(tensor: Any, number: int) -> Image.Image:
    shape = tuple(tensor.shape)
    fits = len(shape) in (2, 3) and shape[:-2] in _CHANNELS
    if str(tensor.dtype) != "torch.uint8" or not fits:
        raise OptionError(
            "images",
            f"Image {number} is a tensor of {tensor.dtype} {list(shape)}",
            "give uint8 [H, W] or [C, H, W], with one, three or four channels",
        )
    pixels = tensor.detach().cpu().numpy()
    return _from_array(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0), number)


def _from_array(pixels: np.ndarray, number: int) -> Image.Image:
    shape = pixels.shape
    if pixels.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in _CHANNELS:
        raise OptionError(
            "images",
            f"Image {number} is an array of {pixels.dtype} {list(shape)}",
            "give uint8 [H, W] or [H, W, C], with one, three or four channels",
        )
    return Image.fromarray(pixels[:, :, 0] if shape[2:] == (1,) else pixels)
