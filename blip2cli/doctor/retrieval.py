"""Checks of retrieval models, where they differ from those of generative models."""

from __future__ import annotations

import torch
from torch import Tensor

from blip2cli.doctor.behaviour import (
    LOGIT_TOLERANCE,
    NO_EFFECT,
    UNTRAINED,
    constant_stage,
    percent,
    relative_change,
)
from blip2cli.doctor.forward_pass import TEXTS
from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.report import Outcome, fail, ok, skipped
from blip2cli.doctor.tokens import IMAGE, PROBE, check_rows
from blip2cli.doctor.weights import stored_shapes
from blip2cli.model.retrieval import Pair
from blip2cli.system.library_logging import silence_libraries


def text_input(subject: ModelUnderTest) -> Outcome:
    """The Q-Former is built with its layers for text."""
    if subject.config.qformer_config.use_qformer_text_input:
        return ok("the Q-Former reads text")
    return fail(
        "use_qformer_text_input is off: the Q-Former's layers for text are left out",
        "set use_qformer_text_input to true under qformer_config in config.json",
    )


def projections(subject: ModelUnderTest) -> Outcome:
    """Images and texts are projected to ``image_text_hidden_size`` numbers."""
    size = subject.config.image_text_hidden_size
    shapes = stored_shapes(subject.checkpoint)
    if shapes is None:
        return skipped("shapes are not read from pickles")
    wrong = {
        name: shapes[f"{name}.weight"][0]
        for name in ("vision_projection", "text_projection")
        if f"{name}.weight" in shapes and shapes[f"{name}.weight"][0] != size
    }
    if not wrong:
        return ok(f"{size} numbers for an image and for a text")
    sizes = set(wrong.values())
    sizes_found = " and ".join(f"{name} gives {number}" for name, number in wrong.items())
    if len(wrong) == 2 and len(sizes) == 1:
        remedy = f"set image_text_hidden_size to {sizes.pop()} in config.json"
    else:
        remedy = "take all weights from one model"
    return fail(f"{sizes_found} numbers, image_text_hidden_size is {size}", remedy)


def word_rows(subject: ModelUnderTest) -> Outcome:
    """Every word piece has a row in the embedding.

    The image token needs none: it is cut off before the embedding, and has none in the published
    models.
    """
    vocabulary: dict[str, int] = subject.codec.tokenizer.get_vocab()
    tokens = 1 + max(number for word, number in vocabulary.items() if word != IMAGE)
    return check_rows("qformer_config", subject.config.qformer_config.vocab_size, tokens)


def image_token(subject: ModelUnderTest) -> Outcome:
    """Image tokens that the processor puts before a text are removed by the model."""
    index = subject.config.image_token_index
    known: int | None = subject.tokenizer.get_vocab().get(IMAGE)
    if index is None and known is not None:
        return fail(
            f"image_token_index is not set, and the tokenizer has {IMAGE} as {known}: transformers "
            "reads image tokens as words of the text",
            f"set image_token_index to {known} in config.json",
        )
    return ok("none" if index is None else f"{IMAGE} is {index}")


def query_tokens(subject: ModelUnderTest) -> Outcome:
    """The processor puts as many image tokens before a text as transformers cuts off."""
    queries, prepended = subject.config.num_query_tokens, subject.processor_queries
    needed = queries if subject.config.image_token_index is not None else None
    if prepended == needed or (prepended == queries and needed is None):
        return ok(f"{queries} of them")
    remedy = f"set num_query_tokens to {queries} in processor_config.json"
    return fail(
        f"transformers cuts {needed or 0} tokens off every text, and the processor puts "
        f"{prepended or 0} before it: texts are read with the wrong beginning",
        remedy,
    )


