"""Reduced precisions and quantised weights, compared with float32."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.pictures import Picture
from blip2cli.doctor.precision import Agreement, compare, judge, precision
from blip2cli.errors import option
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.layers.linear import ACTIVATIONS, Linear
from blip2cli.model.loading.load import load_model
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
from tests.doctor.broken_checkpoints import under_test
from tests.doctor.conftest import Sound
from tests.model.conftest import images


def load(path: Path) -> Blip2:
    """The model with plain weights, which tests change."""
    made = Blip2.load(ModelOptions(str(path), device="cpu", dtype="float32"))
    checkpoint = inspect_checkpoint(path)
    weights = load_model(checkpoint, Placement(torch.device("cpu"), torch.float32, ""), plain=True)
    return Blip2(made.name, made.family, weights, made.codec, made.spec, "")


def rounded(model: Blip2, bits: int) -> Blip2:
    """The same model with the language model's matrices rounded to ``bits`` bits a number."""
    with torch.no_grad():
        for module in model.model.language_model.modules():
            if isinstance(module, torch.nn.Linear):
                step = module.weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
                module.weight.copy_((module.weight / step).round() * step)
    return model


def test_tiny_in_bfloat16_agrees_with_float32(opt: Sound, pictures: tuple[Picture, ...]) -> None:
    outcome = precision(under_test(opt.path, torch.bfloat16, pictures))
    assert outcome.status == "ok", outcome
    assert outcome.found.startswith("16 of 16 choices are those of float32")


def test_a_version_that_disagrees_fails(opt: Sound, pictures: tuple[Picture, ...]) -> None:
    subject = under_test(opt.path, torch.bfloat16, pictures)
    rounded(subject.model, 2)
    outcome = precision(subject)
    assert outcome.status == "fail"
    assert outcome.found.startswith("bfloat16: ")


def test_float32_needs_no_comparison(opt: Sound, pictures: tuple[Picture, ...]) -> None:
    outcome = precision(under_test(opt.path, torch.float32, pictures))
    assert outcome.status == "skipped"
    assert "float32" in outcome.found


def test_eight_bits_are_compared_with_float32(opt: Sound, pictures: tuple[Picture, ...]) -> None:
    subject = under_test(opt.path, torch.float32, pictures)
    subject.placement = replace(subject.placement, quantize="int8")
    outcome = precision(subject)
    assert outcome.status == "ok"
    # The likeliest tokens of random weights are nearly tied.
    assert re.match(
        r"1[56] of 16 choices are those of float32; scores differ by 1\.\d %", outcome.found
    )
    assert (
        judge(Agreement(1, 20, 1.0), "int8").remedy
        == f"run this model without {option('quantize')}"
    )


class Int8Linear(torch.nn.Module):
    """A linear layer with 8-bit weights and one scale a row."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.activation = ACTIVATIONS.get(linear.activation, torch.nn.Identity())
        scale = linear.weight.abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("weight", (linear.weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def sequences_per_gemm(self, length: int) -> int:
        return 0

    def forward(self, values: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        made = torch.nn.functional.linear(values, self.weight * self.scale, self.bias)
        made = self.activation(made)
        return made if added is None else made + added


def test_a_quantised_model_is_compared_although_the_rest_is_float32(
    opt: Sound, pictures: tuple[Picture, ...]
) -> None:
    subject = under_test(opt.path, torch.float32, pictures)
    for layer in subject.model.model.language_model.model.decoder.layers:
        layer.fc1, layer.fc2 = Int8Linear(layer.fc1), Int8Linear(layer.fc2)
    outcome = precision(subject)
    assert outcome.status == "ok"
    assert outcome.found.startswith("16 of 16 choices")
    assert not outcome.found.endswith(" 0 %")
    subject.model.model.language_model.model.decoder.layers[1].fc1.scale.mul_(50)
    again = under_test(opt.path, torch.float32, pictures)
    again.model = subject.model
    outcome = precision(again)
    assert outcome.status == "fail"
    assert outcome.found.startswith("quantised: ")


def test_a_model_agrees_with_itself(opt: Sound, t5: Sound, itm: Sound) -> None:
    for one, size in ((opt, 112), (t5, 32), (itm, 32)):
        model = load(one.path)
        found = compare(model, model, images(2, size))
        assert found.same == found.compared
        assert found.compared == (6 if one is itm else 16)
        assert found.error == 0


def test_the_error_grows_as_bits_get_fewer(opt: Sound) -> None:
    reference, pixels = load(opt.path), images(4, 112)
    eight = compare(rounded(load(opt.path), 8), reference, pixels)
    two = compare(rounded(load(opt.path), 2), reference, pixels)
    assert 0 < eight.error < 0.1 < two.error
    assert eight.share == 1
    assert judge(eight, "int8").status == "ok"
    assert judge(two, "int2").status == "fail"
    assert judge(two, "int2").remedy == f"run this model with {option('dtype')} float32"


@pytest.mark.parametrize(
    ("same", "error", "status"),
    [(20, 0.01, "ok"), (17, 0.1, "warn"), (10, 0.1, "fail"), (20, float("nan"), "fail")],
)
def test_the_share_of_equal_choices_decides(same: int, error: float, status: str) -> None:
    assert judge(Agreement(same, 20, error), "bfloat16").status == status


def test_without_memory_for_a_copy_the_comparison_is_skipped(
    opt: Sound, pictures: tuple[Picture, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from blip2cli.doctor import model_under_test
    from blip2cli.system.memory import Memory

    monkeypatch.setattr(model_under_test, "memory", lambda: Memory(1 << 30, 1 << 20, None))
    subject: ModelUnderTest = under_test(opt.path, torch.bfloat16, pictures)
    outcome = precision(subject)
    assert outcome.status == "skipped"
    assert outcome.found.startswith("no memory for a float32 copy beside it: ")
    monkeypatch.setattr(model_under_test, "memory", lambda: Memory(None, None, None))
    assert precision(subject).status == "ok"
