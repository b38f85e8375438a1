"""The image side on a CPU: a batch in parts, and parts side by side.

**Parts.** So many images go through the layers together that what is between two layers stays in
the caches. Measured on two cores with 1 MB of their own each and 32 MB shared: ViT-g in bfloat16
takes 20.4 s for 16 images by eights and 21.5 s at once; 12 layers of width 512 take 4.7 s for 64 by
eights and 5.1 s at once; the encoder of ``tiny`` 1.50 ms an image by 32 and 1.59 by 64. With 2 MB
each and 480 MB shared, ``tiny`` writes captions by 64 in 0.95 of the time that it takes by 32.
Width 512 gains nothing by 16 there, and loses a tenth in bfloat16 by 11, because a product takes 8
(see ``calls``).

**Side by side.** Two threads that compute two parts wait for one another less than two that share
every product: 64 images and 12 layers of width 512 take 4.5 s in place of 4.7 in bfloat16, and 8.4
in place of 9.2 in float32. The layers of ViT-g are so large that nothing is gained. The language
model has all threads for itself: its weights are read once a step. (Smaller models run whole
batches side by side, see ``lanes``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import torch
from torch import Tensor

from blip2cli.model.checkpoint.config import Blip2Config, patches
from blip2cli.model.layers.packed_linear import has_fixed_gemm_rows
from blip2cli.model.nets.blip2 import Blip2Net
from blip2cli.model.placement.batch_size import LANES_BELOW, model_memory
from blip2cli.model.vision.features import ImageFeatures, compute_features, vision_forward

CACHED_BYTES = 8 << 20  # of the widest layer's output
CACHES = 8  # for small models it has so many times the size of a core's own cache
LEAST = 8  # images a part; fewer do not pay for reading the weights
SPREAD_BELOW = 1 << 30  # bytes of weights in memory: from there on parts are not run side by side

Parts = Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]


class ChunkedVision:
    """``compute_features`` of one model on a CPU; an image's features are the same in any part."""

    def __init__(self, model: Blip2Net) -> None:
        self._model = model
        weights = model_memory(model).weights
        cached = CACHES * l2_cache_bytes() if weights < LANES_BELOW else CACHED_BYTES
        self._most = images_per_chunk(model.config, model.dtype.itemsize, cached)
        self._spreads = LANES_BELOW <= weights < SPREAD_BELOW
        # Then the number of threads decides about bits as well: every image has one.
        self._single = self._spreads and has_fixed_gemm_rows(model)
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 1  # of the pool

    def __call__(self, pixel_values: Tensor) -> ImageFeatures:
        """Run the vision side on normalised pixels [B, 3, H, W]."""
        count = len(pixel_values)
        threads = torch.get_num_threads() if self._spreads else 1
        # As many for each thread, and all about equal.
        parts = -(-count // (self._most * threads)) * threads
        if parts == 1 or (count < 2 and not self._single):
            return compute_features(self._model, pixel_values)
        pieces = pixel_values.tensor_split(min(parts, count))
        made = self._spread(pieces, threads) if threads > 1 else [self._run(p) for p in pieces]
        return ImageFeatures(*(torch.cat(each) for each in zip(*made, strict=True)))

    @torch.inference_mode()
    def _run(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return vision_forward(self._model, pixel_values)

    def _spread(self, pieces: Sequence[Tensor], threads: int) -> Parts:
        """Run pieces in threads that compute alone."""
        if self._pool is None or self._threads != threads:
            self._pool = ThreadPoolExecutor(threads, "part", torch.set_num_threads, (1,))
            self._threads = threads
        # MKL has one number for all threads of the process: it has to be 1 as long as parts run.
        torch.set_num_threads(1)
        try:
            running = [self._pool.submit(self._run, piece) for piece in pieces]
            try:
                wait(running)
            finally:
                for each in running:
                    each.cancel()  # what an interrupt left waiting
            return [each.result() for each in running]
        finally:
            torch.set_num_threads(threads)


def images_per_chunk(config: Blip2Config, itemsize: int, cached: int) -> int:
    """The most images of a part; so many bytes of the widest layer's output stay in the caches."""
    vision = config.vision_config
    width = max(vision.intermediate_size, 3 * vision.hidden_size)
    return max(LEAST, cached // (patches(vision) * width * itemsize))


def l2_cache_bytes() -> int:
    """Bytes of the second-level cache, which each core has for itself; where torch does not tell,
    those of many servers."""
    tell = getattr(torch.cpu, "get_capabilities", dict[str, int])
    return int(tell().get("l2_cache_size") or 1 << 20)
