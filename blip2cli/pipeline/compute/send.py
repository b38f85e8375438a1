"""Pixels on their way to the device that computes, while it still computes something else."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from blip2cli.system.memory import is_exhaustion

if TYPE_CHECKING:
    from collections.abc import Callable

    from blip2cli.images.batches import LoadedBatch
    from blip2cli.model.vision.upload import Upload


def send(upload: Upload, batch: LoadedBatch) -> Callable[[], LoadedBatch]:
    """Start to copy the pixels of a batch to a CUDA device, in any thread.

    What is returned gives the batch with its pixels there, and is called once, in the thread that
    computes. Where memory is short they stay where they are: smaller pieces may fit.
    """
    copied = None
    if len(batch.pixels):
        try:
            uploaded, copied = upload.start(batch.pixels)
            batch = replace(batch, pixels=uploaded)
        except (MemoryError, RuntimeError) as error:
            if not is_exhaustion(error):
                raise
    return partial(_arrived, upload, batch, copied)


def _arrived(upload: Upload, batch: LoadedBatch, copied: Any) -> LoadedBatch:
    if copied is not None:
        upload.wait(batch.pixels, copied)
    return batch
