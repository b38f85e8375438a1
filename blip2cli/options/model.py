"""The options of models: which weights, where and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from blip2cli.options.declare import MODEL, OptionGroup, declare

DEFAULT_MODEL = "Salesforce/blip2-opt-2.7b"

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["int8", "int4"]  # what linear layers are rounded to

DTYPE_HELP = (
    "Precision; auto takes bfloat16 where it is quick, and in conversions the one the weights have."
)
QUANTIZE_HELP = (
    "Linear layers in eight bits: stored so by conversions, elsewhere multiplied so as well, which "
    "is quicker on a CPU, takes less memory, and is not quite exact. int4: four bits, on a GPU."
)
DEVICE_HELP = (
    "auto, cpu, cuda, cuda:1, mps; several, such as cuda:0,cuda:1 or cuda:all: a worker process "
    "for each."
)
COMPILE_HELP = (
    "Compile the image side first, which takes seconds to minutes; pays for many images, if at all."
)

_model = partial(declare, panel=MODEL)
_recorded_model = partial(_model, shapes_rows=True)
_unrecorded_model = partial(_model, shapes_rows=False)
_recorded_placement = partial(_recorded_model, about_images=False)
_unrecorded_placement = partial(_unrecorded_model, about_images=False)


@dataclass(frozen=True)
class ModelOptions(OptionGroup):
    """Which weights, where and in which precision."""

    model: str = _recorded_placement(
        DEFAULT_MODEL,
        "Hub id, local directory, or an embedded demonstration: tiny, tiny-t5, tiny-itm.",
        metavar="NAME",
    )
    revision: str | None = _recorded_placement(
        None, "Branch, tag or commit of a hub model.", metavar="REV"
    )
    device: str = _unrecorded_placement("auto", DEVICE_HELP, metavar="NAME")
    # The precision that "auto" came to is a setting of its own, see ``pipeline.output``.
    dtype: Dtype = _unrecorded_placement("auto", DTYPE_HELP)
    quantize: Quantize | None = _recorded_placement(None, QUANTIZE_HELP)
    # The image side runs as compiled code (``model.vision.compiled``)
    compile: bool = _recorded_model(
        False, COMPILE_HELP, switch_off="--no-compile", about_images=True
    )


@dataclass(frozen=True)
class DoctorOptions(ModelOptions):
    """What is examined."""

    model: str | None = _unrecorded_placement(
        None,
        "Put this model through all checks: hub id, local directory, or tiny.",
        metavar="NAME",
        default_help="a quick look at tiny",
    )  # type: ignore[assignment] # None: the installation alone
    image: str | None = _unrecorded_placement(
        None,
        "A picture to caption with five beams; of LAVIS's merlion.png the published captions "
        "are known.",
        metavar="FILE",
    )
