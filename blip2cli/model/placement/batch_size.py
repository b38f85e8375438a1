"""How many images go through a model together, when nobody says, and in how many threads.

A row is the same in every batch, so the size is a matter of speed and memory alone. On a CPU the
speed decides. Small models gain from large batches, because a step of theirs costs calls rather
than arithmetic (measured with ``tiny``: decoding takes 2.2 ms an image at 16 and 1.05 ms at 64);
large ones gain little above 16, and a batch of theirs takes long, which is what an interrupted run
waits for; but where a decode step takes 32 texts at nearly the price of 16 (bfloat16 on AMX, see
``linear``), a batch has so many. On CUDA as many images are taken as there is memory for, up to a
size beyond which nothing is gained.

What an image needs is computed from the configuration, an upper bound without fragmentation; a CPU
takes a batch through the image side in parts, and needs less (see ``parts``). What
it leaves out (long prompts, many questions or beams an image) is found out by running out of
memory, see ``tasks.memory``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from blip2cli.model.checkpoint.config import Blip2Config, patches
from blip2cli.model.decoding.scheduler import SLOTS
from blip2cli.model.nets.blip2 import Blip2Net, GenerationModel
from blip2cli.system.memory import memory

# Below this many bytes of weights a CPU runs a batch in each of several threads (see ``lanes``).
LANES_BELOW = 64 << 20
STEP = 8  # sizes are multiples of it, as the rows of matrix products are
# Weights in memory, in bytes, and the size up to there. The embedded models have 7 MB, OPT-2.7B in
# bfloat16 7.5 GB.
CPU_SIZES = ((1 << 30, 64), (8 << 30, 16))
CPU_LEAST = 8  # for larger models
CUDA_MOST = 256  # a device that holds more is busy with fewer
SHARE = 0.8  # of the free memory; the rest is for what is not counted, and for fragments
TEXT_ROOM = 64  # positions of a prompt and its text


@dataclass(frozen=True)
class MemoryEstimate:
    """What running takes beside the weights, in bytes."""

    image: int  # for each image of a batch
    text: int  # for each text under way, of which there are ``SLOTS`` at most
    weights: int  # of the weights themselves, about


class PlacedModel(Protocol):
    """A loaded model, and where it lies; ``Blip2`` is one."""

    model: Blip2Net

    @property
    def device(self) -> torch.device:
        """Where it runs."""


def auto_batch_size(model: PlacedModel) -> int:
    """The batch size for a loaded model where it lies."""
    need = model_memory(model.model)
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        # What torch holds for reuse is free for us, too.
        held = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
        return cuda_batch_size(need, free + held)
    steps = 0
    if isinstance(model.model, GenerationModel):
        steps = model.model.language_model.lm_head.sequences_per_gemm(1)
    return cpu_batch_size(need, memory().available, steps)


def batch_threads(model: PlacedModel) -> int:
    """How many batches are best run at once, each in a thread of its own."""
    if model.device.type != "cpu" or not is_small(model.model):
        return 1
    return torch.get_num_threads()


def is_small(model: Blip2Net) -> bool:
    """Whether its layers are too small to be shared out among cores."""
    return model_memory(model).weights < LANES_BELOW


def cpu_batch_size(need: MemoryEstimate, available: int | None, steps: int = 0) -> int:
    """By the size of the model, within the ``available`` bytes; None: unknown.

    ``steps`` texts are written at the price of one; 0: each has its own.
    """
    size = next((size for most, size in CPU_SIZES if need.weights < most), CPU_LEAST)
    size = max(size, steps)
    return size if available is None else min(size, _fitting(need, available))


def cuda_batch_size(need: MemoryEstimate, free: int) -> int:
    """By the ``free`` bytes on the device."""
    return min(CUDA_MOST, _fitting(need, free))


def _fitting(need: MemoryEstimate, free: int) -> int:
    """Images that fit into ``free`` bytes; at least one, to be tried."""
    room = int(SHARE * free)
    size = room // (need.image + need.text)  # a text an image
    if size > SLOTS:
        size = (room - SLOTS * need.text) // need.image
    return max(1, size if size < STEP else size - size % STEP)


def model_memory(model: Blip2Net) -> MemoryEstimate:
    """``needs`` of a model as it is."""
    return estimate_memory(model.config, isinstance(model, GenerationModel), model.dtype.itemsize)


def estimate_memory(config: Blip2Config, writes: bool, itemsize: int) -> MemoryEstimate:
    """From the configuration, whether the model writes texts, and the bytes of a number in it."""
    vision, qformer = config.vision_config, config.qformer_config
    image_size = vision.image_size
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    positions = patches(vision)
    queries = config.num_query_tokens

    # As bytes that arrive, as float32 that are normalised, in the model's precision; the same
    # pixels, cut into patches, are what the first layer multiplies.
    pixels = 3 * height * width * (1 + 4 + 2 * itemsize)
    kept = positions * 2 * vision.hidden_size + queries * 2 * qformer.hidden_size
    seeing = positions * _layer(vision.hidden_size, vision.intermediate_size)
    asking = queries * _layer(qformer.hidden_size, qformer.intermediate_size)
    asking += positions * 2 * qformer.hidden_size  # keys and values of the image
    weights = vision.num_hidden_layers * _weights(vision.hidden_size, vision.intermediate_size)
    weights += qformer.num_hidden_layers * _weights(qformer.hidden_size, qformer.intermediate_size)
    weights += qformer.num_hidden_layers * qformer.hidden_size * vision.hidden_size
    reading = writing = 0
    if writes:
        text = config.text_config.size
        reading = queries * _layer(text.width, text.inner)
        kept += queries * (text.width + text.cached)
        writing = (queries + TEXT_ROOM) * text.cached + 3 * text.vocabulary
        weights += text.weights
    return MemoryEstimate(
        image=pixels + itemsize * (kept + max(seeing, asking, reading)),
        text=itemsize * writing,
        weights=itemsize * weights,
    )


def _layer(width: int, inner: int) -> int:
    """Numbers that one position needs within a layer of a transformer.

    What comes in and its norm stay; beside them, queries, keys, values and what is attended to,
    or what is between the two linear layers and its activation.
    """
    return 2 * width + max(4 * width, 2 * inner)


def _weights(width: int, inner: int) -> int:
    return 4 * width * width + 2 * width * inner
