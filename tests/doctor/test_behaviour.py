"""A model that overflows, ignores the picture or disagrees with transformers is found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from blip2cli.doctor import behaviour
from blip2cli.doctor.checks import CHECKS
from blip2cli.doctor.examine import run_checks
from blip2cli.doctor.model_under_test import Patient, Picture
from tests.doctor.breaking import Break, both, broken, fails_alone, look, patient, weights
from tests.doctor.conftest import Sound


def scaled(name: str, factor: float, only: str) -> Break:
    """All weights whose names end with ``name`` and hold ``only``, times ``factor``."""

    def change(held: dict[str, Tensor]) -> None:
        hits = [key for key in held if key.endswith(name) and only in key]
        assert hits
        for key in hits:
            held[key] = held[key].float() * factor

    return weights(change)


def test_feed_forward_sums_of_t5_that_overflow_are_found_where_they_do(
    t5: Sound, tmp_path: Path
) -> None:
    huge = scaled("wo.weight", 1e38, "encoder")
    found = look(broken(t5.path, tmp_path, huge))
    where = "language_model.encoder.block.0.layer.1.DenseReluDense.wo gives inf in float32"
    fails_alone(t5.findings, found, "activations", where, "earlier checkpoint")


def test_sums_that_only_their_squares_overflow_are_found(t5: Sound, tmp_path: Path) -> None:
    # T5's layer norm makes zeros of these, without any NaN.
    large = scaled("wo.weight", 1e22, "encoder")
    found = look(broken(t5.path, tmp_path, large))
    fails_alone(t5.findings, found, "activations", "DenseReluDense.wo", "next layer norm")


def test_what_overflows_in_float16_only_is_found_in_float16_only(
    opt: Sound, tmp_path: Path, pictures: tuple[Picture, ...]
) -> None:
    layer = "language_model.model.decoder.layers.1."
    large = both(scaled("fc1.weight", 200, layer), scaled("fc2.weight", 200, layer))
    directory = broken(opt.path, tmp_path, large)
    exact = behaviour.activations(patient(directory, torch.float32, pictures))
    assert exact.status == "ok"
    assert "would not fit float16" in exact.found
    half = behaviour.activations(patient(directory, torch.float16, pictures))
    assert half.status == "fail"
    assert half.found.startswith("language_model.model.decoder.layers.1.fc2 gives inf in float16")
    assert "--dtype bfloat16 or float32" in (half.mend or "")
    assert behaviour.activations(patient(opt.path, torch.float16, pictures)).status == "ok"


@pytest.mark.parametrize(
    ("names", "where"),
    [
        (("language_projection.weight",), "behind the language projection all are alike"),
        (("query_tokens", "crossattention.attention.value.weight"), "behind the Q-Former"),
        (("post_layernorm.weight",), "behind the vision encoder"),
    ],
)
def test_a_model_that_ignores_the_picture_is_found_with_the_place(
    opt: Sound, tmp_path: Path, names: tuple[str, ...], where: str
) -> None:
    def zero(held: dict[str, Tensor]) -> None:
        hits = [key for key in held if key.endswith(names)]
        assert hits
        for key in hits:
            held[key].zero_()

    found = look(broken(opt.path, tmp_path, weights(zero)))
    fails_alone(opt.findings, found, "image-used", where, "look at the weights of")


def test_a_language_model_that_does_not_listen_is_found(opt: Sound, tmp_path: Path) -> None:
    def deafen(held: dict[str, Tensor]) -> None:
        for key in held:  # no attention: only the last token itself is read
            if "decoder.layers" in key and "self_attn.out_proj.weight" in key:
                held[key].zero_()

    found = look(broken(opt.path, tmp_path, weights(deafen)))
    fails_alone(opt.findings, found, "image-used", "although the language model is told them apart")


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_a_model_that_computes_otherwise_than_transformers_is_found(
    family: str, request: pytest.FixtureRequest, pictures: tuple[Picture, ...]
) -> None:
    path = request.getfixturevalue(family).path
    seen = patient(path, torch.float32, pictures)
    assert behaviour.transformers_agrees(seen).status == "ok"
    odd = patient(path, torch.float32, pictures)
    with torch.no_grad():  # ours alone: the reference is a copy of its own
        odd.model.model.language_projection.weight.mul_(1.3)
    said = behaviour.transformers_agrees(odd)
    assert said.status == "fail"
    assert said.mend


def test_pixels_made_otherwise_than_transformers_makes_them_are_found(
    opt: Sound, pictures: tuple[Picture, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = patient(opt.path, torch.float32, pictures)
    real = Patient.their_pixels
    monkeypatch.setattr(Patient, "their_pixels", lambda self: real(self).flip(-1))
    found = {f.check: f for f in run_checks(seen, CHECKS[:1] + _check("transformers"))}
    assert found["transformers"].status == "fail"


def _check(name: str) -> tuple:  # type: ignore[type-arg]
    return tuple(c for c in CHECKS if c.name == name and "opt" in c.families)
