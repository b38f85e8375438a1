"""What a batch goes through in a lane: what is left of its loading, then the task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2cli.pipeline.out_of_memory import WithinMemory

if TYPE_CHECKING:
    from blip2cli.images.loader import LoadedBatch
    from blip2cli.model.wrapper import Blip2
    from blip2cli.tasks.base import Row


@dataclass(frozen=True, eq=False)
class Labelled:
    """A batch with its rows."""

    rows: list[Row]
    batch: LoadedBatch  # as it turned out, see ``WithinMemory``
    decoding: float  # the part of the time that went into decoding, 0 to 1


def label(task: WithinMemory, model: Blip2, begun: Callable[[], LoadedBatch]) -> Labelled:
    """Finish loading a batch and give its rows."""
    began = time.perf_counter()
    loaded = begun()
    ready = time.perf_counter()
    rows, batch = task.rows(model, loaded)
    return Labelled(rows, batch, (ready - began) / max(time.perf_counter() - began, 1e-9))
