"""A model under examination: its files, the model itself, and what it does with some pictures.

Everything is read or computed when a check first asks for it, and then kept: one load and one
pass over the pictures serve all checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from blip2cli.doctor.observe import Observation, observe
from blip2cli.images.preprocess import PixelSpec, to_uint8
from blip2cli.model.checkpoint.directory import Checkpoint, read_json
from blip2cli.model.loading.load import load_model
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.quantize.int8 import is_int8
from blip2cli.model.tokenizer.text import TextCodec, load_codec
from blip2cli.model.wrapper import Blip2
from blip2cli.system.library_logging import silence_libraries
from blip2cli.system.memory import memory

LARGE_WEIGHTS = 1 << 30  # bytes of weight files from which there is room for one copy only


@dataclass(frozen=True)
class Picture:
    """A picture to try a model on."""

    name: str
    image: Image.Image  # RGB
    caption: str | None = None  # what is known to be right


class Patient:
    """Raises ModelError, from the attribute first asked for, where files cannot be read."""

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        placement: Placement,
        pictures: Sequence[Picture],
        image: Picture | None = None,
    ) -> None:
        """``pictures``: at least two, unlike one another; ``image``: the user's."""
        self.name = name
        self.checkpoint = checkpoint
        self.placement = placement
        self.pictures = tuple(pictures)
        self.image = image

    @property
    def path(self) -> Path:
        """Where its files are."""
        return self.checkpoint.path

    @cached_property
    def config(self) -> Any:
        """``config.json`` as transformers reads it, its defaults filled in."""
        from transformers.models.blip_2.configuration_blip_2 import Blip2Config

        with silence_libraries():
            return Blip2Config.from_pretrained(str(self.path), local_files_only=True)

    @cached_property
    def generation(self) -> dict[str, Any] | None:
        """``generation_config.json``, or None where there is none."""
        file = self.path / "generation_config.json"
        return read_json(file) if file.is_file() else None

    @cached_property
    def tokenizer_settings(self) -> dict[str, Any]:
        """``tokenizer_config.json`` as it stands; empty where there is none."""
        file = self.path / "tokenizer_config.json"
        return read_json(file) if file.is_file() else {}

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer as transformers' own loader gives it to others."""
        from transformers.models.auto.tokenization_auto import AutoTokenizer

        with silence_libraries():
            return AutoTokenizer.from_pretrained(str(self.path), local_files_only=True)

    @cached_property
    def codec(self) -> TextCodec:
        """The tokenizer as blip2cli uses it."""
        return load_codec(self.checkpoint, self.config.text_config)

    @cached_property
    def processor_queries(self) -> int | None:
        """``num_query_tokens`` of the processor, or None where no file gives it."""
        for name in ("processor_config.json", "preprocessor_config.json"):
            file = self.path / name
            if file.is_file():
                number = read_json(file).get("num_query_tokens")
                if number is not None:
                    return int(number)
        return None

    @cached_property
    def spec(self) -> PixelSpec:
        """What the processor makes of a picture."""
        return PixelSpec.from_processor_config(self.checkpoint.image_processor())

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width the vision encoder takes, by ``config.json``."""
        size = self.config.vision_config.image_size
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @cached_property
    def model(self) -> Blip2:
        """The model, loaded as every command loads it, but for two things.

        Its weights are left as they are, to be looked at and to be shared. Pictures are made as
        large as the vision encoder wants them, whatever the processor says: a wrong size is found
        by its own check, and must not hide what the others find.
        """
        height, width = self.image_size
        spec = replace(self.spec, height=height, width=width)
        loaded = load_model(self.checkpoint, self.placement, plain=True)
        return Blip2(
            self.name, self.checkpoint.family, loaded, self.codec, spec, self.placement.reason
        )

    @cached_property
    def pixels(self) -> Tensor:
        """The pictures, uint8 [N, 3, H, W]."""
        return torch.stack([to_uint8(p.image, self.model.spec) for p in self.pictures])

    @cached_property
    def reference(self) -> Any:
        """transformers' own model of the same weights, to hold ours against.

        Loaded as its documentation says, where that is cheap. Of a large model there is room for
        one copy only, and one stored in eight bits transformers cannot read: then it is made of our
        weights.
        """
        from transformers.models.blip_2 import modeling_blip_2 as blip_2

        kind: Any = blip_2.Blip2ForConditionalGeneration
        if self.checkpoint.family == "itm":
            kind = blip_2.Blip2ForImageTextRetrieval
        with silence_libraries():
            if self.checkpoint.weight_bytes >= LARGE_WEIGHTS or is_int8(self.checkpoint.config):
                model = kind.from_pretrained(
                    None,
                    config=self.config,
                    state_dict=self.model.model.state_dict(),
                    dtype=self.placement.dtype,
                )
            else:
                model = kind.from_pretrained(
                    str(self.path),
                    dtype=self.placement.dtype,
                    use_safetensors=self.checkpoint.safetensors,
                    weights_only=True,
                    local_files_only=True,
                )
        return model.to(self.placement.device).eval()

    def their_pixels(self) -> Tensor:
        """The pictures as transformers' own processor makes them, [N, 3, H, W] for the model."""
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        height, width = self.image_size
        with silence_libraries():
            processor = BlipImageProcessorPil.from_dict(self.checkpoint.image_processor())
            made = processor(
                [picture.image for picture in self.pictures],
                size={"height": height, "width": width},
                return_tensors="pt",
            )
        values: Tensor = made["pixel_values"]
        return values.to(self.model.device, self.model.dtype)

    def lacks_memory(self, size: int) -> str | None:
        """What is missing for another copy of the model in ``size`` bytes a number, or None."""
        needed = size * sum(weight.numel() for weight in self.model.model.parameters())
        if self.model.device.type == "cuda":
            free: int | None = torch.cuda.mem_get_info(self.model.device)[0]
        else:
            free = memory().available
        if free is None or free > 1.2 * needed:  # some room for what is computed
            return None
        return f"{needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB free"

    @cached_property
    def observation(self) -> Observation:
        """What the model makes of the pictures."""
        with silence_libraries():
            return observe(self.model, self.pixels)
