"""Image references → batches of pixels, decoded in worker processes, in source order.

A torch ``DataLoader`` whose "indices" are the references themselves, taken from the source only as
batches are asked for: listing streams, and memory holds a few batches however many images come.
Workers read, decode and resize; they hand over one uint8 array a batch, through a pipe. (Torch's
own way, shared memory, is limited to 64 MiB in a default container and ends in a bus error there;
a copy through a pipe costs about a millisecond.)

Whatever goes wrong with one image is that image's failure. ``error_type`` names that arise here:
``decode_error`` (an unexpected exception), ``decoder_crashed`` (the image took down the process
that decoded it, twice) and ``timeout`` (it took longer than it may, twice).

A time limit for one image is kept by the kernel, inside the worker (see ``workers.time_limit``):
it begins when the image's own reading begins, so neither a batch of many slow images nor the
start of a process counts against it. An image that exceeds it ends its worker, as a crash would,
and is given a second try when the images under way then are loaded again one by one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from blip2cli.errors import ImageError
from blip2cli.images.blocks import keep_blocks
from blip2cli.images.decode import decode
from blip2cli.images.limits import check_loading
from blip2cli.images.preprocess import PixelSpec, to_array
from blip2cli.images.workers import (
    DeadWorkerError,
    RunningLoader,
    choose_workers,
    time_limit,
    worker_context,
)
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef

PREFETCH = 2  # batches that wait ready per worker
# Left to itself, the loader decodes in this process until that has taken so many seconds: a small
# job is done before workers would have started, and start-up would compete with it for the cores.
PATIENCE = 1.0
WARM_UP = 2.0  # seconds the fork server is then given to import torch while work goes on here


@dataclass(frozen=True)
class Loaded:
    """What is known of one image after decoding; without ``error`` it is in the batch's pixels."""

    file_name: str
    width: int | None  # pixels, after orientation; None when the image failed
    height: int | None
    error: ImageError | None = None
    kept: tuple[object, ...] = ()  # the reference's own


@dataclass
class LoadedBatch:
    """Images in source order, failures included, and the pixels of the good ones."""

    items: tuple[Loaded, ...]
    pixels: torch.Tensor  # uint8 [number of good items, 3, H, W], in the order of the items


# What travels from a worker to the main process.
_Parcel = tuple[tuple[Loaded, ...], np.ndarray]


def load_batches(refs: Iterable[ImageRef], spec: PixelSpec, options: LoaderOptions) -> BatchStream:
    """Return the batches as an iterator.

    ``options.workers`` None leaves the choice to the loader: no workers for a small job, for a
    long one as many as there are cores to spare. 0 decodes in this process. A given number is
    started with the first batch asked for; their fork server starts now, so that it is ready
    when, for example, a model has been loaded. With ``options.image_timeout`` (seconds for one
    image) every image is decoded in a worker: only another process can be ended in the middle.

    ``close()``, leaving it as a context manager or dropping the iterator ends all workers. Errors
    of ``refs`` itself are raised after the batches that came before them. Raises OptionError for
    numbers that make no sense, RunError when workers cannot be started.
    """
    check_loading(options)
    return BatchStream(refs, spec, options)


