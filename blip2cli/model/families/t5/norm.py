"""T5's norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from blip2cli.model.families.t5.config import T5Config
from blip2cli.model.layers.attention import uses_fused_kernels


class Norm(nn.Module):
    """T5's norm: divided by the root mean square, nothing subtracted (arXiv 1910.07467)."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.d_model))
        self.epsilon = config.layer_norm_epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] to the same; the mean is taken in float32."""
        if uses_fused_kernels(hidden) and hidden.dtype is self.weight.dtype:
            return rms_norm(hidden, self.weight.shape, self.weight, self.epsilon)
        variance = hidden.float().pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden * torch.rsqrt(variance + self.epsilon)).to(self.weight.dtype)
