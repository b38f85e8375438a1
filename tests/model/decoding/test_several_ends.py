"""Configurations that name several tokens as ends of texts, as transformers' ``generate`` takes
them: whichever comes first ends a text."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.options import DecodeOptions
from tests.foreign_checkpoints import configured
from tests.model.conftest import IMAGES, Pair, pair
from tests.model.decoding.test_sampling import NEW, theirs

CASES: list[dict[str, Any]] = [
    {},
    {"num_beams": 3},
    {"num_beams": 4, "num_captions": 2, "length_penalty": -1.0, "min_new_tokens": 3},
    {"min_new_tokens": 4, "repetition_penalty": 1.5},
]


def with_ends(directory: Path, copy: Path, ends: object) -> Pair:
    """The same model with other ends of texts."""
    shutil.copytree(directory, copy)
    return pair(configured(copy, lambda c: c["text_config"].update(eos_token_id=ends)))


def prompts() -> list[Prompt]:
    return [Prompt(number, None, f"{number}") for number in range(IMAGES)]


def tokens(model: Pair, options: DecodeOptions) -> list[tuple[int, ...]]:
    found = model.ours.generate(model.features, prompts(), options)
    return [text.tokens for texts in found for text in texts]


@pytest.fixture(scope="module", params=["opt", "t5"])
def sides(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Pair, Pair, int]:
    """A model with one end of texts, the same with another one before it, and that token."""
    single: Pair = request.getfixturevalue(request.param)
    end = single.ours.model.config.text_config.eos_token_id
    seen = Counter(
        token
        for text in tokens(single, DecodeOptions(max_new_tokens=NEW))
        for token in set(text[1:-1]) - {end}
    )
    new = seen.most_common()[len(seen) // 8][0]  # in some texts, not in all
    # One id is outside the vocabulary, and one is there twice.
    ends = [end, new, 10**6, end]
    return single, with_ends(single.directory, tmp_path_factory.mktemp("ends") / "m", ends), new


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)) or "greedy")
def test_texts_equal_those_of_transformers(
    sides: tuple[Pair, Pair, int], case: dict[str, Any]
) -> None:
    _, several, new = sides
    options = DecodeOptions(max_new_tokens=NEW, **case)
    got = several.ours.generate(several.features, prompts()[:8], options)
    for prompt, texts in zip(prompts(), got, strict=False):
        assert [list(text.tokens) for text in texts] == theirs(several, prompt.image, None, case)
    if not case:
        ended = [texts[0].tokens[-1] for texts in got]
        assert new in ended
        assert set(ended) != {new}


def test_samples_are_those_of_one_end_up_to_the_first(sides: tuple[Pair, Pair, int]) -> None:
    single, several, new = sides
    options = DecodeOptions(max_new_tokens=NEW, temperature=1.5, seed=3)
    ended = 0
    for one, other in zip(tokens(single, options), tokens(several, options), strict=True):
        cut = one[: one.index(new) + 1] if new in one else one
        assert other == cut
        ended += new in one
    assert ended


def test_choices_may_end_with_any(sides: tuple[Pair, Pair, int], tmp_path: Path) -> None:
    single, several, new = sides
    last = with_ends(single.directory, tmp_path / "m", [new])
    asked = [Prompt(0, "Question: what is it?", "a")]
    choices = [("two cats", "a red car", "four birds")]
    totals = [
        [choice.total for choice in model.ours.score(model.features, asked, choices)[0]]
        for model in (single, last, several)
    ]
    for one, other, both in zip(*totals, strict=True):
        # The tokens' log-probability is in both: what is added is the probability of either end.
        assert both > max(one, other)
        assert both == pytest.approx(math.log(math.exp(one) + math.exp(other)), abs=1e-4)


def test_no_end_at_all_runs_to_the_limit(opt: Pair, tmp_path: Path) -> None:
    for number, ends in enumerate((None, [])):
        endless = with_ends(opt.directory, tmp_path / str(number), ends)
        assert {len(text) for text in tokens(endless, DecodeOptions(max_new_tokens=9))} == {9}
