"""Adapters that PEFT itself trained: logits as it gives them, and what it merged."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.blip_2.modeling_blip_2 import (
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
)
from transformers.models.instructblip.modeling_instructblip import (
    InstructBlipForConditionalGeneration,
)

from blip2cli.images.preprocess import normalize
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.model.loading.load import load_model
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.retrieval import Pair
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions
from blip2cli.system.library_logging import silence_libraries
from tests.checkpoints import tiny_random_itm
from tests.convert.checkpoints.helpers import convert, loaded
from tests.instruct_checkpoints import tiny_random_instruct_t5, tiny_random_vicuna
from tests.model.conftest import images as drawn

pytestmark = pytest.mark.external

# Every module of the kinds that PEFT's LoRA takes: linear, embedding, convolution. OPT's position
# embedding is one that PEFT wraps, and cannot run.
VISION = ["qkv", "self_attn.projection", "mlp.fc1", "mlp.fc2", "patch_embedding"]
QFORMER = ["query", "key", "value", "dense", "language_projection"]
MODULES = {
    "opt": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "embed_tokens", "lm_head"],
    "t5": ["q", "k", "v", "o", "wi_0", "wi_1", "wo", "relative_attention_bias", "lm_head"],
}
EACH = [(family, [name]) for family in MODULES for name in (*VISION, *QFORMER, *MODULES[family])]
SETTINGS: dict[str, dict[str, Any]] = {
    "all at once": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"qkv": 1, r"layers\.1\.mlp\.fc1": 5},
        "alpha_pattern": {"qkv": 11, "dense": 2},
    },
    "fan in, fan out": {"fan_in_fan_out": True},
    "biases": {"bias": "all"},
    "biases of layers": {"bias": "lora_only"},
    "bias of B": {"lora_bias": True, "target_modules": ["qkv", "fc1", "dense"]},
    "whole modules": {
        "target_modules": ["qkv"],
        "modules_to_save": ["language_projection", "post_layernorm", "output_query"],
    },
    "all-linear": {"target_modules": "all-linear"},
}


@dataclass(frozen=True)
class Base:
    """A model to train adapters of, as we load it, and two images."""

    directory: Path
    ours: Blip2

    @property
    def images(self) -> Tensor:
        return drawn(2, self.ours.spec.height)

    @property
    def pixels(self) -> Tensor:
        return normalize(self.images, self.ours.spec, torch.float32)

    def logits(self, *adapters: Path | str) -> Tensor:
        """Those of the first token of each image, [2, V]; an adapter may stand for the model."""
        model = ours(self.directory, *adapters) if adapters else self.ours
        return model.scores(model.features(self.images))[:, 0]

    def prompt(self, model: Any) -> Tensor:
        """Tokens of the images and of no text, [2, Q + 1]."""
        filler = [model.config.image_token_index] * model.config.num_query_tokens
        return torch.tensor([filler + list(self.ours.codec.encode(None))] * 2)

    @torch.inference_mode()
    def theirs(self, model: Any, config: Any) -> Tensor:
        """The same logits of a model of transformers, or of PEFT around one."""
        ids = self.prompt(config)
        more = {}
        if self.ours.family.encoder_decoder:
            start = config.config.text_config.decoder_start_token_id
            more = {"decoder_input_ids": torch.full((2, 1), start)}
        mask = torch.ones_like(ids)
        out = model(pixel_values=self.pixels, input_ids=ids, attention_mask=mask, **more)
        logits: Tensor = out.logits[:, -1]
        return logits


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    """The embedded models in one directory each, as PEFT wants them."""
    folder = tmp_path_factory.mktemp("bases")
    made = {}
    for family, name in (("opt", "tiny"), ("t5", "tiny-t5")):
        convert(name, folder / family, dtype="float32")
        made[family] = Base(folder / family, ours(folder / family))
    return made


def near(found: Tensor, expected: Tensor) -> None:
    """Assert that logits are the same, but for 1e-5 of the largest."""
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def trained(base: Base, out: Path, targets: list[str] | str, **settings: Any) -> tuple[Any, Tensor]:
    """Train an adapter for a few steps and save it; the model of PEFT and its logits."""
    import peft

    with warnings.catch_warnings(), silence_libraries():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = Blip2ForConditionalGeneration.from_pretrained(base.directory)
        about = {"r": 3, "lora_alpha": 5, "target_modules": targets} | settings
        adapted = peft.get_peft_model(model, peft.LoraConfig(**about))
        # A text of any words, with what texts begin with and end with.
        ids = base.prompt(model)
        words = torch.tensor([[5, 6, 7, base.ours.model.config.text_config.end_tokens[0]]] * 2)
        ids = torch.cat((ids, words), dim=1)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
        trainable = [weight for weight in adapted.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=0.02)
        for _ in range(3):
            adapted(pixel_values=base.pixels, **inputs).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        adapted.eval().save_pretrained(out)
        return adapted, base.theirs(adapted, model)


def ours(*models: Path | str) -> Blip2:
    base, *adapters = map(str, models)
    options = ModelOptions(base, device="cpu", dtype="float32", adapter=tuple(adapters))
    return Blip2.load(options)


def compared(base: Base, out: Path, targets: list[str] | str, **settings: Any) -> None:
    """Train an adapter, and hold our logits against PEFT's."""
    _, expected = trained(base, out, targets, **settings)
    near(base.logits(out), expected)
    assert (base.logits() - expected).abs().max() > 1e-3  # the training changed something


