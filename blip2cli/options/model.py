"""The options of models: which weights, where and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from blip2cli.errors import OptionError, option
from blip2cli.options.declare import MODEL, OptionGroup, declare
from blip2cli.options.values import parse_max_memory

DEFAULT_MODEL = "Salesforce/blip2-opt-2.7b"
PLACING = ("device_map", "max_memory", "offload")  # any of them places layers one by one

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
# What linear layers are rounded to, and by whose layers.
Quantize = Literal["int8", "fp8", "int4", "int8-bitsandbytes", "int8-torchao"]
DeviceMap = Literal["auto", "balanced"]  # how accelerate places layers

DTYPE_HELP = (
    "Precision; auto takes bfloat16 where it is quick, and in conversions the one the weights have."
)
QUANTIZE_HELP = (
    "Linear layers in eight bits: stored so by conversions, elsewhere multiplied so as well, which "
    "is quicker on a CPU, takes less memory, and is not quite exact. On a GPU also fp8, int4 (four "
    "bits), and int8 by other packages."
)
DEVICE_HELP = (
    "auto, cpu, cuda, cuda:1, mps; several, such as cuda:0,cuda:1 or cuda:all: a worker process "
    "for each."
)
COMPILE_HELP = (
    "Compile the image side first, which takes seconds to minutes; pays for many images, if at all."
)
DEVICE_MAP_HELP = (
    "Place whole layers of a model that is larger than a device: auto fills GPUs, then memory, "
    "and reads the rest from disk; balanced fills GPUs evenly."
)
MAX_MEMORY_HELP = (
    "Memory for weights by device, such as cuda:0=20GiB,cpu=60GiB. Devices that are not named hold "
    "none; what is left over is read from disk, once a batch and once a decode step."
)
ADAPTER_HELP = (
    "Adapter of PEFT (LoRA) that is merged into the model: a directory or hub id, with @0.5 behind "
    "it to scale it; repeat for several. A model may be one itself: its base is found."
)
OFFLOAD_HELP = (
    "Folder for layers that are read from disk, where the model's own files have another precision "
    "or are no safetensors: converted once, and used again by the next run."
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
        "Hub id, local directory, or an embedded demonstration: tiny, tiny-t5, tiny-itm, "
        "tiny-instruct.",
        metavar="NAME",
        brief="Hub id, directory, or tiny, which is embedded.",
        offers="models",
    )
    revision: str | None = _recorded_placement(
        None, "Branch, tag or commit of a hub model.", metavar="REV"
    )
    device: str = _unrecorded_placement(
        "auto",
        DEVICE_HELP,
        metavar="NAME",
        brief="auto, cpu, mps, cuda, cuda:1, or several: cuda:all.",
        offers=("auto", "cpu", "cuda", "cuda:all", "mps"),
    )
    # The precision that "auto" came to is a setting of its own, see ``pipeline.output``.
    dtype: Dtype = _unrecorded_placement("auto", DTYPE_HELP)
    quantize: Quantize | None = _recorded_placement(None, QUANTIZE_HELP)
    # The image side runs as compiled code (``model.vision.compiled``)
    compile: bool = _recorded_model(
        False, COMPILE_HELP, switch_off="--no-compile", about_images=True
    )
    # The next three place layers (``model.placement.device_map``).
    device_map: DeviceMap | None = _unrecorded_placement(
        None, DEVICE_MAP_HELP, default_help="the whole model on one device"
    )
    max_memory: str | None = _unrecorded_placement(None, MAX_MEMORY_HELP, metavar="DEVICE=SIZE,…")
    offload: str | None = _unrecorded_placement(None, OFFLOAD_HELP, metavar="DIR")
    adapter: tuple[str, ...] = _recorded_placement(
        (),
        ADAPTER_HELP,
        metavar="NAME",
        offers="checkpoints",
    )

    def __post_init__(self) -> None:
        """Raise ``OptionError`` where layers cannot be placed as the options say."""
        super().__post_init__()
        if self.max_memory is not None:
            parse_max_memory(self.max_memory)
        given = next((name for name in PLACING if getattr(self, name) is not None), None)
        if given is None:
            return
        if "," in self.device or self.device.endswith(":all"):
            raise OptionError(
                given,
                f"{option(given)} places the layers of one model, and {option('device')} "
                f"{self.device} asks for several models",
                f"name one device, and GPUs in {option('max_memory')}",
            )
        for other in ("quantize", "compile"):
            if getattr(self, other):
                raise OptionError(
                    other,
                    f"{option(other)} needs a model that stays where it is, and {option(given)} "
                    "moves layers",
                    "leave one of the two out",
                )

    @property
    def settings(self) -> dict[str, object]:
        """As of every group; no adapter is null, as in outputs from before there were any."""
        return super().settings | {"adapter": list(self.adapter) or None}

    @property
    def places_layers(self) -> bool:
        """Whether layers are placed one by one."""
        return any(getattr(self, name) is not None for name in PLACING)


@dataclass(frozen=True)
class DoctorOptions(ModelOptions):
    """What is examined."""

    model: str | None = _unrecorded_placement(
        None,
        "Put this model through all checks: hub id, local directory, or tiny.",
        metavar="NAME",
        default_help="a quick look at tiny",
        brief=True,
        offers="models",
    )  # type: ignore[assignment] # None: the installation alone
    image: str | None = _unrecorded_placement(
        None,
        "A picture to caption with five beams; of LAVIS's merlion.png the published captions "
        "are known.",
        metavar="FILE",
        brief="A picture to caption with five beams.",
    )
