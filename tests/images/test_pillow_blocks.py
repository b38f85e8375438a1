"""Memory of large pictures is reused, unless the user chose otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
from PIL import Image
from blip2cli.images.pillow_blocks import reuse_blocks
reuse_blocks()
core = vars(Image)["core"]
for _ in range(3):
    Image.new("RGB", (4000, 3000))  # 48 MB, three blocks
core.reset_stats()
Image.new("RGB", (4000, 3000))
stats = core.get_stats()
print(stats["allocated_blocks"], stats["reused_blocks"], core.get_blocks_max())
"""


@pytest.mark.parametrize(("chosen", "found"), [(None, "0 3 8"), ("0", "3 0 0"), ("2", "1 2 2")])
def test_blocks_are_reused_up_to_the_chosen_number(chosen: str | None, found: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PILLOW_BLOCKS_MAX"}
    if chosen is not None:
        environment["PILLOW_BLOCKS_MAX"] = chosen
    ran = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == found
