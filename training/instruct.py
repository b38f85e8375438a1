"""Train ``tiny-instruct``, the sibling whose Q-Former reads: ``python -m training.instruct``.

This InstructBLIP sees with ``tiny``'s vision encoder and writes with ``tiny-t5``'s language model,
which do not change. What learns is a Q-Former that reads the prompt beside the picture. It begins
as ``tiny``'s, whose outputs that language model knows, with what ``tiny-itm`` reads words by. Words
beside the queries disturb it at first, so it is also taught, less and less, to show what ``tiny``'s
shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, pad
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from blip2cli.model.instructions import DESCRIBE
from training import itm, t5
from training.build import QUERIES, load_processor
from training.card import instruct_card
from training.command_line import sibling_parser
from training.evaluate import AllScores, embed, score_all
from training.export import publish
from training.gallery import load_gallery
from training.labels import UNKNOWN
from training.learner import Learner, Pace
from training.siblings import load_tiny
from training.t5_texts import Reader, RowMaker, Rows, read
from training.texts import T5_FORMS, Text


class InstructionMaker(RowMaker):
    """The rows of an InstructBLIP: where there is no prompt, the paper's instruction stands.

    ``start`` is the token with which the Q-Former's texts begin. Both tokenizers of the
    ``processor`` have one vocabulary and one end token.
    """

    def __init__(self, processor: Any) -> None:
        super().__init__(processor.tokenizer)
        self.start: int = processor.qformer_tokenizer.cls_token_id

    def rows(self, texts: Sequence[Text]) -> Rows:
        """The rows of these texts, in their order."""
        return super().rows([replace(text, prompt=text.prompt or DESCRIBE) for text in texts])


def build_processor(tiny: Path) -> InstructBlipProcessor:
    """``tiny-t5``'s tokenizer for the language model, ``tiny-itm``'s for the Q-Former."""
    processor = load_processor(tiny)
    return InstructBlipProcessor(
        processor.image_processor,
        t5.build_tokenizer(processor.tokenizer),
        itm.build_tokenizer(processor.tokenizer),
        num_query_tokens=QUERIES,
    )


def _build_config(writer: Blip2Config, matcher: Blip2Config) -> InstructBlipConfig:
    values = writer.to_dict()
    vision, qformer = values["vision_config"], matcher.to_dict()["qformer_config"]
    del vision["model_type"], qformer["model_type"]  # BLIP-2's
    del qformer["use_qformer_text_input"]  # every InstructBLIP's does
    return InstructBlipConfig(
        vision_config=vision,
        qformer_config=qformer,
        text_config=values["text_config"],
        num_query_tokens=QUERIES,
        image_token_index=values["image_token_index"],
    )


def build_model(
    writer: Blip2ForConditionalGeneration, matcher: Blip2ForImageTextRetrieval
) -> InstructBlipForConditionalGeneration:
    """``writer`` (``tiny-t5``), whose Q-Former has the text side of ``matcher`` (``tiny-itm``)."""
    model = InstructBlipForConditionalGeneration(_build_config(writer.config, matcher.config))
    for own, other in (
        (model.vision_model, writer.vision_model),
        (model.language_projection, writer.language_projection),
        (model.language_model, writer.language_model),
    ):
        own.load_state_dict(other.state_dict())
    # The two Q-Formers have the same names: what both have is the writer's.
    states = matcher.qformer.state_dict() | writer.qformer.state_dict()
    states = {name.replace("layernorm.", "embeddings.layernorm."): states[name] for name in states}
    words = matcher.embeddings.state_dict()
    model.qformer.load_state_dict(states | {f"embeddings.{name}": words[name] for name in words})
    with torch.no_grad():
        model.query_tokens.copy_(writer.query_tokens)
    model.requires_grad_(False)
    model.qformer.requires_grad_(True)
    model.query_tokens.requires_grad_(True)
    return model


def show(
    model: InstructBlipForConditionalGeneration, image_embeds: Tensor, rows: Rows, start: int
) -> Tensor:
    """Query outputs [R, Q, W] of image embeddings [R, P+1, W] beside the prompts of their rows.

    ``start`` is as of ``InstructionMaker``.
    """
    states: Tensor = model.qformer(
        input_ids=pad(rows.prompts, (1, 0), value=start),
        attention_mask=pad(rows.prompt_mask, (QUERIES + 1, 0), value=1),
        query_embeds=model.query_tokens.expand(len(rows.prompts), -1, -1),
        encoder_hidden_states=image_embeds.to(model.dtype),
    ).last_hidden_state
    return states[:, :QUERIES]


def instruct_reader(
    model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor
) -> Reader:
    """Judges texts about pictures as the model would write them."""
    maker = InstructionMaker(processor)

    def look(
        model: InstructBlipForConditionalGeneration,
        pictures: Sequence[NDArray[np.uint8]],
        owners: Sequence[int],
        rows: Rows,
    ) -> Tensor:
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        return show(model, embed(model, pixels)[list(owners)], rows, maker.start)

    return Reader(model, maker, look)


@dataclass(frozen=True)
class Lesson:
    """R texts about pictures: image embeddings [R, P+1, W], and ``tiny``'s outputs [R, Q, W]."""

    rows: Rows
    image_embeds: Tensor
    query_output: Tensor


