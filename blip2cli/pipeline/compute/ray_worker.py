"""What runs on a Ray cluster: the queue of batches, what reads it, and the actors with a model.

References to images travel, pixels do not: an actor reads, decodes and runs the model. Every batch
is one block of a Ray dataset, that of the references on the way there and that of its rows on the
way back.

Tasks of Ray are done again when their process or node is lost. So batches can be taken from the
queue again, by their number, and the queue knows which were started and not ended: a batch that a
lost actor had is done image by image, and an image that ended actors again and again is a failure.
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
TAKEN = b""  # in place of a batch whose rows have reached the run
MOST_STARTS = 3  # of one image by actors that were lost, before the image is to blame


class BatchQueue:
    """Batches on their way to actors: an actor of its own, on the machine of the run.

    Keys of what is started are a batch's number, or number and position of a single image.
    """

    def __init__(self, first: int = 0, ready: Ready | None = None) -> None:
        """``first`` is the number of the first batch; ``ready`` is what all models have to be."""
        self._batches: dict[int, bytes] = {}
        self._taken = first  # batches whose rows have reached the run: those before this number
        self._count: int | None = None  # of all batches, once that is known
        self._changed = asyncio.Condition()
        self._starts: Counter[Any] = Counter()
        self._running: dict[int, tuple[Any, float]] = {}  # by batch: the actor, and since when
        self._ready = ready
        self._failure: Exception | None = None

    async def put(self, number: int, refs: bytes) -> None:
        """Add a batch; numbers count up."""
        async with self._changed:
            self._batches[number] = refs
            self._changed.notify_all()

    async def end(self, count: int) -> None:
        """There will be ``count`` batches in all."""
        async with self._changed:
            self._count = count
            self._changed.notify_all()

    async def get(self, number: int) -> bytes | None:
        """The references of a batch, once they are there; None behind the last one."""
        async with self._changed:
            while number >= self._taken and number not in self._batches:
                if self._count is not None and number >= self._count:
                    return None
                await self._changed.wait()
            return self._batches[number] if number >= self._taken else TAKEN

    async def forget(self, number: int) -> None:
        """The rows of this batch have arrived, and of those before it."""
        del self._batches[number]
        self._taken = number + 1

    async def begin(self, key: Any, actor: Any = None) -> int:
        """Note a start; how often it was started before and not ended."""
        if isinstance(key, int):
            self._running[key] = (actor, monotonic())
        elif key[0] in self._running:  # image by image, each of them is progress
            self._running[key[0]] = (self._running[key[0]][0], monotonic())
        self._starts[key] += 1
        return self._starts[key] - 1

    async def done(self, key: Any) -> None:
        """What was started has ended."""
        self._starts.pop(key, None)
        self._running.pop(key, None)

    async def stalled(self, seconds: float) -> list[Any]:
        """The actors that have worked on a batch, or one image of it, for longer; noted once."""
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


def read_batches(batches: Any, number: int) -> Iterator[pa.Table]:
    """The blocks of a dataset: one for each batch of ``batches``, in order from ``number`` on."""
    import pyarrow as pa
    import ray

    while (refs := ray.get(batches.get.remote(number))) is not None:
        yield pa.table({NUMBER: [number], CONTENT: pa.array([refs], pa.large_binary())})
        number += 1


class ReplicaActor:
    """A replica of the model, called with a block of references for the block of their rows."""

    def __init__(self, spec: ReplicaSpec, batches: Any) -> None:
        import ray

        self._batches = batches
        first = ray.get(batches.agreed.remote())
        self._actor = ray.get_runtime_context().current_actor
        try:
            replica = spec.start() if first is None else _with_dtype(spec, first.dtype).start()
            first = ray.get(batches.agree.remote(replica.ready))
            if replica.ready.dtype != first.dtype:  # by ``auto`` another node may find another
                replica.close()
                replica = _with_dtype(spec, first.dtype).start()
        except Exception as error:
            ray.get(batches.fail.remote(portable(error)))
            raise
        self._replica = replica
        self._free, self._next = threading.Semaphore(BATCHES), threading.Lock()

    def __call__(self, block: pa.Table) -> pa.Table:
        import pyarrow as pa
        import ray

        number, content = block[NUMBER][0].as_py(), block[CONTENT][0].as_py()
        if content != TAKEN:
            refs = pickle.loads(content)
            before = ray.get(self._batches.begin.remote(number, self._actor))
            with self._turns(BATCHES if before else 1):
                result = self._one_by_one(number, refs) if before else self._process(refs)
            content = pickle.dumps(result, 5)
            ray.get(self._batches.done.remote(number))
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

    def _process(
        self, refs: Sequence[ImageRef], isolate: bool = False
    ) -> ProcessedBatch | Exception:
        try:
            return self._replica.process(refs, isolate)
        except Exception as error:  # noqa: BLE001 - raised where the run is, in its turn
            return portable(error)

    def _one_by_one(self, number: int, refs: Sequence[ImageRef]) -> ProcessedBatch | Exception:
        """An actor was lost with this batch: one of its images may be why."""
        import ray

        batch = BatchUnderWay(refs)
        batch.pieces = [Piece(batch, [ref], single=True) for ref in refs]
        for position, piece in enumerate(batch.pieces):
            key = (number, position)
            if ray.get(self._batches.begin.remote(key)) >= MOST_STARTS - 1:
                piece.result = crashed(piece.refs, "an actor of Ray")
            else:
                piece.result = self._process(piece.refs, isolate=True)
            self._batches.done.remote(key)
            if isinstance(piece.result, Exception):
                return piece.result
        joined = batch.result()
        joined.events = [*joined.events, WorkerEnded("Ray", "an actor was lost", again=True)]
        return joined


def _with_dtype(spec: ReplicaSpec, dtype: Any) -> ReplicaSpec:
    return replace(spec, model=replace(spec.model, dtype=dtype))
