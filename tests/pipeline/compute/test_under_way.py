"""What becomes of a batch whose workers end."""

from __future__ import annotations

from blip2cli.pipeline.compute.under_way import BatchUnderWay
from blip2cli.sources.base import ImageRef


def test_an_image_whose_worker_was_killed_once_and_then_crashed_is_a_failed_one() -> None:
    batch = BatchUnderWay([ImageRef("a.png", "/a.png"), ImageRef("b.png", "/b.png")])
    batch.pieces[0].redo("killed by SIGSEGV", killed=False)
    first, _ = batch.pieces
    first.redo("killed by SIGKILL", killed=True)
    assert first.result is None
    for piece in batch.pieces:
        piece.redo("killed by SIGSEGV", killed=False)
    assert batch.complete
    errors = [image.error for image in batch.result().images]
    assert [error and error.error_type for error in errors] == ["worker_crashed"] * 2
