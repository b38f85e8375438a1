"""Sprites: cut-outs from Noto Color Emoji, stored as one sheet (see ``assets/NOTICE``)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import Image

from blip2cli.tiny.kinds import EMOJI

SHEET = Path(__file__).parent / "assets" / "sprites.png"
CELL = 136  # pixels; the font's bitmaps are at most this wide and high
COLUMNS = 9


@cache
def sprites() -> dict[str, Image.Image]:
    """Every kind's cut-out: RGBA, cropped to what is visible, its longer side about 120 pixels."""
    with Image.open(SHEET) as opened:
        sheet = opened.convert("RGBA")
    cut = {}
    for i, kind in enumerate(EMOJI):
        x, y = i % COLUMNS * CELL, i // COLUMNS * CELL
        cell = sheet.crop((x, y, x + CELL, y + CELL))
        cut[kind] = cell.crop(cell.getbbox())
    return cut
