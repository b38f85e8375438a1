"""T5's norm."""

from __future__ import annotations

from blip2cli.model.families.t5.config import T5Config
from blip2cli.model.layers.rms_norm import RMSNorm


class Norm(RMSNorm):
    """The norm of all layers."""

    def __init__(self, config: T5Config) -> None:
        super().__init__(config.d_model, config.layer_norm_epsilon)
