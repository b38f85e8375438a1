"""blip2cli: captions, answers and embeddings from BLIP-2 for whole folders of images."""

from __future__ import annotations

__version__ = "0.1.0"
