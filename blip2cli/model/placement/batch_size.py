"""The automatic batch size, the memory a batch needs, and how many batches run in parallel.

A row is the same in every batch, so the size is a matter of speed and memory alone. On a CPU speed
decides. Small models gain from large batches, because the calls of a decode step cost more than its
arithmetic (measured with ``tiny``: decoding takes 2.2 ms an image at 16 and 1.05 ms at 64); large
ones gain little above 16, and a batch of theirs takes long, which is what an interrupted run waits
for; but where a decode step takes 32 sequences in nearly the time of 16 (bfloat16 on AMX, see
``gemm_rows``), a batch is as large. On CUDA a batch is as large as memory allows, up to a size
beyond which nothing is gained.

The memory of an image is computed from the configuration, an upper bound without fragmentation; a
CPU takes a batch through the vision encoder in chunks, and needs less (see ``chunked_vision``).
What it leaves out (long prompts, many questions or beams an image) shows as running out of memory,
see ``pipeline.out_of_memory``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from blip2cli.model.checkpoint.config import Blip2Config, patches, sides
from blip2cli.model.decoding.scheduler import MAX_SLOTS
from blip2cli.model.layers.streamed import STREAMED_SLOTS
from blip2cli.model.nets.blip2 import Blip2Net, GenerationModel
from blip2cli.model.placement.thresholds import (
    BATCH_SIZES,
    BATCH_THREADS_BELOW,
    LARGE_BATCH_SIZE,
)
from blip2cli.system.memory import memory

MULTIPLE = 8  # sizes are multiples of it, as the rows of matrix products are
# By the bytes that are free on a CUDA device: images of a batch, and sequences decoded together.
# More gain ever less.
_CUDA_IMAGES = ((50 << 30, 512), (0, 256))
_CUDA_SLOTS = ((40 << 30, 256), (20 << 30, 128), (0, MAX_SLOTS))
MEMORY_SHARE = 0.8  # of the free memory; the rest is for what is not counted, and fragmentation
TEXT_LENGTH = 64  # tokens of a prompt and its text


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of a model, in bytes."""

    image: int  # of activations, for each image of a batch
    sequence: int  # for each sequence being decoded, of which there are as many as slots at most
    weights: int  # about


class Beside(Protocol):
    """A model that is loaded beside another one."""

    model: Blip2Net


class PlacedModel(Protocol):
    """A loaded model on its device; ``Blip2`` is one."""

    model: Blip2Net

    @property
    def ranker(self) -> Beside | None:
        """The model that ranks its texts, on the same device; None: there is none."""

    @property
    def device(self) -> torch.device:
        """The device it runs on."""


def auto_batch_size(model: PlacedModel, sharers: int = 1) -> int:
    """The batch size for a loaded model on its device.

    ``sharers`` processes run such a model each, and share the memory of the machine.
    """
    needed = _memory_of_both(model)
    if model.model.stream is not None:
        return streamed_batch_size(needed, free_bytes(model.device))
    if model.device.type == "cuda":
        return cuda_batch_size(needed, free_bytes(model.device) or 0)
    step_rows = 0
    if isinstance(model.model, GenerationModel):
        step_rows = model.model.language_model.lm_head.sequences_per_gemm(1)
    available = memory().available
    shared = None if available is None else available // sharers
    return cpu_batch_size(needed, shared, step_rows)


