"""Eight-bit layers for CUDA, on a CPU by the same products: whole sums are exact, rows are rounded
by themselves, and results are near full precision. What CUDA demands of shapes is demanded here."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from blip2cli.errors import OptionError
from blip2cli.model.families import OPT
from blip2cli.model.layers.linear import ACTIVATIONS, Linear
from blip2cli.model.placement.dtype import place
from blip2cli.model.quantize import cuda_layers, library_layers
from blip2cli.model.quantize.cuda_layers import (
    FP8,
    CudaFp8Linear,
    CudaInt8Linear,
    has_sizes,
    multiplies_exactly,
    round_as_in_decode_steps,
    round_to_fp8,
    use_cuda_layers,
)
from blip2cli.model.quantize.int8_layers import _product, max_exact_level
from blip2cli.model.quantize.int8_weights import dequantize, quantize
from tests.model.layer_weights import filled
from tests.model.quantize.int8_reference import quantized, with_int8_weight

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
int_mm, scaled_mm = torch._int_mm, torch._scaled_mm


def is_row_major(matrix: Tensor) -> bool:
    return matrix.stride(1) == 1 and matrix.stride(0) >= matrix.shape[1]


@pytest.fixture(autouse=True)
def demands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of products; their shapes and layouts are those that CUDA takes
    (aten/src/ATen/native/cuda/Blas.cpp and ScaledBlas.cpp of torch)."""
    made: list[str] = []

    def whole(rows: Tensor, weight: Tensor) -> Tensor:
        assert rows.dtype is weight.dtype is torch.int8
        assert rows.shape[0] > 16
        assert rows.shape[1] % 8 == weight.shape[1] % 8 == 0
        assert is_row_major(rows)
        assert is_row_major(weight.t())
        made.append("int8")
        return int_mm(rows, weight)

    def scaled(rows: Tensor, weight: Tensor, *scales: Tensor, **more: Any) -> Tensor:
        assert rows.dtype is weight.dtype is FP8
        assert [scale.shape for scale in scales] == [(len(rows), 1), (1, weight.shape[1])]
        assert all(scale.dtype is torch.float32 and scale.is_contiguous() for scale in scales)
        assert rows.shape[1] % 16 == weight.shape[1] % 16 == 0
        assert is_row_major(rows)
        assert is_row_major(weight.t())
        assert more["out_dtype"] is torch.bfloat16
        assert more["bias"] is None or more["bias"].dtype is torch.bfloat16
        made.append("fp8")
        return scaled_mm(rows, weight, *scales, **more)

    monkeypatch.setattr(torch, "_int_mm", whole)
    monkeypatch.setattr(torch, "_scaled_mm", scaled)
    return made


def in_int8(plain: Linear, one_sided: bool = False) -> CudaInt8Linear:
    dtype = plain.weight.dtype
    return CudaInt8Linear(with_int8_weight(plain, dtype), one_sided)


def in_fp8(plain: Linear) -> CudaFp8Linear:
    numbers, plain.scales = round_to_fp8(plain.weight)
    plain.weight = nn.Parameter(numbers, requires_grad=False)
    return CudaFp8Linear(plain)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize(("inside", "outside"), [(32, 128), (96, 336), (1408, 640)])
