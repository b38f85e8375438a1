from __future__ import annotations

from blip2cli.tiny.sprites import sprites


def test_cut_outs_touch_all_four_edges() -> None:
    for kind, image in sprites().items():
        alpha = image.getchannel("A")
        assert alpha.getbbox() == (0, 0, *image.size), kind
