"""Weights in eight bits: how they are rounded, that they load, and what they still say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from blip2cli.convert.checkpoints.compare import logits
from blip2cli.doctor.examine import examine
from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.embedded import embedded_path
from blip2cli.model.quantize.int8_weights import dequantize, quantize
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, DoctorOptions, ModelOptions
from tests.convert.checkpoints.helpers import convert, like, loaded, state_of, tensors
from training.evaluate import held_out_scenes

SCENES = 64


def test_numbers_are_rounded_by_half_a_step_at_most() -> None:
    weight = torch.randn(50, 300, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    weight[4] *= 1000
    before = weight.clone()
    numbers, scales = quantize(weight)
    assert torch.equal(weight, before)
    assert (numbers.dtype, scales.dtype) == (torch.int8, torch.float32)
    assert scales.shape == (50, 1)
    assert numbers.abs().amax(dim=1).tolist() == [127, 127, 127, 0, *[127] * 46]
    error = (dequantize(numbers, scales, torch.float32) - weight).abs()
    assert (error <= scales * 0.5001).all()
    assert torch.equal(quantize(dequantize(numbers, scales, torch.float32))[0], numbers)


def test_a_model_in_eight_bits_computes_with_what_its_numbers_stand_for(tmp_path: Path) -> None:
    for kind in ("opt", "t5", "itm"):
        source = like(kind, tmp_path / kind)
        small = tmp_path / f"{kind}-int8"
        convert(source, small, quantize="int8", max_shard_size="20KB")  # numbers apart from scales
        stored = tensors(small)
        made = {name for name in stored if name.endswith("weight_int8")}
        assert len(made) > 10
        assert all(name.startswith(("vision_model.encoder", "language_model.")) for name in made)
        assert not any("embed" in name or "lm_head" in name for name in made)
        config = json.loads((small / "config.json").read_text())
        assert config["quantization_config"] == {"quant_method": "blip2cli-int8"}
        convert(small, tmp_path / f"{kind}-exact")
        exact = tensors(tmp_path / f"{kind}-exact")
        before = tensors(source)
        assert exact.keys() == before.keys()
        rounded = {name for name in before if not torch.equal(before[name], exact[name])}
        assert rounded <= {name.replace("weight_int8", "weight") for name in made}
        assert len(rounded) > 10
        assert torch.equal(logits(str(small)), logits(str(tmp_path / f"{kind}-exact")))
        assert (logits(str(small)) - logits(str(source))).abs().max() < 0.5
        loaded(tmp_path / f"{kind}-exact")  # plain transformers reads it again
        config = json.loads((tmp_path / f"{kind}-exact" / "config.json").read_text())
        assert "quantization_config" not in config


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "tiny"
    convert("tiny", out, quantize="int8")
    return out


def captions(model: str | Path) -> list[str]:
    loaded = Blip2.load(ModelOptions(str(model), device="cpu", dtype="float32"))
    scenes = held_out_scenes(SCENES, seed=77)
    pixels = torch.from_numpy(np.stack([picture for picture, _ in scenes]))
    if pixels.shape[-1] == 3:
        pixels = pixels.permute(0, 3, 1, 2)
    features = loaded.features(pixels.contiguous())
    prompts = [Prompt(number, None, str(number)) for number in range(SCENES)]
    made = loaded.generate(features, prompts, DecodeOptions())
    return [text.text for (text,) in made]


def test_tiny_says_the_same_in_eight_bits(int8: Path) -> None:
    before, after = captions("tiny"), captions(int8)
    assert len(set(before)) > SCENES // 2
    same = sum(one == two for one, two in zip(before, after, strict=True))
    assert same >= 0.95 * SCENES, f"{same} of {SCENES} captions"
    weights = [sum(w.nbytes for w in tensors(d).values()) for d in (embedded_path("tiny"), int8)]
    assert weights[1] < 0.8 * weights[0]


def test_the_doctor_finds_nothing_in_it(int8: Path) -> None:
    assert examine(DoctorOptions(str(int8))).failures == ()


def test_the_way_to_lavis_is_open(int8: Path, tmp_path: Path) -> None:
    convert(int8, tmp_path / "t.pth")
    name = "visual_encoder.blocks.0.mlp.fc1.weight"
    weight = tensors(embedded_path("tiny"))["vision_model.encoder.layers.0.mlp.fc1.weight"].float()
    assert 0 < (state_of(tmp_path / "t.pth")[name] - weight).abs().max() < 0.01


def test_transformers_does_not_take_it_for_a_plain_model(int8: Path) -> None:
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        loaded(int8)


def test_numbers_without_scales_are_refused(int8: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in int8.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = tensors(int8)
    name = next(name for name in weights if name.endswith("weight_scale"))
    del weights[name]
    save_file(weights, broken / "model.int8.safetensors")
    for read in (lambda: Blip2.load(ModelOptions(str(broken))), lambda: convert(broken, "out")):
        with pytest.raises(ModelError, match=r"language_model.* without its weight_scale"):
            read()
