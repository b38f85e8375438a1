"""Image reference → pixels, or the error with which that image failed. Needs no torch.

The one way in for loader workers, the prefetch thread, batch threads and the Python API: ``load``,
or its two halves ``read`` and ``decode`` where they run in different threads.

Whatever goes wrong with one image is that image's failure: ``decode_error`` names an exception
nobody foresaw.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from blip2cli.errors import ImageError
from blip2cli.images.decode import decode, decode_unsilenced
from blip2cli.images.preprocess import PixelSpec
from blip2cli.images.remote_reads import ReadThreads
from blip2cli.images.resize import to_planes
from blip2cli.images.sniff import TIFF_STARTS
from blip2cli.sources.base import ImageRef
from blip2cli.storage.secrets import hide_secrets


@dataclass(frozen=True)
class LoadedImage:
    """What is known of one image after decoding; without ``error`` it is in the batch's pixels."""

    file_name: str
    width: int | None  # pixels, after orientation; None when the image failed
    height: int | None
    error: ImageError | None = None
    carried: tuple[object, ...] = ()  # values of carried columns, from the reference


# An image and its pixels, uint8 [3, H, W]; None when it failed.
ImageAndPixels = tuple[LoadedImage, np.ndarray | None]
# A batch as workers send it: images in order, and the pixels of the good ones, uint8
# [good, 3, H, W].
BatchArrays = tuple[tuple[LoadedImage, ...], np.ndarray]


@dataclass(frozen=True)
class EncodedImage:
    """The bytes of an image file, not decoded yet."""

    ref: ImageRef
    data: bytes

    # Only the main thread may decode it: libtiff is silenced by redirecting the stderr of the
    # whole process, which would swallow what the main thread writes meanwhile.
    main_thread_only: bool


# An image that was read: decoded, failed, or left to be decoded by whoever takes it.
ReadImage = EncodedImage | ImageAndPixels


class ImageLoader:
    """Loads images by their references, one or a batch; what a worker is sent first.

    With a ``timeout`` (seconds for one image) it belongs in a worker: exceeding it ends the
    process. With ``fast_decode`` JPEGs are decoded no larger than the pixels of ``spec`` need.
    """

    def __init__(
        self, spec: PixelSpec, timeout: float | None = None, fast_decode: bool = False
    ) -> None:
        self.spec = spec
        self.timeout = timeout
        self.current: str | None = None  # the image that is being loaded in this process
        self._at_least = (spec.width, spec.height) if fast_decode else None

    def load_batch(self, refs: list[ImageRef]) -> BatchArrays:
        """Load images in turn, each within the time it may take."""
        images = []
        for ref in refs:
            with time_limit(self.timeout):
                images.append(self.load(ref))
        return self.batch_of(images)

    def load_all(self, refs: list[ImageRef]) -> list[ImageAndPixels]:
        """Load images in the main thread of this process; those of other machines are read at
        once."""
        if not refs[0].remote:
            return [self.load(ref) for ref in refs]
        threads = ReadThreads()
        try:
            started = [threads.start(ref) if ref.remote else ref for ref in refs]
            return [self.load(ref) for ref in started]
        finally:
            threads.close()

    def load(self, ref: ImageRef) -> ImageAndPixels:
        """Read, decode and resize one image, in the main thread of its process."""
        self.current = ref.file_name
        encoded = self.read(ref)
        loaded = self.decode(encoded) if isinstance(encoded, EncodedImage) else encoded
        self.current = None
        return loaded

    def read(self, ref: ImageRef) -> ReadImage:
        """Read the bytes of one image, in any thread."""
        try:
            data = ref.read()
            return EncodedImage(ref, data, main_thread_only=data.startswith(TIFF_STARTS))
        except Exception as error:  # noqa: BLE001 - one image must never end the run
            return _failed(ref, error)

    def decode(self, encoded: EncodedImage, main_thread: bool = True) -> ImageAndPixels:
        """Decode and resize one image.

        Outside the main thread the caller sees to it that warnings are ignored meanwhile
        (``WarningsIgnored``) and that the image is not ``main_thread_only``.
        """
        ref = encoded.ref
        try:
            decoder = decode if main_thread else decode_unsilenced
            decoded = decoder(encoded.data, self._at_least)
            spec = self.spec
            pixels = to_planes(decoded.image, spec.width, spec.height, spec.resample)
            width, height = decoded.width, decoded.height
            image = LoadedImage(ref.file_name, width, height, None, ref.carried)
            return image, pixels
        except Exception as error:  # noqa: BLE001 - one image must never end the run
            return _failed(ref, error)

    def batch_of(self, images: Sequence[ImageAndPixels]) -> BatchArrays:
        """Put images together into a batch."""
        arrays = [pixels for _, pixels in images if pixels is not None]
        stacked = np.stack(arrays) if arrays else self.empty_pixels()
        return tuple(image for image, _ in images), stacked

    def empty_pixels(self) -> np.ndarray:
        """The pixels of a batch without good images, uint8 [0, 3, H, W]."""
        return np.empty((0, 3, self.spec.height, self.spec.width), np.uint8)


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """End this process, a worker, unless the block is left in time. ``None``: no limit.

    It may hang in code that Python cannot interrupt: a read from a stalled network file system, a
    decoder in an endless loop. A watching thread would not help, because such code may hold the
    interpreter. So a timer of the kernel ends the process by SIGALRM, which tells
    ``worker_pool.Worker`` why.
    """
    if seconds is None:
        yield
        return
    # A kernel timer is sure to take 1e8 seconds, three years.
    signal.setitimer(signal.ITIMER_REAL, min(seconds, 1e8))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _failed(ref: ImageRef, error: Exception) -> ImageAndPixels:
    if isinstance(error, ImageError):
        failure = ImageError(error.error_type, error.problem)  # without its chain of causes
    elif isinstance(error, MemoryError):
        failure = ImageError("out_of_memory", "There is not enough memory to load it.")
    else:
        failure = ImageError(
            "decode_error", hide_secrets(f"Unexpected {type(error).__name__}: {error}")
        )
    return LoadedImage(ref.file_name, None, None, failure, ref.carried), None