class Lessons(t5.Lessons):
    """Draws the texts that ``tiny-t5`` learned from."""

    def lessons(self, recipe: Recipe) -> list[Lesson]:
        """What a step learns from."""
        drawn = self.draw_texts(recipe.scenes, recipe.sparse, recipe.shapes, recipe.texts)
        return [self._instructed(texts) for texts in drawn]

    def _instructed(self, texts: Sequence[tuple[Text, int]]) -> Lesson:
        numbers = [number for _, number in texts]
        rows = self.maker.rows([text for text, _ in texts])
        gallery = self.gallery
        return Lesson(rows, gallery.image_embeds[numbers], gallery.query_output[numbers])


def loss_of(
    lesson: Lesson, share: float, likeness: float, start: int
) -> Callable[[InstructBlipForConditionalGeneration], Tensor]:
    """The loss of a lesson that is ``share`` of a step: its texts', and ``likeness`` times how far
    the query outputs are from ``tiny``'s, in parts of their own spread."""

    def loss(model: InstructBlipForConditionalGeneration) -> Tensor:
        rows = lesson.rows
        shown = show(model, lesson.image_embeds, rows, start)
        counted = rows.targets != UNKNOWN
        logits = read(model, shown, rows).logits[counted].float()
        total = share * cross_entropy(logits, rows.targets[counted])
        if likeness:
            known = lesson.query_output.float()
            total = total + share * likeness * mse_loss(shown.float(), known) / known.var()
        return total

    return loss


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training run. So much is known at first that minutes are enough."""

    pace: Pace = field(
        default=Pace(
            minutes=12.0, adam_rate=5e-4, muon_rate=1e-3, weight_decay=0.0, hold=0.3, warm_up=10
        )
    )
    gallery: int = 40_000  # scenes whose image embeddings are cached
    scenes: int = 14  # pictures of each kind a step
    sparse: int = 8
    shapes: int = 6
    texts: int = 6  # a picture
    likeness: float = 3.0  # at first
    free: float = 0.6  # share of the time after which the query outputs may be any


def train(recipe: Recipe, folder: Path, tiny: Path, out: Path) -> None:
    """Train, report and export."""
    sighted, _ = load_tiny(tiny, t5.build_tokenizer)
    beside = tiny.with_name("tiny-t5")
    writer = Blip2ForConditionalGeneration.from_pretrained(beside)
    matcher = Blip2ForImageTextRetrieval.from_pretrained(tiny.with_name("tiny-itm"))
    model = build_model(writer, matcher)
    processor = build_processor(tiny)
    maker = InstructionMaker(processor)
    gallery = load_gallery(sighted, folder, recipe.gallery)
    learner = Learner(model, recipe.pace, folder / "instruct")
    learner.restore()
    lessons = Lessons(gallery, maker, seed=1000 + learner.steps)

    def step() -> dict[str, float]:
        drawn = lessons.lessons(recipe)
        words = sum(each.rows.target_count for each in drawn)
        likeness = recipe.likeness * max(0.0, 1 - learner.share / recipe.free)
        losses = [
            loss_of(each, each.rows.target_count / words, likeness, maker.start) for each in drawn
        ]
        return {"loss": learner.step(*losses)}

    def measure(
        model: InstructBlipForConditionalGeneration, held_out: int, shapes: int
    ) -> AllScores:
        return score_all(instruct_reader(model, processor), held_out, shapes, T5_FORMS[0])

    def describe(model: InstructBlipForConditionalGeneration) -> tuple[str, str]:
        scores = measure(model, 3000, 1000)
        return instruct_card(model, scores), str(scores)

    learner.run(step, lambda: str(measure(model, 200, 50)))
    publish(model.eval(), processor, out, describe, (tiny, beside))
    learner.forget()


def main() -> None:
    """Read the command line and train."""
    minutes = Recipe().pace.minutes
    options = sibling_parser(
        "tiny-instruct", minutes, "Train tiny-instruct on what tiny sees."
    ).parse_args()
    recipe = Recipe(pace=replace(Recipe().pace, minutes=options.minutes))
    train(recipe, options.folder, options.tiny, options.out)


if __name__ == "__main__":
    main()
