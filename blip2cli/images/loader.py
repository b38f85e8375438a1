"""Image references → batches of pixels, decoded in worker processes, in source order.

A torch ``DataLoader`` whose "indices" are the references themselves, taken from the source only as
batches are asked for: listing streams, and memory holds a few batches however many images come.
Workers read, decode and resize; they hand over one uint8 array a batch, through a pipe. (Torch's
own way, shared memory, is limited to 64 MiB in a default container and ends in a bus error there;
a copy through a pipe costs about a millisecond.)

Before there are workers, images are decoded in this process: in turn with whoever asks for batches,
or by a thread ahead of it (``ahead``), which begins while torch is still being imported. So nothing
here imports torch before the first batch.

Where the model runs in several threads, each with a batch, these can decode its images as well
(``share_decoding``, ``begin``).

Whatever goes wrong with one image is that image's failure. ``error_type`` names that arise here:
``decode_error`` (an unexpected exception), ``decoder_crashed`` (the image took down the process
that decoded it, twice) and ``timeout`` (it took longer than it may, twice).

A time limit for one image is kept by the kernel, inside the worker (see ``time_limit``):
it begins when the image's own reading begins, so neither a batch of many slow images nor the
start of a process counts against it. An image that exceeds it ends its worker, as a crash would,
and is given a second try when the images under way then are loaded again one by one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

import numpy as np

from blip2cli.errors import ImageError
from blip2cli.images.batches import BegunBatch, LoadedBatch
from blip2cli.images.decode import WarningsIgnored
from blip2cli.images.limits import check_loading
from blip2cli.images.load_image import Images, Loaded, Parcel, Picture, Undecoded
from blip2cli.images.pillow_blocks import keep_blocks
from blip2cli.images.prefetch import Ahead
from blip2cli.images.preprocess import PixelSpec
from blip2cli.images.workers import (
    DeadWorkerError,
    RunningLoader,
    choose_workers,
    worker_context,
)
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef

__all__ = ["BatchStream", "Loaded", "LoadedBatch", "load_batches"]

FIRST_SIZE = 16  # images in a batch where nothing is said
PREFETCH = 2  # batches that wait ready per worker
# Left to itself, the loader decodes in this process until that has taken so many seconds: a small
# job is done before workers would have started, and start-up would compete with it for the cores.
# Of a thread ahead only the seconds count that it was waited for: it works while the model does,
# and costs the main thread no more than a worker (measured with tiny, 1.0 to 1.3 ms an image: the
# main thread needs 3.92 ms of processor time an image with the thread, 3.90 with a worker, 5.04
# when it decodes itself). Where decoding takes longer than the model, more workers do more.
PATIENCE = 1.0
# Threads of the model decode a batch's images if that takes no longer: an interrupted run waits.
BATCH_SECONDS = 1.0
WARM_UP = 2.0  # seconds the fork server is then given to import torch while work goes on here


def load_batches(
    refs: Iterable[ImageRef], spec: PixelSpec, options: LoaderOptions, ahead: bool = False
) -> BatchStream:
    """Return the batches as an iterator.

    ``options.workers`` None leaves the choice to the loader: no workers for a small job, for a
    long one that waits for images as many as there are cores to spare. 0 decodes in this process.
    A given number is started with the first batch asked for; their fork server starts now, so that
    it is ready when, for example, a model has been loaded. With ``options.image_timeout`` (seconds
    for one image) every image is decoded in a worker: only another process can be ended in the
    middle.

    ``ahead`` allows a thread of this process to take references and decode them before they are
    asked for, from now on; it makes no use of it where images are decoded in workers from the
    first. Without a ``batch_size`` in the options there are ``FIRST_SIZE`` images in a batch until
    ``cut_to`` is told another number.

    ``close()``, leaving it as a context manager or dropping the iterator ends all workers. Errors
    of ``refs`` itself are raised after the batches that came before them. Raises OptionError for
    numbers that make no sense, RunError when workers cannot be started.
    """
    check_loading(options)
    return BatchStream(refs, spec, options, ahead)


class BatchStream(Iterator[LoadedBatch]):
    """The iterator of :func:`load_batches`."""

    def __init__(
        self, refs: Iterable[ImageRef], spec: PixelSpec, options: LoaderOptions, ahead: bool
    ) -> None:
        keep_blocks()
        self._images = Images(spec, options.image_timeout, options.fast_decode)
        self._batches = _Batches(iter(refs), options.batch_size or FIRST_SIZE)
        self._ahead: Ahead | None = None
        self._retry: deque[list[ImageRef]] = deque()  # were pending when a worker died
        self._loader: RunningLoader | None = None
        self._closed = False
        self._shares = False
        self._spent = 0.0  # seconds of decoding in this process, or of waiting for the thread
        self._start_at: float | None = None  # when to start workers, on the monotonic clock
        self._workers = choose_workers() if options.workers is None else options.workers
        if options.image_timeout is not None:
            self._workers = max(1, self._workers)
        if options.workers or options.image_timeout is not None:
            worker_context()
            self._start_at = 0.0
        elif ahead:
            if options.workers is None and self._workers == 1:
                self._workers = 0  # does no more than the thread, and has to be started
            self._ahead = Ahead(self._batches.refs, self._images)

    @property
    def spec(self) -> PixelSpec:
        """What the images are made to fit."""
        return self._images.spec

    def cut_to(self, size: int) -> None:
        """Put ``size`` images into a batch from now on, as far as none is under way."""
        self._batches.size = size

    def share_decoding(self) -> None:
        """From now on leave decoding to who calls what ``begin`` returns.

        Only where a thread of this process decodes, and as soon as batches are known not to take
        it long.
        """
        self._shares = True

    def __next__(self) -> LoadedBatch:
        begun = self.begin()
        if begun is None:
            raise StopIteration
        return begun()

    def begin(self) -> Callable[[], LoadedBatch] | None:
        """The next batch, to be finished by calling it once, in any thread; None at the end.

        Raises what the source raised, as ``__next__`` does.
        """
        if self._closed:
            return None
        try:
            if self._ahead is not None:
                pictures = self._from_thread(self._ahead)
                if pictures:
                    return BegunBatch(self._images, pictures, WarningsIgnored())
            parcel = self._cautiously() if self._retry else self._next_parcel()
            return partial(LoadedBatch.of, parcel)
        except StopIteration:
            self.close()
            error, self._batches.error = self._batches.error, None
            if error is None:
                return None
            raise error from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all workers and the thread. Harmless when called again."""
        self._closed = True
        ahead, self._ahead = getattr(self, "_ahead", None), None
        if ahead is not None:
            ahead.stop()
        self._stop()

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _next_parcel(self) -> Parcel:
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

    def _from_thread(self, ahead: Ahead) -> list[Picture | Undecoded]:
        """A batch of images; none when the thread has no more, and is gone."""
        if self._shares and ahead.pace * self._batches.size <= BATCH_SECONDS:
            ahead.only_read()
        began = time.monotonic()
        pictures = ahead.take(self._batches.size)
        self._spent += time.monotonic() - began
        if pictures:
            if self._workers_due():
                ahead.end()
            return pictures
        self._ahead = None
        ahead.end()
        if ahead.error is not None:
            self._batches.end(ahead.error)
        return []

    def _workers_due(self) -> bool:
        now = time.monotonic()
        if self._workers and self._start_at is None and self._spent >= PATIENCE:
            worker_context()
            self._start_at = now + WARM_UP
        return self._start_at is not None and now >= self._start_at

    def _cautiously(self) -> Parcel:
        """Load the next batch of ``_retry`` image by image, so that a death names its image."""
        refs = self._retry.popleft()
        parcels: list[Parcel] = []
        while len(parcels) < len(refs):
            one_by_one = ([ref] for ref in refs[len(parcels) :])
            self._loader = RunningLoader(self._images, one_by_one, 1, 1)
            try:
                parcels.extend(self._loader)
            except DeadWorkerError as death:
                ref = refs[len(parcels)]
                failed = Loaded(ref.file_name, None, None, self._cause(death), ref.kept)
                parcels.append(((failed,), self._images.empty()))
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
        self.refs = refs
        self.size = size
        self.pending: deque[list[ImageRef]] = deque()  # asked for, not yet returned as pixels
        # What ended the references early. Raised by the stream when the batches before it are
        # out: the data loader, which asks for batches ahead, would lose what it has in hand.
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
