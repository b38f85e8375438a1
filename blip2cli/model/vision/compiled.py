"""Vision encoder, Q-Former and projection compiled by torch.compile, on CUDA.

Images go through in chunks of one size, the last one padded: nothing is compiled a second time, and
a row is the same whatever the batch. The compiler is imported here alone, and only when the option
``compile`` is given.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from blip2cli.errors import OptionError, option
from blip2cli.model.nets.blip2 import Blip2Net
from blip2cli.model.vision.features import ImageFeatures, vision_forward
from blip2cli.system.library_logging import silence_packages

if TYPE_CHECKING:
    from blip2cli.images.preprocess import PixelSpec

CHUNK = 16  # images; a padded chunk takes as long as a full one


class CompiledVision:
    """``compute_features`` of one model, compiled for pixels of ``spec``'s size.

    Compiles at once, for ``seconds``. Raises OptionError when that fails.
    """

    def __init__(
        self, name: str, model: Blip2Net, spec: PixelSpec, backend: str = "inductor"
    ) -> None:
        began = time.perf_counter()

        def forward(pixel_values: Tensor) -> tuple[Tensor, ...]:
            return vision_forward(model, pixel_values)

        self._forward = torch.compile(forward, dynamic=False, backend=backend)
        shape = (CHUNK, 3, spec.height, spec.width)
        pixels = torch.zeros(shape, dtype=model.dtype, device=model.query_tokens.device)
        try:
            with silence_packages():
                self._run(pixels)
        except Exception as error:  # compilers fail in every way, and memory may be short
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise OptionError(
                "compile",
                f"{option('compile')}: torch cannot compile {name} here ({reason})",
                f"leave {option('compile')} out",
            ) from error
        self.seconds = time.perf_counter() - began

    def __call__(self, pixel_values: Tensor) -> ImageFeatures:
        """Run the vision side on normalised pixels [B, 3, H, W]."""
        count = len(pixel_values)
        short = -count % CHUNK if count else CHUNK
        if short:
            pixel_values = functional.pad(pixel_values, (0, 0) * 3 + (0, short))
        chunks = [self._run(chunk) for chunk in pixel_values.split(CHUNK)]
        # Copied, so that the memory of the padding is freed.
        return ImageFeatures(*(torch.cat(each)[:count] for each in zip(*chunks, strict=True)))

    @torch.inference_mode()
    def _run(self, chunk: Tensor) -> tuple[Tensor, ...]:
        # Its layout in memory is part of what was compiled for.
        return self._forward(chunk.contiguous())


def check_compilable(device: torch.device) -> None:
    """Raise OptionError when nothing can be compiled for ``device``. Loads nothing."""
    if device.type != "cuda":
        raise OptionError(
            "compile",
            f"{option('compile')} works on CUDA only, not on {device.type}",
            "leave it out",
        )
    if find_spec("triton") is None:
        raise OptionError(
            "compile",
            f"{option('compile')} on a GPU needs the package triton: pip install triton, or leave "
            f"{option('compile')} out",
        )
