"""Choices get the likelihood that transformers' forward gives them, one at a time."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from blip2cli.errors import OptionError
from blip2cli.model.decoding import scoring
from blip2cli.model.decoding.scoring import Likelihood
from blip2cli.model.families import OPT, T5
from blip2cli.model.families.opt.token_tree import TokenTree
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions
from tests.model.conftest import IMAGES, Pair, plain
from tests.model.decoding.helpers import open_session
from tests.model.reference_scores import reference_score

# Of unequal length, one the beginning of another, one of a single token.
CHOICES = ("a", "a cat", "a cat and a pizza", "two", "two cats", "on a blue background", "a dog")
TEXTS = (
    "Question: what is it? Answer:",
    "Question: how many cats are there? Answer:",
    "a photo of",
    "Answer: ",  # ends in a blank
)


def doubled(pair: Pair) -> Pair:
    """The same in float64."""
    one = pair.ours
    weights = plain(pair.directory, torch.float64)
    ours = Blip2(one.name, one.family, weights, one.codec, one.spec, "")
    theirs = copy.deepcopy(pair.theirs).double()
    return Pair(pair.directory, ours, theirs, pair.pixels, ours.features(pair.pixels))


def asked(images: Sequence[int], texts: Sequence[str]) -> list[Prompt]:
    return [Prompt(i, text, f"{i} {text}") for i in images for text in texts]


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_likelihoods_are_those_of_transformers(either: Pair, double: bool) -> None:
    # Random weights are so wide that float32 itself, theirs as ours, is off by 1e-3 in these sums.
    # So they are compared strictly in float64; the embedded models are, in float32 (tests/tiny).
    pair = doubled(either) if double else either
    prompts = [Prompt(n % 3, text, "x") for n, text in enumerate(TEXTS)]
    found = pair.ours.score(pair.features, prompts, [CHOICES] * len(prompts))
    for prompt, likelihoods in zip(prompts, found, strict=True):
        assert prompt.text is not None
        for choice, likelihood in zip(CHOICES, likelihoods, strict=True):
            total, tokens = reference_score(pair, prompt.image, prompt.text, choice)
            assert likelihood.tokens == tokens
            close = 1e-5 if double else 2e-3
            assert likelihood.total == pytest.approx(total, abs=close), (prompt, choice)
    gaps = [row[1].total - row[0].total for row in found]
    assert max(gaps) - min(gaps) > 0.1  # the images and questions matter


def test_a_choice_begins_as_the_model_would_begin_it(opt: Pair, t5: Pair) -> None:
    assert OPT.split_gap("Answer:") == ("Answer:", " ")
    assert OPT.split_gap("Answer:  ") == ("Answer:", "  ")
    assert OPT.split_gap("Answer:\n") == ("Answer:\n", "")
    assert T5.split_gap("Answer: ") == ("Answer: ", " ")
    for text in ("Answer:", "Answer: ", "Answer:\n"):
        bare, gap = OPT.split_gap(text)
        for choice in CHOICES:
            (ids,) = opt.ours.encode_choices([choice], gap)
            whole = opt.ours.codec.encode(bare + gap + choice)
            assert opt.ours.codec.encode(bare) + ids == whole
    (ids,) = t5.ours.encode_choices(["two cats"])
    assert (*ids, 1) == t5.ours.codec.encode("two cats")


def test_choices_have_more_than_one_length(either: Pair) -> None:
    lengths = [len(ids) for ids in either.ours.encode_choices(CHOICES)]
    assert len(set(lengths)) >= 3
    ids = either.ours.encode_choices(("a cat", "a cat and a pizza"))
    assert ids[1][: len(ids[0])] == ids[0]


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_likelihoods_do_not_depend_on_the_batch(every: Pair, threads: int) -> None:
    chance = random.Random(threads)
    members = [(image, text) for image in range(7) for text in TEXTS[:3]]
    alone: dict[tuple[int, str], list[Likelihood]] = {}
    for size in (1, 3, 5, 8, 13, 21) if threads == 1 else (5,):
        some = chance.sample(members, size)
        images = sorted({image for image, _ in some})
        chance.shuffle(images)
        features = every.ours.features(every.pixels[images])
        prompts = [Prompt(images.index(image), text, "x") for image, text in some]
        together = every.ours.score(features, prompts, [CHOICES] * size)
        for (image, text), found in zip(some, together, strict=True):
            if (image, text) not in alone:
                single = every.ours.features(every.pixels[image : image + 1])
                (alone[image, text],) = every.ours.score(single, [Prompt(0, text, "")], [CHOICES])
            assert found == alone[image, text], (size, image, text)


def test_a_choice_scores_the_same_beside_other_choices(either: Pair) -> None:
    (whole,) = either.ours.score(either.features, asked([4], TEXTS[:1]), [CHOICES])
    for some in (CHOICES[2:4], CHOICES[:1] + CHOICES[5:]):
        (found,) = either.ours.score(either.features, asked([4], TEXTS[:1]), [some])
        assert found == [whole[CHOICES.index(choice)] for choice in some]


def test_portions_do_not_change_a_score(either: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = asked(range(IMAGES), TEXTS[:2])
    lists = [CHOICES[n % 3 :] for n in range(len(prompts))]  # not all the same
    whole = either.ours.score(either.features, prompts, lists)
    for limit, count in (("_PROMPTS", 5), ("_ROWS", 3), ("_TOKENS", 5), ("_SCORED", 4)):
        monkeypatch.setattr(scoring, limit, count)
    assert either.ours.score(either.features, prompts, lists) == whole


def test_every_way_to_end_counts(opt: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = asked([0], TEXTS[:1])
    (one,) = opt.ours.score(opt.features, prompts, [CHOICES])
    end = opt.ours._end
    monkeypatch.setattr(opt.ours, "_end", (*end, 7))
    (two,) = opt.ours.score(opt.features, prompts, [CHOICES])
    assert all(b.total > a.total and b.tokens == a.tokens for a, b in zip(one, two, strict=True))
    monkeypatch.setattr(opt.ours, "_end", ())
    (none,) = opt.ours.score(opt.features, prompts, [CHOICES])
    assert all(n.total > b.total for n, b in zip(none, two, strict=True))
    assert [n.tokens + 1 for n in none] == [a.tokens for a in one]
    # Without an end, a choice is never beaten by one that it begins.
    assert none[0].total > none[1].total > none[2].total


def test_an_image_is_read_once_for_all_its_prompts(opt: Pair) -> None:
    read: list[tuple[int, ...]] = []
    layer = opt.ours.model.language_model.model.decoder.layers[0]
    handle = layer.fc1.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[:2]))
    features = opt.ours.features(opt.pixels)
    prompts = asked([2, 5, 9], TEXTS)
    try:
        opt.ours.score(features, prompts, [CHOICES] * len(prompts))
        opt.ours.generate(features, prompts, DecodeOptions(max_new_tokens=3))
    finally:
        handle.remove()
    assert read.count((IMAGES, opt.ours.model.config.num_query_tokens)) == 1
    assert len(read) > 4


def test_a_prompt_is_read_once_for_choices_of_all_lengths(
    either: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, ...]] = []
    language = either.ours.model.language_model
    opt = either.ours.family is OPT
    layer = language.model.decoder.layers[0].fc1 if opt else language.encoder.block[0].layer[-1]
    handles = [layer.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[:2]))]
    if not opt:
        part = language.decoder.block[0].layer[-1]
        handles.append(part.register_forward_pre_hook(lambda _, given: read.append(given[0].shape)))
    padded: list[int] = []
    plant = TokenTree.of

    def watched(sequences: Any, length: int, device: torch.device) -> TokenTree:
        padded.append(length)
        return plant(sequences, length, device)

    monkeypatch.setattr(TokenTree, "of", staticmethod(watched))
    prompts = asked([2, 5, 9], TEXTS[:1])
    tokens = len(either.ours.codec.encode(TEXTS[0]))
    try:
        either.ours.score(either.ours.features(either.pixels), prompts, [CHOICES] * 3)
    finally:
        for handle in handles:
            handle.remove()
    queries = either.ours.model.config.num_query_tokens
    prefix = (tokens - 1) // 4 * 4
    assert prefix > 0
    # OPT's positions are rows of eight, see ``TokenTree``.
    whole = [(IMAGES, queries), (3 * prefix // 8, 8)] if opt else [(3, queries + tokens)]
    assert read[: len(whole)] == whole
    assert opt or whole[0] not in read[1:]  # OPT's choices may have that shape, read behind it
    # Choices, with OPT behind what is left of the prompt: once for each length they are filled to.
    choices = [len(ids) for ids in either.ours.encode_choices(CHOICES, " ")]
    lengths = {open_session(either).padded_length(tokens, length) for length in choices}
    assert len(read) - len(whole) == len(lengths) > 1
    if opt:
        assert padded.pop(1) == prefix  # read when the first choices are
    found = padded if opt else [shape[1] for shape in read[len(whole) :]]
    assert len(set(found)) == len(found)
    assert set(found) == {(tokens - prefix if opt else 1) + each for each in lengths}
    assert all(length % 4 == 0 for length in found)


def test_choices_the_tokenizer_cannot_tell_apart_are_refused(t5: Pair) -> None:
    with pytest.raises(OptionError, match="cannot tell the choices '日' and '本' apart"):
        t5.ours.score(t5.features, asked([0], TEXTS[:1]), [("日", "本")])


def test_a_prompt_and_choice_without_room_are_refused(opt: Pair) -> None:
    with pytest.raises(OptionError, match="more than the 128 the model has room for"):
        opt.ours.score(opt.features, asked([0], ["cat"]), [("a", "cat " * 200)])
    assert opt.ours.fits("cat", 30)
    assert not opt.ours.fits("cat " * 200, 1)


def test_no_prompts_give_no_scores(opt: Pair) -> None:
    assert opt.ours.score(opt.features, [], []) == []
