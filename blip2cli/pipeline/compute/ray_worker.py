"""What runs on a Ray cluster: the queue of blocks, what reads it, and the actors with a model.

References to images travel, pixels do not: an actor reads, decodes and runs the model. A block of
the Ray dataset is one or several batches: their references on the way there, their rows on the way
back.

Tasks of Ray are done again when their process or node is lost. So blocks can be taken from the
queue again, by their number, and the queue knows what was started and not ended. A block that a
lost actor had is done batch by batch, and the batch that another actor is lost with image by image;
an image that ended actors again and again is a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from blip2cli.pipeline.compute.base import Ready
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.compute.under_way import BatchUnderWay, Piece, crashed
from blip2cli.pipeline.compute.worker_process import BATCHES, portable
from blip2cli.pipeline.events import WorkerEnded
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef

if TYPE_CHECKING:
    import pyarrow as pa

NUMBER, CONTENT = "number", "content"  # columns of the blocks
TAKEN = b""  # in place of a block whose rows have reached the run
MOST_STARTS = 3  # of one image by actors that were lost, before the image is to blame
_PROGRESS_SECONDS = 1.0  # between two signs of life of an actor that has several batches


class BlockQueue:
    """Blocks on their way to actors: an actor of its own, on the machine of the run.

    Keys of what is started are a block's number; number and position of a batch in it; or these and
    the position of an image.
    """

    def __init__(self, first: int = 0, ready: Ready | None = None) -> None:
        """``first`` is the number of the first block; ``ready`` is what all models have to be."""
        self._blocks: dict[int, bytes] = {}
        self._taken = first  # blocks whose rows have reached the run: those before this number
        self._count: int | None = None  # of all blocks, once that is known
        self._changed = asyncio.Condition()
        self._starts: Counter[Any] = Counter()
        self._running: dict[int, tuple[Any, float]] = {}  # by block: the actor, and since when
        self._ready = ready
        self._failure: Exception | None = None

    async def put(self, number: int, batches: bytes) -> None:
        """Add a block; numbers count up."""
        async with self._changed:
            self._blocks[number] = batches
            self._changed.notify_all()

    async def end(self, count: int) -> None:
        """There will be ``count`` blocks in all."""
        async with self._changed:
            self._count = count
            self._changed.notify_all()

    async def get(self, number: int) -> bytes | None:
        """The references of a block, once they are there; None behind the last one."""
        async with self._changed:
            while number >= self._taken and number not in self._blocks:
                if self._count is not None and number >= self._count:
                    return None
                await self._changed.wait()
            return self._blocks[number] if number >= self._taken else TAKEN

    async def forget(self, number: int) -> None:
        """The rows of this block have arrived, and of those before it."""
        del self._blocks[number]
        self._taken = number + 1

    async def begin(self, key: Any, actor: Any = None) -> int:
        """Note a start; how often it was started before and not ended."""
        if isinstance(key, int):
            self._running[key] = (actor, monotonic())
        else:
            await self.progress(key[0])
        self._starts[key] += 1
        return self._starts[key] - 1

    async def progress(self, number: int) -> None:
        """A part of this block is done."""
        if number in self._running:
            self._running[number] = (self._running[number][0], monotonic())

    async def done(self, key: Any) -> None:
        """What was started has ended."""
        self._starts.pop(key, None)
        self._running.pop(key, None)

    async def stalled(self, seconds: float) -> list[Any]:
        """The actors that have made no progress with a block for longer; noted once."""
        hanging = [n for n, (_, since) in self._running.items() if monotonic() - since > seconds]
        return [self._running.pop(number)[0] for number in hanging]

    async def agree(self, ready: Ready) -> Ready:
        """Note what an actor's model is; the first one's is returned to all."""
        async with self._changed:
            self._ready = self._ready or ready
            self._changed.notify_all()
            return self._ready

    async def agreed(self) -> Ready | None:
        """What the first model is; None as long as none is loaded."""
        return self._ready

    async def fail(self, error: Exception) -> None:
        """An actor cannot load its model."""
        async with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    async def first_ready(self, seconds: float) -> Ready | Exception | None:
        """What the first model is, or why it could not be loaded; None after ``seconds``."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                while self._ready is None and self._failure is None:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._ready or self._failure


