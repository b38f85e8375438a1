"""Listing of sources and reading of single images."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import ImageError
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
from blip2cli.sources.base import ImageRef


def refs(*sources: object, **options: object) -> list[ImageRef]:
    chosen = SourceOptions(tuple(str(s) for s in sources), **options)  # type: ignore[arg-type]
    return list(open_sources(chosen))


def failure(ref: ImageRef, **limits: int) -> str:
    """Why it cannot be read, where ``limits`` are given to its ``read``."""
    with pytest.raises(ImageError) as caught:
        ref.read(**limits)
    return caught.value.error_type


def write_table(file: Path, /, **columns: object) -> Path:
    """A Parquet file with these columns."""
    pq.write_table(pa.table(columns), file)  # type: ignore[arg-type]
    return file
