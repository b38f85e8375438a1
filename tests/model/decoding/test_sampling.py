"""Our decoding against transformers' ``generate`` on each image alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from blip2cli.errors import OptionError
from blip2cli.model.decoding.sampling import draw, uniform_numbers
from blip2cli.model.families import T5
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.options import DecodeOptions
from blip2cli.system.library_logging import silence_libraries
from tests.checkpoints import QUERIES
from tests.model.conftest import IMAGES, Pair

NEW = 10
QUESTION = "Question: how many cats are there? Answer:"

# DecodeOptions beside what the same thing is called in transformers.
CASES: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.4},
    {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 6},
    {"min_new_tokens": 4, "repetition_penalty": 0.8, "no_repeat_ngram_size": 3},
    {"num_beams": 3},
    {"num_beams": 4, "length_penalty": -1.0, "min_new_tokens": 3},
    {"num_beams": 3, "num_captions": 3, "repetition_penalty": 1.5},
    {"num_beams": 5, "num_captions": 2, "no_repeat_ngram_size": 1, "length_penalty": 2.0},
]


def theirs(pair: Pair, image: int, text: str | None, case: dict[str, Any]) -> list[list[int]]:
    """The new tokens of transformers' generate for one image alone, padding cut off."""
    arguments: dict[str, Any] = {"num_return_sequences": 1, **case}
    if "num_captions" in arguments:
        arguments["num_return_sequences"] = arguments.pop("num_captions")
    prompt = list(pair.ours.codec.encode(text))
    if text is not None:
        # What Blip2Processor makes of an image and a text: placeholders, then the prompt.
        ids = [pair.theirs.config.image_token_index] * QUERIES + prompt
        arguments["input_ids"] = torch.tensor([ids])
        arguments["attention_mask"] = torch.ones(1, len(ids), dtype=torch.long)
    with silence_libraries():
        out = pair.theirs.generate(
            pixel_values=pair.pixel_values[image : image + 1], max_new_tokens=NEW, **arguments
        )
    before = 1 if pair.ours.family is T5 else QUERIES + len(prompt)
    end = pair.theirs.language_model.generation_config.eos_token_id
    ends = set(end if isinstance(end, list) else [end])
    rows = [row[before:].tolist() for row in out]
    return [
        row[: next((n for n, token in enumerate(row, 1) if token in ends), len(row))]
        for row in rows
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)) or "greedy")
def test_tokens_equal_transformers_generate_for_each_image_alone(
    either: Pair, case: dict[str, Any]
) -> None:
    options = DecodeOptions(max_new_tokens=NEW, **case)
    prompts = [Prompt(i, text, f"{i}") for text in (None, QUESTION) for i in range(5)]
    got = either.ours.generate(either.features, prompts, options)
    for prompt, texts in zip(prompts, got, strict=True):
        want = theirs(either, prompt.image, prompt.text, case)
        assert [list(text.tokens) for text in texts] == want


def test_texts_vary_over_images_and_end_at_differing_lengths(either: Pair) -> None:
    # Otherwise the comparisons above would show little.
    options = DecodeOptions(max_new_tokens=NEW)
    prompts = [Prompt(i, None, f"{i}") for i in range(IMAGES)]
    texts = [texts[0] for texts in either.ours.generate(either.features, prompts, options)]
    assert len({text.tokens for text in texts}) >= IMAGES // 2
    assert len({len(text.tokens) for text in texts}) >= 4


def test_logprob_is_the_mean_over_the_raw_distribution(either: Pair) -> None:
    model = either.theirs
    for case in ({"repetition_penalty": 2.0}, {"num_beams": 3, "repetition_penalty": 2.0}):
        options = DecodeOptions(max_new_tokens=NEW, **case)
        (texts,) = either.ours.generate(either.features, [Prompt(3, QUESTION, "3")], options)
        tokens = torch.tensor([texts[0].tokens])
        prompt = torch.tensor([either.ours.codec.encode(QUESTION)])
        embed = model.get_input_embeddings()
        image = either.features.language_inputs[3:4]
        with torch.no_grad():
            if either.ours.family is T5:
                start = torch.zeros(1, 1, dtype=torch.long)
                logits = model.language_model(
                    inputs_embeds=torch.cat((image, embed(prompt)), 1),
                    decoder_input_ids=torch.cat((start, tokens[:, :-1]), 1),
                ).logits
            else:
                whole = torch.cat((image, embed(prompt), embed(tokens[:, :-1])), 1)
                logits = model.language_model(inputs_embeds=whole).logits[:, -tokens.shape[1] :]
        want = logits.log_softmax(-1).gather(2, tokens[..., None]).mean().item()
        assert texts[0].logprob == pytest.approx(want, abs=1e-4)