def test_sums_are_those_of_the_whole_numbers(inside: int, outside: int, one_sided: bool) -> None:
    plain, layer = filled(inside, outside), in_int8(filled(inside, outside), one_sided)
    rows = torch.randn(40, inside)
    rows = rows.relu() if one_sided else rows
    numbers, scales = quantize(plain.weight)
    states, largest = layer.round_rows(rows)
    assert states.dtype is torch.int8
    assert torch.equal(largest[:, 0], rows.abs().amax(1))
    whole = states.long() + 128 * one_sided
    # Every number is the nearest one, and the largest takes the whole range.
    step = largest.double() / layer.levels
    assert ((whole * step - rows.double()).abs() <= 0.501 * step).all()
    assert (whole.abs().amax(1) == layer.levels).all()
    sums = whole @ numbers.long().T
    exact = sums * scales.T.double() * step + plain.bias.double()
    torch.testing.assert_close(layer(rows).double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(max_exact_level() != 255, reason="no such products here")
def test_scales_and_sums_are_those_of_the_cpus_layers() -> None:
    layer, cpu = in_int8(filled(1408, 640)), quantized(filled(1408, 640))
    assert torch.equal(layer.weight_scales[0], cpu.weight_scales)
    numbers, _ = layer.round_rows(torch.randn(64, 1408))
    ones, zeros = torch.ones(640), torch.zeros(640, dtype=torch.int32)
    above = (numbers.int() + 128).to(torch.uint8)
    theirs = _product(above, 128, cpu.packed, ones, zeros, torch.float32)
    ours = torch._int_mm(numbers, layer.numbers.t())
    assert ours.abs().max() < 1 << 24  # whole numbers in float32
    assert torch.equal(ours, theirs.int())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_is_the_same_at_every_row_count(dtype: torch.dtype, demands: list[str]) -> None:
    layer = in_int8(filled(96, 336, "relu").to(dtype))
    rows, residual = torch.randn(70, 96).to(dtype), torch.randn(70, 336).to(dtype)
    whole, added = layer(rows), layer(rows, residual)
    assert whole.dtype is dtype
    for count in (1, 2, 8, 16, 17, 31, 32, 33, 64):
        assert torch.equal(layer(rows[:count]), whole[:count]), count
        assert torch.equal(layer(rows[-count:], residual[-count:]), added[-count:]), count
    assert torch.equal(layer(rows[:, None])[:, 0], whole)
    assert layer(rows[:0]).shape == (0, 336)
    assert set(demands) == {"int8"}


@pytest.mark.parametrize("one_sided", [False, True])
def test_rows_that_are_zero_or_infinite_stay_by_themselves(one_sided: bool) -> None:
    layer = in_int8(filled(64, 48), one_sided)
    rows = torch.randn(5, 64).abs()
    whole = layer(rows)
    rows[1], rows[2], rows[3] = 0, torch.inf, 1e-42
    again = layer(rows)
    assert torch.equal(again[[0, 4]], whole[[0, 4]])
    assert torch.equal(again[1], layer.bias)
    assert not again[2].isfinite().any()
    torch.testing.assert_close(again[3], layer.bias)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_over_many_positions_the_weight_is_dequantized(
    dtype: torch.dtype, bias: bool, demands: list[str]
) -> None:
    plain = filled(96, 336, "gelu", bias).to(dtype)
    states, residual = torch.randn(3, 5, 96).to(dtype), torch.randn(3, 5, 336).to(dtype)
    weight = dequantize(*quantize(plain.weight), dtype)
    product = functional.linear(states, weight, plain.bias)
    wanted = functional.gelu(product) + residual
    assert torch.equal(in_int8(plain)(states, residual), wanted)
    assert demands == []  # states are not rounded


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("activation", "bias"), [("", True), ("gelu", True), ("silu", False)])
def test_int8_is_near_the_plain_layer(dtype: torch.dtype, activation: str, bias: bool) -> None:
    plain = filled(256, 192, activation, bias)
    layer = in_int8(filled(256, 192, activation, bias).to(dtype))
    batch, residual = torch.randn(30, 1, 256), torch.randn(30, 1, 192)
    made, wanted = layer(batch.to(dtype), residual.to(dtype)), plain(batch, residual)
    assert (made.shape, made.dtype) == (residual.shape, dtype)
    assert (made - wanted).pow(2).mean().sqrt() < 0.015 * wanted.std()


def test_what_follows_relu_is_rounded_more_finely() -> None:
    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = filled(128, 512, "relu"), filled(512, 128)

    rows = torch.randn(200, 512).relu()
    wanted, model = filled(512, 128)(rows), Mlp()
    for layer in (model.fc1, model.fc2):
        with_int8_weight(layer)
    plain = CudaInt8Linear(model.fc2)(rows)
    use_cuda_layers(model, "int8")
    fc1, fc2 = (each for each in (model.fc1, model.fc2) if isinstance(each, CudaInt8Linear))
    assert (fc1.levels, fc2.levels) == (127, 255)
    assert (fc2(rows) - wanted).std() < 0.85 * (plain - wanted).std()


def test_layers_without_scales_stay(demands: list[str]) -> None:
    model = nn.Sequential(filled(32, 32), with_int8_weight(filled(32, 32)))
    use_cuda_layers(model, "int8")
    assert [type(layer) for layer in model] == [Linear, CudaInt8Linear]
    assert model[1].weight is None
    assert model[1].numbers.nbytes == 32 * 32


def test_sizes_that_no_product_takes_are_left_out() -> None:
    assert has_sizes((48, 1408))
    assert not has_sizes((48, 1400))
    assert not has_sizes((40, 1408))


def has_scales_of_rows() -> bool:
    scales = torch.ones(32, 1)
    rows = torch.ones(32, 32).to(FP8)
    try:
        scaled_mm(rows, rows.t(), scales, scales.t(), out_dtype=torch.bfloat16)
    except RuntimeError:
        return False
    return True


with_fp8 = pytest.mark.skipif(
    not has_scales_of_rows(), reason="this torch scales no rows of FP8 on a CPU"
)


