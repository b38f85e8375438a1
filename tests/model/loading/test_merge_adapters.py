"""Weights of models into which adapters are merged, by hand; PEFT itself: ``test_peft``."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from blip2cli.errors import ModelError, OptionError
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.loading.load import load_model
from blip2cli.model.loading.shared_vision import same_vision
from blip2cli.model.nets.blip2 import build
from blip2cli.model.placement.device_map import always_in_memory
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
from tests.adapters import DECODER, PREFIX, Q_PROJ, RANK, adapter, low_rank, product
from tests.convert.checkpoints.helpers import convert
from tests.model.conftest import images

FC1 = "vision_model.encoder.layers.1.mlp.fc1"
EMBED = "language_model.model.decoder.embed_tokens"
HEAD = "language_model.lm_head"


def weights(model: Path | str, *adapters: Path | str) -> dict[str, Tensor]:
    """All weights of the loaded model, in float32, by their names."""
    checkpoint = resolve(str(model), adapters=list(map(str, adapters)))
    placement = Placement(torch.device("cpu"), torch.float32, "")
    return load_model(checkpoint, placement, plain=True).state_dict()


def stored(base: Path) -> dict[str, Tensor]:
    return load_file(base / "model.safetensors")


def same_but(base: Path, made: dict[str, Tensor], *changed: str) -> bool:
    """Whether all weights but those of these layers are the base model's, bit for bit."""
    held = stored(base)
    return all(
        torch.equal(made[name], weight)
        for name, weight in held.items()
        if name.rpartition(".")[0] not in changed
    )


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, 3 / RANK),
        ({"use_rslora": True}, 3 / math.sqrt(RANK)),
        ({"alpha_pattern": {"q_proj": 16}}, 16 / RANK),
        ({"alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 16}}, 3 / RANK),
        ({"alpha_pattern": {f"^{Q_PROJ}": 5, "q_proj": 16}}, 5 / RANK),
        ({"r": 64, "rank_pattern": {"layers.0.self_attn.q_proj": RANK}}, 3 / RANK),
        # For layers that store their weights the other way round, of which BLIP-2 has none.
        ({"fan_in_fan_out": True}, 3 / RANK),
        ({"init_lora_weights": "gaussian", "velora_config": {"a": 1}}, 3 / RANK),
    ],
)
def test_factors_are_those_of_peft(
    settings: dict[str, Any], factor: float, opt_directory: Path, tmp_path: Path
) -> None:
    held = low_rank(opt_directory, Q_PROJ)
    made = weights(adapter(tmp_path / "lora", opt_directory, held, **settings))
    expected = stored(opt_directory)[f"{Q_PROJ}.weight"] + factor * product(held, Q_PROJ)
    torch.testing.assert_close(made[f"{Q_PROJ}.weight"], expected)
    assert same_but(opt_directory, made, Q_PROJ)


@pytest.mark.parametrize(
    ("prefix", "own"),
    [
        (PREFIX, ""),
        (PREFIX, ".default"),
        (f"{PREFIX}model.", ".my-adapter"),
        (f"module.{PREFIX}", ""),
        (f"_orig_mod.{PREFIX}_orig_mod.", ".default"),
        (f"{PREFIX}blip2.", ""),
        ("", ""),
    ],
)
def test_names_are_understood_whatever_is_around_them(
    prefix: str, own: str, opt_directory: Path, tmp_path: Path
) -> None:
    held = low_rank(opt_directory, Q_PROJ, FC1, prefix=prefix, own=own)
    made = weights(opt_directory, adapter(tmp_path / "lora", None, held))
    for module in (Q_PROJ, FC1):
        expected = stored(opt_directory)[f"{module}.weight"] + 1.5 * product(held, module)
        torch.testing.assert_close(made[f"{module}.weight"], expected)
    assert same_but(opt_directory, made, Q_PROJ, FC1)


def test_a_language_model_may_have_been_trained_by_itself(
    opt_directory: Path, tmp_path: Path
) -> None:
    held = low_rank(opt_directory, Q_PROJ)
    alone = {name.replace("language_model.", ""): weight for name, weight in held.items()}
    made = weights(opt_directory, adapter(tmp_path / "lora", None, alone))
    both = weights(opt_directory, adapter(tmp_path / "whole", None, held))
    assert torch.equal(made[f"{Q_PROJ}.weight"], both[f"{Q_PROJ}.weight"])
    assert not same_but(opt_directory, made)


