"""Sprite sheets: proportions, orientation, missing pictures, determinism, sizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip2cli.report.thumbnails import Sprites, cell_size, encode, make_sprites
from blip2cli.sources.base import ImageRef

RED, BLUE = (250, 10, 10), (10, 10, 250)


def refs(folder: Path, *names: str) -> list[ImageRef]:
    return [ImageRef(name, str(folder / name)) for name in names]


def sprites(images: list[ImageRef], cell: int = 96) -> tuple[Sprites, list[bytes]]:
    sheets: list[bytes] = []

    def put(data: bytes) -> str:
        sheets.append(data)
        return str(len(sheets))

    return make_sprites(images, cell, 4000, put), sheets


def cell_of(made: Sprites, sheets: list[bytes], number: int) -> Image.Image:
    """The thumbnail, cut out as the page does."""
    sheet, place = divmod(number, made.per_sheet)
    line, column = divmod(place, made.per_line)
    left, top = column * made.cell, line * made.cell
    box = (left, top, left + made.widths[number], top + made.heights[number])
    return Image.open(io.BytesIO(sheets[sheet])).convert("RGB").crop(box)


def test_a_thumbnail_has_the_proportions_of_its_picture_upright(tmp_path: Path) -> None:
    wide = Image.new("RGB", (400, 100), BLUE)
    wide.paste(RED, (0, 0, 200, 100))
    wide.save(tmp_path / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left comes to the top
    wide.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.new("RGB", (5, 7), RED).save(tmp_path / "small.png")
    Image.new("RGB", (3000, 2), RED).save(tmp_path / "line.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    names = "wide.png", "broken.png", "turned.jpg", "small.png", "line.png", "absent.png"
    made, sheets = sprites(refs(tmp_path, *names))
    assert made.numbers == {"wide.png": 0, "turned.jpg": 1, "small.png": 2, "line.png": 3}
    assert list(zip(made.widths, made.heights, strict=True)) == [
        (96, 24),
        (24, 96),
        (5, 7),
        (96, 1),
    ]
    assert made.failed.keys() == {"broken.png", "absent.png"}
    assert made.failed["absent.png"] == "missing"
    left, right = (np.asarray(cell_of(made, sheets, 0))[12, x] for x in (10, 80))
    assert np.abs(left.astype(int) - RED).max() < 40
    assert np.abs(right.astype(int) - BLUE).max() < 40
    top, bottom = (np.asarray(cell_of(made, sheets, 1))[y, 12] for y in (10, 80))
    assert np.abs(top.astype(int) - RED).max() < 40
    assert np.abs(bottom.astype(int) - BLUE).max() < 40


def test_sheets_are_full_of_cells_in_order_and_the_same_every_time(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(30)]
    for n, name in enumerate(names):
        Image.new("RGB", (40, 40), (8 * n, 100, 100)).save(tmp_path / name)
    made, sheets = sprites(refs(tmp_path, *names), cell=192)
    assert (made.per_line, len(sheets), made.sheets) == (5, 2, ["1", "2"])
    assert [Image.open(io.BytesIO(sheet)).size for sheet in sheets] == [(960, 960), (960, 192)]
    for n in (0, 7, 24, 25, 29):
        colour = np.asarray(cell_of(made, sheets, n)).mean(axis=(0, 1))
        assert abs(colour[0] - 8 * n) < 8, n
    assert sprites(refs(tmp_path, *names), cell=192)[1] == sheets


def test_a_sheet_gets_as_small_as_it_has_to(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8)
    best, small = encode(noise, 1 << 20), encode(noise, 6000)
    assert len(best) > len(small)
    assert Image.open(io.BytesIO(small)).size == (192, 192)


@pytest.mark.parametrize(("images", "cell"), [(1, 192), (1000, 128), (3000, 96), (100_000, 96)])
def test_few_pictures_are_larger(images: int, cell: int) -> None:
    assert cell_size(images) == cell
