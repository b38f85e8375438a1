"""Draw the sheet of sprites from its font: ``python -m training.sprite_sheet``.

The font is the Debian package ``fonts-noto-color-emoji``, under the SIL Open Font License 1.1 (see
``blip2cli/tiny/assets/NOTICE``).
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from blip2cli.tiny.kinds import EMOJI
from blip2cli.tiny.sprites import CELL, COLUMNS, SHEET

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SIZE = 109  # the one bitmap size the font holds


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
