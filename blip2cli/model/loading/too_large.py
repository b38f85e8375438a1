"""What is done about a model that does not fit into memory, or said of it."""

from __future__ import annotations

import gc

import torch

from blip2cli.errors import ModelError, either, option
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.model.placement.batch_size import estimate_memory
from blip2cli.model.placement.cuda_devices import has_bfloat16
from blip2cli.model.placement.dtype import Placement
from blip2cli.options import ModelOptions


def too_large(
    checkpoint: Checkpoint, placement: Placement, options: ModelOptions | None
) -> ModelError:
    """The error for a model whose weights do not fit, naming what takes less memory."""
    device, dtype = placement.device, str(placement.dtype).removeprefix("torch.")
    itemsize = 1 if placement.quantize else placement.dtype.itemsize  # about
    size = estimate_memory(checkpoint.model_config, checkpoint.family.writes, itemsize).weights
    placing = options is not None and options.places_layers
    smaller = []
    if placement.dtype is torch.float32:
        half = "bfloat16"
        if device.type == "cuda" and not has_bfloat16(device):
            half = half if "float16" in checkpoint.family.unfit_dtypes else "float16"
        smaller.append(f"{option('dtype')} {half}")
    if placing:
        smaller.append(f"smaller numbers in {option('max_memory')}")
    elif device.type != "mps":
        if placement.quantize is None:
            smaller.append(f"{option('quantize')} int8")
        instead = f" instead of {option('quantize')}" if placement.quantize else ""
        smaller.append(f"{option('offload')} FOLDER{instead}, which reads layers from disk")
    smaller = smaller or ["a smaller model"]
    amount = f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
    name = checkpoint.path if options is None else options.model
    return ModelError(
        None,
        f"{device} has too little memory for {name} with {option('dtype')} {dtype}, which takes "
        f"about {amount}",
        f"use {either(smaller) if len(smaller) > 1 else smaller[0]}",
    )


def give_back(device: torch.device) -> None:
    """Free what a model that was not loaded has left behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
