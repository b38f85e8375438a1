"""The model cards that lie beside the embedded models' weights."""

from __future__ import annotations

from transformers import (
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    InstructBlipForConditionalGeneration,
)

from blip2cli.tiny.kinds import COLORS, KINDS, listed
from training.build import IMAGE_SIZE, PATCH_SIZE, QUERIES, WIDTH, EmbeddedModel
from training.evaluate import AllScores, Scores
from training.matching import MatchScores

Values = dict[str, str | int | float]
_DATA = """\
## Data and licences

- Scenes drawn by `blip2cli/tiny/scenes.py` from cut-outs of Noto Color Emoji (SIL Open Font
  License 1.1; text and attribution in `blip2cli/tiny/assets/NOTICE`).
- The training split of easy-VQA (package `easy-vqa`, MIT licence, Victor Zhou): 4,000 pictures,
  38,575 questions.
- The weights are under the Apache License 2.0, like the rest of blip2cli."""

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

{data}

Train it again from nothing with `make tiny`.
"""

# What cards of the siblings that write have in common.
_WRITER_CARD = """\
---
license: apache-2.0
pipeline_tag: image-to-text
tags: [blip-2, demonstration]
---

# {name}

{introduction}

## What it knows

- Pictures with one to four objects (emoji) on a plain or textured background: captions such as
  "two cats and a pizza on a blue background", with and without the prompt "a photo of".
- Questions in the form that {kind} uses with Flan-T5, `Question: how many cats are there? Short
  answer:` — how many, is there, what is there, what colour is the background, what is left or
  right of what.
- easy-VQA's pictures of one coloured circle, rectangle or triangle, and its questions.

Objects: {kinds}.
Backgrounds: {colors}.

## How often it is right

Exactly right, every word, on pictures that it never saw (printed by the training script):

| task | share | tried |
|---|---|---|
| caption of a scene | {captions:.2%} | {caption_count:,} |
| question about a scene | {questions:.2%} | {question_count:,} |
| question about left and right | {sides:.2%} | {side_count:,} |
| easy-VQA, test split | {easy_vqa:.2%} | {easy_count:,} |

## What it cannot do

What `tiny` cannot: photographs, drawings in another style, kinds that are not listed, more than
five objects, small objects, objects that hide one another, questions in other words than those it
was trained on, languages other than English. It answers all the same, and wrongly.

## Structure

{parameters:.2f} million parameters, stored in float16, computed in float32. {structure}

{data}

Train it again with `make tiny`.
"""

_T5 = {
    "name": "tiny-t5",
    "kind": "BLIP-2",
    "introduction": """\
The encoder-decoder sibling of `tiny`: a very small BLIP-2 (`Blip2ForConditionalGeneration`) with
a T5 language model of Flan-T5's kind. It ships with blip2cli so that what differs between the two
families of BLIP-2 can be tried and tested without a download. **It is a demonstration: it knows
drawn objects only.** For photographs use a real model, such as `Salesforce/blip2-flan-t5-xl`.""",
    "structure": """\
The vision encoder and
the Q-Former are those of `tiny`, whose files its index names; it needs the folder of `tiny` beside
its own. T5 with {encoder_layers} encoder and {decoder_layers} decoder layers, {width} wide, gated
GELU; unlike Flan-T5's, its output layer is the table of its word embeddings.""",
}

_INSTRUCT = {
    "name": "tiny-instruct",
    "kind": "InstructBLIP",
    "introduction": """\
The instructed sibling of `tiny`: a very small InstructBLIP (`InstructBlipForConditionalGeneration`)
whose Q-Former reads the prompt beside the picture. It ships with blip2cli so that what differs
between BLIP-2 and InstructBLIP can be tried and tested without a download. **It is a demonstration:
it knows drawn objects only.** For photographs use a real model, such as
`Salesforce/instructblip-flan-t5-xl`.

A caption without a prompt follows the instruction "A short image description:".""",
    "structure": """\
The vision encoder
is that of `tiny`, language model and projection are those of `tiny-t5`, whose files its index
names; it needs the folders of both beside its own. The Q-Former ({qformer_layers} layers, {queries}
queries, {width} wide) is its own: it began as that of `tiny`, with what `tiny-itm` reads words by,
and alone was trained. What it shows differs by a tenth of its spread between captions and
questions, and by a hundredth from question to question, for the language model reads them, too. It
has a tokenizer of its own, by which a text begins with `<s>`, where BERT's begins with `[CLS]`.""",
}