class BatchStream(Iterator[LoadedBatch]):
    """The iterator of :func:`load_batches`."""

    def __init__(self, refs: Iterable[ImageRef], spec: PixelSpec, options: LoaderOptions) -> None:
        keep_blocks()
        self._images = _Images(spec, options.image_timeout, options.fast_decode)
        self._batches = _Batches(iter(refs), options.batch_size)
        self._retry: deque[list[ImageRef]] = deque()  # were pending when a worker died
        self._loader: RunningLoader | None = None
        self._closed = False
        self._spent = 0.0  # seconds of decoding in this process
        self._start_at: float | None = None  # when to start workers, on the monotonic clock
        self._workers = choose_workers() if options.workers is None else options.workers
        if options.image_timeout is not None:
            self._workers = max(1, self._workers)
        if options.workers or options.image_timeout is not None:
            worker_context()
            self._start_at = 0.0

    def __next__(self) -> LoadedBatch:
        if self._closed:
            raise StopIteration
        try:
            items, pixels = self._cautiously() if self._retry else self._next_parcel()
        except StopIteration:
            self.close()
            error, self._batches.error = self._batches.error, None
            if error is None:
                raise
            raise error from None
        except BaseException:
            self.close()
            raise
        return LoadedBatch(items, torch.from_numpy(pixels))

    def close(self) -> None:
        """End all workers. Harmless when called again."""
        self._closed = True
        self._stop()

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _next_parcel(self) -> _Parcel:
        if self._loader is None and self._workers_due():
            self._loader = RunningLoader(self._images, self._batches, self._workers, PREFETCH)
        if self._loader is None:
            began = time.monotonic()
            parcel = self._images.__getitems__(next(self._batches))
            self._spent += time.monotonic() - began
        else:
            try:
                parcel = next(self._loader)
            except DeadWorkerError:
                # By its image, by the system short of memory, by hand. Nothing is lost: what was
                # under way is done again, one image at a time.
                self._stop()
                self._retry.extend(self._batches.pending)
                self._batches.pending.clear()
                if not self._retry:
                    return self._next_parcel()
                return self._cautiously()
        self._batches.pending.popleft()
        return parcel

    def _workers_due(self) -> bool:
        now = time.monotonic()
        if self._workers and self._start_at is None and self._spent >= PATIENCE:
            worker_context()
            self._start_at = now + WARM_UP
        return self._start_at is not None and now >= self._start_at

    def _cautiously(self) -> _Parcel:
        """Load the next batch of ``_retry`` image by image, so that a death names its image."""
        refs = self._retry.popleft()
        parcels: list[_Parcel] = []
        while len(parcels) < len(refs):
            one_by_one = ([ref] for ref in refs[len(parcels) :])
            self._loader = RunningLoader(self._images, one_by_one, 1, 1)
            try:
                parcels.extend(self._loader)
            except DeadWorkerError as death:
                ref = refs[len(parcels)]
                failed = Loaded(ref.file_name, None, None, self._cause(death), ref.kept)
                parcels.append(((failed,), _empty(self._images.spec)))
            finally:
                self._stop()
        items = tuple(item for parcel in parcels for item in parcel[0])
        return items, np.concatenate([parcel[1] for parcel in parcels])

    def _cause(self, death: DeadWorkerError) -> ImageError:
        if death.overdue:
            limit = f"{self._images.timeout:g} s"
            return ImageError("timeout", f"Reading and decoding it took longer than {limit}.")
        return ImageError("decoder_crashed", "Decoding it ended the decoding process.")

    def _stop(self) -> None:
        loader, self._loader = getattr(self, "_loader", None), None
        if loader is not None:
            loader.close()


class _Batches(Iterator[list[ImageRef]]):
    """Cuts references into batches as they are asked for.

    An object of its own, not a generator of the stream: that would be a reference cycle, and
    workers of a dropped stream would live until the garbage collector comes round.
    """

    def __init__(self, refs: Iterator[ImageRef], size: int) -> None:
        self._refs = refs
        self._size = size
        self.pending: deque[list[ImageRef]] = deque()  # asked for, not yet returned as pixels
        # What ended the references early. Raised by the stream when the batches before it are
        # out: the data loader, which asks for batches ahead, would lose what it has in hand.
        self.error: Exception | None = None
        self._ended = False

    def __next__(self) -> list[ImageRef]:
        batch: list[ImageRef] = []
        if not self._ended:
            try:
                batch.extend(islice(self._refs, self._size))  # keeps what came before an error
            except Exception as error:  # noqa: BLE001 - raised again, later
                self.error = error
                self._ended = True
        if not batch:
            self._ended = True
            raise StopIteration
        self.pending.append(batch)
        return batch


class _Images(Dataset[Any]):
    """Loads whole batches; what a ``DataLoader`` calls an index is a reference here.

    With a ``timeout`` (seconds for one image) it belongs in a worker: exceeding it ends the
    process. ``fast`` decodes JPEGs no larger than the pictures of ``spec`` need.
    """

    def __init__(self, spec: PixelSpec, timeout: float | None = None, fast: bool = False) -> None:
        self.spec = spec
        self.timeout = timeout
        self.fast = fast

    def __getitems__(self, refs: list[ImageRef]) -> _Parcel:
        items: list[Loaded] = []
        arrays: list[np.ndarray] = []
        for ref in refs:
            with time_limit(self.timeout):
                item, array = _load(ref, self.spec, self.fast)
            items.append(item)
            if array is not None:
                arrays.append(array)
        return tuple(items), np.stack(arrays) if arrays else _empty(self.spec)


def _load(ref: ImageRef, spec: PixelSpec, fast: bool) -> tuple[Loaded, np.ndarray | None]:
    try:
        picture = decode(ref.read(), (spec.width, spec.height) if fast else None)
        array = to_array(picture.image, spec)
    except ImageError as error:
        failure = ImageError(error.error_type, str(error))  # without its chain of causes
    except MemoryError:
        failure = ImageError("out_of_memory", "There is not enough memory to load it.")
    except Exception as error:  # noqa: BLE001 - one image must never end the run
        failure = ImageError("decode_error", f"Unexpected {type(error).__name__}: {error}")
    else:
        return Loaded(ref.file_name, picture.width, picture.height, kept=ref.kept), array
    return Loaded(ref.file_name, None, None, failure, ref.kept), None


def _empty(spec: PixelSpec) -> np.ndarray:
    return np.empty((0, 3, spec.height, spec.width), np.uint8)
