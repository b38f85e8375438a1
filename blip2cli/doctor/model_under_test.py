"""The model that checks look at: its files, the loaded model, and one forward pass.

Everything is read or computed when a check first needs it, and cached: one load and one forward
pass over the pictures serve all checks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from blip2cli.doctor.forward_pass import ForwardPass, run_forward
from blip2cli.doctor.pictures import Picture
from blip2cli.images.preprocess import PixelSpec, to_uint8
from blip2cli.model.checkpoint.weight_files import Checkpoint, read_json
from blip2cli.model.loading.load import load_model
from blip2cli.model.loading.quantized_checkpoints import quantizer_name
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.tokenizer.text import TextCodec, load_codec
from blip2cli.model.wrapper import Blip2
from blip2cli.system.library_logging import silence_libraries
from blip2cli.system.memory import memory

LARGE_WEIGHTS = 1 << 30  # bytes of weight files from which memory may hold one copy only


class ModelUnderTest:
    """A checkpoint, read lazily.

    Attributes raise ModelError where the files they need cannot be read.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        placement: Placement,
        pictures: Sequence[Picture],
        image: Picture | None = None,
    ) -> None:
        """``pictures``: two or more different ones, for every check; ``image``: the user's own."""
        self.name = name
        self.checkpoint = checkpoint
        self.path = checkpoint.path
        self.placement = placement
        self.pictures = tuple(pictures)
        self.image = image

    @cached_property
    def config(self) -> Any:
        """``config.json`` as transformers reads it, with its defaults."""
        kind = self.checkpoint.model_type.config_class()
        with silence_libraries():
            return kind.from_pretrained(str(self.path), local_files_only=True)

    @cached_property
    def generation_config(self) -> dict[str, Any] | None:
        """``generation_config.json``, or None where there is none."""
        file = self.path / "generation_config.json"
        return read_json(file) if file.is_file() else None

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """``tokenizer_config.json`` without defaults; empty where there is none."""
        file = self.path / "tokenizer_config.json"
        return read_json(file) if file.is_file() else {}

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer as transformers' ``AutoTokenizer`` loads it."""
        from transformers.models.auto.tokenization_auto import AutoTokenizer

        with silence_libraries():
            return AutoTokenizer.from_pretrained(str(self.path), local_files_only=True)

    @cached_property
    def codec(self) -> TextCodec:
        """The tokenizer as blip2cli uses it; tokens without an embedding have their own check."""
        codec = load_codec(self.checkpoint, self.config.text_config)
        return replace(codec, rows=sys.maxsize)

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
        """Size, mean and standard deviation of pixels, by the processor."""
        return PixelSpec.from_processor_config(self.checkpoint.image_processor)

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width the vision encoder takes, by ``config.json``."""
        size = self.config.vision_config.image_size
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @cached_property
    def model(self) -> Blip2:
        """The model, loaded as every command loads it, with two exceptions.

        Its weights stay as they are stored, to be checked and shared. Pictures get the size that
        the vision encoder takes, whatever the processor says: a wrong size is found by its own
        check, and must not fail the others.
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
        """transformers' own model of the same weights, the reference for ours.

        Loaded by ``from_pretrained``, where that is cheap. Memory may hold a large model only once,
        and transformers cannot read every quantized one: then it shares our weights.
        """
        checkpoint = self.checkpoint
        kind = checkpoint.model_type.model_class(checkpoint.family)
        arguments: dict[str, Any] = {
            "use_safetensors": self.checkpoint.safetensors,
            "weights_only": True,
            "local_files_only": True,
        }
        quantized = quantizer_name(self.checkpoint.config) is not None
        adapted = bool(self.checkpoint.adapters)
        shared = self.checkpoint.weight_bytes >= LARGE_WEIGHTS or quantized or adapted
        if shared:
            config = self.config
            if quantized:
                config.quantization_config = None  # what is shared is plain
            arguments = {"config": config, "state_dict": self.model.model.state_dict()}
        path = None if shared else str(self.path)
        with silence_libraries():
            model = kind.from_pretrained(path, dtype=self.placement.dtype, **arguments)
        return model.to(self.placement.device).eval()

    @property
    def beyond_transformers(self) -> str | None:
        """What transformers' BLIP-2 has no place for, so that it cannot be a reference; None: all
        is there."""
        if self.checkpoint.model_config.vision_config.pre_layernorm:
            return "CLIP's ViT-L"
        language = getattr(self.model.model, "language_model", None)
        if getattr(language, "decoder_embedding", None) is not None:
            return "an embedding of the decoder's own, which an adapter made"
        return None

    def reference_pixels(self) -> Tensor:
        """The pictures by transformers' own processor, [N, 3, H, W], on the model's device."""
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        height, width = self.image_size
        with silence_libraries():
            processor = BlipImageProcessorPil.from_dict(self.checkpoint.image_processor)
            made = processor(
                [picture.image for picture in self.pictures],
                size={"height": height, "width": width},
                return_tensors="pt",
            )
        values: Tensor = made["pixel_values"]
        return values.to(self.model.device, self.model.dtype)

    def missing_memory(self, item_bytes: int) -> str | None:
        """The memory that a copy of ``item_bytes`` a weight lacks, in words; None: none."""
        needed = item_bytes * sum(weight.numel() for weight in self.model.model.parameters())
        if self.model.device.type == "cuda":
            free: int | None = torch.cuda.mem_get_info(self.model.device)[0]
        else:
            free = memory().available
        if free is None or free > 1.2 * needed:  # 20 % for activations
            return None
        return f"{needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB free"

    @cached_property
    def forward_pass(self) -> ForwardPass:
        """The forward pass over the pictures."""
        with silence_libraries():
            return run_forward(self.model, self.pixels)
