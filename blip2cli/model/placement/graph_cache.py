"""The CUDA graphs of a loaded model: for how many sequences, and whether there are any."""

from __future__ import annotations

from blip2cli.model.decoding.cuda_capture import CudaGraphCapture
from blip2cli.model.decoding.cuda_graphs import CudaGraphCache
from blip2cli.model.nets.blip2 import Blip2Net
from blip2cli.model.placement.batch_size import cuda_slots, free_bytes
from blip2cli.model.quantize.library_layers import why_not_capturable


def graph_cache(model: Blip2Net) -> CudaGraphCache:
    """The cache of ``model``, which is on a CUDA device; with as many slots as memory is free."""
    slots = cuda_slots(free_bytes(model.device) or 0)
    return CudaGraphCache(CudaGraphCapture(model.device), slots, why_not_capturable(model))
