"""Images to features: vision encoder, Q-Former and language projection, once per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers.models.blip_2.modeling_blip_2 import (
        Blip2ForConditionalGeneration,
        Blip2ForImageTextRetrieval,
    )


@dataclass(frozen=True)
class ImageFeatures:
    """What the vision side makes of one batch of B images, on the model's device."""

    image_embeds: Tensor  # [B, P+1, Dv]: the ViT's last hidden state, class token first
    pooled: Tensor  # [B, Dv]: the ViT's pooled class token
    query_output: Tensor  # [B, Q, Dq]: the Q-Former's output
    # [B, Q, Dl]: the query outputs as the language model reads them. A retrieval model has no
    # language model: its Dl is 0.
    language_inputs: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return self.image_embeds.shape[0]


@torch.inference_mode()
def compute_features(
    model: Blip2ForConditionalGeneration | Blip2ForImageTextRetrieval, pixel_values: Tensor
) -> ImageFeatures:
    """Run the vision side on normalised pixels [B, 3, H, W]."""
    vision = model.vision_model(pixel_values=pixel_values)
    embeds = vision.last_hidden_state
    queries = model.query_tokens.expand(embeds.shape[0], -1, -1)
    # No mask: every patch is seen. transformers passes a mask of ones, which is the same.
    output = model.qformer(query_embeds=queries, encoder_hidden_states=embeds).last_hidden_state
    output = output.to(embeds.dtype)  # the Q-Former may be kept in float32
    project = getattr(model, "language_projection", None)
    return ImageFeatures(
        image_embeds=embeds,
        pooled=vision.pooler_output,
        query_output=output,
        language_inputs=output[..., :0] if project is None else project(output),
    )
