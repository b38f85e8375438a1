"""Images of a caller of the Python API → loaded batches, in any thread, one at a time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import TYPE_CHECKING, cast

from blip2cli.images.batch_stream import LoadedBatch
from blip2cli.images.decode import WarningsIgnored
from blip2cli.images.load_image import EncodedImage, ImageAndPixels, ImageLoader
from blip2cli.images.pillow_ref import image_ref, is_one_image
from blip2cli.images.preprocess import PixelSpec
from blip2cli.sources.base import ImageRef
from blip2cli.system.silence_stderr import silence_stderr

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy as np
    import torch
    from PIL import Image

    AnyPath = str | os.PathLike[str]
    # The mapping is a value of a column of ``datasets`` that is not decoded.
    Picture = (
        AnyPath | Image.Image | np.ndarray | torch.Tensor | Mapping[str, object] | ImageRef | None
    )


def references(
    images: Picture | Iterable[Picture], numbers: Iterable[int] | None = None
) -> Iterator[ImageRef]:
    """References to images, made as they are asked for.

    Those that come from no file are named by ``numbers``, by default 0, 1, 2 and so on. Raises
    OptionError for what is no image.
    """
    pictures = [images] if is_one_image(images) else cast("Iterable[Picture]", images)
    if numbers is None:
        return (image_ref(picture, number) for number, picture in enumerate(pictures))
    return (image_ref(picture, number) for number, picture in zip(numbers, pictures, strict=True))


def count_of(images: Picture | Iterable[Picture]) -> int | None:
    """How many images there are; None for an iterator, which has no length."""
    if is_one_image(images):
        return 1
    return len(images) if isinstance(images, Sized) else None


def loaded_batches(refs: Iterator[ImageRef], spec: PixelSpec, size: int) -> Iterator[LoadedBatch]:
    """Batches of ``size`` images, failures included; no image is read before its batch."""
    image_loader = ImageLoader(spec)
    while some := list(islice(refs, size)):
        ignored = WarningsIgnored()
        try:
            images = [_load(image_loader, ref) for ref in some]
        finally:
            ignored.end()
        some.clear()  # an image in memory is not held while the next ones are made
        yield LoadedBatch.of(image_loader.batch_of(images))


def _load(image_loader: ImageLoader, ref: ImageRef) -> ImageAndPixels:
    """As ``ImageLoader.load``, and not only in the main thread."""
    read = image_loader.read(ref)
    if not isinstance(read, EncodedImage):
        return read
    with silence_stderr() if read.main_thread_only else contextlib.nullcontext():
        return image_loader.decode(read, main_thread=False)


@contextlib.contextmanager
def progress_bar(shown: bool, total: int | None) -> Iterator[Callable[[int], object]]:
    """A bar on stderr or in a notebook, and the function that adds images to it."""
    if not shown:
        yield lambda images: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit=" images", dynamic_ncols=True) as bar:
        yield bar.update


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows rows as HTML."""
    return "ipykernel" in sys.modules
