"""Vectorised resize: Pillow's pixels, bit for bit, in about two thirds of its time, as planes.

Pillow resizes 8-bit pictures in two passes of integer arithmetic (``src/libImaging/Resample.c``):
an output pixel is the sum of some input pixels times coefficients of 22 fractional bits, rounded
and cut to 0…255; one pass goes along the rows, the other along the columns, each pixel by itself.
Here a pass runs a kernel twice that torch has for embeddings stored in 8 bits, and that is
vectorised on x86 (FBGEMM): it makes weighted sums of rows of a table.

* Along the axis to be resized, a picture is a table with a row for every position; an output row is
  the weighted sum of a few neighbouring rows. The picture is cut into strips that stay in the
  processor's cache, and turned where its rows are not the table's.
* The sums are float32, which holds integers up to 2**24; 8-bit values times 22-bit coefficients
  need more. So coefficients are split in two, and each half is summed without any rounding,
  whatever the order and the instructions; see :func:`_coefficients`.
* The coefficients are measured from Pillow itself, by resizing pictures that hold single points:
  its 32-bit greyscale resize has the same coefficients, and rounds them in the same way.

Which pass comes first shows in the result, and differs between releases of Pillow: ``_RULES``.
Where torch, Pillow or the machine are not as expected here, in threads, and for filters, modes and
sizes that gain nothing, Pillow does the work.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from blip2cli.images.pillow_buffer import ScatteredError, pixels

if TYPE_CHECKING:
    import torch

# How far a filter reaches at scale 1, in pixels to either side.
_REACH: dict[int, float] = {
    Image.Resampling.BOX: 0.5,
    Image.Resampling.BILINEAR: 1.0,
    Image.Resampling.HAMMING: 1.0,
    Image.Resampling.BICUBIC: 2.0,
    Image.Resampling.LANCZOS: 3.0,
}
_BITS = 22  # of Pillow's coefficients after the point: PRECISION_BITS
_MAX_SIDE = 16384  # pixels of a side; the pictures that measure coefficients grow with its square
# Integers up to 2**24 are exact in float32; some are left for the lower half and for rounding.
_EXACT = (1 << 24) - (1 << 18)
_MIN_PIXELS = 50_000  # pixels before and after together; below, Pillow is as fast
_STRIP = 1 << 17  # pixels of a strip, half a MiB
_MIN_STRIP, _MAX_STRIP = 48, 160  # rows or columns of a strip
_ONE = 0x3F800000  # 1.0 as float32

# From the sizes before and after: does the pass along the columns come first?
_Rule = Callable[[int, int, int, int], bool]
_RULES: tuple[_Rule, ...] = (
    # Pillow 13: where the height shrinks by more than twice as many pixels as the width.
    lambda width, height, out_width, out_height: (
        height - out_height > max(0, 2 * (width - out_width))
    ),
    # Pillow 12: never.
    lambda width, height, out_width, out_height: False,
)


def to_planes(image: Image.Image, width: int, height: int, resample: int) -> np.ndarray:
    """Resize an RGB picture; returns uint8 [3, height, width], contiguous.

    The values are those of ``image.resize((width, height), resample)``.
    """
    # In other threads each of the many short steps would wait for the interpreter lock, while
    # Pillow releases it once for the whole resize.
    in_main_thread = threading.current_thread() is threading.main_thread()
    found = None
    if in_main_thread and _is_faster(image, width, height, resample):
        torch = _imported_torch()
        rule = None if torch is None else _pass_order(torch)
        with contextlib.suppress(ScatteredError):
            found = rule and _resize(torch, image, width, height, resample, rule)
    if found is None:
        # Also called when the size fits already: the reference does, and Pillow then copies.
        found = np.asarray(image.resize((width, height), resample=resample))
    return np.ascontiguousarray(found[:, :, :3].transpose(2, 0, 1))


def _imported_torch() -> Any:
    """The module torch; None where it is not loaded, or is just being imported."""
    module = sys.modules.get("torch")
    initializing = getattr(getattr(module, "__spec__", None), "_initializing", False)
    return None if initializing else module


def _is_faster(image: Image.Image, width: int, height: int, resample: int) -> bool:
    """Whether :func:`_resize` takes the picture and, by measurement, takes less time."""
    return (
        image.mode == "RGB"
        and resample in _REACH
        and max(image.size) <= _MAX_SIDE
        and image.width * image.height + width * height >= _MIN_PIXELS
        and image.width != width  # Pillow then leaves a pass out
        and image.height != height
    )


@lru_cache(maxsize=1)
def _pass_order(torch: Any) -> _Rule | None:
    """The rule that this Pillow follows, found by resizing small pictures with and without it.

    None where none fits, or where this torch or this machine lacks the kernel.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None  # not vectorised, and not measured
    noise = np.random.default_rng(0).integers(0, 256, (65, 65, 3), np.uint8)
    small, bicubic = 16, Image.Resampling.BICUBIC
    pictures = [Image.fromarray(noise[:h, :w]) for h, w in ((64, 40), (65, 40), (65, 9), (9, 65))]
    expected = [np.asarray(p.resize((small, small), bicubic)) for p in pictures]
    for rule in _RULES:
        try:
            found = [_resize(torch, p, small, small, bicubic, rule) for p in pictures]
        except (AttributeError, RuntimeError, TypeError, ScatteredError):
            return None  # another kernel than the one known here, or another layout
        if all(
            f is not None and np.array_equal(w, f[:, :, :3])
            for w, f in zip(expected, found, strict=True)
        ):
            return rule
    return None


