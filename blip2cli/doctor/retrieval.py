"""Checks of retrieval models, where they differ from those of models that write."""

from __future__ import annotations

import torch
from torch import Tensor

from blip2cli.doctor.behaviour import NEAR, NO_CHANGE, change, percent, same_everywhere, way
from blip2cli.doctor.model_under_test import Patient
from blip2cli.doctor.observe import TEXTS
from blip2cli.doctor.report import Outcome, fail, ok, skipped
from blip2cli.doctor.tokens import IMAGE, PROBE, rows_for
from blip2cli.doctor.weights import stored_shapes
from blip2cli.model.retrieval import Pair
from blip2cli.system.library_logging import silence_libraries


def text_input(patient: Patient) -> Outcome:
    """The Q-Former has the layers that read text."""
    if patient.config.qformer_config.use_qformer_text_input:
        return ok("the Q-Former reads text")
    return fail(
        "use_qformer_text_input is off: the Q-Former's layers for text are left out",
        "set use_qformer_text_input to true under qformer_config in config.json.",
    )


def projections(patient: Patient) -> Outcome:
    """Images and texts are projected into one space, of the size the configuration says."""
    size = patient.config.image_text_hidden_size
    shapes = stored_shapes(patient.checkpoint)
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
    said = " and ".join(f"{name} gives {number}" for name, number in wrong.items())
    if len(wrong) == 2 and len(sizes) == 1:
        mend = f"set image_text_hidden_size to {sizes.pop()} in config.json."
    else:
        mend = "take all weights from one model."
    return fail(f"{said} numbers, image_text_hidden_size is {size}", mend)


def word_rows(patient: Patient) -> Outcome:
    """Every word piece has a row in the embedding.

    The image token needs none: it is cut off before the embedding, and has none in the published
    models.
    """
    vocabulary: dict[str, int] = patient.codec.tokenizer.get_vocab()
    tokens = 1 + max(number for word, number in vocabulary.items() if word != IMAGE)
    return rows_for("qformer_config", patient.config.qformer_config.vocab_size, tokens)


def image_token(patient: Patient) -> Outcome:
    """Image tokens that the processor puts before a text are cut off again."""
    index = patient.config.image_token_index
    known: int | None = patient.tokenizer.get_vocab().get(IMAGE)
    if index is None and known is not None:
        return fail(
            f"image_token_index is not set, and the tokenizer has {IMAGE} as {known}: transformers "
            "reads image tokens as words of the text",
            f"set image_token_index to {known} in config.json.",
        )
    return ok("none" if index is None else f"{IMAGE} is {index}")


def query_tokens(patient: Patient) -> Outcome:
    """The processor puts as many image tokens before a text as transformers cuts off."""
    queries, made = patient.config.num_query_tokens, patient.processor_queries
    needed = queries if patient.config.image_token_index is not None else None
    if made == needed or (made == queries and needed is None):
        return ok(f"{queries} of them")
    mend = f"set num_query_tokens to {queries} in processor_config.json."
    return fail(
        f"transformers cuts {needed or 0} tokens off every text, and the processor puts "
        f"{made or 0} before it: texts are read with the wrong beginning",
        mend,
    )


def prompt_tokens(patient: Patient) -> Outcome:
    """A text stands between class token and separator; its score is read from the class token."""
    ids, tokenizer = patient.codec.encode(PROBE), patient.tokenizer
    wanted = (tokenizer.cls_token_id, tokenizer.sep_token_id)
    if (ids[0], ids[-1]) == wanted:
        return ok(f"texts stand between tokens {wanted[0]} and {wanted[1]}")
    return fail(
        f"{PROBE!r} becomes {list(ids)}, not between class token {wanted[0]} and separator "
        f"{wanted[1]}",
        "take the tokenizer files of the model it was trained from (BERT's, with [CLS] and [SEP]).",
    )


def padding_side(patient: Patient) -> Outcome:
    """Padding may not come before a text: its positions are counted from the first."""
    said = patient.tokenizer_settings.get("padding_side")
    if said == "left":
        return fail(
            "left: padding shifts a text's positions in other programs' batches (blip2cli never "
            "pads)",
            "set padding_side to right in tokenizer_config.json.",
        )
    return ok("right" if said else "not set, which means right")


def image_used(patient: Patient) -> Outcome:
    """Other pictures give other scores, contrastive and matching alike."""
    scores = patient.observation.scores
    alike = _alike(scores.transpose(0, 1))
    if not alike:
        return ok(f"scores change by {percent(change(scores))} from picture to picture")
    stage = same_everywhere(way(patient.observation.features))
    if stage is not None:
        return fail(
            f"scores are the same whatever the picture: behind {stage.name} all are alike",
            stage.mend,
        )
    return fail(f"the {alike} scores are the same whatever the picture", _head_mend(alike))


def text_used(patient: Patient) -> Outcome:
    """Other texts give other scores, contrastive and matching alike."""
    scores = patient.observation.scores
    alike = _alike(scores)
    if not alike:
        moved = change(scores.transpose(0, 1))
        return ok(f"scores change by {percent(moved)} from text to text")
    return fail(f"the {alike} scores are the same whatever the text", _head_mend(alike))


def _alike(scores: Tensor) -> str:
    """Which scores [N, T, 3] do not vary along T: contrastive, matching, both, or none."""
    rows = scores.transpose(0, 1)
    kinds = {"contrastive": rows[..., :1], "matching": rows[..., 1:]}
    return " and ".join(name for name, part in kinds.items() if change(part) <= NO_CHANGE)


def _head_mend(kind: str) -> str:
    heads = "itm_head" if kind == "matching" else "vision_projection and text_projection"
    if " and " in kind:
        heads = "embeddings and qformer"
    return (
        f"look at the weights of {heads}; they are not those of a trained model: fetch it again, "
        "or save it again from training."
    )


@torch.inference_mode()
def transformers_agrees(patient: Patient) -> Outcome:
    """blip2cli's scores are those of transformers' own ``forward``."""
    model, seen = patient.model, patient.observation
    assert model.retrieval is not None
    pixels = patient.their_pixels()[:1]
    text = TEXTS[0]
    ids = torch.tensor([model.codec.encode(text)], device=model.device)
    if patient.config.image_token_index is not None:
        # Their forward cuts off so many ids; which ones does not matter.
        ids = torch.cat((ids.new_zeros(1, patient.config.num_query_tokens), ids), dim=1)
    theirs = []
    reference = patient.reference
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
        model.retrieval.contrastive_scores(seen.features, [Pair(0, text)]).flatten(),
        model.retrieval.matching_logits(seen.features, [Pair(0, text)]).flatten(),
    )
    worst = max(
        ((one - other).norm() / other.norm().clamp_min(1e-3)).item()
        for one, other in zip(ours, theirs, strict=True)
    )
    if worst <= NEAR[model.dtype]:
        return ok(f"the same scores, within {percent(max(worst, 1e-4))}")
    return fail(
        f"scores differ from transformers' by {percent(worst)}",
        "report this model: one of the two reads it wrongly.",
    )
