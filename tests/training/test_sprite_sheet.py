from __future__ import annotations

from pathlib import Path

import pytest

from training.sprite_sheet import draw_sheet


def test_a_missing_font_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install the package fonts-noto-color-emoji"):
        draw_sheet(tmp_path / "missing.ttf")
