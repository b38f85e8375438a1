"""Packed linear layers: rows that do not depend on the batch, and fixed row counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blip2cli.model.layers import packed_linear
from blip2cli.model.layers.linear import merge_sequences, split_sequences
from blip2cli.model.layers.packed_linear import can_pack, has_fixed_gemm_rows, pack_weights
from tests.model.layer_weights import SHAPES, filled, packed

CPU = torch.device("cpu")
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack(CPU, dtype)]
HALF = pytest.mark.skipif(torch.bfloat16 not in DTYPES, reason="oneDNN has no bfloat16 here")


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("inside", "outside"), SHAPES)
def test_a_packed_row_keeps_its_bits_at_every_row_count(
    threads: int, dtype: torch.dtype, inside: int, outside: int
) -> None:
    layer = packed(filled(inside, outside, "gelu"), dtype)
    rows = torch.randn(300, inside).to(dtype)
    residual = torch.randn(300, outside).to(dtype)
    adding = packed(filled(inside, outside), dtype)
    whole, sums = layer(rows), adding(rows, residual)
    for count in (*range(1, 36), 47, 64, 65, 100, 257, 299):
        for first in (0, 1, 300 - count):
            some = slice(first, first + count)
            assert torch.equal(layer(rows[some]), whole[some]), (count, first)
            assert torch.equal(adding(rows[some], residual[some]), sums[some]), (count, first)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("part", ["language_model", "vision_model"])
@pytest.mark.parametrize("length", [1, 2, 9, 32, 65, 257])
def test_a_sequence_keeps_its_bits_in_every_batch(
    threads: int, dtype: torch.dtype, part: str, length: int
) -> None:
    model = nn.ModuleDict({part: nn.ModuleList([filled(1408, 200, "gelu"), filled(1408, 200)])})
    model.to(dtype)
    pack_weights(model)
    layer, adding = model[part]
    states = torch.randn(70 if length < 65 else 9, length, 1408).to(dtype)
    residual = torch.randn(*states.shape[:2], 200).to(dtype)
    whole, sums = layer(states), adding(states, residual)
    assert float(whole.std()) > 0.1
    for count in (1, 2, 3, 7, 8, 9, 31, 64):
        for first in (0, 1, len(states) - count):
            some = slice(max(0, first), first + count)
            assert torch.equal(layer(states[some]), whole[some]), (count, first)
            assert torch.equal(adding(states[some], residual[some]), sums[some]), (count, first)


@HALF
@pytest.mark.parametrize("length", [1, 2, 9, 32, 65, 257])
@pytest.mark.parametrize("count", [1, 3, 20, 70])
def test_all_products_have_one_number_of_rows_where_it_decides(
    monkeypatch: pytest.MonkeyPatch, length: int, count: int
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(packed_linear, "gives_same_bits", lambda *each: False)
    monkeypatch.setattr(packed_linear, "_probed", {})
    seen: list[int] = []
    multiply = packed_linear._multiply

    def watched(rows: Tensor, *rest: Any) -> Tensor:
        seen.append(len(rows))
        return multiply(rows, *rest)

    monkeypatch.setattr(packed_linear, "_multiply", watched)
    layer = packed(filled(16, 24, "gelu"), torch.bfloat16)
    states = torch.randn(count, length, 16).to(torch.bfloat16)
    got = layer(states)
    assert set(seen) == {layer.sequences_per_gemm(length) * length}
    assert sum(seen) >= count * length
    plain = filled(16, 24, "gelu").bfloat16()
    torch.testing.assert_close(got, plain(states), rtol=0.02, atol=0.02)
    chunks = split_sequences(states, layer)
    assert torch.equal(merge_sequences([layer(chunk) for chunk in chunks]), got)
    assert len(chunks) == len(seen) / 2 == -(-count // layer.sequences_per_gemm(length))


@HALF
def test_fewer_rows_do_where_they_get_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    probed: list[tuple[int, int, int, int]] = []

    def probe(product: object, plain: object, sizes: tuple[int, int, int, int], *_: bool) -> bool:
        probed.append(sizes)
        return sizes[2] == 16

    monkeypatch.setattr(packed_linear, "gives_same_bits", probe)
    monkeypatch.setattr(packed_linear, "_probed", {})
    layer = packed(filled(16, 24), torch.bfloat16)
    seen: list[int] = []
    multiply = packed_linear._multiply
    monkeypatch.setattr(
        packed_linear, "_multiply", lambda x, *_: seen.append(len(x)) or multiply(x, *_)
    )
    steps = layer.sequences_per_gemm(1)
    for count in (3, 13, 9, 17, steps, steps + 11):
        layer(torch.randn(count, 16).to(torch.bfloat16))
    assert seen == [steps, 16, 16, steps, steps, steps, 16]
    assert probed == [(16, 24, few, steps) for few in (8, 16, 24)]  # each once


def test_any_number_of_rows_will_do_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    layer = packed(filled(16, 24))
    assert layer.sequences_per_gemm(9) == 0
    assert not has_fixed_gemm_rows(layer)
    assert len(split_sequences(torch.randn(90, 9, 16), layer)) == 1


def test_what_onednn_does_not_compute_stays_plain() -> None:
    layer = filled(16, 8).double()
    model = nn.Sequential(layer)
    pack_weights(model)
    assert model[0] is layer
    assert layer(torch.randn(3, 16).double()).dtype is torch.float64
