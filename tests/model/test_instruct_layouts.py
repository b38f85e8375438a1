"""InstructBLIP as it lies on the hub, of every age and every size, reads as in transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.instructblip.modeling_instructblip import (
    InstructBlipForConditionalGeneration,
)
from transformers.models.instructblip.processing_instructblip import InstructBlipProcessor

from blip2cli.images.preprocess import normalize
from blip2cli.model.checkpoint.config import read_config
from blip2cli.model.decoding.requests import DecodeRequest
from blip2cli.model.families import LanguageFamily
from blip2cli.model.instructions import DESCRIBE
from blip2cli.model.nets.blip2 import GenerationModel
from blip2cli.model.tokenizer.fill_prompt import Prompt, question_prompt
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from blip2cli.system.library_logging import silence_libraries
from tests.hub_instruct import older_vicuna, published_vicuna, vicuna_prompt_ids
from tests.model.conftest import images
from tests.model.test_published_sizes import FLAN_T5_XL, FLAN_T5_XXL

NEW = 6
QUESTION = "Question: how many cats are there? Short answer:"
AGES: dict[str, Callable[[Path], Path]] = {
    "published": published_vicuna,
    "older": older_vicuna,
    "first": lambda directory: older_vicuna(directory, pickled=True),
}


@pytest.mark.external
@pytest.mark.parametrize("age", AGES)
def test_every_age_captions_as_transformers_does(age: str, tmp_path: Path) -> None:
    directory = AGES[age](tmp_path / age)
    ours = Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))
    with silence_libraries():
        theirs = InstructBlipForConditionalGeneration.from_pretrained(
            directory, dtype=torch.float32
        ).eval()
        processor = InstructBlipProcessor.from_pretrained(directory)
    pixels = images(3)
    values = normalize(pixels, ours.spec, torch.float32)
    features = ours.features(pixels)
    assert ours.model.config.image_token_index == (32001 if age == "published" else None)
    for text in (None, QUESTION):
        said = DESCRIBE if text is None else text
        read = processor(text=said, return_tensors="pt")
        ids = read["input_ids"]
        assert ids[0].tolist() == vicuna_prompt_ids(said) == list(ours.codec.encode(said))
        with torch.no_grad():
            seen = [
                theirs.get_image_features(
                    values[i : i + 1], qformer_input_ids=read["qformer_input_ids"]
                ).pooler_output
                for i in range(3)
            ]
        prompts = [Prompt(i, text, f"{i}") for i in range(3)]
        written = ours.generate(features, prompts, DecodeOptions(max_new_tokens=NEW))
        for i, (generated,) in enumerate(written):
            embeds = torch.cat((seen[i], theirs.get_input_embeddings()(ids)), 1)
            with silence_libraries():
                out = theirs.language_model.generate(
                    inputs_embeds=embeds,
                    attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
                    max_new_tokens=NEW,
                )
            assert list(generated.tokens) == out[0].tolist()


def test_choices_are_read_as_the_rest_of_a_line(tmp_path: Path) -> None:
    ours = Blip2.load(ModelOptions(str(older_vicuna(tmp_path / "m")), device="cpu"))
    for text in ("Short answer:", "Short answer: ", "Answer:\n"):
        bare, gap = ours.family.split_gap(text)
        for choice in ("a", "two cats", "42", "näher"):
            (ids,) = ours.encode_choices([choice], gap)
            assert ours.codec.encode(bare) + ids == ours.codec.encode(bare + gap + choice)
            assert ours.codec.decode(ids) == choice


def test_the_template_is_the_papers(tmp_path: Path) -> None:
    ours = Blip2.load(ModelOptions(str(older_vicuna(tmp_path / "m")), device="cpu"))
    asked = question_prompt("auto", "how many?", ours.family)
    assert asked == "Question: how many? Short answer:"


VICUNA_7B = {"model_type": "llama", "vocab_size": 32064, "pad_token_id": 32000}
VICUNA_13B = VICUNA_7B | {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
}


@dataclass(frozen=True)
class Published:
    """One repository: its language model, its image token, and what it must come to."""

    text: dict[str, Any]
    image_token: int
    billions: float  # parameters, as the hub counts them
    width: int  # of what the language model reads


MODELS = {
    "instructblip-vicuna-7b": Published(VICUNA_7B, 32001, 7.91, 4096),
    "instructblip-vicuna-13b": Published(VICUNA_13B, 32001, 14.2, 5120),
    "instructblip-flan-t5-xl": Published(FLAN_T5_XL, 32100, 4.02, 2048),
    "instructblip-flan-t5-xxl": Published(FLAN_T5_XXL, 32100, 12.31, 4096),
}


@pytest.mark.external
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_every_published_model_is_run_from_patches_to_scores(name: str) -> None:
    published = MODELS[name]
    config = read_config(
        {
            "model_type": "instructblip",
            "text_config": published.text,
            "qformer_config": {"vocab_size": 30523},
            "image_token_index": published.image_token,
        }
    )
    with torch.device("meta"):
        built = GenerationModel(config).eval()
    count = sum(parameter.numel() for parameter in built.parameters()) / 1e9
    assert count == pytest.approx(published.billions, rel=0.005)
    patches = torch.zeros(2, 257, 1408, device="meta")
    words = torch.zeros(3, 9, dtype=torch.long, device="meta")
    owners = torch.zeros(3, dtype=torch.long, device="meta")
    inputs = built.language_projection(built.encode_pairs(patches, words, owners))
    assert inputs.shape == (3, 32, published.width)
    assert isinstance(config.family, LanguageFamily)
    features = ImageFeatures(patches, patches[:, 0], patches[:, :0], inputs)
    session = config.family.open_session(built, features)
    requests = [
        DecodeRequest(image, (2, *range(10, 16)), max_tokens=10, reserved_tokens=10)
        for image in range(3)
    ]
    slots = session.open_slots(session.slot_shape(requests[0]), 8)
    first = slots.prefill([0, 1, 2], requests)
    logits = slots.decode_step(torch.tensor([*first, *[0] * 5]))
    assert logits.shape == (8, published.text["vocab_size"])
