"""Vision encoder on a CPU: cache-sized chunks of a batch, in parallel threads.

**Chunks.** As many images go through the layers together as keep the activations between two layers
in the caches. Measured on two cores with 1 MB of their own each and 32 MB shared: ViT-g in bfloat16
takes 20.4 s for 16 images by eights and 21.5 s at once; 12 layers of width 512 take 4.7 s for 64 by
eights and 5.1 s at once; the encoder of ``tiny`` 1.50 ms an image by 32 and 1.59 by 64. With 2 MB
each and 480 MB shared, ``tiny`` generates captions by 64 in 0.95 of the time that it takes by 32.
Width 512 gains nothing by 16 there, and loses a tenth in bfloat16 by 11, because a product takes 8
(see ``gemm_rows``).

**Streamed layers** (see ``layers/streamed``) run layer by layer over the whole batch, chunk after
chunk in each, so that their weights are read once.

**Parallel threads.** Two threads that compute two chunks wait for one another less than two that
share every product: 64 images and 12 layers of width 512 take 4.5 s in place of 4.7 in bfloat16,
and 8.4 in place of 9.2 in float32. The layers of ViT-g are so large that nothing is gained. The
language model has all threads for itself: its weights are read once a step. (Smaller models run
whole batches in parallel, see ``batch_threads``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext

import torch
from torch import Tensor

from blip2cli.model.checkpoint.config import Blip2Config, patches
from blip2cli.model.layers.packed_linear import has_fixed_gemm_rows
from blip2cli.model.nets.blip2 import Blip2Net
from blip2cli.model.placement.batch_size import model_memory
from blip2cli.model.placement.single_thread import single_thread
from blip2cli.model.placement.thresholds import BATCH_THREADS_BELOW, CHUNK_THREADS_BELOW
from blip2cli.model.vision.features import ImageFeatures, compute_features, vision_forward

CHUNK_BYTES = 8 << 20  # of the widest layer's output …
SMALL_MODEL_CACHES = 8  # … or in small models this many times the size of a core's own cache
LEAST_IMAGES = 8  # a chunk; fewer do not pay for reading the weights

Chunks = Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]


class ChunkedVision:
    """``compute_features`` of one model on a CPU; an image's features are the same in any chunk."""

    def __init__(self, model: Blip2Net) -> None:
        self._model = model
        weights = model_memory(model).weights
        cached = (
            SMALL_MODEL_CACHES * l2_cache_bytes() if weights < BATCH_THREADS_BELOW else CHUNK_BYTES
        )
        self._most = images_per_chunk(model.config, model.dtype.itemsize, cached)
        self._parallel = BATCH_THREADS_BELOW <= weights < CHUNK_THREADS_BELOW
        # Then the number of threads decides the bits as well: every image is computed by one.
        self._single = self._parallel and has_fixed_gemm_rows(model)
        self._streamed = model.stream is not None
        if self._streamed:
            model.vision_model.encoder.images_together = self._most
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 1  # of the pool

    def __call__(self, pixel_values: Tensor) -> ImageFeatures:
        """Run the vision side on normalised pixels [B, 3, H, W]."""
        if self._streamed:
            with single_thread() if self._single else nullcontext():
                return compute_features(self._model, pixel_values)
        count = len(pixel_values)
        threads = torch.get_num_threads() if self._parallel else 1
        # Equally many for each thread, and all about equal.
        chunks = -(-count // (self._most * threads)) * threads
        if chunks == 1 or (count < 2 and not self._single):
            return compute_features(self._model, pixel_values)
        pixels = pixel_values.tensor_split(min(chunks, count))
        outputs = self._in_threads(pixels, threads) if threads > 1 else list(map(self._run, pixels))
        return ImageFeatures(*(torch.cat(each) for each in zip(*outputs, strict=True)))

    @torch.inference_mode()
    def _run(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return vision_forward(self._model, pixel_values)

    def _in_threads(self, chunks: Sequence[Tensor], threads: int) -> Chunks:
        """Run chunks in threads whose operations have a single thread each."""
        if self._pool is None or self._threads != threads:
            self._pool = ThreadPoolExecutor(threads, "chunk", torch.set_num_threads, (1,))
            self._threads = threads
        # MKL has one number for all threads of the process: it has to be 1 as long as chunks run.
        torch.set_num_threads(1)
        try:
            running = [self._pool.submit(self._run, chunk) for chunk in chunks]
            try:
                wait(running)
            finally:
                for each in running:
                    each.cancel()  # what an interrupt left waiting
            return [each.result() for each in running]
        finally:
            torch.set_num_threads(threads)


def images_per_chunk(config: Blip2Config, itemsize: int, cached: int) -> int:
    """The most images of a chunk; ``cached`` bytes of the widest layer's output stay in caches."""
    vision = config.vision_config
    width = max(vision.intermediate_size, 3 * vision.hidden_size)
    return max(LEAST_IMAGES, cached // (patches(vision) * width * itemsize))


def l2_cache_bytes() -> int:
    """Bytes of the second-level cache, which each core has for itself; where torch does not know,
    1 MiB, as in many servers."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict[str, int])
    return int(capabilities().get("l2_cache_size") or 1 << 20)
