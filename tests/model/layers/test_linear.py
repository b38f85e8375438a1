from __future__ import annotations

import platform
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blip2cli.model.layers import linear
from blip2cli.model.layers.linear import (
    ACTIVATIONS,
    FusableProjections,
    Linear,
    PackedLinear,
    can_pack,
    fuse_projections,
    has_fixed_gemm_rows,
    merge_sequences,
    pack_weights,
    split_sequences,
)
from tests.model.layer_weights import filled

CPU = torch.device("cpu")
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack(CPU, dtype)]
HALF = pytest.mark.skipif(torch.bfloat16 not in DTYPES, reason="oneDNN has no bfloat16 here")
SHAPES = [(32, 128), (100, 333), (128, 384), (512, 128), (1408, 640), (2048, 512)]


def packed(layer: Linear, dtype: torch.dtype = torch.float32) -> Linear:
    layer.to(dtype)
    pack_weights(layer)
    assert type(layer) is PackedLinear
    return layer


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


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("inside", "outside"), SHAPES)
def test_a_packed_row_keeps_its_bits_at_every_row_count(
    threads: int, dtype: torch.dtype, inside: int, outside: int
) -> None:
    layer = packed(filled(inside, outside, "gelu"), dtype)
    rows = torch.randn(300, inside).to(dtype)
    beside = torch.randn(300, outside).to(dtype)
    adding = packed(filled(inside, outside), dtype)
    whole, sums = layer(rows), adding(rows, beside)
    for count in (*range(1, 36), 47, 64, 65, 100, 257, 299):
        for first in (0, 1, 300 - count):
            some = slice(first, first + count)
            assert torch.equal(layer(rows[some]), whole[some]), (count, first)
            assert torch.equal(adding(rows[some], beside[some]), sums[some]), (count, first)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("part", ["language_model", "vision_model"])
@pytest.mark.parametrize("length", [1, 2, 9, 32, 65, 257])
def test_a_sequence_keeps_its_bits_in_every_company(
    threads: int, dtype: torch.dtype, part: str, length: int
) -> None:
    model = nn.ModuleDict({part: nn.ModuleList([filled(1408, 200, "gelu"), filled(1408, 200)])})
    model.to(dtype)
    pack_weights(model)
    layer, adding = model[part]
    states = torch.randn(70 if length < 65 else 9, length, 1408).to(dtype)
    beside = torch.randn(*states.shape[:2], 200).to(dtype)
    whole, sums = layer(states), adding(states, beside)
    assert float(whole.std()) > 0.1
    for count in (1, 2, 3, 7, 8, 9, 31, 64):
        for first in (0, 1, len(states) - count):
            some = slice(max(0, first), first + count)
            assert torch.equal(layer(states[some]), whole[some]), (count, first)
            assert torch.equal(adding(states[some], beside[some]), sums[some]), (count, first)


