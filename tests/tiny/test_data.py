from __future__ import annotations

import random

import numpy as np
import torch
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from blip2cli.tiny.build import GRID, QUERIES
from blip2cli.tiny.data import (
    UNKNOWN,
    Packer,
    Pool,
    draw_example,
    mirrored,
    patch_labels,
    scene_slots,
)
from blip2cli.tiny.evaluate import exactly_right, read, see
from blip2cli.tiny.kinds import KINDS
from blip2cli.tiny.scenes import BACKGROUNDS, Placed, Scene
from blip2cli.tiny.texts import Text, scene_texts

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
        for (pixels, _), asked in zip(EXAMPLES, texts, strict=True):
            values = processor.image_processor(pixels, return_tensors="pt").pixel_values
            for text in asked:
                prompt = processor.tokenizer(text.prompt).input_ids
                target = [*processor.tokenizer(text.target).input_ids[1:], packer.end]
                image = [fresh.config.image_token_index] * QUERIES
                ids = torch.tensor([[*image, *prompt, *target]])
                alone = fresh(pixel_values=values, input_ids=ids).logits[0, -len(target) - 1 : -1]
                there = slice(at, at + len(target))
                assert targets[there].tolist() == target
                torch.testing.assert_close(logits[there], alone, atol=2e-4, rtol=1e-3)
                at += len(target)
    assert at == len(targets)


def test_what_counts_as_right_is_what_greedy_decoding_writes(
    fresh: Blip2ForConditionalGeneration, processor: Blip2Processor
) -> None:
    packer = Packer(processor.tokenizer)
    pixels = EXAMPLES[0][0]
    values = processor.image_processor(pixels, return_tensors="pt").pixel_values
    ids = torch.tensor(
        [
            [fresh.config.image_token_index] * QUERIES
            + processor.tokenizer("Question: what? Answer:").input_ids
        ]
    )
    with torch.inference_mode():
        new = fresh.generate(
            pixel_values=values, input_ids=ids, max_new_tokens=4, eos_token_id=None, do_sample=False
        )[0, ids.shape[1] :]
    written = processor.tokenizer.decode(new)
    packer.end = int(new[-1])  # what it happens to write fourth stands in for the end
    kept = processor.tokenizer.decode(new[:-1])
    if packer.encode(kept) != tuple(new[:-1].tolist()):  # random bytes need not encode back
        packer.encode = lambda text: tuple(new[:-1].tolist()) if text == kept else (5, 6)  # type: ignore[assignment]
    prompt = "Question: what? Answer:"
    real = Packer(processor.tokenizer).encode
    chosen = packer.encode
    packer.encode = lambda text: real(text) if text == prompt else chosen(text)  # type: ignore[assignment]
    right, wrong = exactly_right(
        fresh, packer, [pixels, pixels], [[Text(prompt, kept)], [Text(prompt, written + "x")]]
    )
    assert (right, wrong) == ([True], [False])


def test_texts_that_do_not_fit_are_left_out(processor: Blip2Processor) -> None:
    packer = Packer(processor.tokenizer)
    long, short = Text("", "cat " * 60), Text("", "a cat on a red background")
    ids, positions, targets, numbers = packer.pack([long, short, short, short])
    assert set(numbers.tolist()) == {0, 1, 2}
    assert (targets == packer.end).sum() == 2
    assert positions.max() == QUERIES + (numbers == 1).sum() - 1
    assert (ids[numbers == 0] == processor.tokenizer.pad_token_id).all()
    assert (targets[numbers == 0] == UNKNOWN).all()


def test_labels_say_what_stands_where() -> None:
    scene = Scene((Placed("cat", 0.25, 0.25, 0.3, 0.3), Placed("key", 0.8, 0.7, 0.2, 0.2)), "green")
    kinds, centers = (labels.reshape(GRID, GRID) for labels in patch_labels(scene))
    assert kinds[2, 2] == KINDS.index("cat")
    assert kinds[5, 6] == KINDS.index("key")
    assert kinds[0, 7] == len(KINDS)
    assert centers.sum() == 2
    assert centers[2, 2] == centers[5, 6] == 1
    none = [len(KINDS)] * 3
    cat, key = KINDS.index("cat"), KINDS.index("key")
    green = BACKGROUNDS.index("green")
    assert scene_slots(scene) == [cat, key, *none, 1, 1, 0, 0, 0, green, UNKNOWN, 2]


def test_a_mirror_swaps_left_and_right() -> None:
    pixels, scene = EXAMPLES[1]
    flipped, seen = mirrored(pixels, scene)
    assert np.array_equal(flipped[:, ::-1], pixels)
    assert [1 - placed.x for placed in seen.objects] == [placed.x for placed in scene.objects]
    assert seen.caption == scene.caption


def test_the_pool_forgets_the_oldest() -> None:
    pool = Pool(4)
    pool.add(EXAMPLES[:4])
    pool.add(EXAMPLES[4:6])
    kept = [scene for _, scene in pool.scenes]
    assert kept == [EXAMPLES[4][1], EXAMPLES[5][1], EXAMPLES[2][1], EXAMPLES[3][1]]
    assert len(pool.sample(random.Random(0), 3)) == 3
