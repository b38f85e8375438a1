"""The vision encoder alone: transformers' own, and compiled by OpenVINO.

``openvino`` is imported by the Python that has OpenVINO and NNCF. transformers' model is converted
in float32 and compiled for the batch that is raced, in bfloat16 or, quantized by NNCF as it does
for transformers, in eight bits. NNCF finds its scales, one for each tensor of states, on the very
images that are raced, which is the best case for its error.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from reference import Processed, Reference
from torch import Tensor, nn
from transformers import Blip2ForConditionalGeneration
from work import Setting, Work, sampled


class Vision(Reference):
    """Hidden states of the vision encoder, for a batch of images whose pixels are ready."""

    ready: Tensor | None = None

    @torch.inference_mode()
    def run(self, work: Work, setting: Setting) -> Tensor:
        """Do the work."""
        if self.ready is None:
            self.ready = torch.cat([pixels for _, pixels in self.batches(work, setting)])
        states: Tensor = self.model.vision_model(self.ready).last_hidden_state
        return states

    def plain(self, answers: Tensor) -> list[list[float]]:
        """Answers as JSON has them."""
        return sampled(answers.float())


class OpenVino(Processed):
    """The same, compiled by OpenVINO."""

    def __init__(self, path: str, dtype: str) -> None:
        super().__init__(path, "float32")
        self.path, self.precision = path, dtype
        self.compiled: Any = None

    @property
    def about(self) -> str:
        """What it is."""
        packages = ("openvino", "nncf", "torch", "transformers")
        return ", ".join(f"{package} {version(package)}" for package in packages)

    def run(self, work: Work, setting: Setting) -> Any:
        """Do the work; the first time pixels are prepared and the model is compiled for them."""
        if self.compiled is None:
            pixels = torch.cat([pixels for _, pixels in self.batches(work, setting)])
            self.ready = pixels.numpy()
            self.compiled = self._compiled(pixels)
        return self.compiled(self.ready)[0]

    def plain(self, answers: Any) -> list[list[float]]:
        """Answers as JSON has them."""
        return sampled(answers)

    def _compiled(self, pixels: Tensor) -> Any:
        import nncf
        import openvino

        model: Any = Blip2ForConditionalGeneration.from_pretrained(self.path, dtype=torch.float32)
        states = _States(model.vision_model.eval())
        # Traced with one image, which is quicker.
        converted = openvino.convert_model(
            states, example_input=pixels[:1], input=[tuple(pixels.shape)]
        )
        if self.precision == "int8":
            images = nncf.Dataset([pixels.numpy()])
            kind = nncf.ModelType.TRANSFORMER
            converted = nncf.quantize(converted, images, subset_size=1, model_type=kind)
        # What stays in floating point is faster in bfloat16 in both.
        chosen = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16"}
        return openvino.Core().compile_model(converted, "CPU", chosen)


class _States(nn.Module):
    """The model's last hidden state alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, P+1, D]."""
        states: Tensor = self.model(pixel_values=pixels).last_hidden_state
        return states


PEERS = {"batched": Vision, "openvino": OpenVino}
