"""Models that overflow, ignore the picture or disagree with transformers are found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from blip2cli.doctor import behaviour
from blip2cli.doctor.checks import CHECKS
from blip2cli.doctor.examine import run_checks
from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.pictures import Picture
from blip2cli.model.families import OPT
from tests.doctor.broken_checkpoints import (
    Break,
    both,
    broken,
    findings_on,
    only_fails,
    under_test,
    weights,
)
from tests.doctor.conftest import Sound


def scaled(name: str, factor: float, only: str) -> Break:
    """All weights whose names end with ``name`` and hold ``only``, times ``factor``."""

    def change(held: dict[str, Tensor]) -> None:
        hits = [key for key in held if key.endswith(name) and only in key]
        assert hits
        for key in hits:
            held[key] = held[key].float() * factor

    return weights(change)


def test_an_overflow_in_a_feed_forward_layer_of_t5_is_found_with_its_module(
    t5: Sound, tmp_path: Path
) -> None:
    huge = scaled("wo.weight", 1e38, "encoder")
    found = findings_on(broken(t5.path, tmp_path, huge))
    where = "language_model.encoder.block.0.layer.1.DenseReluDense.wo gives inf in float32"
    only_fails(t5.findings, found, "activations", where, "earlier checkpoint")


def test_activations_whose_squares_overflow_are_found(t5: Sound, tmp_path: Path) -> None:
    # T5's layer norm makes zeros of these, without any NaN.
    large = scaled("wo.weight", 1e22, "encoder")
    found = findings_on(broken(t5.path, tmp_path, large))
    only_fails(t5.findings, found, "activations", "DenseReluDense.wo", "next layer norm")


def test_an_overflow_of_float16_is_found_in_float16_only(
    opt: Sound, tmp_path: Path, pictures: tuple[Picture, ...]
) -> None:
    layer = "language_model.model.decoder.layers.1."
    large = both(scaled("fc1.weight", 200, layer), scaled("fc2.weight", 200, layer))
    directory = broken(opt.path, tmp_path, large)
    exact = behaviour.activations(under_test(directory, torch.float32, pictures))
    assert exact.status == "ok"
    assert "would not fit float16" in exact.found
    half = behaviour.activations(under_test(directory, torch.float16, pictures))
    assert half.status == "fail"
    assert half.found.startswith("language_model.model.decoder.layers.1.fc2 gives inf in float16")
    assert "bfloat16 or float32" in (half.remedy or "")
    assert behaviour.activations(under_test(opt.path, torch.float16, pictures)).status == "ok"


@pytest.mark.parametrize(
    ("names", "where"),
    [
        (("language_projection.weight",), "behind the language projection all are alike"),
        (("query_tokens", "crossattention.attention.value.weight"), "behind the Q-Former"),
        (("post_layernorm.weight",), "behind the vision encoder"),
    ],
)
def test_a_model_that_ignores_the_picture_is_found_with_the_stage(
    opt: Sound, tmp_path: Path, names: tuple[str, ...], where: str
) -> None:
    def zero(held: dict[str, Tensor]) -> None:
        hits = [key for key in held if key.endswith(names)]
        assert hits
        for key in hits:
            held[key].zero_()

    found = findings_on(broken(opt.path, tmp_path, weights(zero)))
    only_fails(opt.findings, found, "image-used", where, "look at the weights of")


def test_a_language_model_that_ignores_its_inputs_is_found(opt: Sound, tmp_path: Path) -> None:
    def cut_attention(held: dict[str, Tensor]) -> None:
        for key in held:  # no attention: only the last token itself is read
            if "decoder.layers" in key and "self_attn.out_proj.weight" in key:
                held[key].zero_()

    found = findings_on(broken(opt.path, tmp_path, weights(cut_attention)))
    only_fails(opt.findings, found, "image-used", "although the language model's inputs differ")


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_a_model_that_differs_from_transformers_is_found(
    family: str, request: pytest.FixtureRequest, pictures: tuple[Picture, ...]
) -> None:
    path = request.getfixturevalue(family).path
    subject = under_test(path, torch.float32, pictures)
    assert behaviour.transformers_agrees(subject).status == "ok"
    odd = under_test(path, torch.float32, pictures)
    with torch.no_grad():  # only ours: the reference is a copy
        odd.model.model.language_projection.weight.mul_(1.3)
    outcome = behaviour.transformers_agrees(odd)
    assert outcome.status == "fail"
    assert outcome.remedy


def test_pixels_that_differ_from_transformers_are_found(
    opt: Sound, pictures: tuple[Picture, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = under_test(opt.path, torch.float32, pictures)
    real = ModelUnderTest.reference_pixels
    monkeypatch.setattr(ModelUnderTest, "reference_pixels", lambda self: real(self).flip(-1))
    found = {f.check: f for f in run_checks(subject, CHECKS[:1] + _check("transformers"))}
    assert found["transformers"].status == "fail"


def _check(name: str) -> tuple:  # type: ignore[type-arg]
    return tuple(c for c in CHECKS if c.name == name and OPT in c.families)
