"""Models run in int8: what they hold, what they generate, and which placements are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from blip2cli.errors import ModelError, OptionError
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.families import OPT
from blip2cli.model.layers.linear import Linear
from blip2cli.model.layers.packed_linear import PackedLinear, can_pack
from blip2cli.model.loading.load import load_model
from blip2cli.model.placement.dtype import Placement, place
from blip2cli.model.quantize.int8_layers import Int8Linear, max_exact_level
from blip2cli.model.quantize.int8_weights import is_quantized_layer
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2, Generated
from blip2cli.options import DecodeOptions, ModelOptions, Quantize
from tests.checkpoints import tiny_random_itm
from tests.convert.checkpoints.helpers import convert
from tests.model.conftest import images
from training.evaluate import held_out_scenes

pytestmark = pytest.mark.skipif(
    max_exact_level() == 0, reason="this torch has no such products here"
)
CPU = torch.device("cpu")
SCENES = 96


def load(model: str | Path, quantize: Quantize | None = "int8", dtype: str = "float32") -> Blip2:
    return Blip2.load(
        ModelOptions(str(model), device="cpu", dtype=dtype, quantize=quantize)  # type: ignore[arg-type]
    )


def read(model: Blip2, pixels: torch.Tensor) -> list[Generated]:
    features = model.features(pixels)
    prompts = [Prompt(number, None, str(number)) for number in range(len(pixels))]
    return [text for (text,) in model.generate(features, prompts, DecodeOptions(max_new_tokens=20))]


@pytest.fixture(scope="module")
def itm_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_random_itm(tmp_path_factory.mktemp("int8") / "itm")


@pytest.fixture(params=["opt", "t5", "itm"])
def directory(
    request: pytest.FixtureRequest, opt_directory: Path, t5_directory: Path, itm_directory: Path
) -> Path:
    found: Path = {"opt": opt_directory, "t5": t5_directory, "itm": itm_directory}[request.param]
    return found


def test_exactly_the_layers_that_are_meant_are_in_eight_bits(directory: Path) -> None:
    model = load(directory).model
    whole = load_model(inspect_checkpoint(directory), Placement(CPU, torch.float32, ""), plain=True)
    wanted = {
        name: module.weight.numel()
        for name, module in whole.named_modules()
        if isinstance(module, Linear) and is_quantized_layer(name)
    }
    assert len(wanted) > 5
    layers = [module for module in model.modules() if isinstance(module, Int8Linear)]
    assert sum(layer.in_features * layer.out_features for layer in layers) == sum(wanted.values())
    for layer in layers:
        # The numbers are there once, in one byte each, and no weight of another precision.
        assert layer.weight is None
        assert layer.scales is None
        assert layer.packed.dtype is torch.int8
        assert layer.packed.nbytes == layer.in_features * layer.out_features
    rest = [module for module in model.qformer.modules() if isinstance(module, Linear)]
    assert rest
    assert all(type(module) is PackedLinear for module in rest)


@pytest.mark.skipif(not can_pack(CPU, torch.bfloat16), reason="oneDNN has no bfloat16 here")
@pytest.mark.parametrize("amx", [True, False])
def test_bfloat16_on_amx_leaves_the_vision_encoder_as_it_is(
    opt_directory: Path, amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    for dtype in ("bfloat16", "float32"):
        loaded = load(opt_directory, dtype=dtype)
        kinds = {
            name.partition(".")[0]: type(module)
            for name, module in loaded.model.named_modules()
            if name.endswith(".fc1")
        }
        stays = amx and dtype == "bfloat16"
        assert kinds["vision_model"] is (PackedLinear if stays else Int8Linear)
        assert kinds["language_model"] is Int8Linear
        reason = place("cpu", dtype, OPT, 1, "int8").reason  # type: ignore[arg-type]
        assert ("but the vision encoder's" in reason) is stays


def test_stored_and_rounded_numbers_give_the_same(directory: Path, tmp_path: Path) -> None:
    # A checkpoint stored in eight bits brings the numbers that a plain one is rounded to.
    small = tmp_path / "int8"
    convert(directory, small, quantize="int8", max_shard_size="20KB")  # numbers apart from scales
    pixels = images(4)
    one, other = load(directory), load(small)
    assert torch.equal(one.features(pixels).query_output, other.features(pixels).query_output)
    exact = load(directory, None).features(pixels).query_output
    assert not torch.equal(one.features(pixels).query_output, exact)
    if one.writes:
        assert read(one, pixels) == read(other, pixels)


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize(("family", "dtype"), [("opt", "float32"), ("t5", "bfloat16")])
def test_texts_do_not_depend_on_the_batch(
    request: pytest.FixtureRequest, family: str, dtype: str, threads: int
) -> None:
    model = load(request.getfixturevalue(f"{family}_directory"), dtype=dtype)
    pixels = images(8)
    whole = read(model, pixels)
    assert len({text.tokens for text in whole}) > 4
    for size in (1, 3):
        found = [text for part in pixels.split(size) for text in read(model, part)]
        assert found == whole, size


@pytest.mark.parametrize(("name", "dtype"), [("tiny", "float32"), ("tiny-t5", "bfloat16")])
def test_embedded_models_say_the_same(name: str, dtype: str) -> None:
    scenes = held_out_scenes(SCENES, seed=78)
    pixels = torch.from_numpy(np.stack([picture for picture, _ in scenes]))
    pixels = pixels.permute(0, 3, 1, 2).contiguous()
    exact, rounded = read(load(name, None), pixels), read(load(name, dtype=dtype), pixels)
    assert len({text.text for text in exact}) > SCENES // 2
    same = sum(one.text == two.text for one, two in zip(exact, rounded, strict=True))
    assert same >= 0.96 * SCENES, f"{same} of {SCENES} captions"
    assert [one.logprob for one in exact] != [two.logprob for two in rounded]


def test_the_reason_names_it() -> None:
    placement = place("cpu", "float32", OPT, 1, "int8")
    assert placement.quantize == "int8"
    assert ", linear layers in int8 (" in placement.reason
    assert "int8" not in place("cpu", "float32", OPT, 1).reason


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="int2 is not supported; use one of int8, fp8, int4, "):
        place("cpu", "float32", OPT, 1, "int2")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"quantize int4 is for GPUs: .* use quantize int8"):
        place("cpu", "float32", OPT, 1, "int4")
    monkeypatch.setattr("blip2cli.model.quantize.int8_layers.max_exact_level", lambda: 0)
    with pytest.raises(OptionError, match="needs a torch with oneDNN"):
        place("cpu", "float32", OPT, 1, "int8")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(OptionError, match="does not run on mps; use device cpu"):
        place("mps", "float32", OPT, 1, "int8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("blip2cli.model.quantize.library_layers.find_spec", lambda name: None)
    with pytest.raises(OptionError, match="bitsandbytes or torchao: pip install bitsandbytes"):
        place("cuda", "bfloat16", OPT, 1, "int8")
    with pytest.raises(OptionError, match="needs the package bitsandbytes: pip install"):
        place("cuda", "bfloat16", OPT, 1, "int4")


def test_numbers_without_scales_are_refused(opt_directory: Path, tmp_path: Path) -> None:
    small = tmp_path / "int8"
    convert(opt_directory, small, quantize="int8")
    file = small / "model.int8.safetensors"
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    del weights[next(name for name in weights if name.endswith("fc1.weight_scale"))]
    save_file(weights, file)
    with pytest.raises(ModelError, match=r"fc1\.weight without its weight_scale"):
        load(small)


def test_the_run_remembers_it(tmp_path: Path) -> None:
    # Rows differ, so an output is not gone on with under another setting.
    from blip2cli.options import RunOptions, SourceOptions
    from blip2cli.pipeline.settings import run_settings
    from blip2cli.tasks.caption import CaptionTask

    options = RunOptions(SourceOptions(("x",)), ModelOptions("tiny", quantize="int8"))
    settings = run_settings(CaptionTask(), options)
    assert settings["quantize"] == "int8"
    assert json.dumps(settings)
