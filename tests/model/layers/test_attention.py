"""Attention by fused kernels equals attention by plain matrix products."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from blip2cli.model.layers import attention
from blip2cli.model.layers.attention import attention_scores, prefix_masks, uses_fused_kernels
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.options import DecodeOptions
from tests.model.conftest import IMAGES, Pair

QUESTION = "Question: what is left of the dog? Answer:"


@pytest.mark.parametrize("text", [None, "a", QUESTION])
def test_scores_are_the_same(
    either: Pair, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = torch.arange(3 * IMAGES).view(IMAGES, 3) + 5
    plain = either.ours.scores(either.ours.features(either.pixels), text, tokens)
    monkeypatch.setattr(attention, "FUSED_DEVICES", {"cpu"})
    fused_calls = []
    kernel = attention.scaled_dot_product_attention

    def watched(*arguments: torch.Tensor, **options: object) -> torch.Tensor:
        if "scale" in options:  # the vision encoder leaves it out
            fused_calls.append(arguments)
        return kernel(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "scaled_dot_product_attention", watched)
    fused = either.ours.scores(either.ours.features(either.pixels), text, tokens)
    assert fused_calls
    torch.testing.assert_close(fused, plain, atol=5e-5, rtol=1e-5)


def test_texts_are_the_same(either: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [Prompt(i, text, f"{i}") for i in range(IMAGES) for text in (None, "a", QUESTION)]
    options = DecodeOptions(max_new_tokens=8)
    plain = either.ours.generate(either.ours.features(either.pixels), prompts, options)
    monkeypatch.setattr(attention, "FUSED_DEVICES", {"cpu"})
    fused = either.ours.generate(either.ours.features(either.pixels), prompts, options)
    for one, other in zip(plain, fused, strict=True):
        assert one[0].tokens == other[0].tokens
        assert one[0].logprob == pytest.approx(other[0].logprob, abs=1e-4)


def test_attention_is_fused_on_cuda_alone() -> None:
    assert not uses_fused_kernels(torch.zeros(4, 2, 5, 8))
    query: Any = SimpleNamespace(device=torch.device("cuda:1"))
    assert uses_fused_kernels(query)


def test_masks_of_prefixes() -> None:
    masks = prefix_masks(3, torch.bfloat16, torch.device("cpu"))
    assert masks.shape == (4, 1, 1, 3)
    assert masks.dtype is torch.bfloat16
    for length, mask in enumerate(masks.flatten(1).tolist()):
        assert mask == [0.0] * length + [-torch.inf] * (3 - length)


@pytest.mark.parametrize(
    ("heads", "queries", "keys", "size"), [(16, 257, 257, 88), (12, 32, 257, 64), (4, 65, 65, 32)]
)
def test_products_by_image_equal_attention(heads: int, queries: int, keys: int, size: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(5, heads, queries, size).bfloat16()
    key, value = (torch.randn(5, heads, keys, size).bfloat16() for _ in range(2))
    got = attention._attention_by_image(query, key, value)
    exact = attention.scaled_dot_product_attention(query.double(), key.double(), value.double())
    exact = exact.transpose(1, 2).flatten(2)
    error = (got.double() - exact).norm() / exact.norm()
    assert error < 2**-7  # bfloat16 rounds by 2^-9 at most: scores, weights and the result
    for row in range(5):
        single = attention._attention_by_image(
            *(each[row : row + 1] for each in (query, key, value))
        )
        assert torch.equal(single[0], got[row])


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize(("heads", "positions", "size"), [(32, 48, 80), (8, 64, 64), (4, 16, 16)])
def test_scores_of_single_queries_are_products_in_any_batch(
    heads: int,
    positions: int,
    size: int,
    columns: bool,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "_columns_are_faster", lambda query: columns)
    query = torch.randn(64, heads, 1, size).bfloat16()
    key = torch.randn(64, heads, positions, size).bfloat16()
    whole = attention_scores(query, key)
    assert whole.shape == (64, heads, 1, positions)
    assert (whole.stride(2) == 1) is columns  # a column lies so in memory
    exact = query.double() @ key.double().transpose(-1, -2)
    assert ((whole.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-4).all()
    for count in (8, 16, 32, 40):
        assert torch.equal(attention_scores(query[:count], key[:count]), whole[:count]), count


def test_columns_are_for_bfloat16_on_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    for amx in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert attention._columns_are_faster(torch.zeros(1).bfloat16()) is amx
        assert not attention._columns_are_faster(torch.zeros(1))


def test_products_are_used_where_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(attention, "_attention_by_image", lambda *given: taken.append(given))
    states = torch.randn(2, 4, 9, 16)
    for bfloat16, amx, dtype, want in [
        (True, False, torch.bfloat16, True),
        (True, False, torch.float32, False),
        (True, True, torch.bfloat16, False),
        (False, False, torch.bfloat16, False),
    ]:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=bfloat16: has)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=amx: has)
        attention._small_blocks_are_slow.cache_clear()
        taken.clear()
        attention.full_attention(*[states.to(dtype)] * 3)
        assert bool(taken) is want
    attention._small_blocks_are_slow.cache_clear()
