"""The model card that lies beside an embedded model's weights."""

from __future__ import annotations

from transformers import Blip2ForConditionalGeneration

from blip2cli.tiny.build import IMAGE_SIZE, PATCH_SIZE, QUERIES, WIDTH
from blip2cli.tiny.evaluate import Scores
from blip2cli.tiny.kinds import COLORS, KINDS, listed

_CARD = """\
---
license: apache-2.0
pipeline_tag: image-to-text
tags: [blip-2, demonstration]
---

# tiny

A very small BLIP-2 (`Blip2ForConditionalGeneration` with an OPT language model), trained from
nothing on drawn pictures. It ships with blip2cli so that the first command works without a
download, and so that tests run on a real checkpoint. **It is a demonstration: it knows drawn
objects only.** For photographs use a real model, such as `Salesforce/blip2-opt-2.7b`.

## What it knows

- Pictures with one to four objects (emoji) on a plain or textured background: captions such as
  "two cats and a pizza on a blue background", with and without the prompt "a photo of".
- Questions in BLIP-2's form, `Question: how many cats are there? Answer:` — how many, is there,
  what is there, what colour is the background, what is left or right of what.
- easy-VQA's pictures of one coloured circle, rectangle or triangle, and its questions.

Objects: {kinds}.
Backgrounds: {colors}.

## How often it is right

Exactly right, every word, on pictures that it never saw (printed by the training script):

| task | share | tried |
|---|---|---|
| caption of a scene | {captions:.2%} | {caption_count:,} |
| question about a scene | {questions:.2%} | {question_count:,} |
| easy-VQA, test split | {easy_vqa:.2%} | {easy_count:,} |

## What it cannot do

Photographs, drawings in another style, kinds that are not listed, more than five objects, small
objects (under a sixth of the picture's shorter side), objects that hide one another, questions in
other words than those it was trained on, languages other than English. It answers all the same,
and wrongly: it has no way to say that it does not know.

## Structure

{parameters:.2f} million parameters, stored in float16, computed in float32. Images of
{size}×{size} pixels in patches of {patch}, ViT with {vision_layers} layers, Q-Former with
{qformer_layers} layers and {queries} queries (cross-attention in every second), OPT with
{text_layers} layers, all {width} wide. The key part of the vision encoder's query/key/value bias
is zero, as in the original BLIP-2 checkpoints.

## Data and licences

- Scenes drawn by `blip2cli/tiny/scenes.py` from cut-outs of Noto Color Emoji (SIL Open Font
  License 1.1; text and attribution in `blip2cli/tiny/assets/NOTICE`).
- The training split of easy-VQA (package `easy-vqa`, MIT licence, Victor Zhou): 4,000 pictures,
  38,575 questions.
- The weights are under the Apache License 2.0, like the rest of blip2cli.

Train it again from nothing with `make tiny`.
"""


def model_card(model: Blip2ForConditionalGeneration, scores: Scores) -> str:
    """The card's text for ``model`` with its measured ``scores``."""
    return _CARD.format(
        kinds=listed(KINDS),
        colors=listed(tuple(COLORS)),
        captions=scores.captions,
        questions=scores.questions,
        easy_vqa=scores.easy_vqa,
        caption_count=scores.tried[0],
        question_count=scores.tried[1],
        easy_count=scores.tried[2],
        parameters=sum(each.numel() for each in model.parameters()) / 1e6,
        size=IMAGE_SIZE,
        patch=PATCH_SIZE,
        queries=QUERIES,
        width=WIDTH,
        vision_layers=len(model.vision_model.encoder.layers),
        qformer_layers=len(model.qformer.encoder.layer),
        text_layers=len(model.language_model.model.decoder.layers),
    )
