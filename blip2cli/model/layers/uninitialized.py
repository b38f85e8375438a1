"""torch's layers without random initialization: a checkpoint fills their weights.

On the meta device initializing them imports half of torch's compiler, which takes 1.5 s.
"""

from __future__ import annotations

from torch import nn


class Embedding(nn.Embedding):
    """``nn.Embedding`` without initialization."""

    def reset_parameters(self) -> None:
        """Leave the weights uninitialized."""


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` without initialization."""

    def reset_parameters(self) -> None:
        """Leave the weights uninitialized."""


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` without initialization."""

    def reset_parameters(self) -> None:
        """Leave the weights uninitialized."""
