"""An InstructBLIP beside transformers' own, on one checkpoint, by the documentation's calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers.models.instructblip.modeling_instructblip import (
    InstructBlipForConditionalGeneration,
)
from transformers.models.instructblip.processing_instructblip import InstructBlipProcessor

from blip2cli.images.preprocess import to_uint8
from blip2cli.model.checkpoint.embedded import embedded_path
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.instructions import DESCRIBE
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.model.wrapper import Blip2
from blip2cli.options import Dtype, ModelOptions
from blip2cli.system.library_logging import silence_libraries
from blip2cli.tiny.samples import SAMPLES
from tests.checkpoints import image_processor
from tests.model.conftest import images


@dataclass(frozen=True)
class Instructed:
    """Ours and theirs, and some images."""

    directory: Path
    ours: Blip2
    theirs: InstructBlipForConditionalGeneration
    processor: InstructBlipProcessor
    pixels: Tensor  # uint8 [N, 3, H, W]
    features: ImageFeatures

    def inputs(self, image: int, text: str | None) -> dict[str, Tensor]:
        """What their processor makes of one picture and a prompt."""
        picture = Image.fromarray(self.pixels[image].permute(1, 2, 0).numpy())
        text = DESCRIBE if text is None else text
        made = dict(self.processor(images=picture, text=text, return_tensors="pt"))
        made["pixel_values"] = made["pixel_values"].to(self.theirs.dtype)
        return made

    def generate(self, image: int, text: str | None, **settings: Any) -> list[list[int]]:
        """The new tokens of their generate for one picture, padding cut off."""
        inputs = self.inputs(image, text)
        with silence_libraries():
            out = self.theirs.generate(**inputs, **settings)
        before = 1 if self.ours.family.encoder_decoder else inputs["input_ids"].shape[1]
        end = self.theirs.config.text_config.eos_token_id
        rows = [row[before:].tolist() for row in out]
        return [row[: row.index(end) + 1] if end in row else row for row in rows]

    def score(self, image: int, text: str, choice: str) -> tuple[float, int]:
        """The log-probability of ``choice`` and its end by one forward, and its tokens."""
        inputs = self.inputs(image, text)
        end = self.theirs.config.text_config.eos_token_id
        tokenizer = self.processor.tokenizer
        if self.ours.family.encoder_decoder:
            answer = tokenizer(f" {choice}")["input_ids"]
            start = torch.tensor([[self.theirs.config.text_config.decoder_start_token_id]])
            given = torch.cat((start, torch.tensor([answer[:-1]])), dim=1)
            with torch.no_grad():
                logits = self.theirs(**inputs, decoder_input_ids=given).logits[0]
        else:
            prompt = inputs["input_ids"][0].tolist()
            both = self.inputs(image, f"{text} {choice}")["input_ids"][0].tolist()
            assert both[: len(prompt)] == prompt
            answer = [*both[len(prompt) :], end]
            ids = torch.tensor([prompt + answer])
            inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            with torch.no_grad():
                logits = self.theirs(**inputs).logits[0, len(prompt) - 1 : -1]
        assert answer[-1] == end
        found = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])
        return found.sum().item(), len(answer)


SHIPPED = Path(__file__).parents[2] / "sample_images"


def embedded() -> Instructed:
    """tiny-instruct, and sample images."""
    directory = embedded_path("tiny-instruct")
    spec = inspect_checkpoint(directory).pixel_spec
    pixels = []
    for sample in SAMPLES[:8]:
        with Image.open(SHIPPED / sample.file_name) as opened:
            pixels.append(to_uint8(ImageOps.exif_transpose(opened).convert("RGB"), spec))
    return instructed(directory, pixels=torch.stack(pixels))


def instructed(
    directory: Path, dtype: Dtype = "float32", count: int = 8, pixels: Tensor | None = None
) -> Instructed:
    """Both, loaded."""
    ours = Blip2.load(ModelOptions(str(directory), device="cpu", dtype=dtype))
    with silence_libraries():
        theirs = InstructBlipForConditionalGeneration.from_pretrained(
            directory, dtype=getattr(torch, dtype)
        ).eval()
        processor = InstructBlipProcessor.from_pretrained(directory)
    processor.image_processor = image_processor(ours.spec.height)
    pixels = images(count) if pixels is None else pixels
    return Instructed(directory, ours, theirs, processor, pixels, ours.features(pixels))
