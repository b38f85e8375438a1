"""Batches of images, loaded and half loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2cli.images.decode import WarningsIgnored
from blip2cli.images.load_image import Images, Loaded, Parcel, Picture, Undecoded

if TYPE_CHECKING:
    import torch


@dataclass
class LoadedBatch:
    """Images in source order, failures included, and the pixels of the good ones."""

    items: tuple[Loaded, ...]
    pixels: torch.Tensor  # uint8 [number of good items, 3, H, W], in the order of the items

    @classmethod
    def of(cls, parcel: Parcel) -> LoadedBatch:
        """What a worker sent, or was put together here."""
        import torch

        items, pixels = parcel
        return cls(items, torch.from_numpy(pixels))


@dataclass
class BegunBatch:
    """Images of which some are only read; it is called once, in any thread."""

    images: Images
    pictures: list[Picture | Undecoded]
    ignored: WarningsIgnored  # until they are decoded

    def __call__(self) -> LoadedBatch:
        """Decode what is not decoded yet."""
        decoded = []
        for each in self.pictures:
            picture = self.images.decode_beside(each) if isinstance(each, Undecoded) else each
            assert not isinstance(picture, Undecoded)  # who read it has seen to such
            decoded.append(picture)
        self.ignored.end()
        return LoadedBatch.of(self.images.packed(decoded))
