"""Out of memory: the batch is halved, and the run goes on with smaller batches.

A row is the same whatever else is in its batch, so a batch may be cut anywhere. Which size fits is
not known beforehand (it depends on the images' prompts, on the other users of the device), only
found out: a batch that does not fit is halved, and its halves again, and the largest piece that did
fit is the size that later batches are cut to.
"""

from __future__ import annotations

import gc
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blip2cli.errors import ImageError
from blip2cli.pipeline.events import Halved, Listener, Slower
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.system.memory import is_exhaustion

if TYPE_CHECKING:
    from blip2cli.images.batch_stream import LoadedBatch, LoadedImage
    from blip2cli.model.wrapper import Blip2
    from blip2cli.tasks.base import Row


class BatchHalving:
    """A task whose batches become smaller when memory runs out.

    ``size`` is the largest number of images that are run together; None: no limit.
    """

    def __init__(self, task: Any, on_event: Listener = lambda event: None) -> None:
        self.size: int | None = None
        self._task = task
        self._on_event = on_event
        self._reported_slower = False
        # Texts with columns of the source: those of an image may not fit the model.
        self._screens = bool(getattr(task, "columns_used", None))

    def process(self, model: Blip2, batch: LoadedBatch) -> ProcessedBatch:
        """The task's rows, and the images as they turned out.

        One that is too large to run even by itself is a failed one (``error_type``
        ``out_of_memory``). Announces a smaller size as ``Halved``, and what makes the model slower
        as ``Slower``. Any other error of the task is let through.
        """
        if self._screens:
            batch = self._task.screened(model, batch)
        rows: list[Row] = []
        images: list[LoadedImage] = []
        fitted = 0  # images of the largest piece that fitted
        exhausted = False
        waiting = [batch] if self.size is None else _cut(batch, self.size)
        while waiting:
            piece = waiting.pop(0)
            try:
                rows += self._task.rows(model, piece)
            except (MemoryError, RuntimeError) as error:
                if not is_exhaustion(error):
                    raise
            else:
                fitted = max(fitted, len(piece.pixels))
                images += piece.items
                continue
            # The exception, whose frames hold tensors, is gone by now.
            exhausted = True
            _free(model)
            if len(piece.pixels) > 1:
                waiting[:0] = _cut(piece, (len(piece.pixels) + 1) // 2)
            else:
                images += map(_failed, piece.items)
        if exhausted:
            self._shrink(max(1, fitted))
        if not self._reported_slower and model.trouble is not None:
            self._reported_slower = True
            self._on_event(Slower(model.trouble))
        return ProcessedBatch(rows, sum(image.error is None for image in images), images)

    def _shrink(self, size: int) -> None:
        if self.size is None or size < self.size:
            self.size = size
            self._on_event(Halved(size))


def _cut(batch: LoadedBatch, size: int) -> list[LoadedBatch]:
    """``batch`` in order, in pieces of at most ``size`` images that have pixels."""
    if len(batch.pixels) <= size:
        return [batch]
    pieces = []
    good = itertools.accumulate(item.error is None for item in batch.items)
    # Pieces are numbered so that failed images stay with the good one before them.
    numbered = zip((max(0, count - 1) // size for count in good), batch.items, strict=True)
    for number, members in itertools.groupby(numbered, key=lambda pair: pair[0]):
        items = tuple(item for _, item in members)
        pixels = batch.pixels[number * size : (number + 1) * size]
        pieces.append(replace(batch, items=items, pixels=pixels))
    return pieces


def _failed(image: LoadedImage) -> LoadedImage:
    """``image``, failed for want of memory unless it has failed before."""
    if image.error is not None:
        return image
    error = ImageError("out_of_memory", "The model needs more memory for it than there is.")
    return replace(image, width=None, height=None, error=error)


def _free(model: Blip2) -> None:
    """Give back what is held for reuse, so that smaller pieces fit."""
    import torch

    gc.collect()
    if model.device.type == "cuda":
        model.free()
        torch.cuda.empty_cache()
    elif model.device.type == "mps":
        torch.mps.empty_cache()
