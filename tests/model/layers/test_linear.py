"""Linear layers: values, rows that do not depend on the batch, and replacement."""

from __future__ import annotations

import platform
from weakref import ref

import pytest
import torch
from torch import nn

from blip2cli.model.layers.linear import (
    ACTIVATIONS,
    Linear,
    ReplacementLinear,
    replace_linear_layers,
)
from tests.model.layer_weights import SHAPES, filled, packed


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize(("inside", "outside"), SHAPES[:2])
def test_a_plain_row_keeps_its_bits_at_every_row_count(
    threads: int, inside: int, outside: int
) -> None:
    layer = filled(inside, outside)
    rows = torch.randn(45, inside)
    whole = layer(rows)
    for count in range(1, 45):
        assert torch.equal(layer(rows[:count]), whole[:count]), count
        assert torch.equal(layer(rows[-count:]), whole[-count:]), count


@pytest.mark.skipif(platform.machine() != "x86_64", reason="measured with MKL")
def test_torchs_own_layers_do_not_keep_a_rows_bits() -> None:
    # What the row filling is for; should a torch release change this, it can go.
    torch.manual_seed(0)
    layer = nn.Linear(128, 128)
    rows = torch.randn(64, 128)
    whole = layer(rows)
    assert any(not torch.equal(layer(rows[:count]), whole[:count]) for count in range(1, 12))


def test_activations_are_those_of_transformers() -> None:
    from transformers.activations import ACT2FN

    values = torch.linspace(-6, 6, 101)
    for name, function in ACTIVATIONS.items():
        torch.testing.assert_close(function(values), ACT2FN[name](values), msg=name)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("form", ["plain", "packed"])
def test_strided_rows_keep_their_bits_too(threads: int, form: str) -> None:
    # The last position of every prefix, as the language model's head gets it.
    layer = filled(128, 320, bias=False)
    if form == "packed":
        layer = packed(layer)
    states = torch.randn(24, 17, 128)
    whole = layer(states[:, -1:])
    for count in (1, 3, 8, 9, 16, 24):
        assert torch.equal(layer(states[:count, -1:]), whole[:count]), count
        assert torch.equal(layer(states[:count, -1:].contiguous()), whole[:count]), count


@pytest.mark.parametrize("form", ["plain", "packed"])
@pytest.mark.parametrize("activation", ["", *ACTIVATIONS])
def test_values_are_those_of_torch(form: str, activation: str) -> None:
    layer = filled(16, 24, activation)
    batch, residual = torch.randn(2, 3, 5, 16), torch.randn(2, 3, 5, 24)
    want = nn.functional.linear(batch, layer.weight, layer.bias)
    if activation:
        want = ACTIVATIONS[activation](want)
    if form == "packed":
        layer = packed(layer)
    torch.testing.assert_close(layer(batch), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer(batch, residual), want + residual, rtol=1e-5, atol=1e-5)
    assert layer(batch[:1, :1, :1]).shape == (1, 1, 1, 24)
    assert layer(torch.randn(0, 16)).shape == (0, 24)


def test_layers_are_replaced_by_name_and_freed_one_by_one() -> None:
    model = nn.ModuleDict(
        {"first": nn.Sequential(filled(4, 8), filled(8, 4)), "last": filled(4, 2)}
    )
    before = {name: ref(each) for name, each in model.named_modules() if isinstance(each, Linear)}
    kept, names = model["last"], []

    def replacement(name: str, layer: Linear) -> Linear | None:
        # At most the one in hand is left of those that came before.
        assert sum(before[earlier]() is not None for earlier in names) <= 1
        names.append(name)
        return None if layer is kept else ReplacementLinear(layer)

    replace_linear_layers(model, replacement)
    assert sorted(names) == ["first.0", "first.1", "last"]
    assert model["last"] is kept
    assert isinstance(model["first"], nn.Sequential)
    for layer, bias in zip(model["first"], (8, 4), strict=True):
        assert type(layer) is ReplacementLinear
        assert (layer.weight, layer.bias.shape) == (None, (bias,))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["", "relu", "gelu"])
@pytest.mark.parametrize("adds", [True, False])
def test_one_kernel_of_a_gpu_gives_the_same(bias: bool, activation: str, adds: bool) -> None:
    layer = filled(16, 24, activation, bias)
    rows, residual = torch.randn(9, 16), torch.randn(3, 3, 24) if adds else None
    want = layer(rows.view(3, 3, 16), residual)
    found = layer._fused(rows, residual)
    one = not (bias or activation) if adds else bias and activation == "relu"
    assert (found is not None) is one
    if found is not None:
        torch.testing.assert_close(found.view(3, 3, 24), want)
        assert residual is None or found.data_ptr() == residual.data_ptr()
