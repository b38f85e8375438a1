"""Pillow's block allocator: memory of large pictures is reused for the next one.

Pillow takes memory in blocks of 16 MiB and gives each back to the system, which has to clear the
pages again for the next picture: for 12 megapixels that takes nearly as long as decoding a JPEG of
that size.
"""

from __future__ import annotations

import os
from typing import Any

from PIL import Image

# 128 MiB, a picture of 33 megapixels, and only in processes that have met one that large.
_BLOCKS = 8


def reuse_blocks() -> None:
    """Let Pillow reuse its blocks in this process, unless ``PILLOW_BLOCKS_MAX`` is set."""
    if "PILLOW_BLOCKS_MAX" not in os.environ:
        core: Any = vars(Image)["core"]  # as in Pillow's documentation; not in its type stubs
        core.set_blocks_max(_BLOCKS)
