"""Image references → batches of pixels, decoded in worker processes, in source order.

A torch ``DataLoader`` whose "indices" are the references themselves, taken from the source only as
batches are asked for: listing streams, and memory holds a few batches however many images come.
Workers read, decode and resize; they hand over one uint8 array a batch, through a pipe. (Torch's
own way, shared memory, is limited to 64 MiB in a default container and ends in a bus error there;
a copy through a pipe costs about a millisecond.)

Whatever goes wrong with one image is that image's failure. ``error_type`` names that arise here:
``decode_error`` (an unexpected exception) and ``decoder_crashed`` (the image took down the
process that decoded it, twice).
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from blip2cli.errors import ImageError, OptionError, RunError
from blip2cli.images.decode import decode
from blip2cli.images.preprocess import PixelSpec, to_array
from blip2cli.images.workers import (
    DeathWatch,
    choose_workers,
    hidden_main,
    init_worker,
    worker_context,
)
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef

# Up to so many batches are decoded in the main process: workers take a second to start.
SMALL_JOB = 2
PREFETCH = 2  # batches that wait ready per worker


@dataclass(frozen=True)
class Loaded:
    """What is known of one image after decoding; without ``error`` it is in the batch's pixels."""

    file_name: str
    width: int | None  # pixels, after orientation; None when the image failed
    height: int | None
    error: ImageError | None = None


@dataclass
class LoadedBatch:
    """Images in source order, failures included, and the pixels of the good ones."""

    items: tuple[Loaded, ...]
    pixels: torch.Tensor  # uint8 [number of good items, 3, H, W], in the order of the items


# What travels from a worker to the main process.
_Parcel = tuple[tuple[Loaded, ...], np.ndarray]


def load_batches(refs: Iterable[ImageRef], spec: PixelSpec, options: LoaderOptions) -> BatchStream:
    """Return the batches as an iterator.

    The fork server starts now, so it is ready when a model has been loaded; the workers
    start with the first batch asked for, which is then a matter of milliseconds.
    ``options.workers`` None means: by the cores available, and none for a small job; 0 decodes in
    this process. Abandoning the iterator, ``close()`` or leaving it as a context manager ends all
    workers. Errors of ``refs`` itself are raised after the batches that came before them; a
    worker that cannot be started raises RunError.
    """
    if options.batch_size < 1:
        raise OptionError(f"--batch-size takes a positive number, not {options.batch_size}.")
    if options.workers is not None and options.workers < 0:
        raise OptionError(f"--workers takes 0 or a positive number, not {options.workers}.")
    return BatchStream(refs, spec, options)


class BatchStream(Iterator[LoadedBatch]):
    """The iterator of :func:`load_batches`."""

    def __init__(self, refs: Iterable[ImageRef], spec: PixelSpec, options: LoaderOptions) -> None:
        self._refs: Iterator[ImageRef] = iter(refs)
        self._spec = spec
        self._batch_size = options.batch_size
        self._source_error: BaseException | None = None
        self._pending: deque[list[ImageRef]] = deque()  # handed to the loader, not yet returned
        self._retry: deque[list[ImageRef]] = deque()  # were pending when a worker died
        self._watch: DeathWatch | None = None
        self._iterator: Any = None
        self._closed = False
        self._workers = self._choose(options.workers)
        if self._workers:
            worker_context()

    def __next__(self) -> LoadedBatch:
        if self._closed:
            raise StopIteration
        try:
            parcel = self._cautiously() if self._retry else self._next_parcel()
        except BaseException:
            self.close()
            if self._source_error is not None:
                error, self._source_error = self._source_error, None
                raise error from None
            raise
        items, pixels = parcel
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

    def _choose(self, workers: int | None) -> int:
        if workers is not None:
            return workers
        workers = choose_workers()
        if workers:
            first = list(islice(self._guarded(self._refs), SMALL_JOB * self._batch_size + 1))
            self._refs = chain(first, self._refs)
            if len(first) <= SMALL_JOB * self._batch_size:
                return 0
        return workers

    def _guarded(self, refs: Iterator[ImageRef]) -> Iterator[ImageRef]:
        """End quietly when the source fails, so that no batch before the failure is lost."""
        try:
            yield from refs
        except Exception as error:
            self._source_error = error

    def _batches(self) -> Iterator[list[ImageRef]]:
        refs = self._guarded(self._refs)
        while batch := list(islice(refs, self._batch_size)):
            self._pending.append(batch)
            yield batch

    def _stop(self) -> None:
        watch, self._watch = getattr(self, "_watch", None), None
        iterator, self._iterator = getattr(self, "_iterator", None), None
        _close_loader(iterator, watch)

    def _next_parcel(self) -> _Parcel:
        if self._iterator is None:
            self._iterator, self._watch = _open_loader(
                self._spec, self._batches(), self._workers, PREFETCH
            )
        try:
            parcel: _Parcel = next(self._iterator)
        except StopIteration:
            if self._source_error is None:
                self.close()
            raise
        except RuntimeError as error:
            if self._watch is None or not _worker_died(error):
                raise
            # Some worker died: by its image, by the system short of memory, by hand. Nothing
            # is lost: what was under way is done again, one image at a time.
            self._stop()
            self._retry.extend(self._pending)
            self._pending.clear()
            return self._cautiously()
        self._pending.popleft()
        return parcel

    def _cautiously(self) -> _Parcel:
        """Load the next batch of ``_retry`` image by image, so that a crash names its image."""
        refs = self._retry.popleft()
        parcels: list[_Parcel] = []
        while len(parcels) < len(refs):
            rest = refs[len(parcels) :]
            iterator, watch = _open_loader(self._spec, ([ref] for ref in rest), 1, 1)
            try:
                parcels.extend(iterator)
            except RuntimeError as error:
                if not _worker_died(error):
                    raise
                crash = ImageError("decoder_crashed", "Decoding it ended the decoding process.")
                failed = Loaded(refs[len(parcels)].file_name, None, None, crash)
                parcels.append(((failed,), _empty(self._spec)))
            finally:
                _close_loader(iterator, watch)
        items = tuple(item for parcel in parcels for item in parcel[0])
        return items, np.concatenate([parcel[1] for parcel in parcels])