@with_fp8
@pytest.mark.parametrize(("activation", "bias"), [("", True), ("gelu", True), ("silu", False)])
def test_fp8_computes_with_what_its_numbers_stand_for(
    activation: str, bias: bool, demands: list[str]
) -> None:
    plain = filled(256, 192, activation, bias).bfloat16()
    batch, residual = torch.randn(3, 7, 256).bfloat16(), torch.randn(3, 7, 192).bfloat16()
    numbers, scales = round_to_fp8(plain.weight)
    weight = numbers.double() * scales.double()
    largest = batch.double().abs().amax(-1, keepdim=True)
    states = (batch.double() / largest * 448).to(FP8).double() * largest / 448
    exact = functional.linear(states, weight, plain.bias.double() if bias else None)
    if activation:
        exact = ACTIVATIONS[activation](exact)
    made = in_fp8(plain)(batch, residual).double()
    torch.testing.assert_close(made, exact + residual.double(), rtol=0.02, atol=0.02)
    wanted = filled(256, 192, activation, bias)(batch.float(), residual.float())
    apart = (made - wanted).pow(2).mean().sqrt()
    assert 0.005 * wanted.std() < apart < 0.05 * wanted.std()
    assert demands == ["fp8"]


@with_fp8
def test_rows_of_fp8_are_rounded_by_themselves() -> None:
    layer = in_fp8(filled(64, 48).bfloat16())
    rows = torch.randn(40, 64).bfloat16()
    whole = layer(rows)
    rows[1], rows[2] = 0, torch.inf
    again = layer(rows)
    assert torch.equal(again[3:], whole[3:])
    assert torch.equal(again[1], layer.bias)
    assert not again[2].isfinite().any()
    assert torch.equal(layer(rows[3:4]), whole[3:4])


def test_the_largest_numbers_of_fp8_stay_finite() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4096, 32, generator=generator)
    numbers, scales = round_to_fp8(weight)
    assert numbers.float().abs().amax(1).eq(448).all()
    apart = (numbers.float() * scales - weight).abs() / weight.abs().clamp(min=1e-2)
    assert apart.max() < 2**-4 + 1e-6  # three bits behind the point, halved by rounding


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_devices_are_tried(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "int8" or has_scales_of_rows():
        assert multiplies_exactly(name, CPU)
    product = "_int_mm" if name == "int8" else "_scaled_mm"
    for error, found in (
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLtMatmul"),
            False,
        ),
        (NotImplementedError("Could not run 'aten::_scaled_mm'"), False),
        (AssertionError("Torch not compiled with CUDA enabled"), False),
        (torch.OutOfMemoryError("CUDA out of memory."), True),  # loading says that
    ):

        def fails(*_: Any, error: Exception = error, **__: Any) -> Tensor:
            raise error

        monkeypatch.setattr(torch, product, fails)
        assert multiplies_exactly(name, CPU) is found
    monkeypatch.setattr(torch, product, lambda *_, **__: torch.full((64, 64), math.nan))
    assert not multiplies_exactly(name, CPU)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The schemes that a pretended GPU multiplies in; packages that are installed."""
    there: set[str] = set()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(cuda_layers, "multiplies_exactly", lambda name, device: name in there)
    monkeypatch.setattr(library_layers, "find_spec", lambda name: name in there or None)
    return there


def test_ours_come_first_and_packages_where_they_are_asked_for(gpu: set[str]) -> None:
    gpu |= {"int8", "bitsandbytes", "torchao"}
    placed = place("cuda", "bfloat16", OPT, 1, "int8")
    assert placed.quantizer is None
    assert ", linear layers in int8 (the GPU has instructions for them)" in placed.reason
    placed = place("cuda", "bfloat16", OPT, 1, "int8-torchao")
    assert placed.quantizer is not None
    assert placed.quantizer.package == "torchao"
    gpu.remove("int8")  # Volta
    placed = place("cuda", "bfloat16", OPT, 1, "int8")
    assert placed.quantizer is not None
    assert ", linear layers in int8 (by bitsandbytes)" in placed.reason
    gpu -= {"bitsandbytes", "torchao"}
    with pytest.raises(OptionError, match="multiplies no such numbers itself needs the package"):
        place("cuda", "bfloat16", OPT, 1, "int8")


def test_fp8_is_for_gpus_that_have_it(gpu: set[str]) -> None:
    with pytest.raises(OptionError, match=r"compute capability 8\.9 on.* use quantize int8"):
        place("cuda", "bfloat16", OPT, 1, "fp8")
    gpu.add("fp8")
    assert place("cuda", "bfloat16", OPT, 1, "fp8").quantizer is None
    with pytest.raises(OptionError, match="computes in bfloat16; use dtype bfloat16"):
        place("cuda", "float16", OPT, 1, "fp8")
    for name in ("fp8", "int8-bitsandbytes"):
        with pytest.raises(OptionError, match=f"quantize {name} is for GPUs; use quantize int8"):
            place("cpu", "float32", OPT, 1, name)  # type: ignore[arg-type]


def test_a_forward_pass_can_round_as_decode_steps_do(demands: list[str]) -> None:
    layer, states = in_int8(filled(64, 48)), torch.randn(3, 7, 64)
    exact = layer(states)
    round_as_in_decode_steps(nn.Sequential(layer, filled(8, 8)))
    assert torch.equal(layer(states).flatten(0, 1), layer(states.flatten(0, 1)))
    assert not torch.equal(layer(states), exact)
    assert set(demands) == {"int8"}
