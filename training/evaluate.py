"""Exact-match accuracy: captions and questions of held-out scenes, and easy-VQA's test split.

A text counts when every token, the end included, is what greedy decoding would write. One
forward pass over the right text shows that: greedy decoding writes it exactly when each of its
tokens is the most likely one after those before it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Blip2ForConditionalGeneration, InstructBlipForConditionalGeneration

from blip2cli.tiny.scenes import Scene
from training.build import QUERIES
from training.data import Batch, Packer, draw_example
from training.easyvqa import ShapePicture, load_split
from training.labels import UNKNOWN
from training.questions import scene_question, side_questions
from training.texts import OPT_FORMS, Text, question_text

HELD_OUT_SEED = 90_001  # never used for training
WritingModel = Blip2ForConditionalGeneration | InstructBlipForConditionalGeneration
# For pictures (uint8 [S, S, 3]) and the texts about each: would greedy decoding write them?
Judge = Callable[[Sequence[NDArray[np.uint8]], Sequence[Sequence[Text]]], Sequence[Sequence[bool]]]


@dataclass(frozen=True)
class Scores:
    """Shares of texts that are exactly right, 0 to 1, and how many of each were tried."""

    captions: float
    questions: float
    easy_vqa: float
    tried: tuple[int, ...]

    def __str__(self) -> str:
        names = ("captions", "questions", "easy-VQA")
        shares = (self.captions, self.questions, self.easy_vqa)
        return ", ".join(
            f"{name} {share:.2%} of {count:,}"
            for name, share, count in zip(names, shares, self.tried, strict=True)
        )


def embed(model: WritingModel, pixels: Tensor) -> Tensor:
    """Image embeddings [B, P+1, W] of uint8 pixels [B, 3, S, S]."""
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1) * 255
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1) * 255
    pixel_values = ((pixels.float() - mean) / std).to(model.dtype)
    image_embeds: Tensor = model.vision_model(pixel_values).last_hidden_state
    return image_embeds


def see(model: Blip2ForConditionalGeneration, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Image embeddings [B, P+1, W] and query outputs [B, Q, W] of uint8 pixels [B, 3, S, S]."""
    image_embeds = embed(model, pixels)
    queries = model.query_tokens.expand(len(pixels), -1, -1)
    query_output = model.qformer(
        query_embeds=queries, encoder_hidden_states=image_embeds
    ).last_hidden_state
    return image_embeds, query_output


def read(
    model: Blip2ForConditionalGeneration, query_output: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Logits [N, vocabulary] of all N target tokens of the packed texts, and the targets [N]."""
    decoder = model.language_model.model.decoder
    prefix = model.language_projection(query_output)
    embeds = torch.cat([prefix, decoder.embed_tokens(batch.ids)], dim=1)
    image_positions = torch.arange(QUERIES).expand(len(prefix), -1)
    hidden = decoder(
        inputs_embeds=embeds,
        attention_mask=batch.mask.to(model.dtype),
        position_ids=torch.cat([image_positions, batch.positions], dim=1),
        use_cache=False,
    ).last_hidden_state[:, QUERIES:]
    counted = batch.targets != UNKNOWN
    return model.language_model.lm_head(hidden[counted]), batch.targets[counted]


@torch.inference_mode()
def exactly_right(
    model: Blip2ForConditionalGeneration,
    packer: Packer,
    pictures: Sequence[NDArray[np.uint8]],
    texts: Sequence[Sequence[Text]],
) -> list[list[bool]]:
    """For each picture (uint8 [S, S, 3]) and each of its texts: would greedy decoding write it?"""
    results: list[list[bool]] = []
    for start in range(0, len(texts), 64):
        chunk = slice(start, start + 64)
        batch, owners = packer.evaluation_batch(pictures[chunk], texts[chunk])
        _, query_output = see(model, batch.pixels)
        logits, targets = read(model, query_output[owners], batch)
        right = logits.argmax(-1) == targets
        # Texts follow one another in their order, each ending with the end token.
        ends = torch.eq(targets, packer.end).nonzero().flatten().tolist()
        starts = [0, *(end + 1 for end in ends[:-1])]
        whole = iter([bool(right[a : b + 1].all()) for a, b in zip(starts, ends, strict=True)])
        results += [[next(whole) for _ in those] for those in texts[chunk]]
    return results


def held_out_scenes(count: int, seed: int = HELD_OUT_SEED) -> list[tuple[NDArray[np.uint8], Scene]]:
    """``count`` scenes of one to four objects that training never draws."""
    rng = np.random.default_rng(seed)
    scenes: list[tuple[NDArray[np.uint8], Scene]] = []
    while len(scenes) < count:
        example = draw_example(rng)
        if len(example[1].objects) <= 4:
            scenes.append(example)
    return scenes


def evaluate(
    model: Blip2ForConditionalGeneration,
    packer: Packer,
    scenes: Sequence[tuple[NDArray[np.uint8], Scene]],
    shapes: Sequence[ShapePicture],
) -> Scores:
    """Score captions and two questions a scene, and every question of the easy-VQA pictures."""
    model.eval()
    return score(partial(exactly_right, model, packer), scenes, shapes)


def score(
    judge: Judge,
    scenes: Sequence[tuple[NDArray[np.uint8], Scene]],
    shapes: Sequence[ShapePicture],
    form: str = OPT_FORMS[0],
) -> Scores:
    """The same for any model: ``judge`` says which texts it would write."""
    rng = random.Random(HELD_OUT_SEED)
    scene_texts = [
        [Text("", scene.caption)]
        + [question_text(*scene_question(rng, scene), form) for _ in range(2)]
        for _, scene in scenes
    ]
    shape_texts = [[question_text(*each, form) for each in shape.questions] for shape in shapes]
    on_scenes = judge([pixels for pixels, _ in scenes], scene_texts)
    on_shapes = judge([each.pixels for each in shapes], shape_texts)
    results = (
        [right[0] for right in on_scenes],
        [each for right in on_scenes for each in right[1:]],
        [each for right in on_shapes for each in right],
    )
    captions, questions, easy = (float(np.mean(each)) if each else math.nan for each in results)
    return Scores(captions, questions, easy, tried=tuple(len(each) for each in results))


def score_sides(
    judge: Judge, scenes: Sequence[tuple[NDArray[np.uint8], Scene]], form: str = OPT_FORMS[0]
) -> tuple[float, int]:
    """The share of questions about left and right that are answered exactly right, and how many.

    On their own: among all questions they are few enough to hide that they are guessed.
    """
    rng = random.Random(HELD_OUT_SEED)
    texts = [[question_text(*each, form) for each in side_questions(rng, s)] for _, s in scenes]
    right = judge([pixels for pixels, _ in scenes], texts)
    answers = [each for scene in right for each in scene]
    return float(np.mean(answers)), len(answers)


@dataclass(frozen=True)
class AllScores:
    """What is measured of a model that tells left and right apart."""

    texts: Scores
    sides: float  # share of questions about left and right that are answered exactly right
    side_count: int

    def __str__(self) -> str:
        return f"{self.texts}, left and right {self.sides:.2%} of {self.side_count:,}"


def score_all(
    judge: Judge, held_out: int, shapes: int, form: str, seed: int = HELD_OUT_SEED
) -> AllScores:
    """Scores over ``held_out`` scenes, and the first ``shapes`` test pictures of easy-VQA."""
    scenes = held_out_scenes(held_out, seed)
    scores = score(judge, scenes, load_split("test")[:shapes], form)
    return AllScores(scores, *score_sides(judge, scenes, form))
