"""How tiny-itm is built and trained: its scores are transformers' own."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from tests.tiny.helpers import WEIGHTS, load_tiny, small_gallery
from training.build import QUERIES, load_processor
from training.claims import CHANGES, Claim
from training.gallery import Gallery
from training.itm import (
    Lessons,
    Matcher,
    build_config,
    build_model,
    build_tokenizer,
    contrast_loss,
    match_loss,
)
from training.labels import UNKNOWN
from training.learner import Learner, Pace
from training.matching import (
    CaptionMaker,
    embed_images,
    embed_texts,
    evaluate,
    match,
    read_together,
    similarities,
)


@pytest.fixture(scope="module")
def tiny() -> Blip2ForConditionalGeneration:
    return load_tiny()


@pytest.fixture(scope="module")
def processor() -> Blip2Processor:
    tiny_processor = load_processor(WEIGHTS / "tiny")
    tokenizer = build_tokenizer(tiny_processor.tokenizer)
    return Blip2Processor(tiny_processor.image_processor, tokenizer, num_query_tokens=QUERIES)


@pytest.fixture(scope="module")
def maker(processor: Blip2Processor) -> CaptionMaker:
    return CaptionMaker(processor.tokenizer)


@pytest.fixture
def model(tiny: Blip2ForConditionalGeneration, processor: Blip2Processor) -> Matcher:
    return build_model(build_config(tiny.config, processor), tiny)


@pytest.fixture(scope="module")
def gallery(tiny: Blip2ForConditionalGeneration) -> Gallery:
    return small_gallery(tiny, 110, 1)


def test_a_caption_is_what_the_processor_makes_of_it(
    maker: CaptionMaker, processor: Blip2Processor, gallery: Gallery
) -> None:
    claims = [Claim.of(scene) for scene in gallery.scenes[:20]]
    captions = maker.captions(claims)
    theirs = processor.tokenizer(
        [claim.text for claim in claims], padding=True, return_tensors="pt"
    )
    assert torch.equal(captions.ids, theirs.input_ids)
    assert torch.equal(captions.mask, theirs.attention_mask)


def test_wrong_words_are_marked(maker: CaptionMaker, processor: Blip2Processor) -> None:
    seen = Claim(("cat", "cat", "pizza"), "blue")
    claimed = Claim(("cat", "cat", "pizza"), "red")
    captions = maker.captions([claimed], [seen])
    words = processor.tokenizer.convert_ids_to_tokens(captions.ids[0])
    wrong = [word for word, mark in zip(words, captions.wrong[0], strict=True) if mark == 1]
    assert wrong == ["Ġa", "Ġred", "Ġbackground"]
    silent = [word for word, mark in zip(words, captions.wrong[0], strict=True) if mark == UNKNOWN]
    assert silent == ["<s>", "Ġand", "Ġon", "</s>"]


def test_both_scores_are_those_of_transformers(
    model: Matcher, maker: CaptionMaker, gallery: Gallery, tiny: Blip2ForConditionalGeneration
) -> None:
    model.eval()
    captions = maker.captions([Claim.of(scene) for scene in gallery.scenes[:6]])
    pixel_values = torch.randn(6, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    placeholder = torch.full((6, QUERIES), model.config.image_token_index)
    ids = torch.cat([placeholder, captions.ids], dim=1)
    mask = torch.cat([torch.ones(6, QUERIES, dtype=torch.long), captions.mask], dim=1)
    with torch.inference_mode():
        embeds = model.vision_model(pixel_values).last_hidden_state
        mine = similarities(embed_images(model, embeds), embed_texts(model, captions))
        theirs = model(pixel_values, ids, mask).logits_per_image
        torch.testing.assert_close(mine, theirs)
        mine = match(model, read_together(model, embeds, captions).last_hidden_state)
        theirs = model(pixel_values, ids, mask, use_image_text_matching_head=True).logits_per_image
        torch.testing.assert_close(mine, theirs)


def test_the_eyes_are_those_of_tiny_and_do_not_learn(
    model: Matcher, tiny: Blip2ForConditionalGeneration
) -> None:
    theirs = tiny.state_dict()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith("vision_model"), name
        if name in theirs:  # the query side of the Q-Former begins as tiny's, too
            assert torch.equal(parameter, theirs[name]), name


def test_both_losses_fall(
    model: Matcher, maker: CaptionMaker, gallery: Gallery, tmp_path: Path
) -> None:
    lessons = Lessons(gallery, maker, seed=0)
    lesson = lessons.draw(8)
    learner = Learner(model, Pace(minutes=10, warm_up=1), tmp_path)
    losses: list[tuple[float, float]] = []

    def loss(computing: Matcher) -> torch.Tensor:
        contrast, logits = contrast_loss(computing, lesson)
        matching = match_loss(computing, lesson, logits, maker, random.Random(0))
        losses.append((contrast.item(), matching.item()))
        return contrast + matching

    for _ in range(14):
        learner.step(loss)
    assert losses[-1][0] < 0.8 * losses[0][0]
    assert losses[-1][1] < 0.95 * losses[0][1]


def test_an_untrained_model_is_at_chance(
    model: Matcher, maker: CaptionMaker, gallery: Gallery
) -> None:
    # What the bars are measured with does not flatter.
    scenes = gallery.scenes
    scores = evaluate(model, maker, gallery.image_embeds[: len(scenes)], scenes, draws=2)
    assert scores.texts < 0.1
    assert scores.images < 0.1
    assert 0.35 < scores.matching < 0.65
    assert set(scores.by_change) == set(CHANGES)
    assert (scores.draws, scores.pairs) == (2, 2 * len(scenes))


def test_pictures_of_the_same_things_are_no_negatives(
    gallery: Gallery, maker: CaptionMaker
) -> None:
    twice = Gallery(
        gallery.scenes[:3] * 2,
        gallery.shapes,
        torch.cat([gallery.image_embeds[:3]] * 2),
        torch.cat([gallery.query_output[:3]] * 2),
    )
    lesson = Lessons(twice, maker, seed=0).draw(6)
    own = [[a == b for b in lesson.seen] for a in lesson.seen]
    assert torch.equal(lesson.same[:, :6], torch.tensor(own))
    assert lesson.same[:, :6].sum() == 12
    assert lesson.near != lesson.seen
