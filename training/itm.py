"""Train ``tiny-itm``, which says whether a caption fits a picture: ``python -m training.itm``.

It sees with ``tiny``'s vision encoder, which does not change, and its Q-Former starts as
``tiny``'s. Two of BLIP-2's three objectives train it (Li et al. 2023, section 3.2): the contrast
of pictures and captions, and their matching on hard pairs, whose captions have one thing wrong.
A helper head that says which words are wrong makes the matching learn in minutes; it is dropped.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    PreTrainedTokenizerFast,
)

from training.build import QUERIES, WIDTH
from training.card import itm_card
from training.claims import Claim, nearly_right
from training.command_line import sibling_parser
from training.evaluate import held_out_scenes
from training.export import publish
from training.gallery import Gallery, embed_all, load_gallery
from training.labels import UNKNOWN
from training.learner import Learner, Pace
from training.matching import (
    CaptionMaker,
    Captions,
    MatchScores,
    embed_images,
    embed_texts,
    evaluate,
    match,
    read_together,
    similarities,
)
from training.siblings import load_tiny, tokenizer_with_template

TEMPERATURE = 0.05
HELPED = 4  # the layer whose text outputs the helper head reads: two more may use what it finds
START = "<s>"
MAX_POSITIONS = 128


def build_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The vocabulary of ``tiny``, used as BERT does: a first token that stands for the text."""
    return tokenizer_with_template(
        tokenizer,
        START,
        bos_token=START,
        cls_token=START,
        sep_token=tokenizer.eos_token,
        model_max_length=MAX_POSITIONS,
    )


def build_config(tiny: Blip2Config, processor: Blip2Processor) -> Blip2Config:
    """The configuration of ``tiny`` with a Q-Former that reads text, and no language model."""
    values = tiny.to_dict()
    del values["text_config"]
    values["qformer_config"] |= {
        "use_qformer_text_input": True,
        "max_position_embeddings": MAX_POSITIONS,
        "pad_token_id": processor.tokenizer.pad_token_id,
    }
    return Blip2Config.from_dict(values)


class Matcher(Blip2ForImageTextRetrieval):
    """The model with the auxiliary head of the training."""

    def __init__(self, config: Blip2Config) -> None:
        super().__init__(config)
        self.helper_head = nn.Linear(WIDTH, 2)


def build_model(config: Blip2Config, tiny: Blip2ForConditionalGeneration, seed: int = 0) -> Matcher:
    """``tiny``'s vision encoder, frozen, and its Q-Former with a text side of its own.

    The text side starts as a copy of the query side: it is fed by the same attention.
    """
    torch.manual_seed(seed)
    model = Matcher(config)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            nn.init.trunc_normal_(parameter, std=0.02)
    model.vision_model.load_state_dict(tiny.vision_model.state_dict())
    model.vision_model.requires_grad_(False)
    model.qformer.load_state_dict(tiny.qformer.state_dict(), strict=False)
    for layer in model.qformer.encoder.layer:
        layer.intermediate.load_state_dict(layer.intermediate_query.state_dict())
        layer.output.load_state_dict(layer.output_query.state_dict())
    with torch.no_grad():
        model.query_tokens.copy_(tiny.query_tokens)
        words = tiny.language_model.model.decoder.embed_tokens.weight
        # As large as the query tokens, beside which they stand.
        scale = model.query_tokens.std() / words.std()
        model.embeddings.word_embeddings.weight.copy_(scale * words)
        nn.init.normal_(model.embeddings.position_embeddings.weight, std=0.1)
    return model


@dataclass(frozen=True)
class Lesson:
    """What a step learns from: B pictures, each with its caption and captions nearly like it."""

    image_embeds: Tensor  # [B, P+1, W]
    seen: list[Claim]
    near: list[Claim]  # nearly right: the matching head's negatives
    captions: Captions  # B right ones, then nearly right ones: the contrast's texts
    same: Tensor  # bool [B, R]: the caption equals the picture's own


class Lessons:
    """Draws lessons from a gallery."""

    def __init__(self, gallery: Gallery, maker: CaptionMaker, seed: int) -> None:
        self.gallery, self.maker = gallery, maker
        self.claims = [Claim.of(scene) for scene in gallery.scenes]
        self.rng = random.Random(seed)

    def draw(self, pictures: int) -> Lesson:
        """A lesson about ``pictures`` pictures."""
        chosen = self.rng.sample(range(len(self.claims)), pictures)
        seen = [self.claims[i] for i in chosen]
        near = [nearly_right(self.rng, claim) for claim in seen]
        claims = seen + near
        same = torch.tensor([[a == b for b in claims] for a in seen])
        embeds = self.gallery.image_embeds[chosen]
        return Lesson(embeds, seen, near, self.maker.captions(claims), same)


