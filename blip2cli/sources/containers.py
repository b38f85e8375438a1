"""Sources that are one file with many images in it, or a list of them."""

from __future__ import annotations

from collections.abc import Callable

from blip2cli.options import SourceOptions
from blip2cli.sources.base import Source
from blip2cli.sources.readers.manifest import ManifestSource
from blip2cli.sources.readers.parquet import claim_parquet
from blip2cli.sources.readers.tar import TarSource
from blip2cli.sources.readers.zips import ZipSource

# Each claims its own suffixes, so the order does not matter.
CONTAINERS: tuple[Callable[[str, SourceOptions], Source | None], ...] = (
    ManifestSource.claim,
    claim_parquet,
    TarSource.claim,
    ZipSource.claim,
)


def open_container(text: str, options: SourceOptions) -> Source | None:
    """The source behind ``text`` if it is a manifest, a table or an archive."""
    for claim in CONTAINERS:
        if (source := claim(text, options)) is not None:
            return source
    return None
