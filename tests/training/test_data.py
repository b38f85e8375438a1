from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from training.build import QUERIES
from training.data import (
    Packer,
    Pool,
    draw_example,
    mirrored,
)
from training.evaluate import read, see
from training.labels import UNKNOWN
from training.texts import Text, scene_texts

EXAMPLES = [draw_example(np.random.default_rng(seed)) for seed in range(6)]


def test_packed_texts_score_as_they_do_alone(
    fresh: Blip2ForConditionalGeneration, processor: Blip2Processor
) -> None:
    """The packed sequences' logits are transformers' own for each text by itself."""
    packer, rng = Packer(processor.tokenizer), random.Random(0)
    texts = [scene_texts(rng, scene, 4) for _, scene in EXAMPLES]
    batch, owners = packer.evaluation_batch([pixels for pixels, _ in EXAMPLES], texts)
    with torch.inference_mode():
        _, query_output = see(fresh, batch.pixels)
        logits, targets = read(fresh, query_output[owners], batch)
        at = 0
        for (pixels, _), its_texts in zip(EXAMPLES, texts, strict=True):
            values = processor.image_processor(pixels, return_tensors="pt").pixel_values
            for text in its_texts:
                prompt = processor.tokenizer(text.prompt).input_ids
                target = [*processor.tokenizer(text.target).input_ids[1:], packer.end]
                image = [fresh.config.image_token_index] * QUERIES
                ids = torch.tensor([[*image, *prompt, *target]])
                by_itself = fresh(pixel_values=values, input_ids=ids).logits[
                    0, -len(target) - 1 : -1
                ]
                there = slice(at, at + len(target))
                assert targets[there].tolist() == target
                torch.testing.assert_close(logits[there], by_itself, atol=2e-4, rtol=1e-3)
                at += len(target)
    assert at == len(targets)


def test_texts_that_do_not_fit_are_left_out(processor: Blip2Processor) -> None:
    packer = Packer(processor.tokenizer)
    long, short = Text("", "cat " * 60), Text("", "a cat on a red background")
    ids, positions, targets, numbers = packer.pack([long, short, short, short])
    assert set(numbers.tolist()) == {0, 1, 2}
    assert (targets == packer.end).sum() == 2
    assert positions.max() == QUERIES + (numbers == 1).sum() - 1
    assert (ids[numbers == 0] == processor.tokenizer.pad_token_id).all()
    assert (targets[numbers == 0] == UNKNOWN).all()


def test_a_mirror_swaps_left_and_right() -> None:
    pixels, scene = EXAMPLES[1]
    flipped, seen = mirrored(pixels, scene)
    assert np.array_equal(flipped[:, ::-1], pixels)
    xs = [placed.x for placed in scene.objects]
    assert [1 - placed.x for placed in seen.objects] == pytest.approx(xs)
    assert seen.caption == scene.caption


def test_the_pool_forgets_the_oldest() -> None:
    pool = Pool(4)
    pool.add(EXAMPLES[:4])
    pool.add(EXAMPLES[4:6])
    kept = [scene for _, scene in pool.scenes]
    assert kept == [EXAMPLES[4][1], EXAMPLES[5][1], EXAMPLES[2][1], EXAMPLES[3][1]]
    assert len(pool.sample(random.Random(0), 3)) == 3
