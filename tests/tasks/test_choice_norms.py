"""Norms of choices: what each takes away from a log-probability."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from blip2cli.options import Norm
from blip2cli.tasks.choice_norms import normalized_scores
from blip2cli.tasks.choices import probabilities

LOGPROBS, TOKENS, BLANK = [-1.0, -6.0, -5.0], [2, 4, 4], [-0.5, -9.0, -5.5]
CHOICES = st.lists(st.tuples(st.floats(-200, -1e-3), st.integers(1, 12)), min_size=2, max_size=20)


@pytest.mark.parametrize(
    ("norm", "scores"),
    [
        ("sum", [-1.0, -6.0, -5.0]),
        ("mean", [-0.5, -1.5, -1.25]),
        ("pmi", [-0.5, 3.0, 0.5]),
        # A token has -1.2 on average.
        ("prior", [-1 + 2 * 1.2, -6 + 4 * 1.2, -5 + 4 * 1.2]),
    ],
)
def test_scores_of_each_norm(norm: Norm, scores: list[float]) -> None:
    assert normalized_scores(norm, LOGPROBS, TOKENS, BLANK) == pytest.approx(scores, abs=1e-12)


def test_only_pmi_needs_a_blank_image() -> None:
    for norm in get_args(Norm):
        if norm == "pmi":
            with pytest.raises(ValueError, match="blank image"):
                normalized_scores(norm, LOGPROBS, TOKENS)
        else:
            found = normalized_scores(norm, LOGPROBS, TOKENS)
            assert found == normalized_scores(norm, LOGPROBS, TOKENS, BLANK)


@examples(CHOICES, st.floats(-5, 5))
def test_a_prior_of_lengths_removes_what_grows_with_the_length(
    choices: list[tuple[float, int]], slope: float
) -> None:
    logprobs, tokens = ([*each] for each in zip(*choices, strict=True))
    longer = [logprob + slope * count for logprob, count in choices]
    found = normalized_scores("prior", longer, tokens)
    assert found == pytest.approx(normalized_scores("prior", logprobs, tokens), abs=1e-9)
    assert math.fsum(found) == pytest.approx(0, abs=1e-9)


@examples(st.lists(st.floats(-50, -1e-3), min_size=2, max_size=20), st.integers(1, 9))
def test_choices_of_one_length_keep_their_probabilities(logprobs: list[float], count: int) -> None:
    tokens = [count] * len(logprobs)
    prior = probabilities(normalized_scores("prior", logprobs, tokens))
    assert prior == pytest.approx(probabilities(logprobs), rel=1e-6)


@examples(CHOICES)
def test_what_is_as_likely_without_looking_tells_nothing(choices: list[tuple[float, int]]) -> None:
    logprobs, tokens = ([*each] for each in zip(*choices, strict=True))
    assert set(normalized_scores("pmi", logprobs, tokens, logprobs)) == {0}
