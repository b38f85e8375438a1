"""A row is bit for bit the same whatever else is in its batch."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest
import torch

from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.model.wrapper import Generated
from blip2cli.options import DecodeOptions
from tests.model.conftest import IMAGES, Pair

SIZES = (1, 2, 3, 5, 8, 13, 16)
FEW = (1, 3, 5, 9)  # where two threads split the rows of a product unevenly
TEXTS = (None, "a photo of", "Question: how many cats are there? Answer:")
GREEDY = DecodeOptions(max_new_tokens=8)
SAMPLED = DecodeOptions(max_new_tokens=6, temperature=1.2, num_captions=2)
BEAMS = DecodeOptions(max_new_tokens=6, num_beams=3, num_captions=2)


@pytest.mark.parametrize(("threads", "sizes"), [(1, SIZES), (2, FEW)], indirect=["threads"])
def test_features_do_not_depend_on_the_batch(
    every: Pair, threads: int, sizes: Sequence[int]
) -> None:
    chance = random.Random(threads)
    alone: dict[int, ImageFeatures] = {}
    for size in sizes:
        members = chance.sample(range(IMAGES), size)
        batch = every.ours.features(every.pixels[members])
        for row, member in enumerate(members):
            if member not in alone:
                alone[member] = every.ours.features(every.pixels[member : member + 1])
            for field in dataclasses.fields(ImageFeatures):
                single = getattr(alone[member], field.name)[0]
                assert torch.equal(getattr(batch, field.name)[row], single), (field.name, size)


@pytest.mark.parametrize(
    ("options", "threads", "sizes"),
    [(GREEDY, 1, SIZES), (GREEDY, 2, FEW), (SAMPLED, 1, SIZES), (BEAMS, 1, SIZES)],
    indirect=["threads"],
    ids=["greedy", "greedy-two-threads", "sampled", "beams"],
)
def test_texts_do_not_depend_on_the_batch(
    every: Pair, options: DecodeOptions, threads: int, sizes: Sequence[int]
) -> None:
    # Tokens and log-probabilities, compared exactly; the features come from the batch as well.
    chance = random.Random(17 * threads)
    mixed = [(image, text) for image in range(7) for text in TEXTS]
    alike: list[tuple[int, str | None]] = [(image, None) for image in range(IMAGES)]
    alone: dict[tuple[int, str | None], list[Generated]] = {}
    for size in sizes:
        # Prompts of equal length run together: whole eights of them are a case of their own.
        members = chance.sample(alike if size % 8 == 0 else mixed, size)
        images = sorted({image for image, _ in members})
        chance.shuffle(images)
        features = every.ours.features(every.pixels[images])
        prompts = [Prompt(images.index(i), text, f"{i} {text}") for i, text in members]
        together = every.ours.generate(features, prompts, options)
        for (image, text), texts in zip(members, together, strict=True):
            if (image, text) not in alone:
                single = every.ours.features(every.pixels[image : image + 1])
                alone[image, text] = every.ours.generate(
                    single, [Prompt(0, text, f"{image} {text}")], options
                )[0]
            assert texts == alone[image, text], (size, image, text)
