"""Actors of Ray Data compute, on one machine or on many.

This process lists, cuts batches, hands out references, takes rows in order and writes them. Ray
Data schedules: a dataset with a block for each batch goes through a pool of actors, each with a
replica of the model (``map_batches``), and comes back in order (``preserve_order``). Neither its
readers, which decode by themselves, nor its checkpoints or writers are needed: resume is ours.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from blip2cli.errors import RunError, option
from blip2cli.pipeline.compute import ray_cluster
from blip2cli.pipeline.compute.base import Ready
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.compute.worker_process import BATCHES
from blip2cli.pipeline.events import Listener, WorkerEnded
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef

if TYPE_CHECKING:
    from blip2cli.images.batches import BatchCutter
    from blip2cli.options import RayOptions

_WINDOW = 2 * BATCHES  # batches under way for each actor
_LOOK_AGAIN = 1.0  # seconds between two looks at what is waited for
_END_SECONDS = 30.0  # for the dataset to end, at most


class RayActors:
    """``spec`` is that of every replica; ``items`` are all references.

    ``paths`` are the local files and folders that all nodes of the cluster have to see.
    """

    def __init__(
        self,
        spec: ReplicaSpec,
        options: RayOptions,
        items: Iterator[ImageRef],
        paths: Sequence[str],
        on_event: Listener,
        stall_timeout: float,
    ) -> None:
        self._spec = spec
        self._options = options
        self._items = items
        self._paths = paths
        self._on_event = on_event
        self._stall_timeout = stall_timeout
        self._joined = False
        self._batches: Any = None  # the actor of the queue
        self._blocks: queue.SimpleQueue[tuple[int, bytes] | Exception | None] = queue.SimpleQueue()
        self._put = self._taken = 0  # batches
        self._moved = time.monotonic()  # when a batch came back, or the first one went out
        self._thread: threading.Thread | None = None
        self._cutter: BatchCutter
        self._room: ray_cluster.Room

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._batches is None and not self._joined:
            return
        import ray

        with contextlib.suppress(Exception):
            if self._taken == self._put:
                ray.get(self._batches.end.remote(self._put), timeout=_END_SECONDS)
            else:
                ray.kill(self._batches)  # ends the dataset, with an error that nobody sees
        if self._thread is not None:  # which must not ask a cluster that is gone
            self._thread.join(_END_SECONDS)
        with contextlib.suppress(Exception):
            ray.kill(self._batches)
        if self._joined:
            ray.shutdown()

    def start(self) -> None:
        from blip2cli.images.batches import BatchCutter
        from blip2cli.pipeline.compute.ray_worker import BatchQueue

        self._cutter = BatchCutter(self._items, 0)
        self._joined = ray_cluster.join(self._options)
        import ray

        self._room = ray_cluster.find_room(self._options)
        ray_cluster.check_visible(self._paths)
        self._batches = (
            ray.remote(BatchQueue)
            .options(
                num_cpus=0,
                max_concurrency=10_000,
                label_selector=ray_cluster.on_this_node(),
            )
            .remote()
        )
        self._thread = threading.Thread(target=self._run_dataset, name="dataset", daemon=True)
        self._thread.start()

    def load(self) -> Ready:
        import ray

        while True:
            ready: Ready | Exception | None
            ready = ray.get(self._batches.first_ready.remote(_LOOK_AGAIN))
            if isinstance(ready, Exception):
                raise ready
            if ready is not None:
                break
            with contextlib.suppress(queue.Empty):
                self._raise_from(self._blocks.get_nowait())
        self._cutter.size = ready.batch_size
        room = self._room
        actors = f"{room.most}" if room.fewest == room.most else f"{room.fewest} to {room.most}"
        return replace(ready, device=f"{ready.device} of {actors} Ray actors")

    def next_batch(self) -> Sequence[ImageRef] | None:
        refs = next(self._cutter, None)
        self._cutter.pending.clear()
        if refs is None and self._cutter.error is not None:
            raise self._cutter.error
        return refs

    def put(self, batch: Sequence[ImageRef], /) -> None:
        if self._put == self._taken:
            self._moved = time.monotonic()
        self._batches.put.remote(self._put, pickle.dumps(batch, 5))
        self._put += 1

    def take(self, wait: bool, /) -> ProcessedBatch | None:
        while self._taken < self._put:
            must_wait = wait or self._put - self._taken >= _WINDOW * self._room.most
            try:
                block = self._blocks.get(timeout=_LOOK_AGAIN if must_wait else 0)
            except queue.Empty:
                if not must_wait:
                    return None
                self._end_stalled()
                continue
            self._raise_from(block)
            assert isinstance(block, tuple)
            number, content = block
            if number < self._taken:
                continue  # done again after a node was lost
            assert number == self._taken
            self._taken += 1
            self._moved = time.monotonic()
            self._batches.forget.remote(number)
            result = pickle.loads(content)
            if isinstance(result, Exception):
                raise result
            assert isinstance(result, ProcessedBatch)
            return result
        return None

    def _raise_from(self, block: tuple[int, bytes] | Exception | None) -> None:
        """Raises RunError when the dataset has ended."""
        if isinstance(block, tuple):
            return
        lines = str(block or "it ended early").strip().splitlines()
        raise RunError(
            "ray",
            f"Ray Data has given up ({lines[-1] if lines else type(block).__name__})",
            f"the rows so far are safe, go on with {option('resume')} when the cause is removed",
        )

    def _end_stalled(self) -> None:
        """End actors that have made no progress for long: Ray starts them again."""
        import ray

        if time.monotonic() - self._moved < self._stall_timeout:
            return
        self._moved = time.monotonic()
        for actor in ray.get(self._batches.stalled.remote(self._stall_timeout)):
            ray.kill(actor, no_restart=False)
            why = f"no progress for {self._stall_timeout:g} s"
            self._on_event(WorkerEnded("Ray", why, again=True))

    def _run_dataset(self) -> None:
        from blip2cli.pipeline.compute.ray_dataset import blocks

        try:
            for block in blocks(self._spec, self._batches, self._room):
                self._blocks.put(block)
            self._blocks.put(None)
        except Exception as error:  # noqa: BLE001 - raised where rows are taken
            self._blocks.put(error)