@pytest.mark.parametrize(("family", "targets"), EACH, ids=lambda each: "".join(each))
def test_each_module_by_itself(
    family: str, targets: list[str], bases: dict[str, Base], tmp_path: Path
) -> None:
    compared(bases[family], tmp_path / "lora", targets)


@pytest.mark.parametrize("family", MODULES)
@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting(name: str, family: str, bases: dict[str, Base], tmp_path: Path) -> None:
    settings = {"target_modules": [*VISION, *QFORMER, *MODULES[family]]} | SETTINGS[name]
    compared(bases[family], tmp_path / "lora", settings.pop("target_modules"), **settings)


@pytest.mark.parametrize("targets", [["shared"], ["embed_tokens"], ["decoder.embed_tokens"]])
def test_embeddings_of_t5(targets: list[str], bases: dict[str, Base], tmp_path: Path) -> None:
    _, expected = trained(bases["t5"], tmp_path / "lora", targets)
    near(bases["t5"].logits(tmp_path / "lora"), expected)


@pytest.mark.parametrize("family", MODULES)
def test_the_merged_checkpoint_is_what_peft_merges(
    family: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    base = bases[family]
    modules = [name for name in MODULES[family] if name not in ("embed_tokens", "lm_head")]
    adapted, expected = trained(base, tmp_path / "lora", [*VISION, *modules])
    convert(base.directory, tmp_path / "merged", adapter=(str(tmp_path / "lora"),))
    theirs = loaded(tmp_path / "merged")
    near(base.theirs(theirs, theirs), expected)
    merged = adapted.merge_and_unload().state_dict()
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(weight, merged[name], rtol=1e-5, atol=1e-6)


def test_scales_are_those_that_peft_scales_by(bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases["opt"]
    adapted, _ = trained(base, tmp_path / "lora", ["q_proj", "fc1"])
    for module in adapted.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(0.25)
    expected = base.theirs(adapted, adapted.get_base_model())
    near(base.logits(f"{tmp_path / 'lora'}@0.25"), expected)


def test_a_retrieval_model(tmp_path: Path) -> None:
    import peft

    base = tiny_random_itm(tmp_path / "itm")
    with warnings.catch_warnings(), silence_libraries():
        warnings.simplefilter("ignore")
        model = Blip2ForImageTextRetrieval.from_pretrained(base)
        names = ["qkv", "query", "value", "dense", "vision_projection", "word_embeddings"]
        config = peft.LoraConfig(
            r=3, target_modules=names, modules_to_save=["itm_head"], init_lora_weights=False
        )
        torch.manual_seed(0)
        adapted = peft.get_peft_model(model, config).eval()
        head = adapted.get_submodule("base_model.model.itm_head").modules_to_save["default"]
        torch.nn.init.normal_(head.weight)
        adapted.save_pretrained(tmp_path / "lora")
    both, bare = ours(tmp_path / "lora"), ours(base)
    assert both.retrieval is not None
    assert bare.retrieval is not None
    pixels = drawn(2)
    pairs = [Pair(number, "two cats") for number in range(len(pixels))]
    found = both.retrieval.matching_logits(both.features(pixels), pairs)
    ids = torch.tensor([both.codec.encode("two cats")] * len(pixels))
    with torch.inference_mode():
        out = adapted(
            pixel_values=normalize(pixels, both.spec, torch.float32),
            input_ids=torch.cat(
                (ids.new_full((2, 12), model.config.image_token_index), ids), dim=1
            ),
            attention_mask=torch.ones((2, 12 + ids.shape[1]), dtype=torch.long),
            use_image_text_matching_head=True,
        )
    torch.testing.assert_close(found, out.logits_per_image, rtol=1e-5, atol=1e-5)
    assert (found - bare.retrieval.matching_logits(bare.features(pixels), pairs)).abs().max() > 1e-3


@pytest.mark.parametrize("make", [tiny_random_vicuna, tiny_random_instruct_t5])
def test_weights_of_instructblip(make: Any, tmp_path: Path) -> None:
    import peft

    base = make(tmp_path / "base")
    with warnings.catch_warnings(), silence_libraries():
        warnings.simplefilter("ignore")
        model = InstructBlipForConditionalGeneration.from_pretrained(base)
        torch.manual_seed(0)
        config = peft.LoraConfig(r=3, target_modules="all-linear", init_lora_weights=False)
        adapted = peft.get_peft_model(model, config)
        adapted.save_pretrained(tmp_path / "lora")
    checkpoint = resolve(str(tmp_path / "lora"))
    placement = Placement(torch.device("cpu"), torch.float32, "")
    made = load_model(checkpoint, placement, plain=True).state_dict()
    merged = adapted.merge_and_unload().state_dict()
    assert len(made) > 50
    for name, weight in made.items():
        torch.testing.assert_close(weight, merged[name], rtol=1e-5, atol=1e-6)