@dataclass(frozen=True)
class _Coefficients:
    """One axis of a resize: for every output row the input rows to be summed, and their weights.

    A coefficient times 2**22 is the integer ``high * 2**bits + low``.
    """

    rows: torch.Tensor  # int32: the input rows of output row 0, then those of 1, …
    starts: torch.Tensor  # int32 [outputs + 1], where each begins
    high: torch.Tensor  # float32, times 2**(bits - 22)
    low: torch.Tensor  # float32, times 2**-bits
    step: float  # 2**(bits - 22)


def _resize(
    torch: Any,
    image: Image.Image,
    width: int,
    height: int,
    resample: int,
    columns_first: _Rule,
) -> np.ndarray | None:
    """uint8 [height, width, 4], the last value of a pixel without meaning; None where coefficients
    cannot be summed in float32. Raises ScatteredError."""
    across = _coefficients(torch, image.width, width, resample)
    down = _coefficients(torch, image.height, height, resample)
    if across is None or down is None:
        return None
    # In the first pass a table's rows are columns of the picture (or rows, if those are summed),
    # a few rows (or columns) long. Four bytes a pixel, the last without meaning: as Pillow has it.
    upright = columns_first(*image.size, width, height)
    first, second = (down, across) if upright else (across, down)
    length, others = image.size[::-1] if upright else image.size
    outputs = len(first.starts) - 1
    most = max(_MIN_STRIP, min(_MAX_STRIP, _STRIP // length))
    strip = 4 * math.ceil(others / math.ceil(others / most) / 4)  # all of about one size
    table = _table("first", length, strip)
    between = _table("second", others, outputs)
    for start, columns in _strips(image, upright, strip):
        size = columns.shape[1]
        table[:, :size] = columns
        sums = _sums(torch, table, first).view(np.int32)
        between[start : start + size, :outputs] = sums.T[:size]
    result = _sums(torch, between, second).reshape(-1, outputs, 4)
    return result.transpose(1, 0, 2) if upright else result


_buffers: dict[str, np.ndarray] = {}


def _table(name: str, rows: int, pixels: int) -> np.ndarray:
    """An int32 [rows, pixels + 2] for :func:`_sums`, to be filled with pixels.

    The memory is reused from call to call, so the system need not clear it again.
    """
    size = rows * (pixels + 2)
    buffer = _buffers.get(name)
    if buffer is None or buffer.size < size:
        buffer = _buffers[name] = np.empty(size, np.int32)
    table = buffer[:size].reshape(rows, pixels + 2)
    table[:, pixels:] = _ONE, 0  # each row's scale and bias: float32, and read as such
    return table


def _strips(image: Image.Image, upright: bool, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Strips of a picture and where each begins: ``size`` columns if upright, else rows.

    int32 [height, columns] or [width, rows], four bytes a pixel.
    """
    try:
        whole = pixels(image)
    except ScatteredError:
        whole = None
    for start in range(0, image.width if upright else image.height, size):
        if whole is None:
            box = (start, 0, min(start + size, image.width), image.height)
            if not upright:
                box = (0, start, image.width, min(start + size, image.height))
            strip = pixels(image.crop(box))
        else:
            strip = whole[:, start : start + size] if upright else whole[start : start + size]
        yield start, strip if upright else strip.T


def _sums(torch: Any, table: np.ndarray, by: _Coefficients) -> np.ndarray:
    """One pass over a table of n pixels in each row → uint8 [output rows, 4 * n]."""
    rows = torch.from_numpy(table.view(np.uint8))
    add = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
    high, low = (
        add(rows, by.rows, by.starts, False, 0, False, weights, None, True)
        for weights in (by.high, by.low)
    )
    # (high * 2**bits + low + 2**21) >> 22, from numbers that float32 holds exactly throughout.
    high.add_(low.floor_(), alpha=by.step).add_(0.5).clamp_(0, 255)
    return np.asarray(high.numpy().astype(np.uint8))  # torch's own conversion is slow


@lru_cache(maxsize=128)
def _coefficients(torch: Any, size: int, outputs: int, resample: int) -> _Coefficients | None:
    """Pillow's coefficients for one axis; None when they cannot be summed in float32."""
    scale = size / outputs
    reach = _REACH[resample] * max(scale, 1.0)
    taps = min(size, 2 * math.ceil(reach) + 2)  # input positions that an output may depend on
    starts = np.floor((np.arange(outputs) + 0.5) * scale - reach).astype(np.int64)
    positions = np.clip(starts, 0, size - taps)[:, None] + np.arange(taps)
    # Row r has a point at every position p with p % taps == r. An output sees one of them.
    points = np.zeros((taps, size), np.int32)
    points[np.arange(size) % taps, np.arange(size)] = 1 << _BITS
    weights = np.asarray(Image.fromarray(points).resize((outputs, taps), resample))
    whole = weights[positions % taps, np.arange(outputs)[:, None]]
    for bits in (10, 9, 8, 7):
        middle = 1 << (bits - 1)
        low = ((whole + middle) & (2 * middle - 1)) - middle
        high = (whole - low) >> bits
        if max(np.abs(half).sum(1).max() for half in (low, high)) * 255 < _EXACT:
            break
    else:
        return None
    used = whole != 0
    ends = np.concatenate([[0], used.sum(1).cumsum()])
    step = 2.0 ** (bits - _BITS)
    return _Coefficients(
        rows=torch.from_numpy(positions[used].astype(np.int32)),
        starts=torch.from_numpy(ends.astype(np.int32)),
        high=torch.from_numpy((high[used] * step).astype(np.float32)),
        low=torch.from_numpy((low[used] * 2.0**-bits).astype(np.float32)),
        step=step,
    )