def test_beam_texts_come_best_first_and_carry_their_own_logprob(either: Pair) -> None:
    options = DecodeOptions(max_new_tokens=NEW, num_beams=4, num_captions=4)
    (texts,) = either.ours.generate(either.features, [Prompt(1, None, "1")], options)
    assert len({text.tokens for text in texts}) == 4
    # With a length penalty of one and no rules, the search ranks by this very mean.
    logprobs = [text.logprob for text in texts]
    assert logprobs == sorted(logprobs, reverse=True)


def test_text_is_stripped_and_without_special_tokens(opt: Pair) -> None:
    options = DecodeOptions(max_new_tokens=NEW)
    prompts = [Prompt(i, None, f"{i}") for i in range(IMAGES)]
    ended = 0
    for (text,) in opt.ours.generate(opt.features, prompts, options):
        assert text.text == text.text.strip()
        assert "</s>" not in text.text
        ended += text.tokens[-1] == opt.theirs.config.text_config.eos_token_id
    assert ended  # and the line break that ends an OPT text is gone with the white space


def test_vision_side_runs_once_however_many_prompts_follow(
    opt: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = opt.ours.features(opt.pixels[:2])

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("the image side ran again")

    monkeypatch.setattr(opt.ours.model.vision_model, "forward", never)
    monkeypatch.setattr(opt.ours.model.qformer, "forward", never)
    prompts = [Prompt(i % 2, text, f"{i}") for i, text in enumerate([None, QUESTION, "a", "b c"])]
    assert len(opt.ours.generate(features, prompts, DecodeOptions(max_new_tokens=4))) == 4


SAMPLED = DecodeOptions(max_new_tokens=6, temperature=1.5, top_k=50, top_p=0.95, num_captions=3)


def test_draws_depend_on_seed_and_name_alone(either: Pair) -> None:
    alone = either.ours.generate(either.features, [Prompt(2, None, "b.jpg")], SAMPLED)[0]
    company = [Prompt(i, None, name) for i, name in ((0, "a"), (2, "b.jpg"), (5, "c"))]
    assert either.ours.generate(either.features, company, SAMPLED)[1] == alone
    renamed = either.ours.generate(either.features, [Prompt(2, None, "c.jpg")], SAMPLED)[0]
    assert [t.tokens for t in renamed] != [t.tokens for t in alone]
    other = replace(SAMPLED, seed=1)
    reseeded = either.ours.generate(either.features, [Prompt(2, None, "b.jpg")], other)[0]
    assert [t.tokens for t in reseeded] != [t.tokens for t in alone]


def test_draws_are_as_many_as_asked_for_and_best_first(opt: Pair) -> None:
    (texts,) = opt.ours.generate(opt.features, [Prompt(0, None, "x")], SAMPLED)
    assert len(texts) == 3
    assert len({text.tokens for text in texts}) > 1
    assert [t.logprob for t in texts] == sorted((t.logprob for t in texts), reverse=True)


def test_draw_follows_the_distribution() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).repeat(4000, 1)
    scores = torch.cat((scores, torch.full((4000, 1), -torch.inf)), 1)
    generators = [torch.Generator().manual_seed(i * 7919) for i in range(4000)]
    counts = torch.bincount(draw(scores, uniform_numbers(generators)[:, 0]), minlength=4)
    assert counts[3] == 0  # what the rules forbid is never drawn
    assert counts[:3].tolist() == pytest.approx([2000, 1200, 800], abs=150)


def test_numbers_for_many_draws_are_those_of_single_draws() -> None:
    together, single = ([torch.Generator().manual_seed(i) for i in range(3)] for _ in range(2))
    numbers = uniform_numbers(together, 40)
    assert numbers.dtype is torch.float64
    for place in range(40):
        assert torch.equal(uniform_numbers(single), numbers[:, place : place + 1])


def test_prompt_that_does_not_fit_is_refused(opt: Pair) -> None:
    room = opt.theirs.config.text_config.max_position_embeddings
    with pytest.raises(OptionError, match=f"more than the {room} the model has room for"):
        opt.ours.generate(opt.features, [Prompt(0, "cat " * room, "x")], DecodeOptions())


def test_contradictory_options_are_refused(opt: Pair) -> None:
    with pytest.raises(OptionError, match="num_beams 3 or more, or temperature"):
        opt.ours.generate(opt.features, [Prompt(0, None, "x")], DecodeOptions(num_captions=3))


def test_no_prompts_give_no_texts(opt: Pair) -> None:
    assert opt.ours.generate(opt.features, [], DecodeOptions()) == []
