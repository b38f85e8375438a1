"""Listing of sources and reading of single images."""

from __future__ import annotations

import pytest

from blip2cli.errors import ImageError
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
from blip2cli.sources.base import ImageRef


def refs(*sources: object, **options: object) -> list[ImageRef]:
    chosen = SourceOptions(tuple(str(s) for s in sources), **options)  # type: ignore[arg-type]
    return list(open_sources(chosen))


def failure(ref: ImageRef) -> str:
    with pytest.raises(ImageError) as caught:
        ref.read()
    return caught.value.error_type
