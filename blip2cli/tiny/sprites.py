"""The objects' pictures: cut-outs from Noto Color Emoji, kept as one sheet in the package.

``python -m blip2cli.tiny.sprites`` draws the sheet again from the font (Debian package
``fonts-noto-color-emoji``, SIL Open Font License 1.1, see ``assets/NOTICE``).
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from blip2cli.tiny.kinds import EMOJI

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SHEET = Path(__file__).parent / "assets" / "sprites.png"
FONT_SIZE = 109  # the one bitmap size the font holds
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


def draw_sheet(font: Path = FONT) -> Image.Image:
    """Draw the sheet from the font: RGBA, ``COLUMNS`` cells of ``CELL`` pixels in a row.

    Raises ``FileNotFoundError`` when the font is not installed.
    """
    if not font.exists():
        raise FileNotFoundError(f"{font} is missing: install the package fonts-noto-color-emoji")
    face = ImageFont.truetype(str(font), FONT_SIZE)
    rows = -(-len(EMOJI) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for i, emoji in enumerate(EMOJI.values()):
        canvas = Image.new("RGBA", (2 * CELL, 2 * CELL))
        ImageDraw.Draw(canvas).text((40, 40), emoji, font=face, embedded_color=True)
        glyph = canvas.crop(canvas.getbbox())
        sheet.paste(glyph, (i % COLUMNS * CELL, i // COLUMNS * CELL))
    return sheet


if __name__ == "__main__":
    try:
        draw_sheet().save(SHEET, optimize=True)
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(SHEET)
