"""What several tests of tasks share."""

from __future__ import annotations

from pathlib import Path

from blip2cli.images.batch_stream import BatchStream, LoadedBatch
from blip2cli.model.wrapper import Blip2
from blip2cli.options import LoaderOptions, SourceOptions
from blip2cli.sources import open_sources


def load(folder: Path, model: Blip2, limit: int | None = None) -> LoadedBatch:
    """The images of a folder as one batch."""
    refs = open_sources(SourceOptions((str(folder),), limit=limit))
    (batch,) = BatchStream(refs, model.spec, LoaderOptions(batch_size=16, workers=0))
    return batch
