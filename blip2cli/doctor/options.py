"""The options of the doctor."""

from __future__ import annotations

from dataclasses import dataclass

from blip2cli.options import Dtype, Quantize


@dataclass(frozen=True)
class DoctorOptions:
    """The model and the settings to examine."""

    model: str | None = None  # None: the installation, with the embedded model
    revision: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"
    image: str | None = None  # a picture for the model to caption, such as merlion.png
    quantize: Quantize | None = None
