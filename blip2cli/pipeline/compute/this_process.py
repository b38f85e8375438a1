"""This process computes: one model, run by one thread or several."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from blip2cli.pipeline.compute.base import NEXT_IMAGE, Ready, describe
from blip2cli.pipeline.compute.threads import BatchThreads
from blip2cli.pipeline.events import Listener
from blip2cli.pipeline.processed_batch import PendingBatch, ProcessedBatch, process_batch
from blip2cli.sources.base import shown_names

if TYPE_CHECKING:
    from blip2cli.images.preprocess import PixelSpec
    from blip2cli.model.checkpoint.ranker import RankerSpec
    from blip2cli.model.checkpoint.weight_files import Checkpoint
    from blip2cli.model.wrapper import Blip2
    from blip2cli.options import ModelOptions
    from blip2cli.pipeline.job import BatchReader, Job
    from blip2cli.pipeline.plan import Plan
    from blip2cli.pipeline.stats import Stage


def import_model() -> type[Blip2]:
    """Import torch and what runs the model, fit for the cores there are."""
    from blip2cli.system.openmp import after_torch, before_torch

    before_torch()
    from blip2cli.model.wrapper import Blip2

    after_torch()
    return Blip2


def load_model(
    kind: type[Blip2],
    options: ModelOptions,
    checkpoint: Checkpoint | None,
    ranker: RankerSpec | None,
) -> Blip2:
    """Load the model of a run, with the one that ranks its texts if there is one.

    Raises ModelError, OptionError.
    """
    if ranker is None:
        return kind.load(options, checkpoint)
    from blip2cli.model.load_ranked import load_ranked

    return load_ranked(options, checkpoint, ranker)


class ThisProcess:
    """Reads the items of a plan and runs the model, in this process.

    ``options`` are the job's with what an earlier run chose, and so are ``threads`` for one
    operation of torch's; None: as many as there are.
    """

    def __init__(
        self,
        job: Job[Any],
        plan: Plan,
        options: ModelOptions,
        threads: int | None,
        isolate_decoding: bool,
        on_event: Listener,
    ) -> None:
        self._job = job
        self._plan = plan
        self._options = options
        self._torch_threads = threads
        self._isolate_decoding = isolate_decoding
        self._on_event = on_event
        self._stack = contextlib.ExitStack()
        self._model: Blip2 | None = None
        self._running: dict[int, Any] = {}  # batches, by the thread that has one; the oldest first
        self._batches: BatchReader
        # Methods of the batches and the threads, without a detour for each batch.
        self.next_batch: Callable[[], PendingBatch | None]
        self.put: Callable[[PendingBatch], None]
        self.take: Callable[[bool], ProcessedBatch | None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def start(self) -> None:
        if self._job.load is not None:
            self._model = self._job.load(self._options)
            self._read(self._model.spec, prefetch=False)
        else:
            assert self._job.checkpoint is not None  # the run has found it
            self._read(self._job.checkpoint.pixel_spec, prefetch=True)

    def load(self) -> Ready:
        imported, items = 0.0, self._job.items
        model, batches = self._model, self._batches
        if model is None:
            start = time.perf_counter()
            kind = import_model()
            imported = time.perf_counter() - start
            if self._torch_threads is not None:
                import torch

                self._stack.callback(torch.set_num_threads, torch.get_num_threads())
                torch.set_num_threads(self._torch_threads)
            job = self._job
            model = load_model(kind, self._options, job.checkpoint, job.ranker)
            self._model = model
        count = items.fit(self._job, batches, model)
        ready = describe(model, self._job.task, imported=imported)
        processor = items.processor(ready.task, model, self._on_event)
        process = functools.partial(process_batch, processor, self._running)
        threads = self._stack.enter_context(BatchThreads(process, count))
        self.next_batch, self.put, self.take = batches.next_pending, threads.put, threads.take
        return ready

    def waiting_for(self, stage: Stage) -> str:
        """The batch that is decoded or that the model has, or the image that is loaded."""
        if stage == "read":
            return self._batches.waiting_for or NEXT_IMAGE
        batch = next(iter(self._running.values()), None)
        if (undecoded := getattr(batch, "file_names", None)) is not None:
            return f"the decoding of {shown_names(undecoded)}"
        names = [item.file_name for item in getattr(batch, "items", ())]
        return f"the model, which has {shown_names(names)}" if names else "the model"

    def _read(self, spec: PixelSpec, prefetch: bool) -> None:
        self._batches = self._stack.enter_context(
            self._job.items.read(
                self._job,
                self._plan,
                spec,
                prefetch=prefetch,
                isolate_decoding=self._isolate_decoding,
            )
        )
