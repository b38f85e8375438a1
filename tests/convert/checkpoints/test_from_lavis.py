"""What LAVIS's files lack comes from other files, and no weight is missing or left over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from blip2cli.convert.checkpoints.language_model import pad_vocabulary
from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.lazy_weights import Weight
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.families import OPT
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
from blip2cli.system.library_logging import silence_libraries
from tests.convert.checkpoints.helpers import convert, like, loaded, tensors
from tests.convert.checkpoints.lavis import (
    SMALL,
    Size,
    State,
    random_state,
    save,
    saved_shapes,
    vision_shapes,
)
from tests.model.conftest import images


def small_state(kind: str = "opt", vision: bool = False) -> State:
    return random_state(saved_shapes(kind, SMALL, 32, vision=vision))


def language_model(kind: str, folder: Path, other: Path) -> Path:
    """A language model apart, with the settings and the tokenizer of ``other``'s."""
    text = loaded(other).config.text_config
    auto = AutoModelForCausalLM if kind == "opt" else AutoModelForSeq2SeqLM
    torch.manual_seed(3)
    with silence_libraries():
        model = auto.from_config(AutoConfig.for_model(**text.to_dict()))
        if kind == "t5":  # a head of its own, as Flan-T5 has
            model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((other / name).read_bytes())
    return folder


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_the_language_model_comes_from_its_own_directory(kind: str, tmp_path: Path) -> None:
    other = like(kind, tmp_path / "like")
    source = save(small_state(kind, vision=True), tmp_path / "l.pth")
    language = language_model(kind, tmp_path / "language", other)
    convert(source, tmp_path / "out", like=other, language_model=language)
    apart = tensors(language)
    out = tensors(tmp_path / "out")
    names = {name.removeprefix("language_model.") for name in out if "language_model" in name}
    assert names == apart.keys()
    for name, weight in apart.items():
        expected = weight.bfloat16() if kind == "t5" else weight  # LAVIS casts T5
        assert torch.equal(out[f"language_model.{name}"], expected)
        assert out[f"language_model.{name}"].dtype == expected.dtype
    if kind == "t5":
        head = loaded(tmp_path / "out").language_model.lm_head.weight
        assert torch.equal(head, apart["lm_head.weight"].bfloat16().float())


def test_the_vision_encoder_is_resized_as_transformers_does(tmp_path: Path) -> None:
    other = like("opt", tmp_path / "like", Size(**vars(SMALL) | {"image": 48}))
    source = save(small_state(), tmp_path / "l.pth")
    vision = random_state(vision_shapes(SMALL, depth=4), seed=7)
    extra: State = {"head.weight": torch.ones(2, 2), "fc_norm.bias": torch.ones(2)}
    torch.save({k: v.half() for k, v in (vision | extra).items()}, tmp_path / "eva_vit_g.pth")
    convert(source, tmp_path / "out", like=other, vision_weights=tmp_path / "eva_vit_g.pth")
    out = tensors(tmp_path / "out")
    positions = out["vision_model.embeddings.position_embedding"]
    assert positions.shape == (1, 37, SMALL.width)
    embeddings = loaded(tmp_path / "out").vision_model.embeddings
    embeddings.position_embedding = torch.nn.Parameter(vision["pos_embed"].half().float())
    theirs = embeddings.interpolate_pos_encoding(torch.zeros(1, 37, SMALL.width), 48, 48)
    assert torch.equal(positions, theirs)
    layer = "vision_model.encoder.layers"
    assert out[f"{layer}.2.mlp.fc1.weight"].dtype == torch.float16
    bias = out[f"{layer}.0.self_attn.qkv.bias"]
    q, v = (vision[f"blocks.0.attn.{part}_bias"].half() for part in "qv")
    assert torch.equal(bias, torch.cat((q, torch.zeros_like(q), v)))
    assert f"{layer}.3.mlp.fc1.weight" not in out  # the fourth block is not used


def test_the_size_in_pixels_may_come_from_the_training_run(tmp_path: Path) -> None:
    other = like("opt", tmp_path / "like")
    config = {"run": {"lr": 1e-5}, "model": {"image_size": 48, "arch": "blip2_opt"}}
    source = save(small_state(), tmp_path / "l.pth", config=config)
    torch.save(random_state(vision_shapes(SMALL)), tmp_path / "eva.pth")
    convert(source, tmp_path / "out", like=other, vision_weights=tmp_path / "eva.pth")
    assert loaded(tmp_path / "out").config.vision_config.image_size == 48
    # So are the images that the processor makes, which came from the other model.
    checkpoint = inspect_checkpoint(tmp_path / "out")
    assert checkpoint.image_processor["size"] == {"height": 48, "width": 48}
    model = Blip2.load(ModelOptions(str(tmp_path / "out"), device="cpu", dtype="float32"))
    assert (model.spec.height, model.spec.width) == (48, 48)
    assert model.features(images(2, 48)).image_embeds.shape == (2, 37, SMALL.width)


def test_the_number_of_queries_is_that_of_the_weights(tmp_path: Path) -> None:
    state = small_state(vision=True)
    state["query_tokens"] = torch.randn(1, 5, SMALL.hidden)
    source = save(state, tmp_path / "l.pth")
    convert(source, tmp_path / "out", like=like("opt", tmp_path / "like"))
    assert loaded(tmp_path / "out").config.num_query_tokens == 5
    processor = json.loads((tmp_path / "out" / "processor_config.json").read_text())
    assert processor["num_query_tokens"] == 5


