"""torch's layers without their random first weights, which a file's take the place of.

On the meta device making such weights imports half of torch's compiler, 1.5 s of it.
"""

from __future__ import annotations

from torch import nn


class Embedding(nn.Embedding):
    """``nn.Embedding`` to be filled."""

    def reset_parameters(self) -> None:
        """Leave it as it is."""


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` to be filled."""

    def reset_parameters(self) -> None:
        """Leave it as it is."""


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` to be filled."""

    def reset_parameters(self) -> None:
        """Leave it as it is."""
