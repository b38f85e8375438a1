"""What Flan-T5 checkpoints have that others have not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

from blip2cli.errors import OptionError
from blip2cli.images.preprocess import normalize
from blip2cli.model.checkpoint import inspect_checkpoint
from blip2cli.model.dtype import Placement
from blip2cli.model.load import load_model
from blip2cli.model.prompts import Prompt
from blip2cli.model.quiet import hushed
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from tests.checkpoints import QUERIES
from tests.model.conftest import images

QUESTION = "Question: how many cats are there? Short answer:"
NEW = 6


@pytest.fixture(scope="module")
def untied(t5_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As published: an output layer that is not the word embeddings, and the exact GELU."""
    copy = Path(shutil.copytree(t5_directory, tmp_path_factory.mktemp("flan") / "untied"))
    config = json.loads((copy / "config.json").read_text())
    config["text_config"] |= {"tie_word_embeddings": False, "dense_act_fn": "gelu"}
    config["text_config"].pop("scale_decoder_outputs", None)  # no published file has it
    (copy / "config.json").write_text(json.dumps(config))
    file = copy / "model.safetensors"
    weights = load_file(file)
    words = weights["language_model.shared.weight"]
    noise = torch.randn(words.shape, generator=torch.Generator().manual_seed(9))
    weights["language_model.lm_head.weight"] = 0.5 * noise
    save_file(weights, file, metadata={"format": "pt"})
    return copy


def test_an_output_layer_of_its_own_is_kept(untied: Path) -> None:
    stored = load_file(untied / "model.safetensors")
    language = Blip2.load(ModelOptions(str(untied), device="cpu", dtype="float32")).model
    head = language.language_model.lm_head.weight
    assert torch.equal(head, stored["language_model.lm_head.weight"])
    shared = stored["language_model.shared.weight"]
    assert torch.equal(language.language_model.shared.weight, shared)
    assert torch.equal(language.language_model.encoder.embed_tokens.weight, shared)
    assert torch.equal(language.language_model.decoder.embed_tokens.weight, shared)
    assert not language.config.text_config.scale_decoder_outputs
    assert language.config.text_config.dense_act_fn == "gelu"


def test_its_texts_are_those_of_transformers(untied: Path) -> None:
    ours = Blip2.load(ModelOptions(str(untied), device="cpu", dtype="float32"))
    with hushed():
        theirs = Blip2ForConditionalGeneration.from_pretrained(untied).eval()
    pixels = images(4)
    values = normalize(pixels, ours.spec, torch.float32)
    prompts = [Prompt(i, QUESTION, f"{i}") for i in range(4)]
    options = DecodeOptions(max_new_tokens=NEW)
    ids = [theirs.config.image_token_index] * QUERIES + list(ours.codec.encode(QUESTION))
    for i, (text,) in enumerate(ours.generate(ours.features(pixels), prompts, options)):
        with hushed():
            out = theirs.generate(
                pixel_values=values[i : i + 1],
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=NEW,
            )
        assert list(text.tokens) == out[0, 1:].tolist()


def test_what_would_overflow_in_float16_is_refused(t5_directory: Path) -> None:
    with pytest.raises(OptionError, match="Flan-T5: its feed-forward sums overflow"):
        Blip2.load(ModelOptions(str(t5_directory), device="cpu", dtype="float16"))


@pytest.mark.parametrize(
    ("dtype", "kept"), [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)], ids=str
)
def test_precisions_are_those_that_transformers_keeps(
    t5_directory: Path, dtype: torch.dtype, kept: torch.dtype
) -> None:
    """``wo`` and the Q-Former stay in float32 beside float16 alone (_keep_in_fp32_modules)."""
    checkpoint = inspect_checkpoint(t5_directory)
    with hushed():
        ours = load_model(checkpoint, Placement(torch.device("cpu"), dtype, ""))
        theirs = Blip2ForConditionalGeneration.from_pretrained(t5_directory, dtype=dtype)
    for (name, mine), (other, weight) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert (name, mine.dtype) == (other, weight.dtype)
    sums = [p.dtype for name, p in ours.named_parameters() if name.endswith(".wo.weight")]
    assert len(sums) == 4
    assert set(sums) == {kept}
