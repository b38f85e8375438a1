"""The Ray dataset of a run: blocks of references in, blocks of rows out, in order."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from blip2cli.pipeline.compute.base import Ready
from blip2cli.pipeline.compute.ray_cluster import Room, given_up, on_this_node
from blip2cli.pipeline.compute.ray_worker import (
    CONTENT,
    NUMBER,
    TAKEN,
    BlockQueue,
    ReplicaActor,
    read_blocks,
)
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.compute.worker_process import BATCHES

_END_SECONDS = 30.0  # for a dataset to end, at most
_READ_BLOCKS = 16  # that are read before actors are free for them


class RunningDataset:
    """The dataset of a run: blocks of references are put, a thread executes it, rows come back.

    Its first block has the number ``first``; ``ready`` says what all its models have to be.
    """

    def __init__(self, spec: ReplicaSpec, room: Room, first: int, ready: Ready | None) -> None:
        # Number and pickled rows of each block; an exception when there will be no more.
        self.blocks: queue.SimpleQueue[tuple[int, bytes] | Exception] = queue.SimpleQueue()
        self._queue: Any = (
            ray.remote(BlockQueue)
            .options(num_cpus=0, max_concurrency=10_000, label_selector=on_this_node())
            .remote(first, ready)
        )
        arguments = (spec, room, first)
        self._thread = threading.Thread(
            target=self._execute, args=arguments, name="dataset", daemon=True
        )
        self._thread.start()

    def first_ready(self, seconds: float) -> Ready | None:
        """What the first model is; None after ``seconds``. Raises why it could not be loaded."""
        ready: Ready | Exception | None
        ready = ray.get(self._queue.first_ready.remote(seconds))
        if ready is None:
            with contextlib.suppress(queue.Empty):
                block = self.blocks.get_nowait()
                assert isinstance(block, Exception)
                raise given_up(block)
        if isinstance(ready, Exception):
            raise ready
        return ready

    def put(self, number: int, content: bytes) -> None:
        """Have a block worked on: the pickled references of its batches."""
        self._queue.put.remote(number, content)

    def forget(self, number: int) -> None:
        """The rows of a block, and of all before it, have arrived."""
        self._queue.forget.remote(number)

    def end_stalled(self, seconds: float) -> int:
        """End the actors without progress for longer; Ray starts them again."""
        actors = ray.get(self._queue.stalled.remote(seconds))
        for actor in actors:
            ray.kill(actor, no_restart=False)
        return len(actors)

    def end(self, count: int | None = None) -> None:
        """Leave it: after ``count`` blocks if all are done, else what is under way is dropped."""
        with contextlib.suppress(Exception):
            if count is not None:
                ray.get(self._queue.end.remote(count), timeout=_END_SECONDS)
            else:
                ray.kill(self._queue)  # ends the dataset, with an error that nobody sees
        self._thread.join(_END_SECONDS)  # it must not ask a cluster that is gone
        with contextlib.suppress(Exception):
            ray.kill(self._queue)

    def _execute(self, spec: ReplicaSpec, room: Room, first: int) -> None:
        try:
            for block in blocks(spec, self._queue, room, first):
                self.blocks.put(block)
            self.blocks.put(RuntimeError("it ended early"))
        except Exception as error:  # noqa: BLE001 - raised where rows are taken
            self.blocks.put(error)


class BlockSource(Datasource):
    """Reads the queue of blocks in one task, which runs as long as blocks come."""

    def __init__(self, block_queue: Any, first: int) -> None:
        self._queue = block_queue
        self._first = first

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(read_blocks, self._queue, self._first), unknown)]


def blocks(
    spec: ReplicaSpec, block_queue: Any, room: Room, first: int = 0
) -> Iterator[tuple[int, bytes]]:
    """Yield number and pickled rows of each block of the queue, in order, from ``first`` on.

    It runs until the queue is ended or its actor is gone, which is an error. ``room`` says how many
    actors there are, and how large. Raises errors of Ray.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised as well
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # bytes: what is read at once stays a block
    # The reader is looked at ten times a second, and has to have more than two blocks then.
    context._max_num_blocks_in_streaming_gen_buffer = _READ_BLOCKS
    pool = ray.data.ActorPoolStrategy(
        min_size=room.fewest,
        initial_size=room.now,
        max_size=room.most,
        # One is decoded while another is computed, and as many wait: with fewer the pool never
        # seems busy enough to Ray Data for an actor on a machine that joins.
        max_tasks_in_flight_per_actor=2 * BATCHES,
        max_concurrent_calls_per_actor=BATCHES,
        enable_true_multi_threading=True,
    )
    spec = replace(spec, threads=spec.threads or room.cpus, cores=room.cpus)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one block, which it takes for little work
        dataset = ray.data.read_datasource(
            BlockSource(block_queue, first),
            override_num_blocks=1,
            num_cpus=0,
            label_selector=on_this_node(),
        ).map_batches(
            ReplicaActor,
            fn_constructor_args=(spec, block_queue),
            batch_size=None,
            batch_format="pyarrow",
            compute=pool,
            num_cpus=room.cpus,
            num_gpus=room.gpus or None,
        )
        # Not ``iter_batches``, which holds one batch back until it has the next.
        for bundle in dataset.iter_internal_ref_bundles():
            for reference in bundle.block_refs:
                block = ray.get(reference)
                for row in block.to_pylist():
                    if row[CONTENT] != TAKEN:
                        yield row[NUMBER], row[CONTENT]
