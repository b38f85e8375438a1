from __future__ import annotations

from pathlib import Path

import pytest

from blip2cli.tiny.sprites import draw_sheet, sprites


def test_a_missing_font_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install the package fonts-noto-color-emoji"):
        draw_sheet(tmp_path / "missing.ttf")


def test_cut_outs_touch_all_four_edges() -> None:
    for kind, image in sprites().items():
        alpha = image.getchannel("A")
        assert alpha.getbbox() == (0, 0, *image.size), kind
