"""How many batches make a block: by their seconds, and by what was done before."""

from __future__ import annotations

from blip2cli.pipeline.compute.ray_block_size import BlockSize


def after(blocks: int, seconds: float, images: int = 64, actors: int = 2) -> BlockSize:
    """What blocks whose batches took so long have come to."""
    size = BlockSize()
    for _ in range(blocks):
        size.note(size.batches, size.batches * seconds, size.batches * images, actors)
    return size


def test_a_batch_that_takes_long_is_a_block() -> None:
    assert after(1000, 2.0).batches == 1


def test_blocks_grow_with_what_was_done() -> None:
    sizes = [after(blocks, 0.01).batches for blocks in (0, 15, 40, 100)]
    assert sizes[:2] == [1, 1]
    assert sizes == sorted(sizes)
    assert 1 < sizes[2] < sizes[3]


def test_but_no_longer_than_they_should_take() -> None:
    assert after(500, 0.11, images=8).batches == 9
    assert after(5000, 0.11, images=8, actors=100).batches == 27  # for so many, blocks last longer
    assert after(2000, 0.5, images=8, actors=1000).batches <= 8


def test_nor_beyond_what_memory_should_hold() -> None:
    assert after(500, 0.0).batches == 64
    assert after(500, 0.0, images=10_000).batches == 1


def test_they_shrink_where_batches_take_longer() -> None:
    size = after(500, 0.01)
    for _ in range(10):
        size.note(size.batches, size.batches * 1.0, size.batches * 64, 2)
    assert size.batches == 1
