"""Train ``tiny-t5``, the encoder-decoder sibling of ``tiny``: ``python -m training.t5``.

It sees with ``tiny``'s vision encoder and Q-Former, which do not change; its language projection
and its T5 learn. Both start from ``tiny``'s word embeddings and projection, which speak of the
same things in the same vocabulary already.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, rms_norm, smooth_l1_loss
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    PreTrainedTokenizerFast,
)

from training.build import QUERIES, WIDTH
from training.card import t5_card
from training.command_line import sibling_parser
from training.evaluate import AllScores, score_all
from training.export import publish
from training.gallery import Gallery, load_gallery
from training.labels import UNKNOWN
from training.learner import Learner, Pace
from training.siblings import load_tiny, tokenizer_with_template
from training.t5_texts import PlaceFinder, Places, Reader, RowMaker, Rows, read
from training.texts import T5_FORMS, Text, scene_texts, side_texts

ENCODER_LAYERS, DECODER_LAYERS = 3, 2
SHORT = 3  # target tokens, the end included, of what is computed together
SPREAD = 0.5  # root mean square of the word embeddings and of the projected query outputs


def build_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The vocabulary of ``tiny``, used as T5 does: ``</s>`` ends a prompt, nothing begins it."""
    return tokenizer_with_template(tokenizer, model_max_length=tokenizer.model_max_length)


def build_config(tiny: Blip2Config, processor: Blip2Processor) -> Blip2Config:
    """The configuration of ``tiny`` with a T5 of Flan-T5's kind in the place of its OPT."""
    tokenizer = processor.tokenizer
    values = tiny.to_dict()
    values["use_decoder_only_language_model"] = False
    values["text_config"] = {
        "model_type": "t5",
        "vocab_size": values["text_config"]["vocab_size"],
        "d_model": WIDTH,
        "d_kv": 32,
        "d_ff": 2 * WIDTH,
        "num_heads": 4,
        "num_layers": ENCODER_LAYERS,
        "num_decoder_layers": DECODER_LAYERS,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        # Flan-T5 has an output layer of its own. Here it would be an eighth of the T5's weights,
        # and it is not needed: words that are written are the words that are read.
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        # As in the published checkpoints: the only token of an empty prompt.
        "bos_token_id": tokenizer.eos_token_id,
    }
    return Blip2Config.from_dict(values)


class Student(Blip2ForConditionalGeneration):
    """The model with the auxiliary head of the training.

    With the text loss only, the model is at chance about left and right for very long. So this head
    predicts, from the words that name an object, where it stands, early enough for the last layer
    to compare two of them; and from a prompt's end, which of two is further to the right.
    """

    def __init__(self, config: Blip2Config) -> None:
        super().__init__(config)
        self.helper_head = nn.Linear(WIDTH, 2)

    def helper_loss(self, output: Any, places: Places) -> Tensor:
        """The loss of the auxiliary head: where the named objects stand."""
        early = output.encoder_hidden_states[ENCODER_LAYERS - 1]
        early = rms_norm(early.float(), early.shape[-1:]).to(early.dtype)
        across = self._ask(early, places.words, 0)
        loss = 5 * smooth_l1_loss(across, places.across, beta=0.05)
        if len(places.pairs):
            lead = self._ask(output.encoder_last_hidden_state, places.pairs, 1)
            loss = loss + 5 * smooth_l1_loss(lead, places.lead, beta=0.05)
        return loss

    def _ask(self, states: Tensor, where: Tensor, number: int) -> Tensor:
        chosen = states[where[:, 0], QUERIES + where[:, 1]]
        answer: Tensor = self.helper_head(chosen)[:, number].float()
        return answer


def build_model(config: Blip2Config, tiny: Blip2ForConditionalGeneration, seed: int = 0) -> Student:
    """``tiny``'s vision encoder, frozen, and a fresh T5 that knows ``tiny``'s words."""
    torch.manual_seed(seed)
    model = Student(config)
    for own, other in (
        (model.vision_model, tiny.vision_model),
        (model.qformer, tiny.qformer),
        (model.language_projection, tiny.language_projection),
    ):
        own.load_state_dict(other.state_dict())
    model.requires_grad_(False)
    model.language_projection.requires_grad_(True)
    model.helper_head.requires_grad_(True)
    language = model.language_model.requires_grad_(True)
    with torch.no_grad():
        model.query_tokens.copy_(tiny.query_tokens)
        joins = 0.02 / math.sqrt(2 * ENCODER_LAYERS)
        for name, parameter in language.named_parameters():
            if parameter.dim() == 2:
                branch_end = name.endswith((".o.weight", ".wo.weight"))
                nn.init.trunc_normal_(parameter, std=joins if branch_end else 0.05)
        words = tiny.language_model.model.decoder.embed_tokens.weight
        language.shared.weight.copy_(SPREAD * words / words.square().mean().sqrt())
        # Query outputs are as wide as a layer normalisation leaves them: about 1.
        own = model.language_projection
        scale = SPREAD / own.weight.square().sum(1).mean().sqrt()
        own.weight.mul_(scale)
        own.bias.mul_(scale)
    return model


@dataclass(frozen=True)
class Lesson:
    """R texts about pictures whose query outputs are [R, Q, W], and where what they name stands."""

    rows: Rows
    query_output: Tensor
    places: Places


