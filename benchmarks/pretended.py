"""Pretended devices: a replica whose model is a sleep of real length, and images without files.

A module of its own: worker processes import it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from blip2cli.images.load_image import LoadedImage
from blip2cli.pipeline.compute.base import Ready
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.plan import Plan
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources import ImageRef
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask

CAPTION = "a man riding a wave on top of a surfboard"


@dataclass(frozen=True)
class PretendedSpec(ReplicaSpec):
    """A batch takes ``seconds``."""

    seconds: float = 0.0

    def start(self) -> Any:
        return PretendedReplica(self)


class PretendedReplica:
    """Gives every image the same row, after a while."""

    def __init__(self, spec: PretendedSpec) -> None:
        task: Any = spec.task
        if isinstance(task, EmbedTask):
            task = replace(task, size=768)
        size = spec.loader.batch_size or 64
        self.ready = Ready(task, "pretended", spec.model.device, "float32", "", batch_size=size)
        self._seconds = spec.seconds
        self._busy_until = 0.0

    def process(self, refs: Sequence[ImageRef], isolate: bool = False) -> ProcessedBatch:
        """Rows as a task makes them."""
        if self._seconds:  # one batch after the other, as a device computes
            self._busy_until = max(time.monotonic(), self._busy_until) + self._seconds
            time.sleep(self._busy_until - time.monotonic())
        images = [LoadedImage(ref.file_name, 640, 480, None, ref.carried) for ref in refs]
        first = [{"file_name": ref.file_name, "width": 640, "height": 480} for ref in refs]
        if isinstance(self.ready.task, CaptionTask):
            made: dict[str, object] = {"caption": CAPTION, "logprob": -0.731234, "flag": ""}
            rows = [row | made for row in first]
        else:
            vectors = np.random.default_rng(0).standard_normal((len(refs), 768), np.float32)
            rows = [
                row | {"embedding": vector, "kind": "image"}
                for row, vector in zip(first, vectors, strict=True)
            ]
        return ProcessedBatch(rows, len(rows), images, 0.0)


@dataclass(frozen=True)
class PretendedItems(ImageItems):
    """``count`` images that lie nowhere."""

    count: int = 0

    def plan(self, job: Any) -> Plan:
        """All of them."""
        names = (f"train/{n // 10_000:05d}/{n:012d}.jpg" for n in range(self.count))
        return Plan((ImageRef(name, f"/images/{name}") for name in names), ("…",), self.count)