def contrast_loss(model: Matcher, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """The contrastive loss, and the similarities [B, R] it rests on."""
    dtype = model.dtype
    count = len(lesson.seen)
    images = embed_images(model, lesson.image_embeds.to(dtype))
    texts = embed_texts(model, lesson.captions)
    logits = similarities(images, texts).float() / TEMPERATURE
    own = torch.eye(count, logits.shape[1], dtype=torch.bool)
    # Another picture of the very same things is neither right nor wrong.
    logits = logits.masked_fill(lesson.same & ~own, -1e4)
    right = torch.arange(count)
    loss = cross_entropy(logits, right) + cross_entropy(logits[:, :count].t(), right)
    return loss / 2, logits.detach()


def match_loss(
    model: Matcher, lesson: Lesson, logits: Tensor, maker: CaptionMaker, rng: random.Random
) -> Tensor:
    """The matching loss on right captions, as many nearly right ones, and some of other pictures.

    Those are drawn where the contrast sees likeness, as BLIP does.
    """
    count = len(lesson.seen)
    others = logits[:, :count].clone().fill_diagonal_(-1e4).softmax(1)
    picked = torch.multinomial(others, 1)[:, 0].tolist()
    negatives = [
        lesson.seen[picked[i]] if rng.random() < 0.2 else lesson.near[i] for i in range(count)
    ]
    claims = lesson.seen + [
        near if near != seen else other
        for near, seen, other in zip(negatives, lesson.seen, lesson.near, strict=True)
    ]
    captions = maker.captions(claims, lesson.seen * 2)
    embeds = lesson.image_embeds.to(model.dtype)
    output = read_together(model, torch.cat([embeds, embeds]), captions, output_hidden_states=True)
    fits = torch.tensor([1] * count + [0] * count)
    loss = cross_entropy(match(model, output.last_hidden_state).float(), fits)
    words = model.helper_head(output.hidden_states[HELPED][:, QUERIES:])
    known = captions.wrong != UNKNOWN
    return loss + 0.5 * cross_entropy(words[known].float(), captions.wrong[known])


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training run."""

    pace: Pace = field(default=Pace(minutes=25.0))
    gallery: int = 40_000  # scenes whose image embeddings are cached
    pictures: int = 48  # a step


def train(recipe: Recipe, folder: Path, tiny: Path, out: Path) -> None:
    """Train, report and export."""
    sighted, processor = load_tiny(tiny, build_tokenizer)
    model = build_model(build_config(sighted.config, processor), sighted)
    maker = CaptionMaker(processor.tokenizer)
    gallery = load_gallery(sighted, folder, recipe.gallery)
    learner = Learner(model, recipe.pace, folder / "itm")
    learner.restore()
    lessons = Lessons(gallery, maker, seed=1000 + learner.steps)

    def step() -> dict[str, float]:
        lesson = lessons.draw(recipe.pictures)
        losses: dict[str, float] = {}

        def loss(computing: Matcher) -> Tensor:
            contrast, logits = contrast_loss(computing, lesson)
            matching = match_loss(computing, lesson, logits, maker, lessons.rng)
            losses.update(contrast=contrast.item(), matching=matching.item())
            return contrast + matching

        learner.step(loss)
        return losses

    def measure(model: Blip2ForImageTextRetrieval, held_out: int) -> MatchScores:
        examples = held_out_scenes(held_out)
        image_embeds, _ = embed_all(sighted, [pixels for pixels, _ in examples])
        return evaluate(model, maker, image_embeds, [scene for _, scene in examples])

    def describe(model: Blip2ForImageTextRetrieval) -> tuple[str, str]:
        scores = measure(model, 3000)
        return itm_card(model, scores), str(scores)

    learner.run(step, lambda: str(measure(model, 500)))
    without_head = Blip2ForImageTextRetrieval(model.config)
    without_head.load_state_dict(model.state_dict(), strict=False)
    publish(without_head.eval(), processor, out, describe, (tiny,))
    learner.forget()


def main() -> None:
    """Read the command line and train."""
    minutes = Recipe().pace.minutes
    options = sibling_parser("tiny-itm", minutes, "Train tiny-itm on what tiny sees.").parse_args()
    recipe = Recipe(pace=replace(Recipe().pace, minutes=options.minutes))
    train(recipe, options.folder, options.tiny, options.out)


if __name__ == "__main__":
    main()
