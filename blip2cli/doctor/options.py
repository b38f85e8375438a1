"""What is to be examined."""

from __future__ import annotations

from dataclasses import dataclass

from blip2cli.options import Dtype, ModelOptions, Quantize


@dataclass(frozen=True)
class DoctorOptions:
    """The options of an examination."""

    model: str | None = None  # None: the installation, with the embedded model
    revision: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"
    image: str | None = None  # a picture for the model to caption, such as merlion.png
    quantize: Quantize | None = None

    def of_model(self, name: str) -> ModelOptions:
        """The same as the rooms below take them."""
        return ModelOptions(name, self.revision, self.device, self.dtype, self.quantize)
