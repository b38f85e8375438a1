from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip2cli.tiny.sprites import FONT, SHEET, draw_sheet


def test_a_missing_font_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install the package fonts-noto-color-emoji"):
        draw_sheet(tmp_path / "missing.ttf")


@pytest.mark.skipif(not FONT.exists(), reason="needs the package fonts-noto-color-emoji")
def test_the_sheet_is_the_fonts_own() -> None:
    drawn = np.asarray(draw_sheet(), np.int16)
    with Image.open(SHEET) as shipped:
        kept = np.asarray(shipped.convert("RGBA"), np.int16)
    visible = (drawn[..., 3] > 128) & (kept[..., 3] > 128)
    assert visible.mean() > 0.2
    # Later releases of the font redraw a few glyphs.
    assert np.abs(drawn - kept)[visible].mean() < 12
