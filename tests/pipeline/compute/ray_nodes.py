"""A Ray cluster of several nodes on this machine, and what a run does with one, without a run."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from blip2cli.options import RayOptions
from blip2cli.pipeline.compute.ray_actors import RayActors
from blip2cli.pipeline.events import Event, WorkerEnded
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef
from tests.pipeline.compute.stub_replica import StubSpec, spec

# A lost node is noticed within a second or two.
QUICK = {"_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 3}}
STORE_BYTES = 100 << 20  # of the object store of a node


class Nodes:
    """A cluster whose first node, that of runs, has no processors of its own."""

    def __init__(self, *cpus: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args=_resources(0) | QUICK)
        self.nodes: list[Any] = [self.add(count) for count in cpus]

    @property
    def address(self) -> str:
        """HOST:PORT, for the option."""
        return str(self.cluster.address)

    def add(self, cpus: int = 1) -> Any:
        """A further node."""
        return self.cluster.add_node(**_resources(cpus))

    def kill(self, node: Any) -> None:
        """Take a node away, without a warning."""
        self.cluster.remove_node(node, allow_graceful=False)

    def end(self) -> None:
        """End all of it."""
        self.cluster.shutdown()


def _resources(cpus: int) -> dict[str, Any]:
    return {"num_cpus": cpus, "object_store_memory": STORE_BYTES, "include_dashboard": False}


@contextlib.contextmanager
def nodes(*cpus: int) -> Iterator[Nodes]:
    """A cluster with nodes of so many processors each."""
    os.environ["PYTHONPATH"] = os.getcwd()  # actors import the stub
    logging.getLogger("ray").setLevel(logging.ERROR)
    cluster = Nodes(*cpus)
    try:
        yield cluster
    finally:
        cluster.end()


def refs(count: int, every: str = "", **special: str) -> list[ImageRef]:
    """Images named by their numbers, which do ``every``; ``n3="exit 1"`` is for the third one."""
    return [
        ImageRef(f"{number}", special.get(f"n{number}", every), carried=("carried", number))
        for number in range(count)
    ]


class Driven:
    """Actors of ``cluster`` that run stubs, and what came of it."""

    def __init__(
        self,
        cluster: Nodes,
        images: Sequence[ImageRef],
        actors: tuple[int, int] | None = None,
        made: StubSpec | None = None,
        stall_timeout: float = 60,
        **more: float,
    ) -> None:
        self.events: list[Event] = []
        self.rows: list[dict[str, Any]] = []
        self.failed: dict[str, str] = {}
        options = RayOptions(ray=True, ray_address=cluster.address, ray_actors=actors)
        self.compute = RayActors(
            made or spec(), options, iter(images), (), self.events.append, stall_timeout, **more
        )

    def __iter__(self) -> Iterator[ProcessedBatch]:
        with self.compute as compute:
            compute.start()
            self.ready = compute.load()
            while (batch := compute.next_batch()) is not None:
                compute.put(batch)
                while (done := compute.take(False)) is not None:
                    yield self._note(done)
            while (done := compute.take(True)) is not None:
                yield self._note(done)

    def _note(self, batch: ProcessedBatch) -> ProcessedBatch:
        self.rows += batch.rows
        self.events += batch.events
        self.failed |= {i.file_name: str(i.error) for i in batch.images if i.error is not None}
        return batch

    def run(self) -> list[str]:
        """The names of all rows."""
        for _ in self:
            pass
        return self.names

    @property
    def names(self) -> list[str]:
        """The names of the rows so far."""
        return [str(row["file_name"]) for row in self.rows]

    @property
    def processes(self) -> set[int]:
        """The actors that made the rows."""
        return {int(row["process"]) for row in self.rows}

    @property
    def ended(self) -> list[str]:
        """How actors ended, or the dataset."""
        return [event.reason for event in self.events if isinstance(event, WorkerEnded)]

    def kill_actor(self) -> None:
        """Kill the actor that made the last row."""
        os.kill(int(self.rows[-1]["process"]), signal.SIGKILL)