class _Images(Dataset[Any]):
    """Loads whole batches; what a ``DataLoader`` calls an index is a reference here."""

    def __init__(self, spec: PixelSpec) -> None:
        self.spec = spec

    def __getitems__(self, refs: list[ImageRef]) -> _Parcel:
        items: list[Loaded] = []
        arrays: list[np.ndarray] = []
        for ref in refs:
            item, array = _load(ref, self.spec)
            items.append(item)
            if array is not None:
                arrays.append(array)
        return tuple(items), np.stack(arrays) if arrays else _empty(self.spec)


def _load(ref: ImageRef, spec: PixelSpec) -> tuple[Loaded, np.ndarray | None]:
    try:
        picture = decode(ref.read())
        array = to_array(picture.image, spec)
    except ImageError as error:
        failure = ImageError(error.error_type, str(error))  # without its chain of causes
    except MemoryError:
        failure = ImageError("out_of_memory", "There is not enough memory to load it.")
    except Exception as error:
        failure = ImageError("decode_error", f"Unexpected {type(error).__name__}: {error}")
    else:
        return Loaded(ref.file_name, picture.width, picture.height), array
    return Loaded(ref.file_name, None, None, failure), None


def _empty(spec: PixelSpec) -> np.ndarray:
    return np.empty((0, 3, spec.height, spec.width), np.uint8)


def _as_is(parcel: _Parcel) -> _Parcel:
    return parcel


def _open_loader(
    spec: PixelSpec, batches: Iterator[list[ImageRef]], workers: int, prefetch: int
) -> tuple[Any, DeathWatch | None]:
    """Start a data loader over ``batches``; returns its iterator and the watch over its workers."""
    arguments: dict[str, Any] = {
        "batch_sampler": batches,
        "collate_fn": _as_is,
        "generator": torch.Generator(),  # else it draws from the global one, which is the user's
    }
    if not workers:
        return iter(DataLoader(_Images(spec), **arguments)), None
    try:
        with warnings.catch_warnings(), hidden_main():
            # More workers than cores is the user's choice; torch would remark on it.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            loader = DataLoader(
                _Images(spec),
                num_workers=workers,
                prefetch_factor=prefetch,
                worker_init_fn=init_worker,
                multiprocessing_context=worker_context(),
                **arguments,
            )
            iterator = iter(loader)
    except (OSError, EOFError) as error:
        raise RunError(
            f"The processes that decode images cannot be started ({error}); try --workers 0."
        ) from error
    return iterator, DeathWatch(iterator)


def _close_loader(iterator: Any, watch: DeathWatch | None) -> None:
    if watch is not None:
        watch.stop()
    shut_down = getattr(iterator, "_shutdown_workers", None)
    if shut_down is not None:  # at once, not when the garbage collector comes round
        shut_down()


def _worker_died(error: RuntimeError) -> bool:
    return "exited unexpectedly" in str(error)
