"""The images of one batch after another, decoded for a replica of the model."""

from __future__ import annotations

from collections.abc import Sequence

from blip2cli.images.batch_stream import BatchPolicy, BatchStream
from blip2cli.images.batches import LoadedBatch, RequestedBatches
from blip2cli.images.decode import WarningsIgnored
from blip2cli.images.preprocess import PixelSpec
from blip2cli.images.worker_pool import choose_workers
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef

_LEAST = 8  # images that a worker process is sent at once, so that sending them costs little


class Decoder:
    """Decodes what it is given, in this process or, as ``BatchStream`` decides, in workers.

    ``cores`` bounds the workers; None: all cores there are. One thread at a time may use it.
    """

    def __init__(self, spec: PixelSpec, options: LoaderOptions, cores: int | None = None) -> None:
        chosen = choose_workers(cores) if options.workers is None else options.workers
        self._workers = max(1, chosen)
        self._requested = RequestedBatches()
        self._ignored = WarningsIgnored()
        policy = BatchPolicy(workers=lambda: chosen)
        self._stream = BatchStream(self._requested, spec, options, policy=policy)

    def load(self, refs: Sequence[ImageRef]) -> LoadedBatch:
        """The images, in order; a batch is shared out among the workers."""
        size = max(_LEAST, -(-len(refs) // self._workers))
        starts = range(0, len(refs), size)
        for start in starts:
            self._requested.request(list(refs[start : start + size]))
        loaded = [next(self._stream) for _ in starts]
        if len(loaded) == 1:
            return loaded[0]
        import torch

        items = tuple(item for each in loaded for item in each.items)
        return LoadedBatch(items, torch.cat([each.pixels for each in loaded]))

    def close(self) -> None:
        """End the workers."""
        self._stream.close()
        self._ignored.end()
