"""Thumbnails in sprite sheets: square WebP pictures of many small ones.

Images are decoded, within their limits and upright, by the same workers as those of a run, each to
a square of one cell. From there it gets its own proportions back. The order of cells is that of the
images, so equal images give equal sheets.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from PIL import Image

from blip2cli.images.batch_stream import BatchPolicy, BatchStream
from blip2cli.images.load_image import BatchArrays
from blip2cli.images.preprocess import PixelSpec
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef
from blip2cli.system.cores import available_cores

_SIDE = 960  # pixels of a sheet: small ones decode quickly, and only those that are looked at
# Quality, and what of the pixels remains: the first with which a sheet is small enough counts.
_QUALITIES = ((70, 1), (45, 1), (25, 1), (25, 2), (10, 4))
_BATCH = 32  # images that a worker loads at once
_MOST_THREADS = 8
_GREY = 0x80  # where a cell is larger than its thumbnail

Put = Callable[[bytes], str]  # stores a sheet, and says what the page calls it
Progress = Callable[[int], None]  # images so far


@dataclass
class Sprites:
    """Thumbnails of images, by number; a missing one has none."""

    cell: int  # pixels of a side
    per_line: int
    numbers: dict[str, int] = field(default_factory=dict)  # by name
    widths: list[int] = field(default_factory=list)  # pixels
    heights: list[int] = field(default_factory=list)
    sheets: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # ``error_type`` by name

    @property
    def per_sheet(self) -> int:
        """Cells of a sheet."""
        return self.per_line**2

    def as_dict(self) -> dict[str, Any]:
        """As the page takes it."""
        return {
            "cell": self.cell,
            "per_line": self.per_line,
            "per_sheet": self.per_sheet,
            "sheets": self.sheets,
        }


def cell_size(images: int) -> int:
    """Pixels of a cell: the fewer images, the larger."""
    return 192 if images <= 500 else 128 if images <= 1500 else 96


def make_sprites(
    refs: Iterable[ImageRef],
    cell: int,
    most_bytes: int,
    put: Put,
    progress: Progress | None = None,
) -> Sprites:
    """Sprite sheets of the images ``refs``, each of at most ``most_bytes`` an image, if it can be.

    Raises what ``refs`` and ``put`` raise, and RunError where no image can be decoded.
    """
    sprites = Sprites(cell, _SIDE // cell)
    policy = BatchPolicy(made=cast(Any, lambda arrays: arrays))  # as they come, without torch
    loading = LoaderOptions(batch_size=_BATCH, fast_decode=True)
    with (
        BatchStream(iter(refs), PixelSpec(cell, cell), loading, policy=policy) as batches,
        ThreadPoolExecutor(min(_MOST_THREADS, available_cores())) as threads,
    ):
        sheets = _Sheets(sprites, most_bytes, put, threads)
        done = 0
        for batch in batches:
            items, pixels = cast(BatchArrays, batch)
            good = iter(pixels)
            for item in items:
                if item.error is not None or item.width is None or item.height is None:
                    sprites.failed[item.file_name] = (
                        item.error.error_type if item.error else "unknown"
                    )
                    continue
                sprites.numbers[item.file_name] = len(sprites.widths)
                sheets.add(next(good), item.width, item.height)
            done += len(items)
            if progress is not None:
                progress(done)
        sheets.close()
    return sprites


class _Sheets:
    """Fills sheets, encodes them in threads, and puts them in order."""

    def __init__(
        self, sprites: Sprites, most_bytes: int, put: Put, threads: ThreadPoolExecutor
    ) -> None:
        self._sprites, self._most_bytes, self._put = sprites, most_bytes, put
        self._threads = threads
        self._encoding: deque[Future[bytes]] = deque()
        self._cells = 0  # of the sheet that is being filled
        self._pixels = self._empty()

    def add(self, planes: np.ndarray, width: int, height: int) -> None:
        """Put an image, uint8 ``[3, cell, cell]`` of a ``width`` by ``height``, into a cell."""
        cell = self._sprites.cell
        scale = min(1.0, cell / max(width, height))
        wide, high = max(1, round(width * scale)), max(1, round(height * scale))
        small = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
        if (wide, high) != small.size:
            small = small.resize((wide, high), Image.Resampling.BICUBIC)
        line, column = divmod(self._cells, self._sprites.per_line)
        top, left = line * cell, column * cell
        self._pixels[top : top + high, left : left + wide] = np.asarray(small)
        self._sprites.widths.append(wide)
        self._sprites.heights.append(high)
        self._cells += 1
        if self._cells == self._sprites.per_sheet:
            self._finish()

    def close(self) -> None:
        """Put the rest; the last sheet may be lower."""
        if self._cells:
            lines = -(-self._cells // self._sprites.per_line)
            self._pixels = self._pixels[: lines * self._sprites.cell]
            self._finish()
        while self._encoding:
            self._put_first()

    def _finish(self) -> None:
        most = self._most_bytes * self._cells
        self._encoding.append(self._threads.submit(encode, self._pixels, most))
        self._pixels, self._cells = self._empty(), 0
        while len(self._encoding) > _MOST_THREADS:  # so that memory stays flat
            self._put_first()

    def _put_first(self) -> None:
        self._sprites.sheets.append(self._put(self._encoding.popleft().result()))

    def _empty(self) -> np.ndarray:
        side = self._sprites.cell * self._sprites.per_line
        return np.full((side, side, 3), _GREY, np.uint8)


def encode(pixels: np.ndarray, most_bytes: int) -> bytes:
    """A picture, uint8 ``[H, W, 3]``, as WebP: as good as ``most_bytes`` allow."""
    image, data = Image.fromarray(pixels), b""
    for quality, coarser in _QUALITIES:
        file, saved = io.BytesIO(), image
        if coarser > 1:
            saved = image.reduce(coarser).resize(image.size, Image.Resampling.BILINEAR)
        saved.save(file, "WEBP", quality=quality, method=2)
        data = file.getvalue()
        if len(data) <= most_bytes:
            break
    return data