class Lessons:
    """Draws what a step learns from: texts about pictures of the gallery."""

    def __init__(self, gallery: Gallery, maker: RowMaker, seed: int) -> None:
        self.gallery, self.maker = gallery, maker
        self.finder = PlaceFinder(maker)
        self.rng = random.Random(seed)
        self.sparse = [i for i, scene in enumerate(gallery.scenes) if len(scene.objects) <= 2]

    def draw(self, scenes: int, sparse: int, shapes: int, each: int) -> list[Lesson]:
        """Lessons of the texts that ``draw_texts`` draws."""
        return [self._lesson(group) for group in self.draw_texts(scenes, sparse, shapes, each)]

    def draw_texts(
        self, scenes: int, sparse: int, shapes: int, each: int
    ) -> list[list[tuple[Text, int]]]:
        """``each`` texts a picture and its number, short answers apart from captions and lists.

        They are about ``scenes`` scenes, about ``sparse`` more of one or two objects, with
        questions about left and right only, and about ``shapes`` easy-VQA pictures. Where an
        object stands is learned last, and on sparse scenes first.
        """
        rng, gallery = self.rng, self.gallery
        texts: list[tuple[Text, int]] = []
        for number in rng.sample(range(len(gallery.scenes)), scenes):
            made = scene_texts(rng, gallery.scenes[number], each - 1, sides=True, forms=T5_FORMS)
            texts += [(text, number) for text in made]
        for number in rng.sample(self.sparse, sparse):
            made = side_texts(rng, gallery.scenes[number], each, T5_FORMS[0])
            texts += [(text, number) for text in made]
        for number in rng.sample(range(len(gallery.shapes)), shapes):
            made = gallery.shapes[number].texts(rng, each - 1, T5_FORMS[0])
            texts += [(text, len(gallery.scenes) + number) for text in made]
        groups: list[list[tuple[Text, int]]] = [[], []]
        for text, number in texts:
            groups[len(self.maker.target(text)) <= SHORT].append((text, number))
        return [group for group in groups if group]

    def _lesson(self, texts: Sequence[tuple[Text, int]]) -> Lesson:
        known = self.gallery.scenes
        scenes = [known[number] if number < len(known) else None for _, number in texts]
        return Lesson(
            self.maker.rows([text for text, _ in texts]),
            self.gallery.query_output[[number for _, number in texts]],
            self.finder.places([text.prompt for text, _ in texts], scenes),
        )


def loss_of(lesson: Lesson, share: float) -> Callable[[Student], Tensor]:
    """The loss of a lesson whose words are ``share`` of the step's."""

    def loss(model: Student) -> Tensor:
        rows, places = lesson.rows, lesson.places
        output = read(model, lesson.query_output, rows, output_hidden_states=True)
        counted = rows.targets != UNKNOWN
        total = share * cross_entropy(output.logits[counted].float(), rows.targets[counted])
        if len(places.words):
            total = total + model.helper_loss(output, places)
        return total

    return loss


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training run."""

    pace: Pace = field(default=Pace(minutes=50.0, muon_rate=3e-3, adam_rate=2e-3))
    gallery: int = 40_000  # scenes whose features are cached
    scenes: int = 24  # pictures of each kind a step
    sparse: int = 20
    shapes: int = 8
    texts: int = 6  # a picture


def train(recipe: Recipe, folder: Path, tiny: Path, out: Path) -> None:
    """Train, report and export."""
    sighted, processor = load_tiny(tiny, build_tokenizer)
    model = build_model(build_config(sighted.config, processor), sighted)
    maker = RowMaker(processor.tokenizer)
    gallery = load_gallery(sighted, folder, recipe.gallery)
    learner = Learner(model, recipe.pace, folder / "t5")
    learner.restore()
    lessons = Lessons(gallery, maker, seed=1000 + learner.steps)

    def step() -> dict[str, float]:
        drawn = lessons.draw(recipe.scenes, recipe.sparse, recipe.shapes, recipe.texts)
        words = sum(each.rows.target_count for each in drawn)
        return {
            "text": learner.step(*(loss_of(each, each.rows.target_count / words) for each in drawn))
        }

    def measure(model: Blip2ForConditionalGeneration, held_out: int, shapes: int) -> AllScores:
        return score_all(Reader(model, maker), held_out, shapes, T5_FORMS[0])

    def describe(model: Blip2ForConditionalGeneration) -> tuple[str, str]:
        scores = measure(model, 3000, 1000)
        return t5_card(model, scores), str(scores)

    learner.run(step, lambda: str(measure(model, 200, 50)))
    without_head = Blip2ForConditionalGeneration(model.config)
    without_head.load_state_dict(model.state_dict(), strict=False)
    publish(without_head.eval(), processor, out, describe, (tiny,))
    learner.forget()


def main() -> None:
    """Read the command line and train."""
    minutes = Recipe().pace.minutes
    options = sibling_parser("tiny-t5", minutes, "Train tiny-t5 on what tiny sees.").parse_args()
    recipe = Recipe(pace=replace(Recipe().pace, minutes=options.minutes))
    train(recipe, options.folder, options.tiny, options.out)


if __name__ == "__main__":
    main()
