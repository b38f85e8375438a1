"""The shipped tiny-t5 through our own decoding, held against transformers image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import Blip2ForConditionalGeneration, Blip2Processor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

from blip2cli.images.preprocess import to_uint8
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from blip2cli.system.library_logging import silence_libraries
from blip2cli.tiny.samples import SAMPLES
from tests.tiny.helpers import WEIGHTS
from training.random_scenes import degrade, random_scene

FOLDER = WEIGHTS / "tiny-t5"
SHIPPED = WEIGHTS.parents[2] / "sample_images"
# Prompts of unequal length: together in one batch, each about every picture.
TEXTS = (
    None,
    "a photo of",
    "Question: is there a dog? Short answer:",
    "Question: what color is the background of the picture? Short answer:",
)
SEARCHES = {
    "greedy": DecodeOptions(),
    "beam-5": DecodeOptions(num_beams=5),
    "beam-5-paper": DecodeOptions(num_beams=5, length_penalty=-1.0, max_new_tokens=10),
    "n-best": DecodeOptions(num_beams=5, num_captions=3),
}
# The model is certain of its texts: tamer draws would all be its best text.
SAMPLED = DecodeOptions(temperature=5.0, top_k=50, num_captions=2, max_new_tokens=12)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Every sample image and twelve further scenes of all sizes."""
    images = []
    for sample in SAMPLES:
        with Image.open(SHIPPED / sample.file_name) as opened:
            images.append(ImageOps.exif_transpose(opened).convert("RGB"))
    rng = np.random.default_rng(777)
    return images + [degrade(rng, random_scene(rng)[0]) for _ in range(12)]


@pytest.fixture(scope="module")
def ours() -> Blip2:
    return Blip2.load(ModelOptions(model="tiny-t5"))


@pytest.fixture(scope="module")
def theirs() -> Blip2ForConditionalGeneration:
    model: Blip2ForConditionalGeneration = Blip2ForConditionalGeneration.from_pretrained(FOLDER)
    return model.eval()


@pytest.fixture(scope="module")
def processor() -> Blip2Processor:
    images = BlipImageProcessorPil.from_pretrained(FOLDER)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(FOLDER)
    return Blip2Processor(images, tokenizer, num_query_tokens=16)


Text = tuple[tuple[int, ...], float]


def written(
    model: Blip2, pictures: Sequence[Image.Image], options: DecodeOptions, batch_size: int
) -> list[list[Text]]:
    """Tokens and log-probabilities: of every picture every prompt's, in batches of pictures."""
    found = []
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        features = model.features(torch.stack([to_uint8(each, model.spec) for each in batch]))
        prompts = [
            Prompt(i, text, f"{start + i} {text}") for i in range(len(batch)) for text in TEXTS
        ]
        found += [
            [(text.tokens, text.logprob) for text in texts]
            for texts in model.generate(features, prompts, options)
        ]
    return found


@pytest.mark.parametrize("search", SEARCHES)
def test_every_text_is_transformers_own_for_that_image_alone(
    ours: Blip2,
    theirs: Blip2ForConditionalGeneration,
    processor: Blip2Processor,
    pictures: list[Image.Image],
    search: str,
) -> None:
    options = SEARCHES[search]
    arguments: dict[str, Any] = {"max_new_tokens": options.max_new_tokens, "do_sample": False}
    if options.num_beams > 1:
        arguments |= {
            "num_beams": options.num_beams,
            "num_return_sequences": options.num_captions,
            "length_penalty": options.length_penalty,
        }
    chosen = pictures if search == "greedy" else pictures[:8]
    mine = iter(written(ours, chosen, options, 8))
    end = theirs.config.text_config.eos_token_id
    different = set()
    for picture in chosen:
        for text in TEXTS:
            # What the processor makes of no text at all: the end token, which closes every prompt.
            inputs = processor(picture, text=text or "", return_tensors="pt")
            with silence_libraries(), torch.inference_mode():
                by_itself = theirs.generate(**inputs, **arguments)
            rows = [row[1:].tolist() for row in by_itself]
            rows = [row[: row.index(end) + 1] if end in row else row for row in rows]
            assert [list(tokens) for tokens, _ in next(mine)] == rows, (search, text)
            different |= {tuple(row) for row in rows}
    assert len(different) > len(chosen)  # the texts differ


@pytest.mark.parametrize("options", [*SEARCHES.values(), SAMPLED], ids=[*SEARCHES, "sampled"])
def test_the_batch_changes_no_bit(
    ours: Blip2, pictures: list[Image.Image], options: DecodeOptions
) -> None:
    chosen = pictures[:9]
    at_once = written(ours, chosen, options, 9)
    assert written(ours, chosen, options, 4) == at_once
    assert written(ours, chosen, options, 1) == at_once


def test_samples_are_drawn_by_seed_and_name(ours: Blip2, pictures: list[Image.Image]) -> None:
    drawn = written(ours, pictures[:6], SAMPLED, 6)
    reseeded = written(ours, pictures[:6], replace(SAMPLED, seed=1), 6)
    assert drawn != reseeded
    assert any(first[0] != second[0] for first, second in drawn)  # two draws of one prompt


def test_sample_images_are_captioned_rightly(ours: Blip2, pictures: list[Image.Image]) -> None:
    texts = written(ours, pictures[: len(SAMPLES)], DecodeOptions(), 16)
    captions = [ours.codec.decode(tokens) for ((tokens, _),) in texts[:: len(TEXTS)]]
    assert captions == [sample.caption for sample in SAMPLES]