def test_a_state_dict_of_everything_is_an_adapter_too(opt_directory: Path, tmp_path: Path) -> None:
    held = low_rank(opt_directory, Q_PROJ, own=".default")
    for name, weight in stored(opt_directory).items():
        module, dot, own = name.rpartition(".")
        inner = {Q_PROJ: ".base_layer", "language_projection": ".original_module"}.get(module, "")
        held[f"{PREFIX}{module}{inner}{dot}{own}"] = weight
    saved = torch.full_like(stored(opt_directory)["language_projection.weight"], 0.5)
    held[f"{PREFIX}language_projection.modules_to_save.default.weight"] = saved
    made = weights(opt_directory, adapter(tmp_path / "all", None, held, file="adapter_model.bin"))
    assert torch.equal(made["language_projection.weight"], saved)
    expected = stored(opt_directory)[f"{Q_PROJ}.weight"] + 1.5 * product(held, Q_PROJ)
    torch.testing.assert_close(made[f"{Q_PROJ}.weight"], expected)
    assert same_but(opt_directory, made, Q_PROJ, "language_projection")


def test_scales_add_up_and_may_be_paths(opt_directory: Path, tmp_path: Path) -> None:
    one = adapter(tmp_path / "one", None, first := low_rank(opt_directory, Q_PROJ, seed=1))
    two = adapter(tmp_path / "two@2", None, second := low_rank(opt_directory, Q_PROJ, seed=2))
    made = weights(opt_directory, f"{one}@0.5", two, f"{one}@-1e-1")
    change = 0.4 * product(first, Q_PROJ) + product(second, Q_PROJ)
    expected = stored(opt_directory)[f"{Q_PROJ}.weight"] + 1.5 * change
    torch.testing.assert_close(made[f"{Q_PROJ}.weight"], expected)
    assert same_but(opt_directory, weights(opt_directory, f"{one}@0"))


def test_saved_modules_replace_the_models_own(opt_directory: Path, tmp_path: Path) -> None:
    names = ("language_projection.weight", "language_projection.bias", "qformer.layernorm.weight")
    held = {f"{PREFIX}{name}": stored(opt_directory)[name] + 1 for name in names}
    lora = adapter(tmp_path / "a", None, held, modules_to_save=["language_projection", "layernorm"])
    made, half = weights(opt_directory, lora), weights(opt_directory, f"{lora}@0.5")
    for name in names:
        assert torch.equal(made[name], held[PREFIX + name])
        torch.testing.assert_close(half[name], stored(opt_directory)[name] + 0.5)
    other = adapter(tmp_path / "b", None, held)
    with pytest.raises(ModelError, match=r"b and .*a both bring language_projection\."):
        weights(opt_directory, lora, other)


def embedding(base: Path, module: str) -> dict[str, Tensor]:
    rows, width = stored(base)[f"{module}.weight"].shape
    first, second = torch.randn(RANK, rows), torch.randn(width, RANK)
    return {
        f"{PREFIX}{module}.lora_embedding_A": first,
        f"{PREFIX}{module}.lora_embedding_B": second,
    }


def change_of(held: dict[str, Tensor]) -> Tensor:
    first, second = held.values()
    return 1.5 * (second @ first).T


def test_an_embedding_is_changed_and_the_output_matrix_that_shared_it_is_not(
    opt_directory: Path, tmp_path: Path
) -> None:
    held = embedding(opt_directory, EMBED)
    assert f"{HEAD}.weight" not in stored(opt_directory)
    base = stored(opt_directory)[f"{EMBED}.weight"]
    own = {f"{PREFIX}{EMBED}.base_layer.weight": base}  # which PEFT saves along
    made = weights(opt_directory, adapter(tmp_path / "lora", None, held | own))
    torch.testing.assert_close(made[f"{EMBED}.weight"], base + change_of(held))
    assert torch.equal(made[f"{HEAD}.weight"], base)
    head = {name.replace(EMBED, HEAD): w for name, w in low_rank(opt_directory, EMBED).items()}
    made = weights(opt_directory, adapter(tmp_path / "head", None, head))
    torch.testing.assert_close(made[f"{HEAD}.weight"], base + 1.5 * product(head, HEAD))
    assert torch.equal(made[f"{EMBED}.weight"], base)


