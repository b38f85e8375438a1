"""Actors of Ray Data compute, on one machine or on many.

This process lists, cuts batches, hands out references, takes rows in order and writes them. Ray
Data schedules: a dataset with a block for each batch goes through a pool of actors, each with a
replica of the model (``map_batches``), and comes back in order (``preserve_order``). Neither its
readers, which decode by themselves, nor its checkpoints or writers are needed: resume is ours.

Ray starts a lost actor again, and what it had. It never gives that to another actor, though, and
waits without end when a node is gone and the others are full. So references are kept here until
their rows arrive, and the dataset is started again on what is left of the cluster.
"""

from __future__ import annotations

import pickle
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from blip2cli.errors import RunError
from blip2cli.pipeline.compute import ray_cluster
from blip2cli.pipeline.compute.base import Ready, next_refs
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.compute.worker_process import BATCHES
from blip2cli.pipeline.events import Listener, WorkerEnded
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef

if TYPE_CHECKING:
    from blip2cli.images.batches import BatchCutter
    from blip2cli.options import RayOptions
    from blip2cli.pipeline.compute.ray_dataset import RunningDataset

_WINDOW = 2 * BATCHES  # batches under way for each actor
_LOOK_AGAIN = 1.0  # seconds between two looks at what is waited for
_LOST_SECONDS = 15.0  # without rows, before actors of a node that is gone are given up
_MOST_ENDS = 3  # of the dataset, one after the other, without a batch in between


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
        stdin: Any = None,
    ) -> None:
        """``stdin``: as of ``WorkerProcesses``."""
        self._spec = spec
        self._options = options
        self._items = items
        self._paths = paths
        self._on_event = on_event
        self._stall_timeout = stall_timeout
        self._stdin = stdin
        self._joined = False
        self._dataset: RunningDataset | None = None
        self._under_way: dict[int, bytes] = {}  # batches whose rows have not arrived, by number
        self._put = self._taken = 0  # batches
        self._ends = 0  # of the dataset, since a batch came back
        self._moved = time.monotonic()  # when a batch came back, or the first one went out
        self._ready: Ready | None = None
        self._cutter: BatchCutter
        self._room: ray_cluster.Room

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._dataset is not None:
            self._dataset.end(None if self._under_way else self._put)
        if self._joined:
            ray_cluster.leave()

    def start(self) -> None:
        from blip2cli.images.batches import BatchCutter

        self._cutter = BatchCutter(self._items, 0)
        self._joined = ray_cluster.join(self._options)
        self._room = ray_cluster.find_room(self._options)
        ray_cluster.check_visible(self._paths)
        self._begin()

    def load(self) -> Ready:
        assert self._dataset is not None
        ready = None
        while ready is None:
            ready = self._dataset.first_ready(_LOOK_AGAIN)
        self._ready = ready
        self._cutter.size = ready.batch_size
        room = self._room
        actors = f"{room.most}" if room.now >= room.most else f"{room.now} to {room.most}"
        return replace(ready, device=f"{ready.device} of {actors} Ray actors")

    def next_batch(self) -> Sequence[ImageRef] | None:
        """References; none when no path comes while rows may be ready."""
        return next_refs(self._cutter, self._stdin if self._under_way else None)

    def put(self, batch: Sequence[ImageRef], /) -> None:
        if not batch:
            return
        assert self._dataset is not None
        if not self._under_way:
            self._moved = time.monotonic()
        content = self._under_way[self._put] = pickle.dumps(batch, 5)
        self._dataset.put(self._put, content)
        self._put += 1

    def take(self, wait: bool, /) -> ProcessedBatch | None:
        while self._under_way:
            assert self._dataset is not None
            must_wait = wait or len(self._under_way) >= _WINDOW * self._room.most
            try:
                block = self._dataset.blocks.get(timeout=_LOOK_AGAIN if must_wait else 0)
            except queue.Empty:
                if not must_wait:
                    return None
                self._look_after_actors()
                continue
            if isinstance(block, Exception):
                self._begin_again(block)
                continue
            number, content = block
            if number < self._taken:
                continue  # done again after a node was lost
            assert number == self._taken
            del self._under_way[number]
            self._taken += 1
            self._ends = 0
            self._moved = time.monotonic()
            self._dataset.forget(number)
            result = pickle.loads(content)
            if isinstance(result, Exception):
                raise result
            assert isinstance(result, ProcessedBatch)
            return result
        return None

    def _begin(self) -> None:
        from blip2cli.pipeline.compute.ray_dataset import RunningDataset

        self._dataset = RunningDataset(self._spec, self._room, self._taken, self._ready)
        for number, content in self._under_way.items():
            self._dataset.put(number, content)
        self._moved = time.monotonic()

    def _begin_again(self, why: Exception) -> None:
        """Leave the dataset, and do all that is under way in a new one on what the cluster has.

        Raises RunError when that has not helped before, or there are no nodes for it in time.
        """
        assert self._dataset is not None
        self._ends += 1
        if self._ends == _MOST_ENDS:
            raise ray_cluster.given_up(why)
        self._dataset.end()
        self._on_event(WorkerEnded("Ray", ray_cluster.last_line(why), again=True))
        deadline = time.monotonic() + self._stall_timeout
        while True:
            time.sleep(_LOOK_AGAIN)  # what the actors had becomes free
            try:
                room = ray_cluster.find_room(self._options)
                break
            except RunError:
                if time.monotonic() > deadline:
                    raise
        self._room = replace(room, most=max(room.most, self._room.most))
        self._begin()

    def _look_after_actors(self) -> None:
        """End actors that have made no progress for long, and look for those whose node is gone."""
        assert self._dataset is not None
        passed = time.monotonic() - self._moved
        if passed > _LOST_SECONDS and ray_cluster.lost_actors(self._room):
            self._begin_again(RuntimeError("a node was lost, and the others have no room"))
        elif passed > self._stall_timeout:
            self._moved = time.monotonic()
            for _ in range(self._dataset.end_stalled(self._stall_timeout)):
                why = f"no progress for {self._stall_timeout:g} s"
                self._on_event(WorkerEnded("Ray", why, again=True))
