"""Quantized layers of other packages, on a CPU.

Where a package is not installed a stand-in shows how it is chosen and put in place; numbers are
tested with the package alone.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.families import OPT
from blip2cli.model.layers.linear import Linear
from blip2cli.model.loading import load as loading
from blip2cli.model.loading.load import load_model
from blip2cli.model.placement.dtype import Placement, place
from blip2cli.model.quantize import library_layers as libraries
from blip2cli.model.quantize.int8_weights import is_quantized_layer
from blip2cli.model.quantize.library_layers import (
    QUANTIZERS,
    LibraryLinear,
    Quantizer,
    installed_quantizer,
    use_library_layers,
)
from blip2cli.options import Quantize
from tests.convert.checkpoints.helpers import convert

CPU = torch.device("cpu")
SCHEMES: tuple[Quantize, ...] = ("int8", "int4")
WAYS = [(quantize, way) for quantize in SCHEMES for way in QUANTIZERS[quantize]]


def linear(dtype: torch.dtype, bias: bool = True) -> Linear:
    torch.manual_seed(0)
    layer = Linear(64, 128, bias, "gelu").requires_grad_(False)
    nn.init.normal_(layer.weight, 0, 0.1)
    if bias:
        nn.init.normal_(layer.bias)
    return layer.to(dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("quantize", "way"), WAYS, ids=[f"{quantize}-{way.package}" for quantize, way in WAYS]
)
def test_layers_of_each_package_replace_ours(
    quantize: Quantize, way: Quantizer, dtype: torch.dtype, bias: bool, capfd: Any
) -> None:
    if find_spec(way.package) is None:
        pytest.skip(f"{way.package} is not installed")
    layer = linear(dtype, bias)
    rows, residual = torch.randn(2, 5, 64, dtype=dtype), torch.randn(2, 5, 128, dtype=dtype)
    wanted = layer(rows, residual).float()
    layer.weight = nn.Parameter(layer.weight.to(way.weight_dtype or dtype), requires_grad=False)
    model = nn.Sequential(layer)
    use_library_layers(model, CPU, way)
    assert type(model[0]) is LibraryLinear
    made = model[0](rows, residual)
    assert (made.dtype, made.shape) == (dtype, (2, 5, 128))
    apart = (made.float() - wanted).norm() / wanted.norm()
    assert 1e-4 < apart < (0.01 if quantize == "int8" else 0.08)
    assert capfd.readouterr().err == ""


class Inner(nn.Module):
    """Remembers what it was made of, and multiplies by it."""

    def __init__(self, layer: Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, states: Tensor) -> Tensor:
        """The plain product."""
        weight = self.weight.to(states.dtype)
        return nn.functional.linear(states, weight, self.bias)


@pytest.fixture(params=[torch.float16, None])
def way(request: pytest.FixtureRequest) -> Quantizer:
    """A package that is installed."""
    return Quantizer("torch", Inner, request.param)


def elsewhere(dtype: torch.dtype, way: Quantizer) -> Placement:
    """The CPU under another name: as weights are loaded for a device that is not here."""
    device: Any = SimpleNamespace(type="elsewhere")
    return Placement(device, dtype, "", "int8", way)


@pytest.mark.parametrize("stored", [False, True])
def test_the_quantized_layers_are_made_by_the_package(
    stored: bool,
    way: Quantizer,
    t5_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = t5_directory
    if stored:
        directory = tmp_path / "int8"
        convert(t5_directory, directory, quantize="int8")
    whole = load_model(inspect_checkpoint(directory), Placement(CPU, torch.float32, ""), plain=True)
    wanted = {
        name
        for name, module in whole.named_modules()
        # T5 keeps ``wo`` as it is: its states leave float16 there.
        if isinstance(module, Linear) and is_quantized_layer(name) and not name.endswith(".wo")
    }
    assert len(wanted) > 5
    to: Callable[..., Tensor] = Tensor.to

    def here(tensor: Tensor, *arguments: Any, **named: Any) -> Tensor:
        arguments = tuple(CPU if isinstance(a, SimpleNamespace) else a for a in arguments)
        return to(tensor, *arguments, **named)

    taken: list[torch.dtype] = []

    def take(model: nn.Module, device: torch.device, quantizer: Quantizer) -> None:
        for name, layer in model.named_modules():
            if isinstance(layer, Linear) and name in wanted:
                taken.append(layer.weight.dtype)
            elif isinstance(layer, Linear):  # as if on the device already
                layer.weight = nn.Parameter(layer.weight.to("meta"), requires_grad=False)
        use_library_layers(model, CPU, quantizer)
        assert {n for n, m in model.named_modules() if isinstance(m, LibraryLinear)} == wanted

    monkeypatch.setattr(Tensor, "to", here)
    monkeypatch.setattr(loading, "use_library_layers", take)
    load_model(inspect_checkpoint(directory), elsewhere(torch.bfloat16, way))
    assert set(taken) == {way.weight_dtype or torch.bfloat16}


def test_the_first_installed_package_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    there: set[str] = set()
    monkeypatch.setattr(libraries, "find_spec", lambda name: name in there or None)
    assert installed_quantizer("int8") is None
    there.add("torchao")
    assert installed_quantizer("int8") is QUANTIZERS["int8"][1]
    assert installed_quantizer("int4") is None
    there.add("bitsandbytes")
    assert installed_quantizer("int8") is QUANTIZERS["int8"][0]
    assert installed_quantizer("int8-torchao") is QUANTIZERS["int8"][1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    reason = place("cuda", "bfloat16", OPT, 1, "int4").reason
    assert ", linear layers in int4 (by bitsandbytes)" in reason
