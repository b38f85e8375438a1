"""Attention in one kernel says what plain products say."""

from __future__ import annotations

import pytest
import torch

from blip2cli.model import attention
from blip2cli.model.attention import fuses
from blip2cli.model.prompts import Prompt
from blip2cli.options import DecodeOptions
from tests.model.conftest import IMAGES, Pair

QUESTION = "Question: what is left of the dog? Answer:"


@pytest.mark.parametrize("text", [None, "a", QUESTION])
def test_scores_are_the_same(
    either: Pair, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = torch.arange(3 * IMAGES).view(IMAGES, 3) + 5
    plain = either.ours.scores(either.ours.features(either.pixels), text, tokens)
    monkeypatch.setattr(attention, "DEVICES", {"cpu"})
    calls = []
    kernel = attention.scaled_dot_product_attention

    def watched(*arguments: torch.Tensor, **options: object) -> torch.Tensor:
        calls.append(arguments)
        return kernel(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "scaled_dot_product_attention", watched)
    fused = either.ours.scores(either.ours.features(either.pixels), text, tokens)
    assert calls
    torch.testing.assert_close(fused, plain, atol=2e-5, rtol=1e-5)


def test_texts_are_the_same(either: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [Prompt(i, text, f"{i}") for i in range(IMAGES) for text in (None, "a", QUESTION)]
    options = DecodeOptions(max_new_tokens=8)
    plain = either.ours.generate(either.ours.features(either.pixels), prompts, options)
    monkeypatch.setattr(attention, "DEVICES", {"cpu"})
    fused = either.ours.generate(either.ours.features(either.pixels), prompts, options)
    for one, other in zip(plain, fused, strict=True):
        assert one[0].tokens == other[0].tokens
        assert one[0].logprob == pytest.approx(other[0].logprob, abs=1e-4)


def test_on_a_cpu_nothing_is_fused() -> None:
    assert not fuses(torch.zeros(4, 2, 5, 8))


def test_elsewhere_prompts_are_and_steps_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "DEVICES", {"cpu"})
    assert fuses(torch.zeros(4, 2, 5, 8))
    assert not fuses(torch.zeros(4, 2, 1, 8))
