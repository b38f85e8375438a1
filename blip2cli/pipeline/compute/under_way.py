"""Batches that are under way in workers, and what becomes of them when a worker ends.

Which of its images ended a worker is not guessed: all that it had are done again, each by itself,
on any worker. An image that ends a worker then, too, is a failed one. But a process that was killed
(by hand, by a scheduler, by the system short of memory) says nothing about its image unless that
happens again and again.

``error_type`` that arises here: ``worker_crashed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from blip2cli.errors import ImageError
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef

_MOST_KILLS = 3  # of workers that had one image only, before the image is to blame


@dataclass(eq=False)
class Piece:
    """Images that are worked on together: a batch, or a single one of it."""

    batch: BatchUnderWay
    refs: Sequence[ImageRef]
    single: bool = False  # a worker may have ended because of it
    ended: int = 0  # workers that did while they had nothing else
    result: ProcessedBatch | Exception | None = None

    def redo(self, how: str, killed: bool) -> None:
        """Its worker ended: have its images done again one by one, or note that the one failed.

        ``how`` the worker ended is for people; ``killed``: by somebody else.
        """
        if not self.single:
            self.batch.pieces = [Piece(self.batch, [ref], single=True) for ref in self.refs]
            return
        self.ended += 1
        if self.ended >= (_MOST_KILLS if killed else 1):
            self.result = crashed(self.refs, how)


@dataclass(eq=False)
class BatchUnderWay:
    """A batch in one piece or, after a worker ended, in pieces of one image."""

    refs: Sequence[ImageRef]
    pieces: list[Piece] = field(init=False)

    def __post_init__(self) -> None:
        self.pieces = [Piece(self, self.refs)]

    @property
    def complete(self) -> bool:
        """Whether all of it is done."""
        return all(piece.result is not None for piece in self.pieces)

    def result(self) -> ProcessedBatch:
        """The rows of a complete batch. Raises what was raised for the first piece that was."""
        joined = ProcessedBatch([], 0)
        results = []
        for piece in self.pieces:
            if isinstance(piece.result, Exception):
                raise piece.result
            assert piece.result is not None
            results.append(piece.result)
        if len(results) == 1:
            return results[0]
        joined.rows = [row for each in results for row in each.rows]
        joined.done = sum(each.done for each in results)
        joined.images = [image for each in results for image in each.images]
        joined.events = [event for each in results for event in each.events]
        joined.load_share = sum(each.load_share for each in results) / len(results)
        return joined


def crashed(refs: Sequence[ImageRef], how: str) -> ProcessedBatch:
    """Images that ended the worker process ``how``, as failures."""
    from blip2cli.images.load_image import LoadedImage

    problem = f"Running it ended the worker process more than once ({how})."
    error = ImageError("worker_crashed", problem)
    images = [LoadedImage(ref.file_name, None, None, error, ref.carried) for ref in refs]
    return ProcessedBatch([], 0, images)
