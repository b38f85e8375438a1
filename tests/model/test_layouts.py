"""Checkpoints as they lie on the hub, of every age, load and caption as in transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blip2cli.images.preprocess import normalize
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from blip2cli.system.library_logging import silence_libraries
from tests.checkpoints import QUERIES
from tests.hub_checkpoints import IMAGE_TOKEN, NEWLINE, older_opt, prompt_ids, published_opt
from tests.hub_files import reference as load_reference
from tests.model.conftest import images

NEW = 6
QUESTION = "Question: how many cats are there? Answer:"


def load(directory: Path) -> Blip2:
    return Blip2.load(ModelOptions(model=str(directory), device="cpu", dtype="float32"))


def test_published_layout_captions_as_transformers_generate(tmp_path: Path) -> None:
    model = load(published_opt(tmp_path / "published"))
    assert model.codec.encode(QUESTION) == tuple(prompt_ids(QUESTION))
    assert model.codec.encode(None) == (2,)
    assert model.model.config.image_token_index == IMAGE_TOKEN
    with silence_libraries():
        theirs = load_reference(tmp_path / "published")
    pixels = images(4)
    values = normalize(pixels, model.spec, torch.float32)
    for text in (None, QUESTION):
        prompts = [Prompt(i, text, f"{i}") for i in range(4)]
        got = model.generate(model.features(pixels), prompts, DecodeOptions(max_new_tokens=NEW))
        for i, (generated,) in enumerate(got):
            ids = [IMAGE_TOKEN] * QUERIES + ([2] if text is None else prompt_ids(text))
            with silence_libraries():
                out = theirs.generate(
                    pixel_values=values[i : i + 1],
                    input_ids=torch.tensor([ids]),
                    attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                    max_new_tokens=NEW,
                )
            assert list(generated.tokens) == out[0, len(ids) :].tolist()


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
def test_older_layout_captions_as_transformers_would_given_embeddings(
    tmp_path: Path, pickled: bool
) -> None:
    model = load(older_opt(tmp_path / "older", pickled=pickled))
    assert model.model.config.image_token_index is None
    assert model.codec.encode(QUESTION) == tuple(prompt_ids(QUESTION))
    with silence_libraries():
        theirs = load_reference(tmp_path / "older")
    pixels = images(4)
    features = model.features(pixels)
    for text in (None, QUESTION):
        prompts = [Prompt(i, text, f"{i}") for i in range(4)]
        got = model.generate(features, prompts, DecodeOptions(max_new_tokens=NEW))
        ids = torch.tensor([[2] if text is None else prompt_ids(text)])
        for i, (generated,) in enumerate(got):
            embeds = torch.cat(
                (features.language_inputs[i : i + 1], theirs.get_input_embeddings()(ids)), 1
            )
            with silence_libraries():
                out = theirs.language_model.generate(
                    inputs_embeds=embeds,
                    attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
                    max_new_tokens=NEW,
                )
            assert list(generated.tokens) == out[0].tolist()


def test_older_layout_takes_every_decoding_option(tmp_path: Path) -> None:
    # Without an image token the rules see an id outside the vocabulary in its place.
    model = load(older_opt(tmp_path / "older"))
    features = model.features(images(2))
    for options in (
        DecodeOptions(max_new_tokens=4, repetition_penalty=1.5, no_repeat_ngram_size=1),
        DecodeOptions(max_new_tokens=4, num_beams=2, repetition_penalty=1.5, min_new_tokens=4),
    ):
        (texts,) = model.generate(features, [Prompt(1, QUESTION, "1")], options)
        tokens = texts[0].tokens
        assert len(set(tokens)) == len(tokens)
        assert NEWLINE not in tokens[:3] or options.min_new_tokens == 0