@HALF
@pytest.mark.parametrize("length", [1, 2, 9, 32, 65, 257])
@pytest.mark.parametrize("count", [1, 3, 20, 70])
def test_all_products_have_one_number_of_rows_where_it_decides(
    monkeypatch: pytest.MonkeyPatch, length: int, count: int
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(linear, "gives_same_bits", lambda *each: False)
    monkeypatch.setattr(linear, "_agreements", {})
    seen: list[int] = []
    multiply = linear._multiply

    def watched(rows: Tensor, *rest: Any) -> Tensor:
        seen.append(len(rows))
        return multiply(rows, *rest)

    monkeypatch.setattr(linear, "_multiply", watched)
    layer = packed(filled(16, 24, "gelu"), torch.bfloat16)
    states = torch.randn(count, length, 16).to(torch.bfloat16)
    got = layer(states)
    assert set(seen) == {layer.sequences_per_gemm(length) * length}
    assert sum(seen) >= count * length
    plain = filled(16, 24, "gelu").bfloat16()
    torch.testing.assert_close(got, plain(states), rtol=0.02, atol=0.02)
    groups = split_sequences(states, layer)
    assert torch.equal(merge_sequences([layer(group) for group in groups]), got)
    assert len(groups) == len(seen) / 2 == -(-count // layer.sequences_per_gemm(length))


@HALF
def test_fewer_rows_do_where_they_get_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    asked: list[tuple[int, int, int, int]] = []

    def agrees(product: object, plain: object, sizes: tuple[int, int, int, int], *_: bool) -> bool:
        asked.append(sizes)
        return sizes[2] == 16

    monkeypatch.setattr(linear, "gives_same_bits", agrees)
    monkeypatch.setattr(linear, "_agreements", {})
    layer = packed(filled(16, 24), torch.bfloat16)
    seen: list[int] = []
    multiply = linear._multiply
    monkeypatch.setattr(linear, "_multiply", lambda x, *_: seen.append(len(x)) or multiply(x, *_))
    steps = layer.sequences_per_gemm(1)
    for count in (3, 13, 9, 17, steps, steps + 11):
        layer(torch.randn(count, 16).to(torch.bfloat16))
    assert seen == [steps, 16, 16, steps, steps, steps, 16]
    assert asked == [(16, 24, few, steps) for few in (8, 16, 24)]  # each once


def test_any_number_of_rows_will_do_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    layer = packed(filled(16, 24))
    assert layer.sequences_per_gemm(9) == 0
    assert not has_fixed_gemm_rows(layer)
    assert len(split_sequences(torch.randn(90, 9, 16), layer)) == 1


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("form", ["plain", "packed"])
def test_rows_that_lie_apart_in_memory_keep_them_too(threads: int, form: str) -> None:
    # The last position of every prefix, as the language model's head gets it.
    layer = filled(128, 320, bias=False)
    if form == "packed":
        packed(layer)
    states = torch.randn(24, 17, 128)
    whole = layer(states[:, -1:])
    for count in (1, 3, 8, 9, 16, 24):
        assert torch.equal(layer(states[:count, -1:]), whole[:count]), count
        assert torch.equal(layer(states[:count, -1:].contiguous()), whole[:count]), count


@pytest.mark.skipif(platform.machine() != "x86_64", reason="measured with MKL")
def test_torchs_own_layers_do_not_keep_them() -> None:
    # What the row filling is for; should a torch release mend this, it can go.
    torch.manual_seed(0)
    layer = nn.Linear(128, 128)
    rows = torch.randn(64, 128)
    whole = layer(rows)
    assert any(not torch.equal(layer(rows[:count]), whole[:count]) for count in range(1, 12))


@pytest.mark.parametrize("form", ["plain", "packed"])
@pytest.mark.parametrize("activation", ["", *ACTIVATIONS])
def test_values_are_those_of_torch(form: str, activation: str) -> None:
    layer = filled(16, 24, activation)
    batch, beside = torch.randn(2, 3, 5, 16), torch.randn(2, 3, 5, 24)
    want = nn.functional.linear(batch, layer.weight, layer.bias)
    if activation:
        want = ACTIVATIONS[activation](want)
    if form == "packed":
        packed(layer)
    torch.testing.assert_close(layer(batch), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer(batch, beside), want + beside, rtol=1e-5, atol=1e-5)
    assert layer(batch[:1, :1, :1]).shape == (1, 1, 1, 24)
    assert layer(torch.randn(0, 16)).shape == (0, 24)


def test_activations_are_those_of_transformers() -> None:
    from transformers.activations import ACT2FN

    values = torch.linspace(-6, 6, 101)
    for name, function in ACTIVATIONS.items():
        torch.testing.assert_close(function(values), ACT2FN[name](values), msg=name)


class Three(FusableProjections):
    FUSABLE = (("one", "two"), ("three",))

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = filled(16, 24), filled(16, 24, bias=False)
        self.three = filled(24, 8)

    def forward(self, states: Tensor) -> Tensor:
        one, two = self.project(states, "one", "two")
        (three,) = self.project(one - two, "three")
        return three


def test_joined_layers_give_what_they_gave_apart() -> None:
    model = nn.Sequential(Three())
    states = torch.randn(4, 9, 16)
    want = model(states)
    assert float(want.std()) > 0.1
    fuse_projections(model)
    assert {name for name, _ in model.named_parameters()} == {
        "0.one_two.weight",
        "0.one_two.bias",
        "0.three.weight",
        "0.three.bias",
    }
    torch.testing.assert_close(model(states), want)
    pack_weights(model)
    assert not dict(model.named_parameters()).keys() & {"0.one_two.weight", "0.three.weight"}
    torch.testing.assert_close(model(states), want)


def test_what_onednn_does_not_compute_stays_plain() -> None:
    layer = filled(16, 8).double()
    pack_weights(layer)
    assert type(layer) is Linear
    assert layer(torch.randn(3, 16).double()).dtype is torch.float64