def _memory_of_both(model: PlacedModel) -> MemoryEstimate:
    """Of the model, and of one beside it: both have activations of the images of a batch. The
    larger one's weights say how long a batch takes."""
    own = model_memory(model.model)
    if model.ranker is None:
        return own
    other = model_memory(model.ranker.model)
    return MemoryEstimate(own.image + other.image, own.sequence, max(own.weights, other.weights))


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device; None: unknown."""
    if device.type != "cuda":
        return memory().available
    free, _ = torch.cuda.mem_get_info(device)
    # What torch's allocator holds for reuse is free for us, too.
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def batch_threads(model: PlacedModel) -> int:
    """How many batches run in parallel, each in a thread of its own."""
    if model.device.type != "cpu" or not is_small(model.model) or model.model.stream is not None:
        return 1
    if model.ranker is not None and not is_small(model.ranker.model):
        return 1
    return torch.get_num_threads()


def is_small(model: Blip2Net) -> bool:
    """Whether its layers are too small to be split among cores."""
    return model_memory(model).weights < BATCH_THREADS_BELOW


def cpu_batch_size(need: MemoryEstimate, available: int | None, step_rows: int = 0) -> int:
    """By the size of the model, within the ``available`` bytes; None: unknown.

    A decode step takes up to ``step_rows`` sequences in the time of one; 0: no such number.
    """
    size = next((size for below, size in BATCH_SIZES if need.weights < below), LARGE_BATCH_SIZE)
    size = max(size, step_rows)
    return size if available is None else min(size, _fitting(need, available))


def cuda_batch_size(need: MemoryEstimate, free: int) -> int:
    """By the ``free`` bytes on the device."""
    most = next(size for least, size in _CUDA_IMAGES if free >= least)
    return min(most, _fitting(need, free, cuda_slots(free)))


def cuda_slots(free: int) -> int:
    """How many sequences are decoded together on a device with ``free`` bytes, at most."""
    return next(slots for least, slots in _CUDA_SLOTS if free >= least)


def streamed_batch_size(need: MemoryEstimate, available: int | None) -> int:
    """As many images as memory holds, with a sequence for each: weights are read for every batch,
    and at every decode step."""
    least, most = STREAMED_SLOTS
    if available is None:
        return least
    size = int(MEMORY_SHARE * available) // (need.image + need.sequence)
    return max(1, min(most, size if size < MULTIPLE else size - size % MULTIPLE))


def _fitting(need: MemoryEstimate, free: int, slots: int = MAX_SLOTS) -> int:
    """Images that fit into ``free`` bytes beside ``slots`` sequences; at least one, to be tried."""
    usable = int(MEMORY_SHARE * free)
    size = usable // (need.image + need.sequence)  # one sequence an image
    if size > slots:
        size = (usable - slots * need.sequence) // need.image
    return max(1, size if size < MULTIPLE else size - size % MULTIPLE)


def model_memory(model: Blip2Net) -> MemoryEstimate:
    """``estimate_memory`` of a loaded model."""
    return estimate_memory(model.config, isinstance(model, GenerationModel), model.dtype.itemsize)


def estimate_memory(config: Blip2Config, writes: bool, itemsize: int) -> MemoryEstimate:
    """From the configuration, whether the model generates texts, and the bytes of its dtype."""
    vision, qformer = config.vision_config, config.qformer_config
    height, width = sides(vision)
    positions = patches(vision)
    queries = config.num_query_tokens

    # As bytes that arrive, as float32 that are normalised, in the model's precision; the same
    # pixels, cut into patches, are what the first layer multiplies.
    pixels = 3 * height * width * (1 + 4 + 2 * itemsize)
    features = positions * 2 * vision.hidden_size + queries * 2 * qformer.hidden_size
    encoder = positions * _layer(vision.hidden_size, vision.intermediate_size)
    qformer_layer = queries * _layer(qformer.hidden_size, qformer.intermediate_size)
    qformer_layer += positions * 2 * qformer.hidden_size  # keys and values of the image
    weights = vision.num_hidden_layers * _weights(vision.hidden_size, vision.intermediate_size)
    weights += qformer.num_hidden_layers * _weights(qformer.hidden_size, qformer.intermediate_size)
    weights += qformer.num_hidden_layers * qformer.hidden_size * vision.hidden_size
    prefill = decoding = 0
    if writes:
        text = config.text_config.size
        prefill = queries * _layer(text.width, text.inner)
        features += queries * (text.width + text.cached)
        decoding = (queries + TEXT_LENGTH) * text.cached + 3 * text.vocabulary
        weights += text.weights
    return MemoryEstimate(
        image=pixels + itemsize * (features + max(encoder, qformer_layer, prefill)),
        sequence=itemsize * decoding,
        weights=itemsize * weights,
    )


def _layer(width: int, inner: int) -> int:
    """Numbers that one position takes within a transformer layer.

    Its input and the norm of it, and beside them queries, keys, values and the attention's output,
    or the feed-forward layer's inner states and their activation.
    """
    return 2 * width + max(4 * width, 2 * inner)


def _weights(width: int, inner: int) -> int:
    return 4 * width * width + 2 * width * inner
