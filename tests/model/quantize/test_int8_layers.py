"""Int8 linear layers: exact integer products, each row quantized by itself, near full precision."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from blip2cli.model.layers.linear import ACTIVATIONS
from blip2cli.model.quantize.int8_layers import (
    _CACHED_NUMBERS,
    _CHUNK,
    Int8Linear,
    max_exact_level,
    quantize_rows,
    use_int8_layers,
)
from blip2cli.model.quantize.int8_weights import dequantize, quantize
from tests.model.layer_weights import filled
from tests.model.quantize.int8_reference import exact_product, quantized, with_int8_weight

pytestmark = pytest.mark.skipif(
    max_exact_level() == 0, reason="this torch has no such products here"
)
DTYPES = [torch.float32, torch.bfloat16]
SHAPES = [(32, 128), (100, 333), (1408, 640)]


@pytest.mark.parametrize("zero_point", [128, 32, 0])
@pytest.mark.parametrize(("inside", "outside"), SHAPES)
def test_products_are_those_of_the_whole_numbers(
    inside: int, outside: int, zero_point: int
) -> None:
    zero_point = zero_point if max_exact_level() == 255 else zero_point // 2
    plain, layer = filled(inside, outside), quantized(filled(inside, outside))
    layer.zero_point = zero_point
    rows = torch.randn(37, inside).abs()
    torch.testing.assert_close(
        layer(rows).double(), exact_product(plain, rows, zero_point), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("inside", "outside"), [(100, 333), (704, 640)])
def test_a_row_keeps_its_bits_at_every_row_count(
    threads: int, dtype: torch.dtype, inside: int, outside: int
) -> None:
    layer = quantized(filled(inside, outside, "relu"), dtype)
    rows, residual = torch.randn(300, inside).to(dtype), torch.randn(300, outside).to(dtype)
    whole, added = layer(rows), layer(rows, residual)
    for count in (*range(1, 13), 17, 33, 64, 257):
        assert torch.equal(layer(rows[:count]), whole[:count]), count
        assert torch.equal(layer(rows[-count:], residual[-count:]), added[-count:]), count
    times = _CHUNK // max(inside, outside) // len(rows) + 1  # several chunks
    assert torch.equal(layer(rows.repeat(times, 1)), whole.repeat(times, 1))
    assert torch.equal(
        layer(rows.repeat(times, 1), residual.repeat(times, 1)), added.repeat(times, 1)
    )
    assert layer(rows[:0]).shape == (0, outside)


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_an_activation_behind_it_does_not_change_that(threads: int, activation: str) -> None:
    layer = quantized(filled(64, 1536, activation))
    rows = torch.randn(257, 64)
    whole = layer(rows)
    for count in (1, 2, 3, 7, 8, 13, 50, 64, 130):
        assert torch.equal(layer(rows[:count]), whole[:count]), count
        assert torch.equal(layer(rows[-count:]), whole[-count:]), count


@pytest.mark.parametrize("width", [64, _CACHED_NUMBERS // 3])  # all rows at a time, and three
def test_a_row_is_quantized_by_itself(width: int) -> None:
    rows = torch.randn(6, width)
    numbers, scales = quantize_rows(rows, 128)
    rows[2] *= 1e6
    rows[3] = torch.inf
    rows[4] = 0
    again, factors = quantize_rows(rows, 128)
    for row in (0, 1, 5):
        assert torch.equal(again[row], numbers[row])
        assert torch.equal(factors[row], scales[row])
    rows, layer = rows[:, :64], quantized(filled(64, 32))
    assert layer(rows)[[0, 1, 2, 4, 5]].isfinite().all()
    torch.testing.assert_close(layer(rows)[4], layer.bias)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("zero_point", [128, 32, 0])
def test_rounding_is_by_half_a_step_at_most(dtype: torch.dtype, zero_point: int) -> None:
    # Also of rows whose largest number is at either end, and of very small and large ones.
    rows = torch.randn(500, 300, generator=torch.Generator().manual_seed(0))
    rows = rows * torch.logspace(-6, 6, 500)[:, None]
    if zero_point < 128:
        rows = rows.abs()
    rows = rows.to(dtype)
    numbers, scales = quantize_rows(rows, zero_point)
    assert scales.dtype is dtype
    assert numbers.dtype is torch.uint8
    stands_for = (numbers.double() - zero_point) * scales.double()
    step = scales.double()
    assert ((stands_for - rows.double()).abs() <= 0.501 * step).all()
    spread = numbers.amax(dim=1).int() - numbers.amin(dim=1).int()
    assert (spread >= {128: 120, 32: 215, 0: 245}[zero_point]).all()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_activations_output_is_quantized_more_finely(activation: str) -> None:
    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = filled(128, 512, activation), filled(512, 128)

    def error(model: Mlp) -> float:
        difference = model.fc2(rows) - exact(rows)
        return float(difference.pow(2).mean().sqrt() / exact(rows).std())

    rows = ACTIVATIONS[activation](torch.randn(200, 512))
    exact, model = filled(512, 128), Mlp()
    for layer in (model.fc1, model.fc2):
        with_int8_weight(layer)
    use_int8_layers(model)
    assert isinstance(model.fc1, Int8Linear)
    assert isinstance(model.fc2, Int8Linear)
    informed = error(model)
    model.fc2.zero_point = model.fc1.zero_point
    assert informed < 0.85 * error(model)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("activation", "bias"), [("", True), ("gelu", True), ("silu", False)])
def test_results_are_near_those_of_the_plain_layer(
    dtype: torch.dtype, activation: str, bias: bool
) -> None:
    plain = filled(256, 192, activation, bias)
    layer = quantized(filled(256, 192, activation, bias), dtype)
    batch, residual = torch.randn(2, 5, 3, 256), torch.randn(2, 5, 3, 192)
    made = layer(batch.to(dtype), residual.to(dtype))
    assert made.shape == residual.shape
    assert made.dtype is dtype
    wanted = plain(batch, residual)
    assert (made - wanted).pow(2).mean().sqrt() < 0.015 * wanted.std()
    apart = batch.transpose(0, 1)[:, 1]  # not side by side in memory
    torch.testing.assert_close(layer(apart.to(dtype)), layer(apart.to(dtype).contiguous()))


def test_stored_numbers_are_the_ones_multiplied() -> None:
    layer = filled(64, 48)
    numbers, scales = quantize(layer.weight)
    again = filled(64, 48)
    again.weight = nn.Parameter(dequantize(numbers, scales, torch.float32), requires_grad=False)
    rows = torch.randn(20, 64)
    assert torch.equal(quantized(layer)(rows), quantized(again)(rows))


WITHOUT_VNNI = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
from tests.model.layer_weights import filled
from tests.model.quantize.int8_reference import exact_product, quantized
from blip2cli.model.quantize.int8_layers import max_exact_level
from blip2cli.model.families import OPT
from blip2cli.model.placement.dtype import place
assert max_exact_level() == 127, max_exact_level()
for inside, outside in ((512, 128), (1408, 640)):
    rows = torch.randn(64, inside)
    rows[:, ::2] = 1.0
    plain, layer = filled(inside, outside), quantized(filled(inside, outside))
    assert layer.zero_point == 64
    torch.testing.assert_close(
        layer(rows).double(), exact_product(plain, rows, 64), rtol=1e-5, atol=1e-5
    )
print(place("cpu", "float32", OPT, 1, "int8").reason)
"""


@pytest.mark.skipif(max_exact_level() != 255, reason="shown where the larger numbers are exact")
def test_without_instructions_for_it_products_stay_exact_in_seven_bits() -> None:
    # oneDNN's own products overflow there without a word.
    root = os.fspath(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_VNNI.format(root=root)],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "slower than on a CPU with VNNI" in done.stdout
