"""Copies of tokens from a CUDA device to the host that overlap with computation.

A copy runs beside other work only to memory that is pinned. On a CPU nothing is copied at all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class AsyncCopy:
    """Tensors that are being copied to the host. Starting it does not wait; ``values`` does."""

    def __init__(self, *tensors: Tensor) -> None:
        # From a CUDA device such a copy goes into pinned memory, and is under way on return.
        self._held = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        self._copied: torch.cuda.Event | None = None
        if tensors[0].device.type == "cuda":
            self._copied = torch.cuda.current_stream(tensors[0].device).record_event()

    def values(self) -> list[Any]:
        """Each as nested lists of numbers."""
        if self._copied is not None:
            self._copied.synchronize()
        return [tensor.tolist() for tensor in self._held]