def test_encoder_and_decoder_of_t5_may_read_different_embeddings(
    t5_directory: Path, tmp_path: Path
) -> None:
    held = embedding(t5_directory, "language_model.shared")
    made = weights(t5_directory, adapter(tmp_path / "shared", None, held))
    base = stored(t5_directory)["language_model.shared.weight"]
    torch.testing.assert_close(made["language_model.shared.weight"], base + change_of(held))
    assert torch.equal(made["language_model.decoder_embedding.weight"], base)
    stacks = ("encoder", "decoder")
    each = {
        name.replace("shared", f"{stack}.embed_tokens"): weight.clone()
        for stack in stacks
        for name, weight in held.items()
    }
    made = weights(t5_directory, adapter(tmp_path / "each", None, each))
    assert torch.equal(made["language_model.shared.weight"], base)  # which the encoder's is not
    own = made["language_model.decoder_embedding.weight"]
    torch.testing.assert_close(own, base + change_of(held))
    with pytest.raises(ModelError, match="different word embeddings, of which transformers has"):
        convert(t5_directory, tmp_path / "out", adapter=(str(tmp_path / "each"),))


def test_biases_and_convolutions(opt_directory: Path, tmp_path: Path) -> None:
    patch = "vision_model.embeddings.patch_embedding"
    weight = stored(opt_directory)[f"{patch}.weight"]
    held = {
        f"{PREFIX}{patch}.lora_A.weight": torch.randn(RANK, *weight.shape[1:]),
        f"{PREFIX}{patch}.lora_B.weight": torch.randn(weight.shape[0], RANK, 1, 1),
        f"{PREFIX}{patch}.base_layer.bias": torch.ones(weight.shape[0]),
        f"{PREFIX}{Q_PROJ}.lora_B.bias": torch.ones(32),
    } | low_rank(opt_directory, Q_PROJ)
    lora = adapter(tmp_path / "lora", None, held, lora_bias=True, bias="all")
    made = weights(opt_directory, lora)
    first, second = (held[f"{PREFIX}{patch}.lora_{letter}.weight"] for letter in "AB")
    change = torch.einsum("or,rihw->oihw", second[:, :, 0, 0], first)
    torch.testing.assert_close(made[f"{patch}.weight"], weight + 1.5 * change)
    assert torch.equal(made[f"{patch}.bias"], torch.ones(weight.shape[0]))
    bias = stored(opt_directory)[f"{Q_PROJ}.bias"]
    torch.testing.assert_close(made[f"{Q_PROJ}.bias"], bias + 1.5)


def wrong_rank(held: dict[str, Tensor], base: Path) -> dict[str, Any]:
    return {"r": 8}


def of_another_width(held: dict[str, Tensor], base: Path) -> dict[str, Any]:
    held[f"{PREFIX}{Q_PROJ}.lora_B.weight"] = torch.ones(48, RANK)
    return {"base_model_name_or_path": "someone/blip2"}


def transposed(held: dict[str, Tensor], base: Path) -> dict[str, Any]:
    held[f"{PREFIX}{Q_PROJ}.lora_B.weight"] = torch.ones(RANK, 32)
    return {}


def halved(held: dict[str, Tensor], base: Path) -> dict[str, Any]:
    del held[f"{PREFIX}{Q_PROJ}.lora_B.weight"]
    return {}


def of_a_layer_that_is_not_there(held: dict[str, Tensor], base: Path) -> dict[str, Any]:
    held.update({name.replace(".0.", ".7."): weight.clone() for name, weight in held.items()})
    return {"base_model_name_or_path": "someone/deeper"}


def several(held: dict[str, Tensor], base: Path) -> dict[str, Any]:
    held |= low_rank(base, f"{DECODER}.1.self_attn.q_proj", own=".red")
    held |= low_rank(base, f"{DECODER}.1.self_attn.k_proj", own=".blue")
    return {}


def magnitudes(held: dict[str, Tensor], base: Path) -> dict[str, Any]:
    held[f"{PREFIX}{Q_PROJ}.lora_magnitude_vector"] = torch.ones(32)
    return {}


def more_words(held: dict[str, Tensor], base: Path) -> dict[str, Any]:
    held[f"{PREFIX}{EMBED}.weight"] = torch.ones(4096, 32)
    return {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrong_rank, r"holds .*q_proj in rank 2, and its configuration says 8; take both"),
        (of_another_width, r"in the shape \[48, 32\], and .* \[32, 32\]; .*on someone/blip2, perh"),
        (transposed, r"in the shape \[\], and the model"),
        (halved, r"holds only a part of .*q_proj \(A\); fetch it again"),
        (of_a_layer_that_is_not_there, r"layers\.7\..* does not have; .*on someone/deeper: give"),
        (several, r"several adapters \(, blue, red\); save each by itself"),
        (magnitudes, r"lora_magnitude_vector, which is not merged; merge it into its base model"),
        (more_words, r"in the shape \[4096, 32\].*, perhaps with more tokens: give the model as"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Tensor], Path], dict[str, Any]],
    said: str,
    opt_directory: Path,
    tmp_path: Path,
) -> None:
    held = low_rank(opt_directory, Q_PROJ)
    settings = change(held, opt_directory)
    lora = adapter(tmp_path / "lora", None, held, **settings)
    with pytest.raises(ModelError, match=said):
        weights(opt_directory, lora)


