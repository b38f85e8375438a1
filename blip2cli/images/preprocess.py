"""Image preprocessing: resize and normalise, equal to transformers' ``BlipImageProcessorPil``.

The work is split in two: the resize (per image, in loader workers) ends in uint8, and
rescale plus normalise run once a batch on the model's device. A batch is thus handed over in a
quarter of the bytes. Torch is imported where it is needed: images are decoded before it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from blip2cli.errors import ModelError
from blip2cli.images.resize import to_planes

if TYPE_CHECKING:
    import torch

# The defaults of BLIP's processor in transformers: mean and std of OpenAI's CLIP, bicubic.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_KNOWN_TYPES = (
    "BlipImageProcessor",
    "BlipImageProcessorFast",
    "BlipImageProcessorPil",
    "BlipFeatureExtractor",
)


@dataclass(frozen=True)
class PixelSpec:
    """Size, resize filter and normalisation of a checkpoint's input images."""

    height: int  # pixels
    width: int
    resample: int = int(Image.Resampling.BICUBIC)  # Pillow's number of the filter
    mean: tuple[float, float, float] = CLIP_MEAN  # red, green, blue, after rescaling
    std: tuple[float, float, float] = CLIP_STD
    rescale_factor: float = 1 / 255

    @classmethod
    def from_processor_config(cls, config: Mapping[str, Any]) -> PixelSpec:
        """Read a ``preprocessor_config.json``, or a ``processor_config.json`` that holds one
        under ``image_processor``.

        Understands ``size`` as ``{"height": h, "width": w}``, as one number and as a pair, and
        the ``do_*`` flags. Raises ModelError for steps that BLIP-2 processors do not have.
        """
        inner = config.get("image_processor")
        if isinstance(inner, Mapping):
            config = inner
        kind = config.get("image_processor_type") or config.get("feature_extractor_type")
        if kind is not None and kind not in _KNOWN_TYPES:
            raise _unsupported(f"is a {kind}, not a BlipImageProcessor")
        for step in ("do_center_crop", "do_pad"):
            if config.get(step):
                raise _unsupported(f"asks for {step}")
        if config.get("do_resize") is False:
            raise _unsupported("switches do_resize off, and batches need one size")
        height, width = _size(config.get("size", 384))
        resample = config.get("resample", Image.Resampling.BICUBIC)
        if isinstance(resample, bool) or resample not in list(Image.Resampling):
            raise _unsupported(f"has an unknown resample {resample!r}")
        mean, std, factor = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0
        if config.get("do_normalize") is not False:
            mean = _colour("image_mean", config.get("image_mean", CLIP_MEAN))
            std = _colour("image_std", config.get("image_std", CLIP_STD))
        if config.get("do_rescale") is not False:
            factor = config.get("rescale_factor") or 1 / 255
            if not isinstance(factor, int | float) or not math.isfinite(factor):
                raise _unsupported(f"has the rescale_factor {factor!r}")
        return cls(height, width, int(resample), mean, std, float(factor))


def _unsupported(what: str) -> ModelError:
    return ModelError(
        "model",
        f"The model's image processor configuration {what}, which is not supported",
        "use the preprocessor_config.json of a BLIP-2 checkpoint",
    )


def _size(size: Any) -> tuple[int, int]:
    height = width = size
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        height, width = size["height"], size["width"]
    elif isinstance(size, (list, tuple)) and len(size) == 2:
        height, width = size
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width
    raise _unsupported(f"has the size {size!r}")


def _colour(key: str, value: Any) -> tuple[float, float, float]:
    values = [value] * 3 if isinstance(value, (int, float)) else value
    if (
        not isinstance(values, (list, tuple))
        or len(values) != 3
        or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values)
        or (key == "image_std" and 0 in values)
    ):
        raise _unsupported(f"has the {key} {value!r}")
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def to_uint8(image: Image.Image, spec: PixelSpec) -> torch.Tensor:
    """Resize an RGB picture; returns uint8 [3, spec.height, spec.width], contiguous, on the CPU."""
    import torch

    return torch.from_numpy(to_planes(image, spec.width, spec.height, spec.resample))


def normalize(
    pixels_uint8: torch.Tensor, spec: PixelSpec, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Rescale and normalise a batch on its device.

    Takes uint8 [B, 3, H, W] on any device, returns ``dtype`` (None: float32) [B, 3, H, W] on the
    same device. The arithmetic is in float32 and in the reference's order, whatever ``dtype`` is.
    """
    import torch

    mean, std = _mean_and_std(spec, pixels_uint8.device)
    values = pixels_uint8.to(torch.float32, copy=True)
    # The reference multiplies in float64 and rounds to float32. For 1/255, dividing in float32
    # gives the same 256 numbers; multiplying in float32 would be one bit off for some.
    divisor = round(1 / spec.rescale_factor)
    if divisor and 1 / divisor == spec.rescale_factor:
        values.div_(divisor)
    else:
        values.mul_(spec.rescale_factor)
    return values.sub_(mean).div_(std).to(dtype or torch.float32)


@lru_cache(maxsize=8)
def _mean_and_std(spec: PixelSpec, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """[3, 1, 1] tensors, cached so that a batch costs no copy to the device."""
    import torch

    def column(values: tuple[float, float, float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)

    return column(spec.mean), column(spec.std)