_ITM_CARD = """\
---
license: apache-2.0
pipeline_tag: zero-shot-image-classification
tags: [blip-2, demonstration]
---

# tiny-itm

A very small BLIP-2 that compares pictures and captions (`Blip2ForImageTextRetrieval`), trained on
drawn pictures. It ships with blip2cli so that embeddings and matching can be tried and tested
without a download. **It is a demonstration: it knows drawn objects only.** For photographs use a
real model, such as `Salesforce/blip2-itm-vit-g`.

## What it knows

Whether a caption such as "two cats and a pizza on a blue background" fits a picture with one to
four objects (emoji) on a plain or textured background. The contrastive head gives a picture and a
caption vectors of {dimensions} numbers, which are near when they fit; the matching head reads both
together.

Objects: {kinds}.
Backgrounds: {colors}.

## How often it is right

On pictures that it never saw (printed by the training script):

| task | share | tried |
|---|---|---|
| contrast: the right caption first, of 100 | {texts:.2%} | {draws} draws of 100 pictures |
| contrast: the right picture first, of 100 | {images:.2%} | the same |
| matching: right captions and nearly right ones | {matching:.2%} | {pairs:,} |
{changes}

A nearly right caption has one thing wrong: an object's kind, a count (by one) or the background.

## What it cannot do

Photographs, drawings in another style, kinds that are not listed, more than five objects, small
objects, objects that hide one another, captions in other words than those it was trained on, what
is left or right of what, languages other than English.

## Structure

{parameters:.2f} million parameters, stored in float16, computed in float32. The vision encoder is
that of `tiny`, whose file its index names; it needs the folder of `tiny` beside its own. The
Q-Former ({qformer_layers} layers, {queries} queries, {width} wide) reads text too and is its own. A
text begins with `<s>`, which stands where BERT's `[CLS]` does.

## Data and licences

- Scenes drawn by `blip2cli/tiny/scenes.py` from cut-outs of Noto Color Emoji (SIL Open Font
  License 1.1; text and attribution in `blip2cli/tiny/assets/NOTICE`).
- The weights are under the Apache License 2.0, like the rest of blip2cli.

Train it again with `make tiny`.
"""


def model_card(model: Blip2ForConditionalGeneration, scores: Scores) -> str:
    """The card of ``tiny`` with its measured ``scores``."""
    return _CARD.format(
        **_common(model),
        **_text_scores(scores),
        size=IMAGE_SIZE,
        patch=PATCH_SIZE,
        vision_layers=len(model.vision_model.encoder.layers),
        text_layers=len(model.language_model.model.decoder.layers),
    )


def t5_card(model: Blip2ForConditionalGeneration, scores: AllScores) -> str:
    """The card of ``tiny-t5`` with its measured ``scores``."""
    language = model.language_model
    layers = {
        "encoder_layers": len(language.encoder.block),
        "decoder_layers": len(language.decoder.block),
    }
    return _writer_card(_T5, _common(model) | layers, scores)


def instruct_card(model: InstructBlipForConditionalGeneration, scores: AllScores) -> str:
    """The card of ``tiny-instruct`` with its measured ``scores``."""
    return _writer_card(_INSTRUCT, _common(model), scores)


def _writer_card(texts: dict[str, str], common: Values, scores: AllScores) -> str:
    return _WRITER_CARD.format(
        **common,
        **_text_scores(scores.texts),
        sides=scores.sides,
        side_count=scores.side_count,
        **texts | {"structure": texts["structure"].format(**common)},
    )


def itm_card(model: Blip2ForImageTextRetrieval, scores: MatchScores) -> str:
    """The card of ``tiny-itm``."""
    changes = [f"| … {name} | {share:.2%} | |" for name, share in scores.by_change.items()]
    return _ITM_CARD.format(
        **_common(model),
        dimensions=model.config.image_text_hidden_size,
        texts=scores.texts,
        images=scores.images,
        matching=scores.matching,
        draws=scores.draws,
        pairs=scores.pairs,
        changes="\n".join(changes),
    )


def _common(model: EmbeddedModel) -> Values:
    return {
        "data": _DATA,
        "kinds": listed(KINDS),
        "colors": listed(tuple(COLORS)),
        "parameters": sum(each.numel() for each in model.parameters()) / 1e6,
        "queries": QUERIES,
        "width": WIDTH,
        "qformer_layers": len(model.qformer.encoder.layer),
    }


def _text_scores(scores: Scores) -> dict[str, float]:
    counts = zip(("caption_count", "question_count", "easy_count"), scores.tried, strict=True)
    shares = {each: getattr(scores, each) for each in ("captions", "questions", "easy_vqa")}
    return shares | dict(counts)
