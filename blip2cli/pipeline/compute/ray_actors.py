"""Actors of Ray Data compute, on one machine or on many.

This process lists, cuts batches, hands out references, takes rows in order and writes them. Ray
Data schedules: a dataset goes through a pool of actors, each with a replica of the model
(``map_batches``), and comes back in order (``preserve_order``). Neither its readers, which decode
by themselves, nor its checkpoints or writers are needed: resume is ours. What a block costs it is
more than a small model needs for a batch, so a block is several batches then (``ray_block_size``).

Ray starts a lost actor again, and what it had. It never gives that to another actor, though, and
waits without end when a node is gone and the others are full. So references are kept here until
their rows arrive, and the dataset is started again on what is left of the cluster.
"""

from __future__ import annotations

import pickle
import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from blip2cli.errors import RunError
from blip2cli.pipeline.compute import ray_cluster
from blip2cli.pipeline.compute.base import NEXT_IMAGE, Ready, next_refs
from blip2cli.pipeline.compute.ray_block_size import BlockSize
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.compute.worker_process import BATCHES
from blip2cli.pipeline.events import Listener, WorkerEnded
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef, shown_names

if TYPE_CHECKING:
    from blip2cli.images.batches import BatchCutter
    from blip2cli.options import RayOptions
    from blip2cli.pipeline.compute.ray_dataset import RunningDataset
    from blip2cli.pipeline.stats import Stage
    from blip2cli.sources.readers.stdin import PathStream

_WINDOW = 2 * BATCHES  # blocks under way for each actor
_FILLING_SECONDS = 0.25  # for a block to be filled while the source is slow
_LOOK_AGAIN = 1.0  # seconds between two looks at what is waited for
_LOST_SECONDS = 15.0  # without rows, before actors of a node that is gone are given up
_MOST_ENDS = 3  # of the dataset, one after the other, without a block in between


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
        stdin: PathStream | None = None,
        lost_seconds: float = _LOST_SECONDS,
    ) -> None:
        """``stdin``: as of ``WorkerProcesses``. ``lost_seconds``: without rows, before the actors
        of lost nodes are given up."""
        self._spec = spec
        self._options = options
        self._items = items
        self._paths = paths
        self._on_event = on_event
        self._stall_timeout = stall_timeout
        self._stdin = stdin
        self._lost_seconds = lost_seconds
        self._joined = False
        self._dataset: RunningDataset | None = None
        self._block_size = BlockSize()
        self._filling: list[Sequence[ImageRef]] = []  # batches of the next block
        self._since = 0.0  # when the first of them came; monotonic
        self._under_way: dict[int, bytes] = {}  # blocks whose rows have not arrived, by number
        self._arrived: deque[ProcessedBatch | Exception] = deque()
        self._put = self._taken = 0  # blocks
        self._ends = 0  # of the dataset, since a block came back
        self._moved = time.monotonic()  # when a block came back, or the first one went out
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
        waits = bool(self._under_way or self._filling or self._arrived)
        return next_refs(self._cutter, self._stdin, wait=not waits)

    def put(self, batch: Sequence[ImageRef], /) -> None:
        if batch:
            if not self._filling:
                self._since = time.monotonic()
            self._filling.append(batch)
        if not batch or len(self._filling) >= self._block_size.batches:
            self._send()

    def take(self, wait: bool, /) -> ProcessedBatch | None:
        if wait or time.monotonic() - self._since > _FILLING_SECONDS:
            self._send()
        while not self._arrived:
            must_wait = wait or len(self._under_way) >= _WINDOW * self._room.most
            if not self._under_way or not self._take_block(must_wait):
                return None
        result = self._arrived.popleft()
        if isinstance(result, Exception):
            raise result
        return result

    def waiting_for(self, stage: Stage) -> str:
        """The oldest block, with its images."""
        if stage == "read" or self._taken not in self._under_way:
            return NEXT_IMAGE
        batches: list[Sequence[ImageRef]] = pickle.loads(self._under_way[self._taken])
        names = shown_names([ref.file_name for batch in batches for ref in batch])
        return f"the actor of Ray that has {names}"

    def _send(self) -> None:
        """Have the batches of the block that is being filled worked on, if there are any."""
        if not self._filling:
            return
        assert self._dataset is not None
        if not self._under_way:
            self._moved = time.monotonic()
        content = self._under_way[self._put] = pickle.dumps(self._filling, 5)
        self._dataset.put(self._put, content)
        self._filling = []
        self._put += 1

    def _take_block(self, wait: bool) -> bool:
        """Deal with the next block, or what else the dataset has to say; whether to look again."""
        assert self._dataset is not None
        try:
            block = self._dataset.blocks.get(timeout=_LOOK_AGAIN if wait else 0)
        except queue.Empty:
            if wait:
                self._look_after_actors()
            return wait
        if isinstance(block, Exception):
            self._begin_again(block)
        elif block[0] >= self._taken:  # else it was done again after a node was lost
            self._note(*block)
        return True

    def _note(self, number: int, content: bytes) -> None:
        """The rows of a block have arrived."""
        assert number == self._taken
        assert self._dataset is not None
        del self._under_way[number]
        self._taken += 1
        self._ends = 0
        self._moved = time.monotonic()
        self._dataset.forget(number)
        seconds, results = pickle.loads(content)
        self._arrived.extend(results)
        images = sum(len(each.images) for each in results if not isinstance(each, Exception))
        self._block_size.note(len(results), seconds, images, self._room.most)

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
        if passed > self._lost_seconds and ray_cluster.lost_actors(self._room):
            self._begin_again(RuntimeError("a node was lost, and the others have no room"))
        elif passed > self._stall_timeout:
            self._moved = time.monotonic()
            for _ in range(self._dataset.end_stalled(self._stall_timeout)):
                why = f"no progress for {self._stall_timeout:g} s"
                self._on_event(WorkerEnded("Ray", why, again=True))
