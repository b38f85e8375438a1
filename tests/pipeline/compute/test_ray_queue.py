"""The queue of blocks by itself: what can be taken again, and what was started before."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from blip2cli.pipeline.compute.base import Ready
from blip2cli.pipeline.compute.ray_worker import TAKEN, BlockQueue

READY = Ready(None, "stub", "cpu", "float32", "because")


async def soon(queue: BlockQueue, number: int) -> asyncio.Task[bytes | None]:
    """A reader that waits for a batch."""
    task = asyncio.create_task(queue.get(number))
    await asyncio.sleep(0)
    return task


def test_batches() -> None:
    asyncio.run(batches())


async def batches() -> None:
    queue = BlockQueue()
    waiting = await soon(queue, 0)
    assert not waiting.done()
    await queue.put(0, b"zero")
    await queue.put(1, b"one")
    assert await waiting == b"zero"
    assert await queue.get(0) == b"zero"  # by a reader that was lost
    assert await queue.get(1) == b"one"
    await queue.forget(0)
    assert await queue.get(0) == TAKEN
    waiting = await soon(queue, 2)
    await queue.end(2)
    assert await waiting is None


def test_starts() -> None:
    asyncio.run(starts())


async def starts() -> None:
    queue = BlockQueue(5, READY)
    assert await queue.get(4) == TAKEN
    assert [await queue.begin(5, "actor"), await queue.begin(5, "other")] == [0, 1]
    assert await queue.begin((5, 0)) == 0
    assert await queue.stalled(60) == []
    assert await queue.stalled(-1) == ["other"]
    assert await queue.stalled(-1) == []
    await queue.done(5)
    assert await queue.begin(5, "actor") == 0


def test_a_block_that_is_done_in_steps_makes_progress() -> None:
    asyncio.run(in_steps())


async def in_steps() -> None:
    queue = BlockQueue()
    await queue.begin(0, "actor")
    await asyncio.sleep(0.2)
    await queue.begin((0, 1))
    assert await queue.stalled(0.1) == []
    await asyncio.sleep(0.2)
    await queue.progress(0)
    assert await queue.stalled(0.1) == []
    await asyncio.sleep(0.2)
    assert await queue.stalled(0.1) == ["actor"]
    await queue.begin((0, 2, 1))
    await queue.progress(0)
    assert await queue.stalled(-1) == []


def test_the_first_model_decides() -> None:
    asyncio.run(the_first_model_decides())


async def the_first_model_decides() -> None:
    queue = BlockQueue()
    assert await queue.agreed() is None
    assert await queue.first_ready(0.01) is None
    assert await queue.agree(READY) == READY
    assert await queue.agree(replace(READY, dtype="bfloat16")) == READY
    assert await queue.first_ready(60) == await queue.agreed() == READY
    failed = BlockQueue()
    error = ValueError("no such model")
    await failed.fail(error)
    assert await failed.first_ready(60) is error