def test_numbers_that_are_none_are_refused(opt_directory: Path, tmp_path: Path) -> None:
    held = low_rank(opt_directory, Q_PROJ)
    held[f"{PREFIX}{Q_PROJ}.lora_A.weight"][0, 0] = math.nan
    lora = adapter(tmp_path / "lora", opt_directory, held)
    options = ModelOptions(str(opt_directory), adapter=(str(lora),))
    with pytest.raises(ModelError, match=r"opt with .*lora has numbers in .*q_proj\.weight that"):
        Blip2.load(options)


@pytest.fixture(scope="module")
def vision_and_text(
    opt_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """An adapter of vision encoder and language model, and the model merged by ``convert``."""
    place = tmp_path_factory.mktemp("adapter")
    lora = adapter(place / "lora", opt_directory, low_rank(opt_directory, Q_PROJ, FC1))
    convert(lora, place / "merged")
    return lora, place / "merged"


@pytest.mark.parametrize(
    ("dtype", "quantize"), [("float32", None), ("bfloat16", None), ("float32", "int8")]
)
def test_weights_are_rounded_after_they_are_merged(
    dtype: Any, quantize: Any, vision_and_text: tuple[Path, Path]
) -> None:
    lora, merged = vision_and_text
    one, other = (
        Blip2.load(ModelOptions(str(path), device="cpu", dtype=dtype, quantize=quantize))
        for path in (lora, merged)
    )
    assert "lora merged" in one.reason
    pixels = images(3)
    features, expected = one.features(pixels), other.features(pixels)
    assert torch.equal(features.image_embeds, expected.image_embeds)
    assert torch.equal(one.scores(features), other.scores(expected))


def test_layers_on_disk_are_merged_as_well(
    vision_and_text: tuple[Path, Path], opt_directory: Path, tmp_path: Path
) -> None:
    lora, merged = vision_and_text
    with torch.device("meta"):
        model = build(inspect_checkpoint(opt_directory).model_config)
    stays, layer = always_in_memory(model, torch.float32)
    options = ModelOptions(
        str(opt_directory),
        device="cpu",
        dtype="float32",
        max_memory=f"cpu={stays + 2 * layer}",
        adapter=(str(lora),),
    )
    with pytest.raises(OptionError, match=r"opt with .*lora holds no safetensors in float32"):
        Blip2.load(options)
    streamed = Blip2.load(replace(options, offload=str(tmp_path)))
    whole = Blip2.load(ModelOptions(str(merged), device="cpu", dtype="float32"))
    pixels = images(3)
    expected = whole.scores(whole.features(pixels))
    assert torch.equal(streamed.scores(streamed.features(pixels)), expected)
    assert any(tmp_path.rglob("*.safetensors"))


def test_a_vision_encoder_is_shared_only_as_it_is_after_merging(
    opt_directory: Path, vision_and_text: tuple[Path, Path], tmp_path: Path
) -> None:
    lora, merged = vision_and_text
    text = adapter(tmp_path / "text", opt_directory, low_rank(opt_directory, Q_PROJ))
    base, on_text, on_both = (resolve(str(each)) for each in (opt_directory, text, lora))
    assert same_vision(base, on_text, torch.float32)
    assert not same_vision(base, on_both, torch.float32)
    assert same_vision(resolve(str(merged)), on_both, torch.float32)


def test_unmerged_weights_in_a_model_are_still_refused(opt_directory: Path, tmp_path: Path) -> None:
    lora = adapter(tmp_path / "lora", opt_directory, low_rank(opt_directory, Q_PROJ))
    shutil.copytree(opt_directory, tmp_path / "both")
    for file in lora.iterdir():
        shutil.copy(file, tmp_path / "both")
    with pytest.raises(ModelError, match=r"beside a model; to merge it, give"):
        weights(tmp_path / "both")
    made = weights(tmp_path / "both", tmp_path / "both")
    assert not same_but(opt_directory, made)
    assert same_but(opt_directory, made, Q_PROJ)
