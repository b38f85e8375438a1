"""Zero-copy access to the pixels of a Pillow image, through the Arrow C data interface.

``numpy.asarray(image)`` copies a picture twice. Pillow (since 11.3) also hands out its
own memory through the Arrow C data interface, https://arrow.apache.org/docs/format/CDataInterface,
whose structures keep their layout; pyarrow would read them, but takes longer to import than a
small job's images to decode.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from PIL import Image

_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
# struct ArrowArray, words of 64 bits: length, null_count, offset, n_buffers, n_children, buffers, …
_LENGTH, _OFFSET, _CHILDREN_COUNT, _BUFFERS, _CHILDREN = 0, 2, 4, 5, 6


def pixels(image: Image.Image) -> np.ndarray:
    """An RGB picture as int32 [height, width], read-only: four bytes a pixel, red first, the last
    without meaning.

    It shares the picture's memory and keeps it alive. Raises ScatteredError where the picture does
    not lie in one piece: if it is over 16 MiB, or in smaller blocks by ``PILLOW_BLOCK_SIZE``.
    """
    return np.asarray(_ArrowBuffer(image))


class ScatteredError(Exception):
    """A picture's memory is not one row of pixels, four bytes each."""


class _ArrowBuffer:
    """Array interface for numpy, which holds a reference to it as long as it uses the memory."""

    def __init__(self, image: Image.Image) -> None:
        try:
            _, self._capsule = image.__arrow_c_array__()
        except ValueError as error:
            raise ScatteredError from error
        outer = _words(_pointer(self._capsule, b"arrow_array"), 7)  # pixels: lists of numbers
        if outer[_CHILDREN_COUNT] != 1:
            raise ScatteredError("no list of numbers")
        inner = _words(_words(outer[_CHILDREN], 1)[0], 7)
        size = image.width * image.height
        if (outer[_LENGTH], inner[_LENGTH]) != (size, 4 * size) or outer[_OFFSET] or inner[_OFFSET]:
            raise ScatteredError("not four bytes a pixel")
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (image.height, image.width),
            "typestr": "<i4",
            "data": (_words(inner[_BUFFERS], 2)[1], True),  # the first buffer would mark nulls
        }


def _words(address: int, count: int) -> list[int]:
    return list((ctypes.c_int64 * count).from_address(address))
