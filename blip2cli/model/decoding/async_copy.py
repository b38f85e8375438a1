"""Copies of few numbers between the host and a CUDA device that nobody waits for.

A copy runs beside other work only from and to memory that is pinned. On a CPU nothing is copied at
all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_device(numbers: Sequence[Any], device: torch.device) -> Tensor:
    """Numbers of the host, in nested sequences, as a tensor on a device."""
    return send(torch.tensor(numbers), device)


def send(host: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device; on a CPU it is the same one."""
    if device.type != "cuda":
        return host.to(device)
    # Pinned memory that is freed is not used again before it has been copied.
    pinned = torch.empty_like(host, pin_memory=True).copy_(host)
    return pinned.to(device, non_blocking=True)


class AsyncCopy:
    """Tensors that are being copied to the host. Starting it does not wait; ``values`` does."""

    def __init__(self, *tensors: Tensor) -> None:
        # From a CUDA device such a copy goes into pinned memory, and is under way on return. So it
        # is from MPS, but there nothing says when it has arrived.
        device = tensors[0].device
        asynchronous = device.type == "cuda"
        self._held = [tensor.to("cpu", non_blocking=asynchronous) for tensor in tensors]
        self._copied: torch.cuda.Event | None = None
        if asynchronous:
            self._copied = torch.cuda.current_stream(device).record_event()

    def values(self) -> list[Any]:
        """Each as nested lists of numbers."""
        if self._copied is not None:
            self._copied.synchronize()
        return [tensor.tolist() for tensor in self._held]
