"""Where each layer of a model that is larger than a device lies, by accelerate.

Whole layers are placed: ``infer_auto_device_map`` fills GPUs, then memory, and leaves the rest on
disk. They are placed by how often they run: layers of the language model, which run for every
token, before those of the Q-Former and of the vision encoder, which run once an image. What is no
matrix of a layer (embeddings, output matrix, norms, biases) stays where the model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import nn

from blip2cli.errors import ModelError, OptionError, option
from blip2cli.model.layers.linear import Linear
from blip2cli.model.nets.blip2 import Blip2Net, GenerationModel
from blip2cli.model.placement.batch_size import MEMORY_SHARE, estimate_memory
from blip2cli.model.placement.cuda_devices import cuda_count
from blip2cli.options import ModelOptions
from blip2cli.options.values import parse_max_memory
from blip2cli.system.memory import memory

BATCH = 64  # images whose activations have to fit beside the weights, where no memory is given
_GOLDEN = 0.618034
DISK = "disk"


@dataclass(frozen=True)
class DeviceMap:
    """Where layers lie, and where they run."""

    main: torch.device  # where everything that is no layer lies, and streamed layers run
    layers: dict[str, str]  # by path: a GPU or the CPU, or ``DISK``

    def device(self, name: str) -> torch.device:
        """Where the weight ``name`` is when it is used."""
        where = self.layers.get(self.layer(name) or "", DISK)
        return torch.device(where) if where.startswith("cuda") else self.main

    def layer(self, name: str) -> str | None:
        """The path of the layer that the weight ``name`` belongs to; None: of none."""
        path = name
        while path and path not in self.layers:
            path = path.rpartition(".")[0]
        return path or None

    def streamed(self, layer: str) -> bool:
        """Whether a layer is brought in for each pass."""
        where = self.layers[layer]
        return where == DISK or (where == "cpu" and self.main.type != "cpu")

    @property
    def reason(self) -> str:
        """How many layers lie where, as text for the log."""
        found = list(self.layers.values())
        counts = ", ".join(f"{found.count(where)} on {where}" for where in dict.fromkeys(found))
        return f"layers: {counts}"


def layer_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists of layers by their paths, those first that run most often."""
    found: dict[str, nn.ModuleList] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and not inside:
            found[path] = module
    return dict(reversed(found.items()))


def place_layers(
    model: Blip2Net, options: ModelOptions, main: torch.device, dtype: torch.dtype
) -> DeviceMap:
    """Choose a place for every layer of ``model``, which may be on the meta device.

    Raises ModelError for a device that is not there, and OptionError for memory that does not hold
    what always stays.
    """
    from accelerate.utils.modeling import get_balanced_memory, infer_auto_device_map

    if main.type not in ("cpu", "cuda"):
        raise OptionError(
            "device",
            f"layers are placed on CPUs and CUDA devices, not on {main.type}",
            f"use {option('device')} cpu, or leave {option('device_map')}, "
            f"{option('max_memory')} and {option('offload')} out",
        )
    if main.type == "cuda":
        main = torch.device("cuda", main.index or 0)
    lists = layer_lists(model)
    budgets = _budgets(model, options, main, dtype)
    gpus = [device for device in budgets if device != "cpu"]
    # Layers in memory spread among those that are not, so that there is always one to compute while
    # the next is read. From one GPU to another states go as seldom as possible.
    names = [
        f"{path}.{number}"
        for path, layers in lists.items()
        for number in (range(len(layers)) if len(gpus) > 1 else _spread(len(layers)))
    ]
    order = nn.Module()
    for name in names:
        order.add_module(name.replace(".", "/"), model.get_submodule(name))
    whole = [type(layer).__name__ for layers in lists.values() for layer in layers]
    # accelerate numbers GPUs.
    limits = {d if d == "cpu" else int(d[5:]): size for d, size in budgets.items()}
    if options.device_map == "balanced":
        limits = get_balanced_memory(order, limits, whole, dtype)
    found = infer_auto_device_map(order, limits, whole, dtype, clean_result=False)
    tiers = {}
    for name in names:
        where = found[name.replace(".", "/")]
        tiers[name] = f"cuda:{where}" if isinstance(where, int) else where
    return DeviceMap(main, tiers)


def _spread(count: int) -> list[int]:
    """0 to ``count`` - 1 in an order whose every beginning is spread evenly."""
    return sorted(range(count), key=lambda number: number * _GOLDEN % 1)


def _budgets(
    model: Blip2Net, options: ModelOptions, main: torch.device, dtype: torch.dtype
) -> dict[str, int]:
    """Bytes for layers by device, without what always stays on the main one."""
    staying, largest = always_in_memory(model, dtype)
    least = staying + 2 * largest  # the layer that computes, and the one that is fetched
    first = str(main)
    if options.max_memory is None:
        budgets = _free(model, main, dtype)
        budgets[first] = max(least, budgets[first])
    else:
        budgets = parse_max_memory(options.max_memory)
        _check_devices(list(budgets), first)
        if budgets[first] < least:
            raise OptionError(
                "max_memory",
                f"{option('max_memory')} gives {first} {budgets[first] / 2**20:.0f} MiB, which do "
                "not hold embeddings, norms and two layers",
                f"give it at least {ceil(least / 2**20)}MiB",
            )
    # accelerate itself keeps room for one layer on the first GPU, and in memory.
    budgets[first] -= staying + largest
    return budgets


def always_in_memory(model: Blip2Net, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of all that is no matrix of a layer, and of the largest layer's matrices."""
    sizes = [
        sum(e.weight.numel() for e in layer.modules() if isinstance(e, Linear))
        for layers in layer_lists(model).values()
        for layer in layers
    ]
    every = sum(weight.numel() for weight in model.parameters())
    return (every - sum(sizes)) * dtype.itemsize, max(sizes, default=0) * dtype.itemsize


def _free(model: Blip2Net, main: torch.device, dtype: torch.dtype) -> dict[str, int]:
    """What is free on every device, less what a batch takes on the main one."""
    need = estimate_memory(model.config, isinstance(model, GenerationModel), dtype.itemsize)
    batch = BATCH * (need.image + need.sequence)
    budgets = {}
    if main.type == "cuda":
        for number in range(torch.cuda.device_count()):
            budgets[f"cuda:{number}"] = int(MEMORY_SHARE * torch.cuda.mem_get_info(number)[0])
        # The device that was asked for comes first, and takes what is no layer.
        first = str(main)
        budgets = {first: budgets.pop(first) - batch, **budgets}
    in_memory = int(MEMORY_SHARE * (memory().available or 0))
    return budgets | {"cpu": in_memory if budgets else in_memory - batch}


def _check_devices(named: Sequence[str], first: str) -> None:
    """Raise an error for a GPU that is not there, and where the model's own device has nothing."""
    count = cuda_count()
    for name in named:
        if name != "cpu" and int(name[5:]) >= count:
            seen = f"only {count}" if count else "no GPU"
            raise ModelError(
                "max_memory",
                f"{option('max_memory')} names {name}, but torch sees {seen}",
                "name devices that are there",
            )
    if first not in named:
        raise OptionError(
            "max_memory",
            f"{option('max_memory')} gives nothing to {first}, where the model runs",
            f"add {first}=SIZE, or choose another {option('device')}",
        )
