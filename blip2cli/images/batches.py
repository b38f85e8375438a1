"""Batches of images: of references, pending ones that are decoded where they are used, decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from blip2cli.images.decode import WarningsIgnored
from blip2cli.images.load_image import (
    BatchArrays,
    EncodedImage,
    ImageLoader,
    LoadedImage,
    ReadImage,
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
    def of(cls, arrays: BatchArrays, *more: BatchArrays) -> LoadedBatch:
        """The batch that workers sent, whole or in parcels, or that this process put together."""
        import torch

        items, pixels = arrays
        if more:
            items = tuple(item for each in (arrays, *more) for item in each[0])
            pixels = np.concatenate([each[1] for each in (arrays, *more)])
        return cls(items, torch.from_numpy(pixels))


@dataclass
class UndecodedBatch:
    """A batch of which some images are not decoded yet; called once, in any thread but for images
    that are ``main_thread_only``."""

    image_loader: ImageLoader
    images: list[ReadImage]
    ignored: WarningsIgnored | None  # as long as one of the stream's batches is pending

    @property
    def main_thread_only(self) -> bool:
        """Whether there is an image that only the main thread may decode."""
        return any(isinstance(each, EncodedImage) and each.main_thread_only for each in self.images)

    @property
    def file_names(self) -> list[str]:
        """The names of the images."""
        return [
            each.ref.file_name if isinstance(each, EncodedImage) else each[0].file_name
            for each in self.images
        ]

    def __call__(self) -> LoadedBatch:
        """Decode the rest."""
        decoded = [
            self.image_loader.decode(image, main_thread=image.main_thread_only)
            if isinstance(image, EncodedImage)
            else image
            for image in self.images
        ]
        self.ignored = None
        return LoadedBatch.of(self.image_loader.batch_of(decoded))


class BatchCutter(Iterator[list[ImageRef]]):
    """Cuts references into batches, or batches into parcels, as they are requested.

    An object of its own, not a generator of the stream: that would be a reference cycle, and
    workers of a dropped stream would live until the garbage collector runs.
    """

    def __init__(self, refs: Iterator[ImageRef], size: int) -> None:
        self.refs = refs
        self.size = size
        self.parcel: int | None = None  # images that are loaded together; None: a whole batch
        self._cut = 0  # images of the present batch that were given, where it is cut into parcels
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
                size = self.size if self.parcel is None else self._parcel_size(self.parcel)
                batch.extend(islice(self.refs, size))  # keeps what came before an error
            except Exception as error:  # noqa: BLE001 - raised again, later
                self.end(error)
        if not batch:
            self._ended = True
            raise StopIteration
        self.pending.append(batch)
        return batch

    def _parcel_size(self, most: int) -> int:
        size = min(most, self.size - self._cut)
        self._cut = (self._cut + size) % self.size
        return size


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
