"""Batches of images: of references, pending ones that are decoded where they are used, decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.images.decode import WarningsIgnored
from blip2cli.images.load_image import (
    BatchArrays,
    EncodedImage,
    ImageAndPixels,
    ImageLoader,
    LoadedImage,
)
from blip2cli.sources.base import ImageRef

if TYPE_CHECKING:
    import torch


@dataclass
class LoadedBatch:
    """Images in source order, failures included, and the pixels of the good ones."""

    items: tuple[LoadedImage, ...]
    pixels: torch.Tensor  # uint8 [number of good items, 3, H, W], in the order of the items

    @classmethod
    def of(cls, arrays: BatchArrays) -> LoadedBatch:
        """The batch that a worker sent, or that this process put together."""
        import torch

        items, pixels = arrays
        return cls(items, torch.from_numpy(pixels))


@dataclass
class UndecodedBatch:
    """A batch of which some images are not decoded yet; called once, in any thread."""

    image_loader: ImageLoader
    images: list[EncodedImage | ImageAndPixels]  # none is ``main_thread_only``
    ignored: WarningsIgnored | None  # as long as one of the stream's batches is pending

    def __call__(self) -> LoadedBatch:
        """Decode the rest."""
        decoded = [
            self.image_loader.decode(image, main_thread=False)
            if isinstance(image, EncodedImage)
            else image
            for image in self.images
        ]
        self.ignored = None
        return LoadedBatch.of(self.image_loader.batch_of(decoded))


class BatchCutter(Iterator[list[ImageRef]]):
    """Cuts references into batches as they are requested.

    An object of its own, not a generator of the stream: that would be a reference cycle, and
    workers of a dropped stream would live until the garbage collector runs.
    """

    def __init__(self, refs: Iterator[ImageRef], size: int) -> None:
        self.refs = refs
        self.size = size
        self.pending: deque[list[ImageRef]] = deque()  # requested, not yet returned as pixels
        # What ended the references early. Raised by the stream when the batches before it are
        # out: raised at once it would lose those that were loaded beforehand.
        self.error: BaseException | None = None
        self._ended = False

    def end(self, error: BaseException) -> None:
        """Give no further batch, because of ``error``."""
        self.error = error
        self._ended = True

    def __next__(self) -> list[ImageRef]:
        batch: list[ImageRef] = []
        if not self._ended:
            try:
                batch.extend(islice(self.refs, self.size))  # keeps what came before an error
            except Exception as error:  # noqa: BLE001 - raised again, later
                self.end(error)
        if not batch:
            self._ended = True
            raise StopIteration
        self.pending.append(batch)
        return batch


class RequestedBatches(BatchCutter):
    """Batches that are requested one by one; that none is there now is not the end."""

    def __init__(self) -> None:
        super().__init__(iter(()), 0)
        self._requests: deque[list[ImageRef]] = deque()

    def request(self, refs: list[ImageRef]) -> None:
        """Have a batch loaded."""
        self._requests.append(refs)

    def __next__(self) -> list[ImageRef]:
        if not self._requests:
            raise StopIteration
        batch = self._requests.popleft()
        self.pending.append(batch)
        return batch
