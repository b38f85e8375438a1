"""One image reference → its pixels, or why there are none. Needs no torch.

Whatever goes wrong with one image is that image's failure: ``decode_error`` names an exception
nobody foresaw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blip2cli.errors import ImageError
from blip2cli.images.decode import DecodedImage, decode, decode_unheard
from blip2cli.images.preprocess import PixelSpec, to_array
from blip2cli.images.sniff import claimed_format
from blip2cli.images.time_limit import time_limit
from blip2cli.sources.base import ImageRef


@dataclass(frozen=True)
class Loaded:
    """What is known of one image after decoding; without ``error`` it is in the batch's pixels."""

    file_name: str
    width: int | None  # pixels, after orientation; None when the image failed
    height: int | None
    error: ImageError | None = None
    kept: tuple[object, ...] = ()  # the reference's own


# An image with its pixels, uint8 [3, H, W]; without, when it failed.
Picture = tuple[Loaded, np.ndarray | None]
# Images in order, and the pixels of the good ones, uint8 [good, 3, H, W]. Workers send these.
Parcel = tuple[tuple[Loaded, ...], np.ndarray]


@dataclass(frozen=True)
class Undecoded:
    """An image that was only read."""

    ref: ImageRef
    data: bytes
    # It is to be decoded in the main thread: what keeps libtiff quiet would swallow what that one
    # says meanwhile.
    in_main: bool


class Images:
    """Loads whole batches; what a ``DataLoader`` calls an index is a reference here.

    With a ``timeout`` (seconds for one image) it belongs in a worker: exceeding it ends the
    process. With ``fast``, JPEGs are decoded no larger than the pictures of ``spec`` need.
    """

    def __init__(self, spec: PixelSpec, timeout: float | None = None, fast: bool = False) -> None:
        self.spec = spec
        self.timeout = timeout
        self.at_least = (spec.width, spec.height) if fast else None

    def __getitems__(self, refs: list[ImageRef]) -> Parcel:
        pictures = []
        for ref in refs:
            with time_limit(self.timeout):
                pictures.append(self.load(ref))
        return self.packed(pictures)

    def __getitem__(self, ref: ImageRef) -> Parcel:
        """A batch of one; the protocol of data sets wants it."""
        return self.__getitems__([ref])

    def load(self, ref: ImageRef) -> Picture:
        """Read, decode and resize one image."""
        try:
            return self._sized(ref, decode(ref.read(), self.at_least))
        except Exception as error:  # noqa: BLE001 - one image must never end the run
            return _failed(ref, error)

    def read_beside(self, ref: ImageRef) -> Picture | Undecoded:
        """Only read one image, in a thread beside the main one."""
        try:
            data = ref.read()
            return Undecoded(ref, data, claimed_format(data)[0] == "TIFF")
        except Exception as error:  # noqa: BLE001 - one image must never end the run
            return _failed(ref, error)

    def load_beside(self, ref: ImageRef) -> Picture | Undecoded:
        """Load one image in a thread beside the main one, as far as it goes there."""
        begun = self.read_beside(ref)
        return self.decode_beside(begun) if isinstance(begun, Undecoded) else begun

    def decode_beside(self, begun: Undecoded) -> Picture | Undecoded:
        """Decode it in a thread beside the main one, if it may be.

        The caller sees to it that warnings are ignored meanwhile (``WarningsIgnored``).
        """
        if begun.in_main:
            return begun
        try:
            return self._sized(begun.ref, decode_unheard(begun.data, self.at_least))
        except Exception as error:  # noqa: BLE001 - one image must never end the run
            return _failed(begun.ref, error)

    def decode_in_main(self, begun: Undecoded) -> Picture:
        """Decode it in the main thread."""
        try:
            return self._sized(begun.ref, decode(begun.data, self.at_least))
        except Exception as error:  # noqa: BLE001 - one image must never end the run
            return _failed(begun.ref, error)

    def _sized(self, ref: ImageRef, picture: DecodedImage) -> Picture:
        array = to_array(picture.image, self.spec)
        return Loaded(ref.file_name, picture.width, picture.height, kept=ref.kept), array

    def packed(self, pictures: Sequence[Picture]) -> Parcel:
        """``pictures`` as a batch."""
        arrays = [array for _, array in pictures if array is not None]
        pixels = np.stack(arrays) if arrays else self.empty()
        return tuple(item for item, _ in pictures), pixels

    def empty(self) -> np.ndarray:
        """The pixels of a batch without good images."""
        return np.empty((0, 3, self.spec.height, self.spec.width), np.uint8)


def _failed(ref: ImageRef, error: Exception) -> Picture:
    if isinstance(error, ImageError):
        failure = ImageError(error.error_type, str(error))  # without its chain of causes
    elif isinstance(error, MemoryError):
        failure = ImageError("out_of_memory", "There is not enough memory to load it.")
    else:
        failure = ImageError("decode_error", f"Unexpected {type(error).__name__}: {error}")
    return Loaded(ref.file_name, None, None, failure, ref.kept), None
