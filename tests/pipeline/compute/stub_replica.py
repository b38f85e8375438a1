"""Replicas without a model, which do what their images say; torch is not imported for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from blip2cli.errors import ModelError
from blip2cli.images.load_image import LoadedImage
from blip2cli.options import LoaderOptions, ModelOptions
from blip2cli.pipeline.compute.base import Compute, Ready
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.events import Slower
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef
from blip2cli.sources.readers.stdin import PathStream, StdinSource
from blip2cli.tasks.base import Row
from blip2cli.tasks.caption import CaptionTask


@dataclass(frozen=True)
class StubSpec(ReplicaSpec):
    """``loading`` is what happens when a replica starts."""

    loading: str = ""

    def start(self) -> Any:
        act(self.loading)
        return StubReplica(self)


def spec(loading: str = "", **model: Any) -> StubSpec:
    return StubSpec(ModelOptions("stub", **model), LoaderOptions(), CaptionTask(), loading=loading)


class StubReplica:
    """Its rows say which process made them."""

    def __init__(self, spec: StubSpec) -> None:
        dtype = spec.model.dtype
        if dtype == "auto":
            dtype = "bfloat16" if spec.model.device == "cpu:1" else "float32"
            time.sleep(0.5 if dtype == "bfloat16" else 0)
        self.ready = Ready(
            spec.task,
            "stub",
            spec.model.device,
            dtype,
            "because",
            batch_size=4,
            threads=spec.threads,
        )

    def process(self, refs: Sequence[ImageRef], isolate: bool = False) -> ProcessedBatch:
        for ref in refs:
            act(ref.path)
        rows: list[dict[str, object]] = [
            {"file_name": ref.file_name, "process": os.getpid(), "dtype": self.ready.dtype}
            for ref in refs
        ]
        images = [LoadedImage(ref.file_name, 1, 1, None, ref.carried) for ref in refs]
        return ProcessedBatch(rows, len(rows), images, 0.5, (Slower(refs[0].file_name),))


def act(what: str) -> None:
    """Do ``what``: "sleep 2", "exit 3", "signal 9", "raise", "await FILE", "once FILE and …"."""
    verb, _, rest = what.partition(" ")
    if verb == "once":
        marker, _, what = rest.partition(" and ")
        try:
            Path(marker).touch(exist_ok=False)
        except FileExistsError:
            return
        act(what)
    elif verb == "sleep":
        time.sleep(float(rest))
    elif verb == "await":
        end = time.monotonic() + 60
        while not os.path.exists(rest) and time.monotonic() < end:
            time.sleep(0.01)
    elif verb == "touch":
        Path(rest).touch()
    elif verb == "exit":
        os._exit(int(rest))
    elif verb == "signal":
        os.kill(os.getpid(), int(rest))
        time.sleep(60)  # another thread may take the signal
    elif verb == "user":
        time.sleep(float(rest or 0))
        raise ModelError("device", "There is no such device", "take another")
    elif verb == "raise":
        raise ValueError("a mistake")


def rows_of_bursts(
    make: Callable[[Iterator[ImageRef], PathStream], Compute], bursts: Sequence[int], every: str
) -> list[Row]:
    """The rows of paths named by their numbers, so many in each burst, which comes when the rows
    of those before are there; images do ``every``."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as file:
        stdin = PathStream(file)
        source = StdinSource("-", os.getcwd(), stdin, nul=False, unique=False)
        items = (ImageRef(ref.file_name, every) for ref in source.refs(os.getcwd()))
        ends = [*accumulate(bursts)]

        def give(first: int, end: int) -> None:
            os.write(writing, b"".join(b"%d\n" % number for number in range(first, end)))
            if end == ends[-1]:
                os.close(writing)

        give(0, ends[0])
        with make(items, stdin) as compute:
            compute.start()
            compute.load()
            rows: list[Row] = []
            while (batch := compute.next_batch()) is not None:
                compute.put(batch)
                while (done := compute.take(False)) is not None:
                    rows += done.rows
                    if len(rows) in ends[:-1]:
                        give(len(rows), ends[ends.index(len(rows)) + 1])
            while (done := compute.take(True)) is not None:
                rows += done.rows
    return rows
