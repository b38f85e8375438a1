"""Norm by the root mean square (arXiv 1910.07467), of T5 and of the families after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from blip2cli.model.layers.attention import uses_fused_kernels


class RMSNorm(nn.Module):
    """Divides by the root mean square; nothing is subtracted."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] to the same; the mean is taken in float32."""
        if uses_fused_kernels(hidden) and hidden.dtype is self.weight.dtype:
            return rms_norm(hidden, self.weight.shape, self.weight, self.epsilon)
        variance = hidden.float().pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden * torch.rsqrt(variance + self.epsilon)).to(self.weight.dtype)
