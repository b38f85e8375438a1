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
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from blip2cli.system.library_logging import silence_libraries
from tests.checkpoints import QUERIES
from tests.model.conftest import images, plain

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
    language = plain(untied).language_model
    head = language.lm_head.weight
    assert torch.equal(head, stored["language_model.lm_head.weight"])
    assert torch.equal(language.shared.weight, stored["language_model.shared.weight"])
    assert not language.config.scales_output
    assert language.config.activation == "gelu"


def test_its_texts_are_those_of_transformers(untied: Path) -> None:
    ours = Blip2.load(ModelOptions(str(untied), device="cpu", dtype="float32"))
    with silence_libraries():
        theirs = Blip2ForConditionalGeneration.from_pretrained(untied).eval()
    pixels = images(4)
    values = normalize(pixels, ours.spec, torch.float32)
    prompts = [Prompt(i, QUESTION, f"{i}") for i in range(4)]
    options = DecodeOptions(max_new_tokens=NEW)
    ids = [theirs.config.image_token_index] * QUERIES + list(ours.codec.encode(QUESTION))
    for i, (text,) in enumerate(ours.generate(ours.features(pixels), prompts, options)):
        with silence_libraries():
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


def test_precisions_are_those_that_transformers_keeps(t5_directory: Path) -> None:
    # Beside float16 it would keep ``wo`` in float32 (_keep_in_fp32_modules), which is refused.
    ours = plain(t5_directory, torch.bfloat16)
    with silence_libraries():
        theirs = Blip2ForConditionalGeneration.from_pretrained(t5_directory, dtype=torch.bfloat16)
    mine = {name: weight.dtype for name, weight in ours.named_parameters()}
    assert mine.keys() >= dict(theirs.named_parameters()).keys()
    for name, weight in theirs.named_parameters():
        assert mine[name] == weight.dtype == torch.bfloat16