def test_new_words_are_the_mean_of_the_others_and_never_win() -> None:
    words = torch.randn(5, 4)
    weights = {
        "language_model.model.decoder.embed_tokens.weight": Weight.of(words),
        "language_model.model.decoder.final_layer_norm.bias": Weight.of(torch.ones(4)),
    }
    made = pad_vocabulary(weights, OPT, 8)
    taller = made["language_model.model.decoder.embed_tokens.weight"]
    assert taller.shape == (8, 4)
    assert torch.equal(taller.load()[:5], words)
    assert torch.equal(taller.load()[5:], words.mean(0).expand(3, -1))
    assert made["language_model.model.decoder.final_layer_norm.bias"].shape == (4,)
    scores = taller.load() @ -words.sum(0)  # zeros would win here
    assert scores[:5].max() > scores[5:].max()


def missing(state: State) -> State:
    return {name: value for name, value in state.items() if name != "ln_vision.bias"}


def other_shape(state: State) -> State:
    return state | {"opt_proj.weight": torch.zeros(64, SMALL.hidden)}


def without_a_pair(state: State) -> State:
    return {n: v for n, v in state.items() if n != "visual_encoder.blocks.1.attn.v_bias"}


def one_more(name: str, *shape: int) -> State:
    return {name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {n: v for n, v in s.items() if n != "query_tokens"},
            r"lacks 1 weight .*\(query_tokens",
        ),
        (missing, r"lacks 1 weight .*\(vision_model.post_layernorm.bias"),
        (other_shape, r"language_projection.weight: \[64, 48\], not \[\d+, 48\]"),
        (without_a_pair, "q_bias without its v_bias"),
        (lambda s: s | one_more("visual_encoder.blocks.0.attn.x", 3), "blocks.0.attn.x, which is"),
        (lambda s: s | one_more("visual_encoder.blocks.7.norm1.weight", 64), "of another model"),
        (
            lambda s: s | one_more("Qformer.bert.encoder.layer.0.intermediate.dense.bias", 192),
            "a part of a Q-Former that reads text",
        ),
        (
            lambda s: s | one_more("visual_encoder.ln_pre.weight", 64),
            "has CLIP's ViT-L, and opt model, like",
        ),
        (lambda s: {"llm_proj.weight": s["opt_proj.weight"]}, "the checkpoint one with Vicuna"),
        (lambda s: {"linear.weight": torch.ones(2)}, "it has none of opt_proj.weight"),
        (lambda s: {"blocks.0.attn.qkv.weight": torch.ones(2)}, "only a vision encoder"),
        (lambda s: {}, "holds no weights of LAVIS"),
    ],
)
def test_what_does_not_fit_is_named(change: object, message: str, tmp_path: Path) -> None:
    assert callable(change)
    source = save(change(small_state(vision=True)), tmp_path / "l.pth")
    other = like("opt", tmp_path / "like")
    with pytest.raises(ModelError, match=message):
        convert(source, tmp_path / "out", like=other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.pth", "like"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.0.attn.rel", "blocks.0.attn.rel, which is no weight of LAVIS's vision encoder"),
        ("conv1.weight", "embeddings.patch_embedding.weight|conv1"),
    ],
)
def test_another_vision_encoder_is_refused(name: str, message: str, tmp_path: Path) -> None:
    vision: dict[str, Tensor] = random_state(vision_shapes(SMALL)) | {name: torch.ones(2)}
    torch.save(vision, tmp_path / "eva.pth")
    source = save(small_state(), tmp_path / "l.pth")
    other = like("opt", tmp_path / "like")
    with pytest.raises(ModelError, match=message):
        convert(source, tmp_path / "out", like=other, vision_weights=tmp_path / "eva.pth")


def test_a_file_of_something_else_is_no_vision_encoder(tmp_path: Path) -> None:
    torch.save({"visual.cls_token": torch.ones(2)}, tmp_path / "eva.pth")
    source = save(small_state(), tmp_path / "l.pth")
    other = like("opt", tmp_path / "like")
    with pytest.raises(ModelError, match="holds no vision encoder of LAVIS"):
        convert(source, tmp_path / "out", like=other, vision_weights=tmp_path / "eva.pth")


def test_what_is_missing_is_named_with_where_it_lies(tmp_path: Path) -> None:
    size = Size(depth=1, layers=2, image=28)
    source = save(random_state(saved_shapes("opt", size, 2560, vision=False)), tmp_path / "l.pth")
    with pytest.raises(ModelError, match=r"add language_model facebook/opt-2\.7b, or like Sal"):
        convert(source, tmp_path / "out")
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5" / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelError, match="is of the type t5, and this checkpoint wants opt"):
        convert(source, tmp_path / "out", language_model=tmp_path / "t5")
    (tmp_path / "t5" / "config.json").write_text('{"model_type": "opt"}')
    with pytest.raises(ModelError, match="has no tokenizer"):
        convert(source, tmp_path / "out", language_model=tmp_path / "t5")
    (tmp_path / "t5" / "vocab.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no vision encoder; add vision_weights eva_vit_g\.pth"):
        convert(source, tmp_path / "out", language_model=tmp_path / "t5")
    with pytest.raises(ModelError, match="is a model with T5, and the checkpoint one with OPT"):
        convert(source, tmp_path / "out", like=like("t5", tmp_path / "other"))


def test_the_other_model_lends_what_is_missing(tmp_path: Path) -> None:
    source = save(small_state(), tmp_path / "l.pth")
    other = like("opt", tmp_path / "like")
    convert(source, tmp_path / "out", like=other)
    lent, out = tensors(other), tensors(tmp_path / "out")
    assert lent.keys() == out.keys()
    same = {name for name in lent if torch.equal(lent[name], out[name])}
    assert {name for name in lent if name.startswith("vision_model.encoder.")} <= same
    assert {name for name in lent if name.startswith("language_model.")} <= same
    assert "vision_model.post_layernorm.weight" not in same
    assert "query_tokens" not in same