def prompt_tokens(subject: ModelUnderTest) -> Outcome:
    """A text stands between [CLS] and [SEP]; its score is read at [CLS]."""
    ids, tokenizer = subject.codec.encode(PROBE), subject.tokenizer
    expected = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    if (ids[0], ids[-1]) == expected:
        return ok(f"texts stand between tokens {expected[0]} and {expected[1]}")
    return fail(
        f"{PROBE!r} becomes {list(ids)}, not between class token {expected[0]} and separator "
        f"{expected[1]}",
        "take the tokenizer files of the model it was trained from (BERT's, with [CLS] and [SEP])",
    )


def padding_side(subject: ModelUnderTest) -> Outcome:
    """Texts are padded on the right: positions are counted from the first token."""
    side = subject.tokenizer_config.get("padding_side")
    if side == "left":
        return fail(
            "left: padding shifts a text's positions in other programs' batches (blip2cli never "
            "pads)",
            "set padding_side to right in tokenizer_config.json",
        )
    return ok("right" if side else "not set, which means right")


def image_used(subject: ModelUnderTest) -> Outcome:
    """The picture changes both scores, contrastive and matching."""
    scores = subject.forward_pass.scores
    constant = _constant_scores(scores.transpose(0, 1))
    if not constant:
        return ok(f"scores change by {percent(relative_change(scores))} from picture to picture")
    return constant_stage(
        subject.forward_pass.features, "scores are the same whatever the picture"
    ) or fail(f"the {constant} scores are the same whatever the picture", _head_remedy(constant))


def text_used(subject: ModelUnderTest) -> Outcome:
    """The text changes both scores, contrastive and matching."""
    scores = subject.forward_pass.scores
    constant = _constant_scores(scores)
    if not constant:
        effect = relative_change(scores.transpose(0, 1))
        return ok(f"scores change by {percent(effect)} from text to text")
    return fail(f"the {constant} scores are the same whatever the text", _head_remedy(constant))


def _constant_scores(scores: Tensor) -> str:
    """Which scores [N, T, 3] do not vary along T: contrastive, matching, both, or none."""
    rows = scores.transpose(0, 1)
    kinds = {"contrastive": rows[..., :1], "matching": rows[..., 1:]}
    return " and ".join(name for name, part in kinds.items() if relative_change(part) <= NO_EFFECT)


def _head_remedy(scores: str) -> str:
    heads = "itm_head" if scores == "matching" else "vision_projection and text_projection"
    if " and " in scores:
        heads = "embeddings and qformer"
    return f"look at the weights of {heads}; {UNTRAINED}"


@torch.inference_mode()
def transformers_agrees(subject: ModelUnderTest) -> Outcome:
    """Both scores equal those of transformers' own ``forward``."""
    if subject.beyond_transformers is not None:
        return skipped(f"transformers has no place for {subject.beyond_transformers}")
    model, features = subject.model, subject.forward_pass.features
    assert model.retrieval is not None
    pixels = subject.reference_pixels()[:1]
    text = TEXTS[0]
    ids = torch.tensor([model.codec.encode(text)], device=model.device)
    if subject.config.image_token_index is not None:
        # Their forward removes that many ids; which ones does not matter.
        ids = torch.cat((ids.new_zeros(1, subject.config.num_query_tokens), ids), dim=1)
    theirs = []
    reference = subject.reference
    with silence_libraries():
        for matching in (False, True):
            output = reference(
                pixel_values=pixels,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                use_image_text_matching_head=matching,
            )
            theirs.append(output.logits_per_image.float().flatten())
    ours = (
        model.retrieval.contrastive_scores(features, [Pair(0, text)]).flatten(),
        model.retrieval.matching_logits(features, [Pair(0, text)]).flatten(),
    )
    worst = max(
        ((one - other).norm() / other.norm().clamp_min(1e-3)).item()
        for one, other in zip(ours, theirs, strict=True)
    )
    if worst <= LOGIT_TOLERANCE[model.dtype]:
        return ok(f"the same scores, within {percent(max(worst, 1e-4))}")
    return fail(
        f"scores differ from transformers' by {percent(worst)}",
        "report this model: one of the two reads it wrongly",
    )
