"""When worker processes start to decode images, and what else the options may leave open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from blip2cli.images.batches import LoadedBatch
from blip2cli.images.prefetch import PREFETCH_IMAGES
from blip2cli.images.worker_pool import choose_workers
from blip2cli.options.images import IMAGE_TIMEOUT


@dataclass(frozen=True)
class BatchPolicy:
    """What ``BatchStream`` does where the options say nothing."""

    workers: Callable[[], int] = choose_workers
    # Decode in this process until that has taken this many seconds: a small job is done before
    # workers would have started, and start-up would compete with it for the cores. Of a prefetch
    # thread only the seconds count that it was waited for: it works while the model does, and
    # costs the main thread no more than a worker (measured with tiny, 1.0 to 1.3 ms an image: the
    # main thread needs 3.92 ms of processor time an image with the thread, 3.90 with a worker,
    # 5.04 when it decodes itself). Where decoding takes longer than the model, more workers do
    # more.
    seconds_without_workers: float = 1.0
    # Batch threads decode a batch's images if that takes no longer: an interrupted run waits.
    decode_seconds_per_batch: float = 1.0
    prefetch_images: int = PREFETCH_IMAGES
    prefetch_bytes: int | None = None  # None: what the memory allows
    made: Callable[..., LoadedBatch] = LoadedBatch.of  # how batches leave, made of their parcels
    image_timeout: float = IMAGE_TIMEOUT
