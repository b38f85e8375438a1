"""A batch whose rows are made, as whoever computes hands it to the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blip2cli.images.load_image import LoadedImage
    from blip2cli.pipeline.events import Event
    from blip2cli.tasks.base import Row

# Loads a batch by one call, in any thread: a ``LoadedBatch`` of images, or a tuple of texts.
PendingBatch = Callable[[], Any]


@dataclass(eq=False)
class ProcessedBatch:
    """A batch with its rows. It holds no pixels, and can be pickled."""

    rows: list[Row]
    done: int  # items that have rows
    images: Sequence[LoadedImage] = ()  # the items, failures included, when they are images
    load_share: float = 0.0  # the part of the time that went into loading the batch, 0 to 1
    events: Sequence[Event] = ()  # what came up on the way, where the listener is elsewhere


def process_batch(
    process: Callable[[Any], ProcessedBatch], running: dict[int, Any], pending: PendingBatch
) -> ProcessedBatch:
    """Finish loading a batch and make its rows; ``running`` has it meanwhile, by thread, pending
    or loaded."""
    start, thread = time.perf_counter(), get_ident()
    running[thread] = pending
    try:
        running[thread] = batch = pending()
        loaded = time.perf_counter()
        processed = process(batch)
    finally:
        del running[thread]
    processed.load_share = (loaded - start) / max(time.perf_counter() - start, 1e-9)
    return processed
