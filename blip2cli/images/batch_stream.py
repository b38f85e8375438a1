"""Image references → batches of pixels, decoded in worker processes, in source order.

References are taken from the source only as batches are requested: listing streams, and memory
holds a few batches however many images come; those on other machines are read beforehand
(``remote_reads``). Workers hand over one uint8 array a batch, through a socket, which takes about a
millisecond; shared memory is limited to 64 MiB in a default container and ends in a bus error.

Before there are workers, images are decoded in this process: in turn with whoever requests batches,
or by a prefetch thread, which begins while torch is still being imported. So nothing here imports
torch before the first batch.

Several batch threads can decode their images as well (``share_decoding``, ``next_pending``). Where
a device computes, a thread gets the next batch and sends it there (``hand_over``).

Whatever goes wrong with one image is that image's failure. ``error_type`` names that arise here:
``decode_error`` (an unexpected exception), ``decoder_crashed`` (the image took down the process
that decoded it, twice) and ``timeout`` (it took longer than it may, twice).

A time limit for one image is enforced by the kernel, inside the worker (see ``time_limit``), from
its turn on. An image that exceeds it ends its worker, as a crash would, and has a second try when
the images under way then are loaded again one by one.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from blip2cli.errors import RunError
from blip2cli.images.batch_policy import BatchPolicy
from blip2cli.images.batches import BatchCutter, LoadedBatch, UndecodedBatch
from blip2cli.images.decode import WarningsIgnored
from blip2cli.images.hand_over import PARCEL, HandOver, Pending, Send
from blip2cli.images.load_image import BatchArrays, ImageLoader, LoadedImage, ReadImage
from blip2cli.images.pillow_blocks import reuse_blocks
from blip2cli.images.prefetch import Prefetch
from blip2cli.images.preprocess import PixelSpec
from blip2cli.images.worker_pool import DeadWorkerError, WorkerPool, cannot_start
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef

__all__ = ["BatchPolicy", "BatchStream", "LoadedBatch", "LoadedImage"]

FIRST_SIZE = 16  # images in a batch before a batch size is known
PREFETCH_FACTOR = 2  # batches, or parcels of them, that wait ready per worker
_MAX_FAILED_STARTS = 3  # of workers, one after the other


class BatchStream(Iterator[LoadedBatch]):
    """Batches of uint8 pixels in source order, from this process, a thread of it or workers.

    ``options.workers`` None leaves the choice to the loader: no workers for a small job, for a
    long one that waits for images as many as there are cores to spare. 0 decodes in this process.
    A given number is started now, and given nothing before the first request. A worker that takes
    longer for an image than ``options.image_timeout`` is replaced; if given, only workers decode.

    ``prefetch`` allows a thread of this process to take references and decode them before they are
    requested, unless workers decode from the first. Without a ``batch_size`` in the options there
    are ``FIRST_SIZE`` images in a batch until ``set_batch_size`` is called.

    ``close()``, leaving it as a context manager or dropping the iterator ends all workers. Errors
    of ``refs`` are raised after the batches before them. Raises RunError when no worker starts.
    """

    def __init__(
        self,
        refs: Iterable[ImageRef] | BatchCutter,
        spec: PixelSpec,
        options: LoaderOptions,
        prefetch: bool = False,
        policy: BatchPolicy | None = None,
    ) -> None:
        policy = policy or BatchPolicy()
        reuse_blocks()
        timeout = policy.image_timeout if options.image_timeout is None else options.image_timeout
        self._image_loader = ImageLoader(spec, timeout, options.fast_decode)
        if not isinstance(refs, BatchCutter):
            refs = BatchCutter(iter(refs), options.batch_size or FIRST_SIZE)
        self._batches = refs
        self._policy = policy
        self._prefetch: Prefetch | None = None
        self._hand_over: HandOver | None = None
        self._ignored: WarningsIgnored | None = None  # pending batches hold it longer
        self._retry: deque[list[ImageRef]] = deque()  # were pending when a worker died
        self._loader: WorkerPool | None = None
        self._closed = False
        self._shared_seconds = 0.0  # of decoding a batch that are left to who takes it
        self._spent = 0.0  # seconds of decoding in this process, or of waiting for the thread
        self._workers = policy.workers() if options.workers is None else options.workers
        if options.image_timeout is not None:
            self._workers = max(1, self._workers)
        self._failed_starts = 0
        self._required = bool(options.workers) or options.image_timeout is not None
        if self._required:
            self._start_workers()
        elif prefetch:
            if options.workers is None and self._workers == 1:
                self._workers = 0  # does no more than the thread, and has to be started
            self._ignored = WarningsIgnored()
            limits = policy.prefetch_images, policy.prefetch_bytes
            self._prefetch = Prefetch(self._batches.refs, self._image_loader, *limits)

    def set_batch_size(self, size: int) -> None:
        """Put ``size`` images into a batch from now on, as far as none is under way."""
        self._batches.size = size

    def share_decoding(self) -> None:
        """Leave decoding to the threads that call what ``next_pending`` returns.

        Only where a thread of this process decodes, and as soon as batches are known not to take
        it long.
        """
        self._shared_seconds = self._policy.decode_seconds_per_batch

    def hand_over(self, send: Send) -> None:
        """Have a thread get each batch and ``send`` it while the one before it is computed.

        ``send`` returns the pending batch. No reference may wait for rows of those before it.
        """
        self._batches.parcel = PARCEL
        self._hand_over = HandOver(self, self.next_pending, send)
        self.next_pending = self._hand_over.next_pending  # type: ignore[method-assign]
        self._hand_over.start()

    @property
    def decodes_at_request(self) -> bool:
        """Whether the next batch is decoded in the thread that asks for it: the main one, then."""
        if self._closed or self._prefetch is not None or self._retry:
            return self._closed
        return self._started_loader() is None

    @property
    def waiting_for(self) -> str | None:
        """What the next batch waits for, a worker or an image; None: the source."""
        loader, current = self._loader, self._image_loader.current
        worker = None if loader is None else loader.waiting_for(self._batches.pending)
        return worker or (current and f"{current}, which is loaded")

    def __next__(self) -> LoadedBatch:
        pending = self.next_pending()
        if pending is None:
            raise StopIteration
        return pending()

    def next_pending(self) -> Pending | None:
        """The next batch, to be decoded by calling it once, in any thread; None at the end.

        Raises what the source raised, as ``__next__`` does.
        """
        if self._closed:
            return None
        try:
            if self._prefetch is not None:
                images = self._prefetched(self._prefetch)
                if images:
                    return UndecodedBatch(self._image_loader, images, self._ignored)
            parcels = [self._load()]
            if self._batches.parcel is not None:
                self._fill_up(parcels)
            return partial(self._policy.made, *parcels)
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
        """End all workers and the prefetch thread. Harmless when called again."""
        self._closed = True
        prefetch, self._prefetch = getattr(self, "_prefetch", None), None
        if prefetch is not None:
            prefetch.stop()
        self._ignored = None
        self._stop()
        if self._hand_over is not None:
            self._hand_over.close()
            self._stop()  # what the thread has started meanwhile

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # noqa: BLE001 - at exit, when modules are taken apart
            return

    def _fill_up(self, parcels: list[BatchArrays]) -> None:
        """Load further parcels of a batch until it is complete, or there are no more."""
        count = len(parcels[0][0])
        with contextlib.suppress(StopIteration):
            while count < self._batches.size:
                parcels.append(self._load())
                count += len(parcels[-1][0])

    def _load(self) -> BatchArrays:
        if self._retry:
            return self._load_one_by_one()
        loader = self._started_loader()
        if loader is None:
            began = time.monotonic()
            arrays = self._image_loader.batch_of(self._image_loader.load_all(next(self._batches)))
            self._spent += time.monotonic() - began
        else:
            try:
                arrays = next(loader)
            except DeadWorkerError as death:
                # By its image, by the system short of memory, by hand. Nothing is lost: what was
                # under way is done again, one image at a time.
                self._note(death)
                self._retry.extend(self._batches.pending)
                self._batches.pending.clear()
                return self._load()
        self._batches.pending.popleft()
        return arrays

    def _prefetched(self, prefetch: Prefetch) -> list[ReadImage]:
        """A batch of images; none when the thread has no more, and has ended."""
        began = time.monotonic()
        images = prefetch.take(self._batches.size, self._shared_seconds, self._hand_over is None)
        self._spent += time.monotonic() - began
        if self._closed:
            raise StopIteration
        if images:
            if self._started_loader() is not None:
                prefetch.end()
            return images
        self._prefetch = None
        prefetch.end()
        self._batches.refs = prefetch.rest()
        if prefetch.error is not None:
            self._batches.end(prefetch.error)
        return []

    def _started_loader(self) -> WorkerPool | None:
        """The workers, if they load the next batch; starts them as soon as they are worth it."""
        worth = self._required or self._spent >= self._policy.seconds_without_workers
        if self._loader is None and self._workers and worth:
            try:
                self._start_workers()
            except RunError:
                if self._required:
                    raise
                self._workers = 0
        if self._loader is None or self._required or self._loader.ready:
            return self._loader
        if self._loader.failed:  # this process goes on by itself
            self._stop()
            self._workers = 0
        return None

    def _start_workers(self) -> None:
        self._loader = WorkerPool(self._image_loader, self._batches, self._workers, PREFETCH_FACTOR)

    def _note(self, death: DeadWorkerError) -> None:
        """End all workers after the death of one; raises RunError when none starts any more."""
        self._stop()
        if self._closed:  # that is why it ended
            raise StopIteration
        # This process must not meet the next such image; nor may a thread that is no main thread.
        self._required |= death.started or self._hand_over is not None
        self._failed_starts = 0 if death.started else self._failed_starts + 1
        if self._failed_starts == _MAX_FAILED_STARTS:
            raise cannot_start("they end at once")

    def _load_one_by_one(self) -> BatchArrays:
        """Load the next batch of ``_retry`` image by image, so that a death names its image."""
        refs = self._retry.popleft()
        singles: list[BatchArrays] = []
        while len(singles) < len(refs):
            batches_of_one = ([ref] for ref in refs[len(singles) :])
            self._loader = WorkerPool(self._image_loader, batches_of_one, 1, 1)
            try:
                singles.extend(self._loader)
            except DeadWorkerError as death:
                self._note(death)
                if death.started:
                    failed = death.failed(refs[len(singles)], self._image_loader.timeout)
                    singles.append(((failed,), self._image_loader.empty_pixels()))
            finally:
                self._stop()
        items = tuple(item for single in singles for item in single[0])
        return items, np.concatenate([single[1] for single in singles])

    def _stop(self) -> None:
        loader, self._loader = getattr(self, "_loader", None), None
        if loader is not None:
            loader.close()
