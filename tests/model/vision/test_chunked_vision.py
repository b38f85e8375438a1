"""A batch in chunks, and chunks in parallel threads: the same bits as a single image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from blip2cli.model.checkpoint.config import read_config
from blip2cli.model.nets.blip2 import Blip2Net
from blip2cli.model.vision import chunked_vision
from blip2cli.model.vision.chunked_vision import ChunkedVision, images_per_chunk, l2_cache_bytes
from blip2cli.model.vision.features import ImageFeatures, compute_features, vision_forward
from tests.model.conftest import Pair
from tests.model.large_model import as_if_large

SIZES = [1, 2, 3, 8, 9, 17, 24]


@pytest.fixture
def parallel(monkeypatch: pytest.MonkeyPatch, threads: int) -> list[int]:
    """Chunks of four images at most, in threads of large models; returns the size of each."""
    monkeypatch.setattr(chunked_vision, "images_per_chunk", lambda config, itemsize, cached: 4)
    return _watch(monkeypatch)


def _watch(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []

    def watched(model: Blip2Net, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert torch.get_num_threads() == 1
        seen.append(len(pixels))
        return vision_forward(model, pixels)

    monkeypatch.setattr(chunked_vision, "vision_forward", watched)
    return seen


def _pixels(pair: Pair, count: int) -> Tensor:
    torch.manual_seed(count)
    return torch.randn(count, *pair.pixel_values.shape[1:])


def _check(got: ImageFeatures, want: ImageFeatures) -> None:
    for one, other in zip(vars(got).values(), vars(want).values(), strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad


@pytest.mark.parametrize("threads", [2], indirect=True)
@pytest.mark.parametrize("count", SIZES)
def test_parallel_chunks_are_the_same_bits(either: Pair, count: int, parallel: list[int]) -> None:
    model = as_if_large(either.ours.model)
    pixels = _pixels(either, count)
    want = compute_features(model, pixels)
    _check(ChunkedVision(model)(pixels), want)
    assert sum(parallel) == (count if count > 1 else 0)
    assert len(parallel) % 2 == 0  # as many for each thread
    assert max(parallel, default=0) - min(parallel, default=0) <= 1
    assert torch.get_num_threads() == 2


def test_sequential_chunks_are_the_same_bits(either: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_vision, "images_per_chunk", lambda config, itemsize, cached: 4)
    model = either.ours.model
    pixels = _pixels(either, 10)
    seen: list[int] = []
    monkeypatch.setattr(
        chunked_vision, "vision_forward", lambda m, p: seen.append(len(p)) or vision_forward(m, p)
    )
    _check(ChunkedVision(model)(pixels), compute_features(model, pixels))
    assert seen == [4, 3, 3]  # a model this small runs whole batches in parallel


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_what_a_chunk_raises_is_raised_when_all_have_ended(
    opt: Pair, parallel: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, made = as_if_large(opt.ours.model), []

    def fail(model: Blip2Net, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if pixels[0, 0, 0, 0] == 7:
            raise torch.OutOfMemoryError("out of memory")
        made.append(vision_forward(model, pixels))
        return made[-1]

    chunked = ChunkedVision(model)
    pixels = _pixels(opt, 16)
    want = chunked(pixels)
    spoilt = pixels.clone()
    spoilt[0, 0, 0, 0] = 7
    with monkeypatch.context() as patch:
        patch.setattr(chunked_vision, "vision_forward", fail)
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            chunked(spoilt)
    assert len(made) == 3
    assert torch.get_num_threads() == 2
    _check(chunked(pixels), want)


@pytest.mark.parametrize(("itemsize", "most"), [(2, 8), (4, 8)])
def test_large_encoders_get_the_smallest_chunks(itemsize: int, most: int) -> None:
    assert images_per_chunk(read_config({}), itemsize, 8 << 20) == most


def test_small_encoders_get_larger_chunks(opt: Pair) -> None:
    config = opt.ours.model.config
    small = replace(
        config.vision_config, hidden_size=128, intermediate_size=512, image_size=112, patch_size=14
    )
    small_config = replace(config, vision_config=small)
    assert images_per_chunk(small_config, 4, 8 << 20) == 63  # two chunks of a batch of 64
    assert images_per_chunk(small_config, 4, 16 << 20) == 126


def test_small_models_go_by_the_cache_and_others_do_not(
    opt: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(chunked_vision, "l2_cache_bytes", lambda: 3 << 20)
    monkeypatch.setattr(
        chunked_vision, "images_per_chunk", lambda config, itemsize, cached: sizes.append(cached)
    )
    model = opt.ours.model
    ChunkedVision(model)
    ChunkedVision(as_if_large(model))
    assert sizes == [24 << 20, 8 << 20]


def test_the_size_of_the_cache_is_what_the_system_says() -> None:
    told = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
    if not told.exists():
        pytest.skip("the system does not tell")
    number, unit = told.read_text().strip()[:-1], told.read_text().strip()[-1]
    assert l2_cache_bytes() == int(number) << {"K": 10, "M": 20}[unit]
