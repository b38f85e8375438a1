"""Copies of pixels, and of weights, to a CUDA device that overlap with computation.

A copy runs beside other work only from memory that is pinned, and on a stream other than the one
that computes. On a CPU nothing is copied at all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Upload:
    """Copies batches of pixels to the device, through one pinned buffer that is reused.

    ``cuda`` is ``torch.cuda``.
    """

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self.device = device
        self._cuda = cuda
        self._buffer: Tensor | None = None
        self._copied: Any = None  # the event after which the buffer may be written to again
        self._stream: Any = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """``pixels`` of any shape on the device; the stream that computes waits for them. What is
        there already is given back."""
        if self.device.type != "cuda" or pixels.device.type == "cuda":
            return pixels.to(self.device)
        return self.wait(*self.start(pixels))

    def start(self, host: Tensor) -> tuple[Tensor, Any]:
        """The copy of a tensor, and the event after which it may be read. Pinned tensors, which
        nobody may write to, are copied from where they are."""
        cuda = self._cuda
        if self._stream is None:
            self._stream = cuda.Stream(self.device)
        if self._copied is not None:
            self._copied.synchronize()
        if not host.is_pinned():
            host = self._view(host).copy_(host)
        with cuda.stream(self._stream):
            uploaded = torch.empty_like(host, device=self.device)
            uploaded.copy_(host, non_blocking=True)
            self._copied = self._stream.record_event()
        return uploaded, self._copied

    def wait(self, uploaded: Tensor, copied: Any) -> Tensor:
        """``uploaded``, for which the stream that computes waits."""
        computing = self._cuda.current_stream(self.device)
        computing.wait_event(copied)
        # It was allocated for the other stream, which must not have it back before this one is
        # done with it.
        uploaded.record_stream(computing)
        return uploaded

    def _view(self, pixels: Tensor) -> Tensor:
        """A view of the buffer in the shape of ``pixels``; the buffer grows when it has to."""
        held = self._buffer
        if held is None or held.dtype != pixels.dtype or held.numel() < pixels.numel():
            held = self._buffer = self._pinned(pixels.numel(), pixels.dtype)
        return held[: pixels.numel()].view(pixels.shape)

    def _pinned(self, size: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(size, dtype=dtype, pin_memory=True)
