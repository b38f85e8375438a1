"""T5's feed-forward networks, with and without a gate."""

from __future__ import annotations

from torch import Tensor, nn

from blip2cli.model.families.t5.config import T5Config
from blip2cli.model.families.t5.norm import Norm
from blip2cli.model.layers.attention import uses_fused_kernels
from blip2cli.model.layers.fused_projections import FusableProjections
from blip2cli.model.layers.linear import ACTIVATIONS, Linear


class FeedForwardLayer(nn.Module):
    """Feed-forward network, with norm and residual."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = (Gated if config.gated else Dense)(config)
        self.layer_norm = Norm(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, T, D] to the same."""
        after: Tensor = self.DenseReluDense(self.layer_norm(hidden), hidden)
        return after


class Dense(nn.Module):
    """Two linear layers (the first T5)."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi = Linear(config.d_model, config.d_ff, False, config.activation)
        self.wo = Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, normed: Tensor, hidden: Tensor) -> Tensor:
        """Normed states [N, T, D], added to ``hidden``."""
        after: Tensor = self.wo(self.wi(normed), hidden)
        return after


class Gated(FusableProjections):
    """Two linear layers whose first is multiplied by a third (T5 1.1 and Flan-T5)."""

    FUSABLE = (("wi_0", "wi_1"),)

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.activation = config.activation
        self.wi_0 = Linear(config.d_model, config.d_ff, False, config.activation)
        self.wi_1 = Linear(config.d_model, config.d_ff, bias=False)
        self.wo = Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, normed: Tensor, hidden: Tensor) -> Tensor:
        """Normed states [N, T, D], added to ``hidden``."""
        fused = self._modules.get("wi_0_wi_1")
        if fused is None:
            inner = self.wi_0(normed).mul_(self.wi_1(normed))
        else:
            gate, linear = fused(normed).chunk(2, dim=-1)
            inner = ACTIVATIONS[self.activation](gate).mul_(linear)
        after: Tensor = self.wo(inner, hidden)
        return after

    def fuse(self) -> None:
        """On CUDA only: on a CPU the activation is done within the product of its layer."""
        if uses_fused_kernels(self.wi_0.weight):
            super().fuse()
