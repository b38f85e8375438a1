"""A replica of the model: what a worker runs, wherever it is. References in, rows out.

A replica decodes its own images, in its own process or in worker processes of that, so pixels never
travel. Two threads may have it process batches at once: one decodes, and sends the pixels to a GPU,
while the other computes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blip2cli.options import LoaderOptions, ModelOptions
from blip2cli.pipeline.compute.base import Ready, describe
from blip2cli.pipeline.compute.send import send
from blip2cli.pipeline.compute.this_process import import_model, load_model
from blip2cli.pipeline.events import Event, Halved
from blip2cli.pipeline.out_of_memory import BatchHalving
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef

if TYPE_CHECKING:
    from blip2cli.model.checkpoint.ranker import RankerSpec
    from blip2cli.model.checkpoint.weight_files import Checkpoint
    from blip2cli.model.vision.upload import Upload
    from blip2cli.model.wrapper import Blip2
    from blip2cli.pipeline.compute.decoder import Decoder
    from blip2cli.tasks.base import Task


@dataclass(frozen=True)
class ReplicaSpec:
    """What a replica is made from; it can be pickled."""

    model: ModelOptions  # with the device of this replica
    loader: LoaderOptions
    task: Task
    checkpoint: Checkpoint | None = None  # None: found where the replica is
    threads: int | None = None  # of torch for one operation; None: as many as the environment says
    cores: int | None = None  # that are its share; None: all there are
    sharers: int = 1  # replicas that share the memory of the machine
    ranker: RankerSpec | None = None  # a model beside it; likewise found

    def start(self) -> Replica:
        """Load the models, and fit the task to them.

        Raises ModelError when one cannot be loaded, OptionError when device, precision or task do
        not fit it.
        """
        start = time.perf_counter()
        kind = import_model()
        imported = time.perf_counter() - start
        import torch

        from blip2cli.model.placement.batch_size import auto_batch_size

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        model = load_model(kind, self.model, self.checkpoint, self.ranker)
        size = self.loader.batch_size or auto_batch_size(model, self.sharers)
        return Replica(self, model, describe(model, self.task, size, imported))


class Replica:
    """A loaded model with its task, and what decodes images for it."""

    def __init__(self, spec: ReplicaSpec, model: Blip2, ready: Ready) -> None:
        self.spec = spec
        self.model = model
        self.ready = ready
        self._events: list[Event] = []
        self._halving = BatchHalving(ready.task, self._events.append)
        self._decoder = self._new_decoder(spec.loader)
        self._isolated: Decoder | None = None
        self._decoding, self._computing = threading.Lock(), threading.Lock()
        self._upload: Upload | None = None
        if model.device.type == "cuda":
            from blip2cli.model.vision.upload import Upload

            self._upload = Upload(model.device)

    def process(self, refs: Sequence[ImageRef], isolate: bool = False) -> ProcessedBatch:
        """The rows of the images, in order, and the images as they turned out.

        With ``isolate`` another process decodes them, so that what crashes the decoder is an image
        that failed. Lets through what the task raises, but for want of memory.
        """
        with self._decoding:
            start = time.perf_counter()
            decoder = self._isolating_decoder() if isolate else self._decoder
            batch = decoder.load(refs)
            sent = None if self._upload is None else send(self._upload, batch)
            loading = time.perf_counter() - start
        with self._computing:
            start = time.perf_counter()
            if self.model.device.type == "cuda":
                import torch

                torch.cuda.set_device(self.model.device)  # of this thread
            processed = self._halving.process(self.model, sent() if sent else batch)
            computing = time.perf_counter() - start
            processed.events = self._taken_events()
        processed.load_share = loading / max(loading + computing, 1e-9)
        return processed

    def close(self) -> None:
        """End the processes that decode."""
        for decoder in (self._decoder, self._isolated):
            if decoder is not None:
                decoder.close()

    def _isolating_decoder(self) -> Decoder:
        if self._isolated is None:
            self._isolated = self._new_decoder(replace(self.spec.loader, workers=1))
        return self._isolated

    def _new_decoder(self, options: LoaderOptions) -> Decoder:
        from blip2cli.pipeline.compute.decoder import Decoder

        return Decoder(self.model.spec, options, self.spec.cores)

    def _taken_events(self) -> tuple[Event, ...]:
        events = tuple(
            replace(event, device=self.ready.device) if isinstance(event, Halved) else event
            for event in self._events
        )
        self._events.clear()
        return events
