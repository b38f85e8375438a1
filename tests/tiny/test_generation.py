"""The shipped model through our own decoding, held against transformers image by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import Blip2ForConditionalGeneration, GPT2Tokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import blip2cli.tiny
from blip2cli.images.preprocess import to_uint8
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions, ModelOptions
from blip2cli.tiny.samples import SAMPLES
from training.data import Packer
from training.evaluate import exactly_right
from training.random_scenes import degrade, random_scene
from training.texts import Text

WEIGHTS = Path(blip2cli.tiny.__file__).parent / "weights" / "tiny"
SHIPPED = Path(__file__).parents[2] / "sample_images"
QUESTION = "Question: how many objects are there? Answer:"
OPTIONS = DecodeOptions()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Every sample image and a hundred further scenes of all sizes."""
    images = []
    for sample in SAMPLES:
        with Image.open(SHIPPED / sample.file_name) as opened:
            images.append(ImageOps.exif_transpose(opened).convert("RGB"))
    rng = np.random.default_rng(777)
    return images + [degrade(rng, random_scene(rng)[0]) for _ in range(100)]


@pytest.fixture(scope="module")
def ours() -> Blip2:
    return Blip2.load(ModelOptions(model="tiny"))


def written(
    model: Blip2, pictures: Sequence[Image.Image], text: str | None, batch_size: int
) -> list[tuple[tuple[int, ...], float]]:
    """Tokens and log-probability of every picture, in batches of ``batch_size``."""
    found = []
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        features = model.features(torch.stack([to_uint8(each, model.spec) for each in batch]))
        prompts = [Prompt(i, text, str(start + i)) for i in range(len(batch))]
        texts = [best for best, *_ in model.generate(features, prompts, OPTIONS)]
        found += [(text.tokens, text.logprob) for text in texts]
    return found


@pytest.mark.parametrize("text", [None, QUESTION])
def test_every_text_is_transformers_own_for_that_image_alone(
    ours: Blip2, pictures: list[Image.Image], text: str | None
) -> None:
    theirs = Blip2ForConditionalGeneration.from_pretrained(WEIGHTS).eval()
    processor = BlipImageProcessorPil.from_pretrained(WEIGHTS)
    image = [theirs.config.image_token_index] * theirs.config.num_query_tokens
    ids = torch.tensor([[*image, *ours.codec.encode(text)]])
    mine = written(ours, pictures, text, 16)
    for picture, (tokens, _) in zip(pictures, mine, strict=True):
        pixels = processor(picture, return_tensors="pt").pixel_values
        with torch.inference_mode():
            by_itself = theirs.generate(
                pixel_values=pixels,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=OPTIONS.max_new_tokens,
                do_sample=False,
            )
        assert by_itself[0, ids.shape[1] :].tolist() == list(tokens)


def test_the_batch_size_changes_no_bit(ours: Blip2, pictures: list[Image.Image]) -> None:
    at_once = written(ours, pictures, None, 16)
    assert written(ours, pictures, None, 3) == at_once
    assert written(ours, pictures, None, 1) == at_once
    assert len({tokens for tokens, _ in at_once}) > 80  # the texts differ


def test_right_is_what_greedy_decoding_writes_and_nothing_else(
    ours: Blip2, pictures: list[Image.Image]
) -> None:
    """The bars' measure agrees with the texts themselves."""
    packer = Packer(GPT2Tokenizer.from_pretrained(WEIGHTS))
    chosen = pictures[:12]
    texts = [ours.codec.decode(tokens) for tokens, _ in written(ours, chosen, None, 16)]
    sizes = (ours.spec.width, ours.spec.height)
    pixels = [np.asarray(each.resize(sizes, Image.Resampling.BICUBIC)) for each in chosen]
    texts = [
        [Text("", text), Text("", text.replace(" a ", " two ")), Text("", texts[i - 1])]
        for i, text in enumerate(texts)
    ]
    theirs = Blip2ForConditionalGeneration.from_pretrained(WEIGHTS).eval()
    assert exactly_right(theirs, packer, pixels, texts) == [[True, False, False]] * 12
