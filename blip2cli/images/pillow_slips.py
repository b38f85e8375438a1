"""Pictures that Pillow 13.0 reads wrongly, or not at all for want of a line in a table."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image, ImageChops

from blip2cli.images.limits import check_memory
from blip2cli.images.tiff_header import (
    BITS,
    COMPRESSION,
    EXTRA_SAMPLES,
    LENGTH,
    PHOTOMETRIC,
    PLANES,
    SAMPLE_FORMAT,
    STRIP_BYTES,
    STRIP_OFFSETS,
    WIDTH,
    Directory,
)

_ASSOCIATED = 1  # a kind of extra sample: alpha, by which colours are multiplied already


def put_right(image: Image.Image, data: bytes) -> Image.Image:
    """A decoded picture in CMYK, or with a transparent colour, as its file means it."""
    if image.mode == "CMYK":
        # Pillow takes every CMYK JPEG for one of Adobe's, in which 255 is no ink. As libvips,
        # by the advice of libjpeg's documentation: those without Adobe's marker are not.
        adobe = image.format != "JPEG" or "adobe" in image.info
        return image if adobe else ImageChops.invert(image)
    clear = image.info.get("transparency")
    if image.format == "PNG" and clear is not None:
        depth = data[24]
        if image.mode == "L" and depth < 8 and isinstance(clear, int):
            # Pillow scales the pixels to 8 bits, and not the number of the clear ones.
            image.info["transparency"] = clear * 255 // ((1 << depth) - 1)
        elif image.mode == "RGB" and depth == 16:
            # Pixels have lost their lower 8 bits; colours that differ there only count as one.
            image.info["transparency"] = tuple(number >> 8 for number in clear)
    return image


def readable_tiff(data: bytes, directory: Directory) -> tuple[bytes, bool, bool]:
    """The file with tags that Pillow reads; and what that changes, as ``to_rgb`` takes it.

    Greyscale of over 8 bits that counts from white is marked as counting from black: Pillow reads
    it as its negative, or not at all, depending on the byte order. Numbers of 32 bits without a
    sign are marked as having one where Pillow reads no others.
    """
    bits = directory.values.get(BITS, (1,))
    from_white = directory.values.get(PHOTOMETRIC) == (0,) and max(bits) > 8
    unsigned = bits == (32,) and directory.first(SAMPLE_FORMAT, 1) == 1
    changes = {PHOTOMETRIC: 1} if from_white else {}
    if unsigned and directory.byte_order == ">" and SAMPLE_FORMAT in directory.values:
        changes[SAMPLE_FORMAT] = 2
    for tag, number in changes.items():
        place, code = directory.places[tag]
        value = struct.pack(directory.byte_order + code, number)
        data = data[:place] + value + data[place + len(value) :]
    return data, from_white, unsigned


def wide_planes(data: bytes, directory: Directory) -> Image.Image | None:
    """The picture of an uncompressed TIFF that has a plane of 16 bits for each colour.

    Pillow reads such planes as if they had 8 bits. None for any other TIFF. Raises ValueError for
    one that is not in RGB, or not in strips, and ImageError for one that is too large.
    """
    bits = directory.values.get(BITS, (1,))
    if directory.first(PLANES, 1) != 2 or directory.first(COMPRESSION, 1) != 1:
        return None
    if set(bits) != {16} or len(bits) == 1:
        return None
    rgb = directory.first(PHOTOMETRIC, 2) == 2 and directory.first(SAMPLE_FORMAT, 1) == 1
    if not rgb or len(bits) not in (3, 4) or STRIP_OFFSETS not in directory.values:
        raise ValueError("unsupported planes")
    shape = (len(bits), directory.first(LENGTH, 0), directory.first(WIDTH, 0))
    check_memory(shape[2], shape[1], 24)
    starts, sizes = (directory.values.get(tag, ()) for tag in (STRIP_OFFSETS, STRIP_BYTES))
    view = memoryview(data)
    body = b"".join(view[at : at + size] for at, size in zip(starts, sizes, strict=False))
    planes = np.frombuffer(body, directory.byte_order + "u2").reshape(shape)
    layers = [
        Image.fromarray(((plane.astype(np.uint32) + 128) // 257).astype(np.uint8))
        for plane in planes
    ]
    alpha = len(layers) == 4 and directory.first(EXTRA_SAMPLES, 0)
    if alpha == _ASSOCIATED:
        return Image.merge("RGBa", layers).convert("RGBA")
    return Image.merge("RGBA", layers) if alpha else Image.merge("RGB", layers[:3])
