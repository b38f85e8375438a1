"""The Ray dataset of a run: blocks of references in, blocks of rows out, in order."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from blip2cli.pipeline.compute.ray_cluster import Room, on_this_node
from blip2cli.pipeline.compute.ray_worker import (
    CONTENT,
    NUMBER,
    TAKEN,
    ReplicaActor,
    read_batches,
)
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.compute.worker_process import BATCHES


class BatchSource(Datasource):
    """Reads the queue of batches in one task, which runs as long as batches come."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(read_batches, self._batches), unknown)]


def blocks(spec: ReplicaSpec, batches: Any, room: Room) -> Iterator[tuple[int, bytes]]:
    """Yield number and pickled rows of each batch of the actor ``batches``, in order.

    It runs until the queue is ended or its actor is gone, which is an error. ``room`` says how many
    actors there are, and how large. Raises errors of Ray.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised as well
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # bytes: each batch is a block of its own
    pool = ray.data.ActorPoolStrategy(
        min_size=room.fewest,
        max_size=room.most,
        # One is decoded while another is computed, and one waits.
        max_tasks_in_flight_per_actor=BATCHES + 1,
        max_concurrent_calls_per_actor=BATCHES,
        enable_true_multi_threading=True,
    )
    spec = replace(spec, threads=spec.threads or room.cpus, cores=room.cpus)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one block, which it takes for little work
        dataset = ray.data.read_datasource(
            BatchSource(batches),
            override_num_blocks=1,
            num_cpus=0,
            label_selector=on_this_node(),
        ).map_batches(
            ReplicaActor,
            fn_constructor_args=(spec, batches),
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
