"""Images to features: vision encoder, Q-Former and language projection, once per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from blip2cli.model.nets.blip2 import Blip2Net, GenerationModel


@dataclass(frozen=True, eq=False)  # compared by identity: decoder sessions are cached by it
class ImageFeatures:
    """Outputs of the vision side for one batch of B images, on the model's device."""

    image_embeds: Tensor  # [B, P+1, Dv]: the ViT's last hidden state, class token first
    pooled: Tensor  # [B, Dv]: the ViT's pooled class token
    # [B, Q, Dq]: the Q-Former's output. Where it reads the prompt as well there is none yet: its Q
    # is 0, and that of the inputs below (see ``model/instructions``).
    query_output: Tensor
    # [B, Q, Dl]: the query outputs projected for the language model. A retrieval model has no
    # language model: its Dl is 0.
    language_inputs: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return self.image_embeds.shape[0]


@torch.inference_mode()
def compute_features(model: Blip2Net, pixel_values: Tensor) -> ImageFeatures:
    """Run the vision side on normalised pixels [B, 3, H, W]."""
    return ImageFeatures(*vision_forward(model, pixel_values))


def vision_forward(model: Blip2Net, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of ``ImageFeatures`` for normalised pixels [B, 3, H, W], without its class."""
    embeds, pooled = model.vision_model(pixel_values)
    if model.config.instructed:
        nothing = embeds[:, :0]
        return embeds, pooled, nothing, nothing
    # No mask: every patch is attended to. transformers passes a mask of ones, which is the same.
    # The queries are the same for every image until they cross-attend to it.
    output = model.qformer(model.query_tokens, embeds)
    output = output.to(embeds.dtype)  # the Q-Former may be in float32
    projected = (
        model.language_projection(output) if isinstance(model, GenerationModel) else output[..., :0]
    )
    return embeds, pooled, output, projected
