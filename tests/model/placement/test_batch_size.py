"""The automatic batch size and the memory it is computed from."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import blip2cli
from blip2cli.errors import OptionError
from blip2cli.model.checkpoint.config import Blip2Config, read_config
from blip2cli.model.nets.blip2 import GenerationModel
from blip2cli.model.placement import batch_size
from blip2cli.model.placement.batch_size import (
    MemoryEstimate,
    auto_batch_size,
    cpu_batch_size,
    cuda_batch_size,
    cuda_slots,
    estimate_memory,
)
from blip2cli.model.vision.features import vision_forward
from blip2cli.model.wrapper import Blip2
from blip2cli.system.memory import Memory

GIB = 1 << 30


def opt(width: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "opt",
        "hidden_size": width,
        "ffn_dim": 4 * width,
        "num_hidden_layers": 32,
        "vocab_size": 50304,
        "word_embed_proj_dim": width,
    } | more


def t5(width: int, inner: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "d_model": width,
        "d_ff": inner,
        "num_heads": heads,
        "num_layers": 24,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }


# The published models, and their parameters in thousand millions (LAVIS's and the hub's cards).
PUBLISHED = {
    "blip2-opt-2.7b": (opt(2560), 3.74),
    "blip2-opt-6.7b": (opt(4096), 7.75),
    "blip2-flan-t5-xl": (t5(2048, 5120, 32), 3.94),
    "blip2-flan-t5-xxl": (t5(4096, 10240, 64), 12.2),
}


def config(text: dict[str, Any], **vision: Any) -> Blip2Config:
    return read_config({"text_config": text, "vision_config": vision})


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_size_of_the_weights_is_that_of_the_published_model(name: str) -> None:
    text, billions = PUBLISHED[name]
    need = estimate_memory(config(text), True, 2)
    assert need.weights == pytest.approx(2e9 * billions, rel=0.02)


@pytest.mark.parametrize(
    ("name", "itemsize", "size"),
    [
        ("blip2-opt-2.7b", 2, 16),
        ("blip2-opt-2.7b", 4, 8),
        ("blip2-opt-6.7b", 2, 8),
        ("blip2-flan-t5-xl", 2, 16),
        ("blip2-flan-t5-xxl", 2, 8),
    ],
)
def test_large_models_get_small_batches_on_a_cpu(name: str, itemsize: int, size: int) -> None:
    need = estimate_memory(config(PUBLISHED[name][0]), True, itemsize)
    assert cpu_batch_size(need, None) == cpu_batch_size(need, 64 * GIB) == size


def test_a_batch_is_as_large_as_a_decode_step_is_wide() -> None:
    need = estimate_memory(config(PUBLISHED["blip2-opt-2.7b"][0]), True, 2)
    assert cpu_batch_size(need, None, 32) == cpu_batch_size(need, 64 * GIB, 32) == 32
    assert cpu_batch_size(need, 20 * (need.image + need.sequence), 32) == 16
    assert cpu_batch_size(need, None, 4) == 16


def test_small_models_get_large_batches_on_a_cpu(model: Blip2) -> None:
    assert auto_batch_size(model) == 64


@pytest.mark.parametrize(
    ("gib", "size"),
    [(0.4, 6), (1, 16), (2, 32), (4, 64), (8, 224), (40, 256), (60, 512), (160, 512)],
)
def test_on_cuda_the_free_memory_decides(gib: float, size: int) -> None:
    need = estimate_memory(config(PUBLISHED["blip2-opt-2.7b"][0]), True, 2)
    assert cuda_batch_size(need, int(gib * GIB)) == size


@pytest.mark.parametrize(
    ("gib", "slots"), [(0, 64), (15, 64), (20, 128), (39, 128), (40, 256), (130, 256)]
)
def test_sequences_decoded_together_follow_the_free_memory(gib: int, slots: int) -> None:
    assert cuda_slots(gib * GIB) == slots


def test_a_size_never_needs_more_than_its_share() -> None:
    need = MemoryEstimate(image=1000, sequence=300, weights=1)
    for free in range(0, 300_000, 997):
        size = cuda_batch_size(need, free)
        assert size >= 1
        assert size < 8 or size % 8 == 0
        if size > 1:
            assert (
                size * need.image + min(size, cuda_slots(free)) * need.sequence
                <= batch_size.MEMORY_SHARE * free
            )
        more = size + (8 if size >= 8 else 1)
        if more <= 256:
            assert (
                more * need.image + min(more, cuda_slots(free)) * need.sequence
                > batch_size.MEMORY_SHARE * free
            )


def test_more_pixels_and_wider_numbers_need_more() -> None:
    text = PUBLISHED["blip2-opt-2.7b"][0]
    small, large = (
        estimate_memory(config(text), True, 2),
        estimate_memory(config(text, image_size=364), True, 2),
    )
    assert large.image > 1.5 * small.image
    assert large.sequence == small.sequence
    assert estimate_memory(config(text), True, 4).image > 1.9 * small.image
    retrieval = estimate_memory(config(text), False, 2)
    assert retrieval.sequence == 0
    assert retrieval.image < small.image


def test_little_memory_on_the_host_makes_the_batch_smaller(
    model: Blip2, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = estimate_memory(model.model.config, model.writes, 4)
    for images, size in ((0, 1), (3, 3), (9, 8), (1000, 64)):
        available = int(images * (need.image + need.sequence) / batch_size.MEMORY_SHARE) + 1
        monkeypatch.setattr(batch_size, "memory", lambda known=available: Memory(None, known, None))
        assert auto_batch_size(model) == size
    monkeypatch.setattr(batch_size, "memory", lambda: Memory(None, None, None))
    assert auto_batch_size(model) == 64


def test_what_cuda_holds_for_reuse_counts_as_free(
    model: Blip2, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cuda: Any = SimpleNamespace(
        device=torch.device("cuda"),
        dtype=torch.float32,
        writes=model.writes,
        model=model.model,
        ranker=None,
    )
    need = estimate_memory(model.model.config, model.writes, 4)
    each = need.image + need.sequence
    asked = []

    def free(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return int(10 * each / batch_size.MEMORY_SHARE) + 1, 0

    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30 * each)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20 * each)
    assert auto_batch_size(on_cuda) == 16  # 10 + 0.8 x 10, by eights
    assert asked == [torch.device("cuda")]


def peak(run: Any) -> int:
    """The most bytes that were allocated at once while ``run`` ran, beside what was before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = run()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    del kept
    return most


