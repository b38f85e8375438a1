"""Images that hang, in Python and in C, cost themselves and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from blip2cli.images.batch_stream import BatchPolicy, BatchStream
from blip2cli.images.decode import decode
from blip2cli.images.preprocess import to_uint8
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef
from tests.images.helpers import SPEC, made
from tests.images.pictures import picture
from tests.images.stalls import Hang, Slow, StallsOnce, hold_the_interpreter_lock, sleep
from tests.processes import eventually_gone, worker_processes

LIMIT = 2.0  # ample for a small picture, even on a busy machine


@pytest.mark.parametrize(("how", "workers"), [(sleep, None), (hold_the_interpreter_lock, 2)])
def test_an_image_that_hangs_fails_by_itself(how: Callable[[], None], workers: int | None) -> None:
    refs: list[ImageRef] = [made(n) for n in range(13)]
    refs[5] = Hang("stuck.png", "/stuck.png", how)
    with BatchStream(refs, SPEC, LoaderOptions(3, workers, LIMIT)) as batches:
        found = [next(batches)]
        crew = worker_processes()
        began = time.monotonic()
        found.append(next(batches))
        seconds = time.monotonic() - began
        found.extend(batches)
        crew |= worker_processes()
    items = [item for batch in found for item in batch.items]
    assert [item.file_name for item in items] == [ref.file_name for ref in refs]
    (failed,) = (item for item in items if item.error)
    assert failed.error is not None
    assert (failed.file_name, failed.error.error_type) == ("stuck.png", "timeout")
    assert "longer than 2 s" in str(failed.error)
    expected = [to_uint8(decode(picture(n)).image, SPEC) for n in range(13) if n != 5]
    assert torch.equal(torch.cat([batch.pixels for batch in found]), torch.stack(expected))
    # Once in its batch and once by itself; the rest is for starting processes on a busy machine.
    assert seconds < 2 * LIMIT + 15
    assert crew
    assert eventually_gone(crew)


def test_workers_have_a_limit_by_default() -> None:
    assert BatchPolicy().image_timeout == 60
    policy = BatchPolicy(image_timeout=1.5)
    refs = [made(0), Hang("stuck.png", "/stuck.png"), made(2)]
    with BatchStream(refs, SPEC, LoaderOptions(3, 1), policy=policy) as batches:
        (batch,) = batches
    assert [item.error and item.error.error_type for item in batch.items] == [None, "timeout", None]
    # Nothing ends this process, which decodes where there is no worker.
    slow = [Slow("0.png", "", picture(0), 2.0)]
    with BatchStream(slow, SPEC, LoaderOptions(1, 0), policy=policy) as batches:
        assert next(batches).items[0].error is None


def test_a_batch_may_take_longer_than_an_image() -> None:
    refs = [Slow(f"{n}.png", "", picture(n), 0.5) for n in range(6)]
    with BatchStream(refs, SPEC, LoaderOptions(6, 1, LIMIT)) as batches:
        (batch,) = batches
    assert [item.error for item in batch.items] == [None] * 6


def test_a_passing_stall_costs_nothing(tmp_path: Path) -> None:
    refs = [made(n) for n in range(6)]
    refs[2] = StallsOnce("002.png", str(tmp_path / "mark"), picture(2))
    with BatchStream(refs, SPEC, LoaderOptions(2, 1, LIMIT)) as batches:
        items = [item for batch in batches for item in batch.items]
    assert [(item.file_name, item.error) for item in items] == [(r.file_name, None) for r in refs]


def test_hangs_and_crashes_are_distinguished() -> None:
    refs: list[ImageRef] = [made(0), Hang("h", "/h"), Hang("c", "/c", os.abort), made(3)]
    with BatchStream(refs, SPEC, LoaderOptions(4, 1, LIMIT)) as batches:
        (batch,) = batches
    assert [item.error and item.error.error_type for item in batch.items] == [
        None,
        "timeout",
        "decoder_crashed",
        None,
    ]
    assert len(batch.pixels) == 2


def test_a_limit_of_ages_is_no_mistake() -> None:
    with BatchStream([made(0)], SPEC, LoaderOptions(1, 1, float("inf"))) as batches:
        (batch,) = batches
    assert batch.items[0].error is None
