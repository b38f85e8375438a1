"""Layers whose weights are brought in for each pass, and dropped behind it.

Whoever runs the layers of a ``StreamedLayers`` one behind another meets each with its weights in
place. A thread fetches those of the next layer while this one computes, so two layers are held at
most. Which layer is next is known from the pass before: behind the last layer of a decode step
comes the first one.

Only the matrices of linear layers are streamed; norms, biases and the like stay in memory. On a CPU
a matrix is not even copied: it is multiplied where the file is mapped, and fetching it is to touch
its pages, which the system reads ahead of them.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from blip2cli.model.layers.linear import ROW_MULTIPLE, Linear

_PAGE = 4096  # bytes; systems with larger ones touch each several times
_READ_AT_ONCE = 1 << 20  # bytes; Linux reads no more of what it is told about than it reads ahead
_WILLNEED = 3  # MADV_WILLNEED, on Linux and macOS
# What a pass over streamed layers takes together, so that weights are read seldom:
STREAMED_ROWS = 4  # times as many rows as one over layers in memory …
STREAMED_SLOTS = (64, 256)  # … and in a decode step a sequence for each image, within these numbers


class Fetcher(Protocol):
    """How the matrix of a linear layer comes to where it is multiplied."""

    def start(self, layer: Linear) -> Any:
        """Read and copy it, in a thread of its own."""

    def finish(self, started: Any) -> Tensor:
        """What ``start`` gave, once it may be multiplied; in the thread that computes."""


class MappedFetcher:
    """Fetches for a CPU: the pages of a mapped file are read, and nothing else is done."""

    def start(self, layer: Linear) -> Tensor:
        pieces = [load() for load in layer.stored]
        for piece in pieces:
            _prefetch(piece)
        if len(pieces) == 1:
            pieces[0].view(-1).view(torch.uint8)[::_PAGE].sum()
        return layer.prepared(pieces[0] if len(pieces) == 1 else torch.cat(pieces))

    def finish(self, started: Tensor) -> Tensor:
        return started


@cache
def _madvise() -> Any:
    """madvise(2), or None where the C library has none."""
    try:
        return ctypes.CDLL(None, use_errno=True).madvise
    except (OSError, AttributeError, TypeError):  # Windows
        return None


def _prefetch(mapped: Tensor) -> None:
    """Have the system read what is mapped, all at once: 0.5 GB/s in place of 0.25 where single
    pages are waited for (a virtual disk, two busy cores)."""
    advise = _madvise()
    if advise is None:
        return
    start = mapped.data_ptr() // _PAGE * _PAGE
    for at in range(start, mapped.data_ptr() + mapped.nbytes, _READ_AT_ONCE):
        advise(ctypes.c_void_p(at), ctypes.c_size_t(_READ_AT_ONCE), _WILLNEED)


class StreamedLayer:
    """The linear layers of one layer, whose matrices come and go."""

    def __init__(self, layer: nn.Module) -> None:
        modules = (each for each in layer.modules() if isinstance(each, Linear))
        self.linears = [each for each in modules if each.stored]
        self._absent = [each.matrix for each in self.linears]  # on the meta device
        self.users = 0  # passes that run it at this moment

    def fill(self, matrices: Iterable[Tensor]) -> None:
        """Put matrices in place."""
        for linear, matrix in zip(self.linears, matrices, strict=True):
            linear.matrix = matrix

    def drop(self) -> None:
        """Give their memory back."""
        self.fill(self._absent)


class LayerStream:
    """Brings in the streamed layers of one model. Safe for several threads."""

    def __init__(self, layers: Sequence[nn.Module], fetcher: Fetcher) -> None:
        """``layers``: those that are streamed, in the order in which they run."""
        self._layers = {layer: StreamedLayer(layer) for layer in layers}
        streamed = list(self._layers.values())
        self._fetcher = fetcher
        self._following = dict(zip(streamed, streamed[1:] + streamed[:1], strict=True))
        self._last = streamed[-1]
        self._fetched: tuple[StreamedLayer, Future[list[Any]]] | None = None
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "layer")

    @contextmanager
    def held(self, layer: nn.Module) -> Iterator[None]:
        """Inside, the weights of ``layer`` are in place. A layer that is not streamed always is."""
        streamed = self._layers.get(layer)
        if streamed is None:
            yield
            return
        with self._lock:
            if not streamed.users:
                streamed.fill(self._take(streamed))
            streamed.users += 1
        try:
            yield
        finally:
            with self._lock:
                streamed.users -= 1
                if not streamed.users:
                    streamed.drop()

    def _take(self, streamed: StreamedLayer) -> list[Tensor]:
        """The weights of a layer, fetched before where that was foreseen; fetches the next."""
        fetched = self._fetched
        self._fetched = None
        started = fetched[1] if fetched and fetched[0] is streamed else self._fetch(streamed)
        matrices = [self._fetcher.finish(each) for each in started.result()]
        self._following[self._last] = streamed
        self._last = streamed
        following = self._following[streamed]
        if following is not streamed and not following.users:
            self._fetched = following, self._fetch(following)
        return matrices

    def _fetch(self, streamed: StreamedLayer) -> Future[list[Any]]:
        start = self._fetcher.start
        return self._pool.submit(lambda: [start(linear) for linear in streamed.linears])


class StreamedLayers(nn.ModuleList):
    """Layers of which some are streamed: iterating over them brings in each in its turn."""

    def __init__(self, layers: nn.ModuleList, stream: LayerStream) -> None:
        super().__init__(list(layers))
        self.stream = stream

    def __iter__(self) -> Iterator[nn.Module]:
        for layer in super().__iter__():
            with self.stream.held(layer):
                yield layer


def streamed_slots(layers: nn.ModuleList, images: int) -> int:
    """How many sequences a step over ``layers`` takes where they are streamed; 0: they are not."""
    least, most = STREAMED_SLOTS
    slots = min(most, max(least, -(-images // ROW_MULTIPLE) * ROW_MULTIPLE))
    return slots if isinstance(layers, StreamedLayers) else 0
