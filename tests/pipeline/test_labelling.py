"""A batch is finished and labelled, and its time told apart."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from blip2cli.images.loader import LoadedBatch
from blip2cli.pipeline.labelling import label
from blip2cli.pipeline.out_of_memory import WithinMemory
from blip2cli.pipeline.stats import Tally


class Slow:
    """A task that takes a while."""

    def rows(self, model: object, batch: LoadedBatch) -> list[dict[str, Any]]:
        time.sleep(0.1)
        return [{"caption": "slow"}]


def test_the_time_of_decoding_is_told_apart_from_the_models() -> None:
    loaded = LoadedBatch((), torch.empty(0, 3, 4, 4, dtype=torch.uint8))

    def begun() -> LoadedBatch:
        time.sleep(0.3)
        return loaded

    done = label(WithinMemory(Slow()), None, begun)  # type: ignore[arg-type]
    assert done.rows == [{"caption": "slow"}]
    assert done.batch is loaded
    assert done.decoding == pytest.approx(0.75, abs=0.1)


def test_waiting_for_a_batch_counts_for_reading_as_far_as_it_was_decoded() -> None:
    tally = Tally()
    tally.waited(4.0, 0.25)
    tally.waited(2.0, 0.0)
    assert tally.stages == {"read": 1.0, "model": 5.0, "write": 0.0}