def read_blocks(queue: Any, number: int) -> Iterator[pa.Table]:
    """The blocks of a dataset: those of ``queue``, in order, from ``number`` on."""
    import pyarrow as pa
    import ray

    while (batches := ray.get(queue.get.remote(number))) is not None:
        yield pa.table({NUMBER: [number], CONTENT: pa.array([batches], pa.large_binary())})
        number += 1


class ReplicaActor:
    """A replica of the model, called with a block of references for the block of their rows."""

    def __init__(self, spec: ReplicaSpec, queue: Any) -> None:
        import ray

        self._queue = queue
        first = ray.get(queue.agreed.remote())
        self._actor = ray.get_runtime_context().current_actor
        try:
            replica = spec.start() if first is None else _with_dtype(spec, first.dtype).start()
            first = ray.get(queue.agree.remote(replica.ready))
            if replica.ready.dtype != first.dtype:  # by ``auto`` another node may find another
                replica.close()
                replica = _with_dtype(spec, first.dtype).start()
        except Exception as error:
            ray.get(queue.fail.remote(portable(error)))
            raise
        self._replica = replica
        self._free, self._next = threading.Semaphore(BATCHES), threading.Lock()

    def __call__(self, block: pa.Table) -> pa.Table:
        """The rows of each batch, and the seconds that they took together."""
        import pyarrow as pa
        import ray

        number, content = block[NUMBER][0].as_py(), block[CONTENT][0].as_py()
        if content != TAKEN:
            batches = pickle.loads(content)
            before = ray.get(self._queue.begin.remote(number, self._actor))
            with self._turns(BATCHES if before else 1):
                began = monotonic()
                results = self._results(number, batches, again=before > 0)
                content = pickle.dumps((monotonic() - began, results), 5)
            ray.get(self._queue.done.remote(number))
        return pa.table({NUMBER: [number], CONTENT: pa.array([content], pa.large_binary())})

    @contextlib.contextmanager
    def _turns(self, count: int) -> Iterator[None]:
        """With all turns nothing else runs here that might end the actor."""
        with self._next:
            for _ in range(count):
                self._free.acquire()
        try:
            yield
        finally:
            self._free.release(count)

    def _results(
        self, number: int, batches: Sequence[Sequence[ImageRef]], again: bool
    ) -> list[ProcessedBatch | Exception]:
        """What comes of the batches of a block, up to the first mistake of ours.

        ``again``: an actor was lost with them, and an image of theirs may be why.
        """
        import ray

        results: list[ProcessedBatch | Exception] = []
        seen = monotonic()
        for position, refs in enumerate(batches):
            if again:
                key = (number, position)
                suspect = len(batches) == 1 or ray.get(self._queue.begin.remote(key))
                results.append(self._one_by_one(key, refs) if suspect else self._process(refs))
                self._queue.done.remote(key)
            else:
                results.append(self._process(refs))
                if monotonic() - seen > _PROGRESS_SECONDS:
                    self._queue.progress.remote(number)
                    seen = monotonic()
            if isinstance(results[-1], Exception):
                break
        first = results[0]
        if again and isinstance(first, ProcessedBatch):
            first.events = [*first.events, WorkerEnded("Ray", "an actor was lost", again=True)]
        return results

    def _process(
        self, refs: Sequence[ImageRef], isolate: bool = False
    ) -> ProcessedBatch | Exception:
        try:
            return self._replica.process(refs, isolate)
        except Exception as error:  # noqa: BLE001 - raised where the run is, in its turn
            return portable(error)

    def _one_by_one(
        self, key: tuple[int, int], refs: Sequence[ImageRef]
    ) -> ProcessedBatch | Exception:
        """Actors were lost with this batch: one of its images may be why."""
        import ray

        batch = BatchUnderWay(refs)
        batch.pieces = [Piece(batch, [ref], single=True) for ref in refs]
        for position, piece in enumerate(batch.pieces):
            of_image = (*key, position)
            if ray.get(self._queue.begin.remote(of_image)) >= MOST_STARTS - 1:
                piece.result = crashed(piece.refs, "an actor of Ray")
            else:
                piece.result = self._process(piece.refs, isolate=True)
            self._queue.done.remote(of_image)
            if isinstance(piece.result, Exception):
                return piece.result
        return batch.result()


def _with_dtype(spec: ReplicaSpec, dtype: Any) -> ReplicaSpec:
    return replace(spec, model=replace(spec.model, dtype=dtype))
