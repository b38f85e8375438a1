"""Layers that are read from disk: where their matrices are read, and how they are put to use.

A safetensors file in the precision of the run is mapped as it is. Of other files, layers are
converted once, into a file each, in a folder named by what tells the weights from others: the next
run finds them there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from blip2cli.errors import ModelError, OptionError, option
from blip2cli.model.checkpoint.identity import weights_identity
from blip2cli.model.checkpoint.lazy_weights import Weight, Weights, read_weights
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.model.layers.linear import Linear
from blip2cli.model.layers.placed_layer import PlacedLayer
from blip2cli.model.layers.streamed import (
    Fetcher,
    LayerStream,
    MappedFetcher,
    StreamedLayers,
)
from blip2cli.model.nets.blip2 import Blip2Net
from blip2cli.model.placement.device_map import DISK, DeviceMap, layer_lists
from blip2cli.storage import durable


class ConvertedLayers:
    """The files of converted layers, in a folder of their own below ``folder``.

    ``folder`` None: layers cannot be converted.
    """

    def __init__(self, checkpoint: Checkpoint, folder: str | None, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._dtype = str(dtype).removeprefix("torch.")
        self._folder: Path | None = None
        if folder is not None:
            digest = sha256(weights_identity(checkpoint).encode()).hexdigest()[:16]
            self._folder = Path(folder).absolute() / f"layers-{digest}-{self._dtype}"

    def weights(self, layer: str, weights: Weights) -> Weights:
        """The weights of a layer, mapped; where they are not, from a file that is made here.

        Raises OptionError where there is no folder for it, and ModelError where it cannot be
        written.
        """
        if all(weight.mapped for weight in weights.values()):
            return weights
        if self._folder is None:
            raise OptionError(
                "offload",
                f"{self._checkpoint} holds no safetensors in {self._dtype}, from which layers "
                "could be read as they are",
                f"name a folder for converted layers with {option('offload')}, or choose another "
                f"{option('dtype')}",
            )
        file = self._folder / f"{layer}.safetensors"
        try:
            if not _holds(file, weights):
                self._folder.mkdir(parents=True, exist_ok=True)
                data = save({name: weight.load().clone() for name, weight in weights.items()})
                with durable.written(durable.temporary_name(str(file)), str(file)) as out:
                    out.write(data)
        except OSError as error:
            raise ModelError(
                "offload",
                f"{file} cannot be written ({error.strerror})",
                f"name another folder with {option('offload')}",
            ) from error
        return read_weights([file], keep_open=True)


def _holds(file: Path, weights: Weights) -> bool:
    """Whether ``file`` is there, whole, and has just these weights."""
    try:
        return file.exists() and read_weights([file]).keys() == weights.keys()
    except ModelError:  # it is damaged
        return False


class PlacedLayers:
    """The layers of a model on their way to where ``devices`` says."""

    def __init__(
        self,
        devices: DeviceMap,
        files: ConvertedLayers,
        check: Callable[[str, Tensor, Weight], None],
    ) -> None:
        """``check`` sees every weight that is not copied."""
        self.devices = devices
        self._files = files
        self._check = check
        self._unmapped: dict[str, Weights] = {}  # by layer
        self._modules: dict[str, Linear] = {}  # by the weight's name

    def take(self, name: str, module: nn.Module, own: str, weight: Weight) -> bool:
        """Whether the weight ``name`` is read from where it is stored, when it is used."""
        if self._is_looked_up(module, weight):
            module._parameters[own] = nn.Parameter(self._checked(name, weight), requires_grad=False)
            return True
        layer = self.devices.layer(name)
        if layer is None or not self.devices.streamed(layer):
            return False
        if not isinstance(module, Linear) or own != "weight":
            return False
        self._modules[name] = module
        if self.devices.layers[layer] != DISK:
            self._store(name, self._checked(name, weight, pinned=True))
        elif weight.mapped:
            # Now, in the order of the file: twice through it would read it twice.
            self._store(name, self._checked(name, weight))
        else:
            self._unmapped.setdefault(layer, {})[name] = weight
        return True

    def convert(self) -> None:
        """Let matrices that were taken, and are not mapped as they are, be read from files that
        are."""
        for layer, taken in self._unmapped.items():
            for name, weight in self._files.weights(layer, taken).items():
                self._store(name, self._checked(name, weight))

    def _is_looked_up(self, module: nn.Module, weight: Weight) -> bool:
        """Whether single rows of ``weight`` are read, and can be from a mapped file."""
        reads = DISK in self.devices.layers.values() and self.devices.main.type == "cpu"
        return reads and isinstance(module, nn.Embedding) and weight.mapped

    def _checked(self, name: str, weight: Weight, pinned: bool = False) -> Tensor:
        matrix = weight.load()
        if pinned:
            matrix = matrix.pin_memory()
        self._check(name, matrix, weight)
        return matrix

    def _store(self, name: str, matrix: Tensor) -> None:
        layer = self._modules[name]
        empty = torch.empty(matrix.shape, dtype=matrix.dtype, device="meta")
        layer._parameters["weight"] = nn.Parameter(empty, requires_grad=False)
        layer.stored = (functools.partial(_same, matrix),)

    def stream(self, model: Blip2Net) -> None:
        """Let each layer know its device, and bring in those that are not in memory."""
        devices, lists = self.devices, layer_lists(model)
        model.placed = f", {devices.reason}"
        several = any(devices.device(layer) != devices.main for layer in devices.layers)
        streamed: list[nn.Module] = []
        for path, layers in reversed(lists.items()):
            for number, layer in enumerate(layers):
                name = f"{path}.{number}"
                assert isinstance(layer, PlacedLayer)
                layer.device = devices.device(name) if several else None
                if devices.streamed(name):
                    streamed.append(layer)
        if not streamed:
            return
        model.stream = LayerStream(streamed, _fetcher(devices.main))
        for path, layers in lists.items():
            if any(layer in streamed for layer in layers):
                outer, _, own = path.rpartition(".")
                setattr(model.get_submodule(outer), own, StreamedLayers(layers, model.stream))


def _same(matrix: Tensor) -> Tensor:
    return matrix


def _fetcher(device: torch.device) -> Fetcher:
    """What brings matrices to ``device``."""
    if device.type == "cpu":
        return MappedFetcher()
    from blip2cli.model.loading.cuda_fetcher import CudaFetcher

    return CudaFetcher(device)