@pytest.mark.parametrize("image_size", [112, 224])
def test_the_vision_side_needs_what_is_computed(image_size: int) -> None:
    """A model as wide as tall as ViT-g's third, two layers of each kind, random weights."""
    shape = config(
        opt(512, num_hidden_layers=2, vocab_size=64),
        hidden_size=448,
        intermediate_size=2048,
        num_hidden_layers=2,
        image_size=image_size,
    )
    shape = replace(shape, qformer_config=replace(shape.qformer_config, num_hidden_layers=2))
    random = GenerationModel(shape).eval().requires_grad_(False)
    for parameter in random.parameters():
        nn.init.normal_(parameter, std=0.02)
    need = estimate_memory(shape, True, 4)

    def run(side: Any, count: int) -> Any:
        with torch.inference_mode():
            return side(random, torch.rand(count, 3, image_size, image_size))

    def each(side: Any) -> float:
        return (peak(partial(run, side, 24)) - peak(partial(run, side, 8))) / 16

    run(vision_forward, 8)
    assert 0.5 * need.image < each(vision_forward) < need.image


def test_the_python_interface_takes_the_same(model: Blip2) -> None:
    assert blip2cli.Blip2(model).batch_size == auto_batch_size(model)
    assert blip2cli.Blip2(model, 3).batch_size == 3
    with pytest.raises(OptionError):
        blip2cli.Blip2(model, 0)
