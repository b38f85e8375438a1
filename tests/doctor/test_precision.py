"""How much a precision, or a quantisation, changes what a model says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from blip2cli.doctor.model_under_test import Patient, Picture
from blip2cli.doctor.precision import Agreement, compare, judge, precision
from blip2cli.model.checkpoint.directory import inspect_checkpoint
from blip2cli.model.layers.linear import ACTIVATIONS, Linear
from blip2cli.model.loading.load import load_model
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
from tests.doctor.breaking import patient
from tests.doctor.conftest import Sound
from tests.model.conftest import images


def load(path: Path) -> Blip2:
    """With weights that can be reached."""
    made = Blip2.load(ModelOptions(str(path), device="cpu", dtype="float32"))
    checkpoint = inspect_checkpoint(path)
    weights = load_model(checkpoint, Placement(torch.device("cpu"), torch.float32, ""), plain=True)
    return Blip2(made.name, made.family, weights, made.codec, made.spec, "")


def rounded(model: Blip2, bits: int) -> Blip2:
    """The same model with the language model's matrices rounded to so many bits a number."""
    with torch.no_grad():
        for module in model.model.language_model.modules():
            if isinstance(module, torch.nn.Linear):
                step = module.weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
                module.weight.copy_((module.weight / step).round() * step)
    return model


def test_bfloat16_of_tiny_says_what_float32_says(opt: Sound, pictures: tuple[Picture, ...]) -> None:
    said = precision(patient(opt.path, torch.bfloat16, pictures))
    assert said.status == "ok", said
    assert said.found.startswith("16 of 16 choices are those of float32")


def test_a_version_that_says_something_else_fails(
    opt: Sound, pictures: tuple[Picture, ...]
) -> None:
    seen = patient(opt.path, torch.bfloat16, pictures)
    rounded(seen.model, 2)
    said = precision(seen)
    assert said.status == "fail"
    assert said.found.startswith("bfloat16: ")


def test_float32_needs_no_comparison(opt: Sound, pictures: tuple[Picture, ...]) -> None:
    said = precision(patient(opt.path, torch.float32, pictures))
    assert said.status == "skipped"
    assert "float32" in said.found


def test_a_run_in_eight_bits_is_compared_with_float32(
    opt: Sound, pictures: tuple[Picture, ...]
) -> None:
    seen = patient(opt.path, torch.float32, pictures)
    seen.placement = replace(seen.placement, quantize="int8")
    said = precision(seen)
    assert said.status == "ok"
    # Of random weights, whose likeliest words are close to one another.
    assert re.match(
        r"1[56] of 16 choices are those of float32; scores differ by 1\.\d %", said.found
    )
    assert judge(Agreement(1, 20, 1.0), "int8").mend == "run this model without --quantize."


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
    seen = patient(opt.path, torch.float32, pictures)
    for layer in seen.model.model.language_model.model.decoder.layers:
        layer.fc1, layer.fc2 = Int8Linear(layer.fc1), Int8Linear(layer.fc2)
    said = precision(seen)
    assert said.status == "ok"
    assert said.found.startswith("16 of 16 choices")
    assert not said.found.endswith(" 0 %")
    seen.model.model.language_model.model.decoder.layers[1].fc1.scale.mul_(50)
    again = patient(opt.path, torch.float32, pictures)
    again.model = seen.model
    said = precision(again)
    assert said.status == "fail"
    assert said.found.startswith("quantised: ")


def test_a_model_agrees_with_itself(opt: Sound, t5: Sound, itm: Sound) -> None:
    for one, size in ((opt, 112), (t5, 32), (itm, 32)):
        model = load(one.path)
        found = compare(model, model, images(2, size))
        assert found.same == found.asked
        assert found.asked == (6 if one is itm else 16)
        assert found.error == 0


def test_the_error_grows_as_bits_get_fewer(opt: Sound) -> None:
    reference, pixels = load(opt.path), images(4, 112)
    eight = compare(rounded(load(opt.path), 8), reference, pixels)
    two = compare(rounded(load(opt.path), 2), reference, pixels)
    assert 0 < eight.error < 0.1 < two.error
    assert eight.share == 1
    assert judge(eight, "int8").status == "ok"
    assert judge(two, "int2").status == "fail"
    assert judge(two, "int2").mend == "run this model with --dtype float32."


@pytest.mark.parametrize(
    ("same", "error", "status"),
    [(20, 0.01, "ok"), (17, 0.1, "warn"), (10, 0.1, "fail"), (20, float("nan"), "fail")],
)
def test_shares_have_a_verdict(same: int, error: float, status: str) -> None:
    assert judge(Agreement(same, 20, error), "bfloat16").status == status


def test_without_room_for_a_copy_the_comparison_is_skipped(
    opt: Sound, pictures: tuple[Picture, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from blip2cli.doctor import model_under_test as room
    from blip2cli.system.memory import Memory

    monkeypatch.setattr(room, "memory", lambda: Memory(1 << 30, 1 << 20, None))
    seen: Patient = patient(opt.path, torch.bfloat16, pictures)
    said = precision(seen)
    assert said.status == "skipped"
    assert said.found.startswith("no room for a float32 copy beside it: ")
    monkeypatch.setattr(room, "memory", lambda: Memory(None, None, None))
    assert precision(seen).status == "ok"
